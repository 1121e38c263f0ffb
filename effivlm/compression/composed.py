"""Several methods one after another, each at a seam of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from effivlm.compression.base import Method, Part


@dataclass(frozen=True, kw_only=True)
class Composed(Method):
    """Methods in the order of the run; each has its own budget, counted of what the one before it leaves.

    `keep` is the budget that the case varies; it is the last method's own unless that one's is fixed.
    """

    of: ClassVar[str] = "prompt entries"

    methods: tuple[Method, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(part for method in self.methods for part in method.parts)

    def seam_parts(self) -> tuple[Part, ...]:
        return tuple(part for method in self.methods for part in method.seam_parts())
