"""RefCOCO: the box of what an expression refers to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from effivlm.data.pictures import picture
from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.boxes import Box, Coordinates, box_hit, parse_box
from effivlm.records import Sample
from effivlm.tasks._benchmark import Benchmark

ASKED = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y)."
    " All values are floating point numbers bounded between 0 and 1."
    " Please provide the bounding box coordinate of the region this sentence describes: "
)


class Refcoco(Benchmark):
    """The validation split of RefCOCO (arXiv 1608.00272): each expression of a region is a question, right at IoU 0.5.

    Licence: Apache-2.0; pictures of COCO. Official scorer: accuracy at IoU 0.5, as in lmms-eval's `refcoco_bbox_rec_val`, with
    its prompt, which asks for shares of the picture whatever a family was trained to say: thousandths are read too where a
    number is over 1. Guessing scores under 10.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/RefCOCO", "lmms-lab/RefCOCO"),
        split="val",
        rows=8811,
        columns={
            "question_id": "text|int",
            "file_name": "text",
            "answer": "[text]",
            "bbox": "[float]",
            "image": "image",
        },
        licence="Apache-2.0; pictures of COCO",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id", "file_name", "answer")
    metric: ClassVar[str] = "iou_accuracy"
    answer_type: ClassVar[str] = "free"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 64
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 5.0

    def items(self, row: Row) -> Sequence[int]:
        """The expressions of a region, by number."""
        return range(len(row["answer"]))

    def name(self, row: Row, item: int) -> str:
        return f"{row['question_id']}_{item}"

    def together(self, row: Row) -> str:
        return "_".join(str(row["file_name"]).partition(".")[0].split("_")[:3])

    def prompt(self, row: Row, item: int) -> str:
        return f"{ASKED}{row['answer'][item]}"

    def references(self, row: Row, item: int) -> tuple[str, ...]:
        """The box as shares of the picture, left, top, right, bottom."""
        wide, high = picture(row["image"], self.folder).size
        left, top, width, height = row["bbox"]
        shares = (left / wide, top / high, (left + width) / wide, (top + height) / high)
        return (f"[{', '.join(f'{share:.4f}' for share in shares)}]",)

    def score(self, text: str, sample: Sample) -> float:
        return box_hit(text, _box(sample.references[0]), self._spoken(text), profile=self.profile)

    def invalid(self, text: str, sample: Sample) -> bool:
        return parse_box(text) is None

    def _spoken(self, text: str) -> Coordinates:
        """What the numbers of an answer are; the paper's code takes all for shares."""
        box = None if self.profile == "compat" else parse_box(text)
        return "thousand" if box is not None and max(box) > 1 else "unit"


def _box(reference: str) -> Box:
    found = parse_box(reference)
    assert found is not None, "references are written here"
    return found
