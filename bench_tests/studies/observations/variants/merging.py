"""LOOK-M with nothing merged, with everything, and within text and images apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.methods.look_m import LookM


@dataclass(frozen=True, kw_only=True)
class Folding(LookM):
    """LOOK-M's choice of entries; what is evicted is dropped, merged into any kept entry, or only into one of its modality.

    Presets that begin with `plain` rank without LOOK-M's preference for text, so that both modalities stay at small budgets.

    Differs from the paper: there is none, this is a study's variant.
    """

    of: ClassVar[str] = "prompt entries"
    default_preset: ClassVar[str] = "across"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "nothing": {"merge": "none"},
        "across": {},
        "within": {"merge_scope": "same_modality"},
        "plain_nothing": {"prior": "none", "merge": "none"},
        "plain_across": {"prior": "none"},
        "plain_within": {"prior": "none", "merge_scope": "same_modality"},
    }
