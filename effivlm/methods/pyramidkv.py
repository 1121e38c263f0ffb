"""PyramidKV: wide below, narrow above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.methods.snapkv import SnapKv


@dataclass(frozen=True, kw_only=True)
class PyramidKv(SnapKv):
    """SnapKV's choice with budgets that fall in a straight line from the first layer to the last (arXiv 2406.02069).

    Of what is left beside the window, the last layer holds 1 / `beta` of the mean; where layer 0 would need more than there is,
    the line is flattened around the same mean.

    Differs from the paper:
    - layers get whole numbers by largest remainder, so that they sum to layers * K; the released code rounds each step down
      and spends more than was asked, and its flat budget for short prompts is not needed;
    - as in `snapkv`: one index set per KV head, and K is a share of the prompt;
    - preset effivlm (arXiv 2506.00479) has its window, kernel and pooling, not its overspending nor its rounding down of K.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1, "kernel": 5, "pool": "avg"},
    }

    window: int = 8
    layer_budgets: str = "pyramid"
    beta: float = 20.0
