"""MMBench in Chinese: multiple choice, asked once for each rotation of the options."""

from __future__ import annotations

from typing import ClassVar

from effivlm.data.source import Source
from effivlm.tasks._mmbench import Mmbench


class MmbenchCn(Mmbench):
    """The development split of MMBench-CN (arXiv 2307.06281), with the Chinese instruction of lmms-eval's `mmbench_cn_dev`.

    Licence: CC BY 4.0. Official scorer: CircularEval; an answer that names no option is wrong where the official one asks a
    judge. Guessing four options scores 0.4.
    """

    source: ClassVar[Source] = Source(
        homes=("lmms-lab-encoder/MMBench", "lmms-lab/MMBench"),
        configs=("cn",),
        split="dev",
        rows=4329,
        columns=Mmbench.columns,
        licence="CC BY 4.0",
    )
    metric: ClassVar[str] = "circular"
    answer_type: ClassVar[str] = "choice"
    max_new_tokens: ClassVar[int] = 256
    group: ClassVar[int] = 2
    chance: ClassVar[float] = 0.4
    instruction: ClassVar[str] = "\n\n请直接使用所提供的选项字母作为答案回答。"
