"""Cache methods whose heads all keep the same entries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.methods.h2o import H2o
from effivlm.methods.snapkv import SnapKv
from effivlm.methods.vl_cache import VlCache


@dataclass(frozen=True, kw_only=True)
class SharedWindow(SnapKv):
    """SnapKV with one choice for all heads."""

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"head_shared": True}}


@dataclass(frozen=True, kw_only=True)
class SharedColumns(H2o):
    """H2O with one choice for all heads."""

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"head_shared": True}}


@dataclass(frozen=True, kw_only=True)
class SharedQuestion(VlCache):
    """VL-Cache with one choice for all heads."""

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"head_shared": True}}
