"""What a cache is to the attention seam while it decodes: a layer that answers attention itself."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class AnsweringLayer(ABC):
    """One layer of a decoding batch: takes the new keys and values, and answers attention for all its rows."""

    def __init__(self) -> None:
        self._new: tuple[Tensor, Tensor] | None = None

    def offer(self, key: Tensor, value: Tensor) -> None:
        """Keys and values [B, H_kv, Q, D] of the new entries."""
        self._new = (key, value)

    def taken(self) -> tuple[Tensor, Tensor]:
        """What was offered last, once."""
        assert self._new is not None
        new, self._new = self._new, None
        return new

    @abstractmethod
    def attend(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of query [B, H_q, Q, D] over each row's own cache and the new entries; returns [B, Q, H_q, D]."""
