"""Receipts: what was the total?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from PIL import Image, ImageDraw

from effivlm.extending import Sample, Task, anls

TOTALS = ("17.20", "4.95", "103.00", "8.40")


class Receipts(Task):
    """Reading: a receipt is drawn, and its total is asked for.

    Official scorer: none, this is an example; ANLS with threshold 0.5, as DocVQA has it.
    """

    metric: ClassVar[str] = "anls"
    answer_type: ClassVar[str] = "short"
    max_new_tokens: ClassVar[int] = 12

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        drawn = [(number, total, _receipt(total)) for number, total in enumerate(TOTALS)][:limit]
        return [Sample(f"receipts-{number}", "What is the total?", (total,), (page,)) for number, total, page in drawn]

    def score(self, text: str, sample: Sample) -> float:
        return anls(text, sample.references)


def _receipt(total: str) -> Image.Image:
    page = Image.new("RGB", (192, 96), "white")
    ImageDraw.Draw(page).text((16, 36), f"Total {total}", fill="black")
    return page
