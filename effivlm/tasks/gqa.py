"""GQA: questions about the parts of a picture and how they stand to each other."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any, ClassVar

from effivlm.data.rows import Row, Rows, open_rows
from effivlm.data.source import Source
from effivlm.metrics.exact import exact_match
from effivlm.records import Sample
from effivlm.tasks._benchmark import SHORT, Benchmark

PICTURES = Source(
    homes=("lmms-lab-encoder/GQA", "lmms-lab/GQA"),
    configs=("testdev_balanced_images",),
    split="testdev",
    rows=398,
    columns={"id": "text", "image": "image"},
    licence="CC BY 4.0",
)


class Gqa(Benchmark):
    """The balanced test-dev split of GQA (arXiv 1902.09506): questions in one config, their 398 pictures in another.

    Licence: CC BY 4.0. Official scorer: exact match without case and punctuation, as in lmms-eval's `gqa`. Guessing the most
    frequent answer is no small score: the questions are balanced, yet "no" is a common word among them.
    """

    source: ClassVar[Source] = Source(
        homes=PICTURES.homes,
        configs=("testdev_balanced_instructions",),
        split="testdev",
        rows=12578,
        columns={"id": "text", "imageId": "text", "question": "text", "answer": "text"},
        licence="CC BY 4.0",
    )
    pictures: ClassVar[Source] = PICTURES
    index: ClassVar[tuple[str, ...]] = ("id", "imageId")
    metric: ClassVar[str] = "exact_match"
    answer_type: ClassVar[str] = "short"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 61.92, "qwen2_vl": 62.3, "internvl2_5": 64.48}
    comparable: ClassVar[str] = "yes"

    def __init__(self) -> None:
        super().__init__()
        self._joined: tuple[Rows, dict[str, int]] | None = None
        self._joining = Lock()

    def name(self, row: Row, item: Any) -> str:
        return str(row["id"])

    def together(self, row: Row) -> str:
        return str(row["imageId"])

    def images(self, row: Row) -> Sequence[Any]:
        rows, places = self._pictures()
        if row["imageId"] not in places:
            raise ValueError(f"GQA's pictures hold no {row['imageId']!r}, which a question is about")
        return (rows[places[row["imageId"]]]["image"],)

    def _pictures(self) -> tuple[Rows, dict[str, int]]:
        """The pictures' rows, and where each picture stands."""
        with self._joining:
            if self._joined is None:
                rows = open_rows(self.title, self.pictures, self.data)
                places = {row["id"]: place for place, row in enumerate(rows.index(("id",)))}
                rows.choose([places[one] for one in {row["imageId"] for row in self.known.values()} if one in places])
                self._joined = (rows, places)
            return self._joined

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question']}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def score(self, text: str, sample: Sample) -> float:
        return exact_match(text, sample.references, self.profile)
