"""The model as it is: what every other method is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from effivlm.compression.base import Method, Part


@dataclass(frozen=True, kw_only=True)
class Dense(Method):
    """No compression: keeps everything.

    Differs from the paper: nothing known.
    """

    of: ClassVar[str] = "visual tokens"
    budgeted: ClassVar[bool] = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {}}

    def seam_parts(self) -> tuple[Part, ...]:
        return ()
