"""Caches that keep their size while they decode: every new entry takes the place of an old one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Rolling:
    """Which entry of a layer goes when a new one comes; the first `sinks` and the last `recent` never do.

    Without `scores` it is the oldest, and it goes before the new entry is attended to, so that attention sees K entries. With
    `scores` [H_kv, K], the attention that entries got so far, it is the one that got least, counting what it gets at this step:
    attention sees K + 1 entries, and K stay. `shared`: by the mean over heads, the same for all of them.
    """

    sinks: int = 0
    recent: int = 0
    scores: Tensor | None = None
    shared: bool = False

    @property
    def sort(self) -> tuple[int, int, bool, bool]:
        """Layers of one sort and length roll together."""
        return (self.sinks, self.recent, self.scores is not None, self.shared)


class RollingSegment:
    """Rows of a decoding batch that roll by one rule: keys and values [R, H_kv, S, D] in slots, all of them in use.

    `order` [R, H_kv, S] counts entries as they came; `free` [R, H_kv] is the slot that the next one takes. Nothing depends on
    values in Python, so that steps can be captured in a CUDA graph.
    """

    def __init__(self, rows: Tensor, layers: Sequence[tuple[Tensor, Tensor, Rolling]]) -> None:
        self.rows, self.layers, self.rule = rows, list(layers), layers[0][2]
        keys, values, _ = layers[0]
        heads, self.length, dim = keys.shape
        slots = self.length + (self.rule.scores is not None)
        self.keys = keys.new_zeros(len(layers), heads, slots, dim)
        self.values = values.new_zeros(len(layers), heads, slots, values.shape[-1])
        self.order = torch.zeros(len(layers), heads, slots, dtype=torch.long, device=keys.device)
        self.scores = torch.zeros(len(layers), heads, slots, device=keys.device)
        self.free = torch.zeros(len(layers), heads, dtype=torch.long, device=keys.device)
        self.rewind()

    def rewind(self) -> None:
        """Back to what the prompt left."""
        for row, (keys, values, rule) in enumerate(self.layers):
            self.keys[row, :, : self.length] = keys
            self.values[row, :, : self.length] = values
            if rule.scores is not None:
                self.scores[row, :, : self.length] = rule.scores
        self.order.copy_(torch.arange(self.order.shape[-1], device=self.order.device).expand_as(self.order))
        self.free.fill_(self.length if self.rule.scores is not None else self.rule.sinks)

    def only(self, at: Tensor, rows: Tensor) -> RollingSegment:
        """The rows `at` of this segment, which are now `rows` of the batch."""
        part = object.__new__(RollingSegment)
        part.rows, part.layers, part.rule, part.length = (
            rows,
            [self.layers[row] for row in at.tolist()],
            self.rule,
            self.length,
        )
        part.keys, part.values, part.order = self.keys[at], self.values[at], self.order[at]
        part.scores, part.free = self.scores[at], self.free[at]
        return part

    def attend(self, query: Tensor, key: Tensor, value: Tensor, filled: int, scaling: float | None) -> Tensor:
        """Take the new entries one by one, each with its own query: [R, H_q, Q, D]."""
        steps = []
        for at in range(query.shape[2]):
            step = slice(at, at + 1)
            self._take(key[:, :, step], value[:, :, step], self.length + filled + at)
            steps.append(self._look(query[:, :, step], scaling))
            self.free.copy_(self._victim(self.length + filled + at))
        return torch.cat(steps, 2)

    def _take(self, key: Tensor, value: Tensor, number: int) -> None:
        slot = self.free[..., None]
        self.keys.scatter_(2, slot[..., None].expand_as(key), key)
        self.values.scatter_(2, slot[..., None].expand_as(value), value)
        self.order.scatter_(2, slot, number)
        self.scores.scatter_(2, slot, 0.0)

    def _look(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of one query row [R, H_q, 1, D] over all slots, counted where scores matter."""
        rows, heads, _, dim = query.shape
        kv_heads = self.keys.shape[1]
        if self.rule.scores is None:
            return scaled_dot_product_attention(
                query, self.keys, self.values, scale=scaling, enable_gqa=heads != kv_heads
            )
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, dim)
        logits = (grouped @ self.keys.transpose(2, 3)).float() * (dim**-0.5 if scaling is None else scaling)
        weights = logits.softmax(-1)
        self.scores += weights.mean(2)
        return (weights.to(query.dtype) @ self.values).reshape(rows, heads, 1, -1)

    def _victim(self, newest: int) -> Tensor:
        """The slot [R, H_kv] of the entry that goes next; of equal scores the later one."""
        worth = self.order.float() if self.rule.scores is None else self.scores
        if self.rule.shared:
            worth = worth.mean(1, keepdim=True).expand_as(worth)
        stays = (self.order < self.rule.sinks) | (self.order > newest - self.rule.recent)
        worth = worth.masked_fill(stays, torch.inf)
        least = worth == worth.amin(-1, keepdim=True)
        return torch.where(least, self.order, -1).argmax(-1)
