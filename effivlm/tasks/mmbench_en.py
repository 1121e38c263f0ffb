"""MMBench in English: multiple choice, asked once for each rotation of the options."""

from __future__ import annotations

from typing import ClassVar

from effivlm.data.source import Source
from effivlm.tasks._mmbench import Mmbench


class MmbenchEn(Mmbench):
    """The development split of MMBench (arXiv 2307.06281): a question counts if all of its rotations are answered right.

    Licence: CC BY 4.0. Official scorer: CircularEval, as in lmms-eval's `mmbench_en_dev`; an answer that names no option is wrong
    where the official one asks a judge (`exact_matching` in VLMEvalKit). Guessing four options scores 0.4.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/MMBench", "lmms-lab/MMBench"),
        configs=("en",),
        split="dev",
        rows=4329,
        columns=Mmbench.columns,
        licence="CC BY 4.0",
    )
    metric: ClassVar[str] = "circular"
    answer_type: ClassVar[str] = "choice"
    max_new_tokens: ClassVar[int] = 1024
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 0.4
    dense: ClassVar[dict[str, float]] = {"llava_onevision": 83.12, "qwen2_vl": 78.25, "internvl2_5": 86.94}
    comparable: ClassVar[str] = "yes, where every answer names an option"
    instruction: ClassVar[str] = "\n\nAnswer with the option's letter from the given choices directly."
