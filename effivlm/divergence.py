"""How far a compressed model's next tokens are from dense's, along dense's own answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Divergence:
    """KL of dense against a cell, `nats` a place of dense's answer on average, over `positions` of them, its end included.

    `rest` is the mean mass of dense's distribution that was not told apart: above 0 `nats` is a lower bound
    (`run.expected`).
    """

    nats: float
    positions: int
    rest: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Divergence:
        """ValueError for what is none."""
        try:
            found = cls(**data)
            fine = found.nats >= 0 and found.positions >= 1 and 0 <= found.rest <= 1
        except TypeError as error:
            raise ValueError(f"{str(data)[:40]!r} is no divergence: {error}") from None
        if not fine:
            raise ValueError(f"{str(data)[:40]!r} is no divergence")
        return found
