"""MME: two yes-or-no questions about each picture, in fourteen categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.source import Source
from effivlm.metrics.mme import CATEGORY_SCALE, COGNITION, PERCEPTION, mme_total, pair, yes_no
from effivlm.records import Sample
from effivlm.tasks._base import Scores, by_group
from effivlm.tasks._benchmark import SHORT, Benchmark


class MmeImage(Benchmark):
    """MME (arXiv 2306.13394): the sum over categories of accuracy and accuracy-plus, perception and cognition together.

    Called `mme_image`, because `-k mme` would select others too. Licence: research only. Official scorer: 100 for accuracy and
    100 for pairs that are both right, in each category, as in lmms-eval's `mme`. A coin scores 1,050, a constant answer 700 of
    2,800.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/MME", "lmms-lab/MME"),
        split="test",
        rows=2374,
        columns={"question_id": "text", "category": "text", "question": "text", "answer": "text", "image": "image"},
        licence="research only",
    )
    index: ClassVar[tuple[str, ...]] = ("question_id", "category")
    metric: ClassVar[str] = "accuracy_and_plus"
    answer_type: ClassVar[str] = "yes_no"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    scale: ClassVar[float] = 2800.0
    max_new_tokens: ClassVar[int] = 16
    group: ClassVar[int] = 2
    jointly: ClassVar[bool] = True
    average: ClassVar[str] = "parts"
    chance: ClassVar[float] = 1050.0
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 1974.1, "qwen2_vl": 2327.8, "internvl2_5": 2453.9}
    comparable: ClassVar[str] = "yes, on all pairs"

    def together(self, row: Row) -> str:
        return f"{row['category']}/{row['question_id']}"

    def stratum(self, row: Row) -> str:
        return str(row["category"])

    def prompt(self, row: Row, item: Any) -> str:
        return f"{row['question'].replace(' Please answer yes or no.', '')}{SHORT}"

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        return (row["answer"],)

    def score(self, text: str, sample: Sample) -> float:
        return float(yes_no(text, self.profile) == sample.references[0].lower())

    def extract(self, text: str) -> str:
        return yes_no(text, self.profile)

    def settle(self, ids: Sequence[str], scores: Scores) -> list[float | None]:
        return by_group(ids, scores, self.group, pair)

    def overall(self, ids: Sequence[str], scores: Sequence[float]) -> float:
        """MME's sum over categories as a share; a settled score is 0 where its answer is wrong, and nowhere else."""
        categories = [self.stratum(self.known[one]) for one in ids]
        rights = [float(score > 0) for score in scores]
        total = mme_total(rights, [one.rpartition("-")[0] for one in ids], categories, self.profile)
        return total / (CATEGORY_SCALE * len(set(categories)))

    def reported(self, part: str) -> Sequence[str]:
        kinds = {"perception": PERCEPTION, "cognition": COGNITION}
        return [name for name, categories in kinds.items() if part in categories]

    def part_scale(self, of: Sequence[str], n: int) -> float:
        return CATEGORY_SCALE * len(of)
