"""Caches that keep their size while they decode: every new entry takes the place of an old one."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from effivlm.decoding.copies import Copies
from effivlm.kernels.placed import has_triton


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
    def sort(self) -> tuple[bool, bool]:
        """Layers of one sort roll together: whether scores decide, and whether heads decide as one."""
        return (self.scores is not None, self.shared)


RolledLayer = tuple[Tensor, Tensor, Rolling]
"""Keys and values [H_kv, K, D] of one row, and its rule."""


class RollingSegment:
    """Rows of a decoding batch that roll by one sort of rule: keys and values [R, H_kv, S, D] in slots.

    `order` [R, H_kv, S] counts entries as they came, -1 in slots that a row has no use for; `free` [R, H_kv] is the slot that
    the next one takes; `facts` [4, R, 1, 1] are a row's next number, sinks, recent entries and slots in use. Nothing depends on
    values in Python, so that steps can be captured in a CUDA graph, and `load` can put other prompts into the slots of a
    captured one.

    With `exact` a row computes what it computes alone, bit for bit: attention takes rows of one length at a time, and their
    own slots only. Then only rows of these lengths can be loaded.
    """

    def __init__(self, rows: Tensor, layers: Sequence[RolledLayer], slack: float = 1.0, exact: bool = False) -> None:
        self.rows, self.layers, self.exact = rows, list(layers), exact
        self.numbers: list[int] = rows.tolist()
        keys, values, rule = layers[0]
        self.scored, self.shared = rule.sort
        longest = max(layer[0].shape[1] for layer in layers)
        heads, slots, device = keys.shape[0], int(slack * longest) + self.scored, keys.device
        self.padded = not exact and (slack > 1 or any(layer[0].shape[1] < longest for layer in layers))
        self.keys = keys.new_zeros(len(layers), heads, slots, keys.shape[-1])
        self.values = values.new_zeros(len(layers), heads, slots, values.shape[-1])
        self.order = torch.zeros(len(layers), heads, slots, dtype=torch.long, device=device)
        self.scores = torch.zeros(len(layers), heads, slots, device=device)
        self.free = torch.zeros(len(layers), heads, dtype=torch.long, device=device)
        self.facts = torch.zeros(4, len(layers), 1, 1, dtype=torch.long, device=device)
        self._splits = 0
        self.load(layers)

    @property
    def length(self) -> int:
        """Entries of the longest row's prompt."""
        return max(keys.shape[1] for keys, _, _ in self.layers)

    @property
    def filled(self) -> int:
        """How many entries a row has more than its prompt left: none."""
        return 0

    def fits(self, layers: Sequence[RolledLayer]) -> bool:
        """Whether other rows can take the places of these; without padding, only rows of the same length."""
        if self.exact:
            return [keys.shape[1] for keys, _, _ in layers] == [keys.shape[1] for keys, _, _ in self.layers]
        lengths = {keys.shape[1] + self.scored for keys, _, _ in layers}
        return max(lengths) <= self.keys.shape[2] and (self.padded or lengths == {self.keys.shape[2]})

    def load(self, layers: Sequence[RolledLayer]) -> None:
        """Take the rows' prompts."""
        copies = Copies()
        self.lay(layers, copies)
        copies.make()

    def lay(self, layers: Sequence[RolledLayer], copies: Copies) -> None:
        """As `load`, but keys, values and scores are there when `copies` are made."""
        self.layers = list(layers)
        self._alike = self._spans()
        slots = [self.keys.shape[2]] * len(layers)
        copies.put(self.keys.flatten(0, 2), [keys for keys, _, _ in layers], slots)
        copies.put(self.values.flatten(0, 2), [values for _, values, _ in layers], slots)
        scores = [rule.scores for _, _, rule in layers if rule.scores is not None]
        if scores:
            copies.put(self.scores.flatten(), scores, slots)
        lengths = [keys.shape[1] for keys, _, _ in layers]
        sinks, recent = ([getattr(rule, name) for _, _, rule in layers] for name in ("sinks", "recent"))
        used = [length + self.scored for length in lengths]
        self.facts.copy_(torch.tensor([lengths, sinks, recent, used])[..., None, None], non_blocking=True)
        places = torch.arange(slots[0], device=self.order.device)
        self.order.copy_(torch.where(places < self.facts[0], places, -1).expand_as(self.order))
        self.free.copy_(self.facts[0 if self.scored else 1, :, 0].expand_as(self.free))

    def rewind(self) -> None:
        """Back to what the prompt left."""
        self.load(self.layers)

    def only(self, at: Tensor, rows: Tensor) -> RollingSegment:
        """The rows `at` of this segment, which are now `rows` of the batch."""
        part = copy(self)
        part.rows, part.layers = rows, [self.layers[row] for row in at.tolist()]
        part.numbers = rows.tolist()
        part.keys, part.values, part.order = self.keys[at], self.values[at], self.order[at]
        part.scores, part.free, part.facts = self.scores[at], self.free[at], self.facts[:, at].contiguous()
        part._splits, part._alike = 0, part._spans()
        return part

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Take the new entries one by one, each with its own query: [R, H_q, Q, D]."""
        steps = []
        for at in range(query.shape[2]):
            step = slice(at, at + 1)
            one, new, said = query[:, :, step], key[:, :, step], value[:, :, step]
            take = self._step if fused(one) else self._plain_step
            steps.append(take(one, new, said, scaling))
        return steps[0] if len(steps) == 1 else torch.cat(steps, 2)

    def _plain_step(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        self._take(key, value)
        found = self._look(query, scaling)
        self.free.copy_(self._victim())
        self.facts[0] += 1
        return found

    def _step(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """As `_plain_step`, in kernels."""
        from effivlm.kernels import rolling as kernels

        entries = sum(keys.shape[0] * keys.shape[1] for keys, _, _ in self.layers)
        self._splits = self._splits or kernels.splits_for(self.keys.shape[2], entries, query.device)
        return kernels.step(
            (query, key, value),
            self.keys,
            self.values,
            self.order,
            self.scores,
            self.free,
            self.facts,
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            (self.scored, self.shared),
            self._splits,
        )

    def _take(self, key: Tensor, value: Tensor) -> None:
        slot = self.free[..., None]
        self.keys.scatter_(2, slot[..., None].expand_as(key), key)
        self.values.scatter_(2, slot[..., None].expand_as(value), value)
        self.order.scatter_(2, slot, self.facts[0].expand_as(slot))
        self.scores.scatter_(2, slot, 0.0)

    def _spans(self) -> list[tuple[slice, slice]]:
        """Rows that look together, and their slots: all, or neighbours of one length."""
        if not self.exact:
            return [(slice(None), slice(None))]
        lengths = [keys.shape[1] for keys, _, _ in self.layers]
        ends = [at for at in range(1, len(lengths)) if lengths[at] != lengths[at - 1]]
        pairs = pairwise([0, *ends, len(lengths)])
        return [(slice(start, end), slice(lengths[start] + self.scored)) for start, end in pairs]

    def _look(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of one query row [R, H_q, 1, D] over all slots in use, counted where scores matter."""
        found = [self._look_at(query[rows], rows, slots, scaling) for rows, slots in self._alike]
        return found[0] if len(found) == 1 else torch.cat(found)

    def _look_at(self, query: Tensor, those: slice, slots: slice, scaling: float | None) -> Tensor:
        keys, values = self.keys[those, :, slots], self.values[those, :, slots]
        rows, heads, _, dim = query.shape
        kv_heads = keys.shape[1]
        if not self.scored and not self.padded:
            return scaled_dot_product_attention(query, keys, values, scale=scaling, enable_gqa=heads != kv_heads)
        grouped = query.reshape(rows, kv_heads, heads // kv_heads, dim)
        logits = (grouped @ keys.transpose(2, 3)).float() * (dim**-0.5 if scaling is None else scaling)
        if self.padded:
            logits = logits.masked_fill(self.order[:, :, None] < 0, -torch.inf)
        weights = logits.softmax(-1)
        if self.scored:
            self.scores[those, :, slots] += weights.mean(2)
        return (weights.to(query.dtype) @ values).reshape(rows, heads, 1, -1)

    def _victim(self) -> Tensor:
        """The slot [R, H_kv] of the entry that goes next; of equal scores the later one."""
        newest, sinks, recent, _ = self.facts
        worth = self.scores if self.scored else self.order.float()
        if self.shared:
            worth = worth.mean(1, keepdim=True).expand_as(worth)
        stays = (self.order < sinks) | (self.order > newest - recent)  # slots without use count as sinks
        worth = worth.masked_fill(stays, torch.inf)
        least = worth == worth.amin(-1, keepdim=True)
        return torch.where(least, self.order, -1).argmax(-1)


def fused(query: Tensor) -> bool:
    """Whether kernels take the step of a query [R, H_q, Q, D]."""
    return query.is_cuda and query.shape[2] == 1 and has_triton()
