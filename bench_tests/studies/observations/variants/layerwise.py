"""How a cache's entries are split over layers, with everything else alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.methods.snapkv import SnapKv


@dataclass(frozen=True, kw_only=True)
class Layerwise(SnapKv):
    """SnapKV's scores and pooling, with one window of eight, under every split of the cache over layers.

    PyramidKV and VL-Cache differ from SnapKV in their windows and scores too, so a comparison of those three says little of
    the split.

    Differs from the paper: there is none, this is a study's variant.
    """

    of: ClassVar[str] = "prompt entries"
    default_preset: ClassVar[str] = "even"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "even": {},
        "pyramid": {"layer_budgets": "pyramid"},
        "density": {"layer_budgets": "density"},
        "mixed": {"layer_budgets": "density", "uniform_share": 0.8},
    }

    window: int = 8
