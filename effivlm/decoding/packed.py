"""Caches whose lengths live on the device, so that one captured step serves every step, and every prompt that fits.

All rows that grow share one pool of entries a layer; a row's head owns a stretch of it. One query row then needs one kernel,
whatever the lengths of rows, layers and heads.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import accumulate, chain

import torch
from torch import Tensor

from effivlm.decoding.caches import DecodingCache, KeptLayer, rolled
from effivlm.decoding.copies import Copies
from effivlm.decoding.rolling import RollingSegment
from effivlm.seams.answering import AnsweringLayer

SLACK = 1.25
"""How much larger than asked a pool is made when prompts of other lengths will follow."""


class PackedLayer(AnsweringLayer):
    """One layer of a batch that decodes a token at a time: keys and values [E, D] of all rows that grow, and rolling rows.

    `offset` and `length` [R, H_kv] say where a head's entries begin and how many the prompt left; `filled` [1] counts new ones.
    """

    def __init__(self, layers: Sequence[KeptLayer], room: int, filled: Tensor, slack: float) -> None:
        super().__init__()
        self.room, self.filled = room, filled
        first, device = layers[0], layers[0].keys.device
        heads, dim = first.keys.shape[0], first.keys.shape[-1]
        self.growing = [row for row, layer in enumerate(layers) if layer.rolling is None]
        entries = int(slack * sum(_entries(layers[row], room) for row in self.growing))
        self.pool = (
            first.keys.new_zeros(entries, dim),
            first.values.new_zeros(entries, first.values.shape[-1]),
        )
        self.offset = torch.zeros(len(self.growing), heads, dtype=torch.long, device=device)
        self.length = torch.zeros(len(self.growing), heads, dtype=torch.int32, device=device)
        self.longest = int(slack * max((layers[row].keys.shape[-2] for row in self.growing), default=0)) + room
        self.rolling = [
            RollingSegment(torch.tensor(rows, device=device), rolled([layers[row] for row in rows]), slack)
            for rows in _grouped([_sort(layer) for layer in layers])
        ]
        groups = [self.growing] * bool(self.growing) + [part.numbers for part in self.rolling]
        self.ordered = list(chain(*groups)) == list(range(len(layers)))
        parts: list[RollingSegment | None] = [None] * bool(self.growing) + [*self.rolling]
        self._parts = [(_place(rows, self.ordered, device), part) for rows, part in zip(groups, parts, strict=True)]
        self._splits = 0
        self.load(layers)

    def fits(self, layers: Sequence[KeptLayer]) -> bool:
        """Whether rows of the same sorts can take the place of the ones that are there, in the same captured step."""
        grown = [layers[row] for row in self.growing]
        if sum(_entries(layer, self.room) for layer in grown) > len(self.pool[0]):
            return False
        return all(part.fits(rolled([layers[row] for row in part.numbers])) for part in self.rolling)

    def load(self, layers: Sequence[KeptLayer]) -> None:
        """Take the rows' prompts; whatever was decoded before is forgotten."""
        copies = Copies()
        self.lay(layers, copies)
        copies.make()

    def lay(self, layers: Sequence[KeptLayer], copies: Copies) -> None:
        """As `load`, but the rows are there when `copies` are made."""
        grown = [layers[row] for row in self.growing]
        if grown:
            spaces = [layer.keys.shape[-2] + self.room for layer in grown]
            copies.put(self.pool[0], [layer.keys for layer in grown], spaces)
            copies.put(self.pool[1], [layer.values for layer in grown], spaces)
            heads = grown[0].keys.shape[0]
            each = [space for space in spaces for _ in range(heads)]
            offsets = torch.tensor(list(accumulate(each, initial=0))[:-1]).view_as(self.offset)
            lengths = [layer.lengths or [layer.keys.shape[-2]] * heads for layer in grown]
            self.offset.copy_(offsets, non_blocking=True)
            self.length.copy_(torch.tensor(lengths, dtype=torch.int32), non_blocking=True)
        for part in self.rolling:
            part.lay(rolled([layers[row] for row in part.numbers]), copies)

    def rewind(self, copies: Copies) -> None:
        """Back to what the rows' prompts left: new entries stand behind the old ones, where nothing rolls."""
        for part in self.rolling:
            part.lay(part.layers, copies)

    def attend(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of one query row [B, H_q, 1, D] over each row's own cache and the new entry; returns [B, 1, H_q, D]."""
        key, value = self.taken()
        found = []
        for at, part in self._parts:
            answer = part.attend if part else self._grow
            found.append(answer(query[at], key[at], value[at], scaling))
        if self.ordered:
            return (found[0] if len(found) == 1 else torch.cat(found)).transpose(1, 2).contiguous()
        output = value.new_empty(*query.shape[:3], value.shape[-1])
        for (at, _), answered in zip(self._parts, found, strict=True):
            output[at] = answered
        return output.transpose(1, 2).contiguous()

    def _grow(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        where = (self.pool, self.offset, self.length, self.filled, scale)
        if not query.is_cuda:
            return attend_reference(query, key, value, *where)
        from effivlm.kernels import packed as kernels

        self._splits = self._splits or kernels.splits_for(self.longest, len(self.pool[0]), query.device)
        return kernels.attend(query, key, value, *where, self._splits)


class PackedCache(DecodingCache):
    """Many compressed caches decoded as one batch by a step that can be captured.

    Args:
        caches: one list of `KeptLayer` per row, one entry per decoder layer.
        room: how many new tokens each row may get.
        slack: how much larger to make it for prompts that come later.
    """

    def __init__(self, caches: Sequence[Sequence[KeptLayer]], room: int, slack: float = 1.0) -> None:
        self.room = room
        self.filled = torch.zeros(1, dtype=torch.int32, device=caches[0][0].keys.device)
        self.layers: list[PackedLayer] = [
            PackedLayer(layer, room, self.filled, slack) for layer in zip(*caches, strict=True)
        ]

    def fits(self, caches: Sequence[Sequence[KeptLayer]], room: int) -> bool:
        """Whether other prompts of the same sort can take the place of the ones that are there."""
        return room <= self.room and all(
            layer.fits(kept) for layer, kept in zip(self.layers, zip(*caches, strict=True), strict=True)
        )

    def load(self, caches: Sequence[Sequence[KeptLayer]]) -> None:
        """Take other prompts, which fit."""
        copies = Copies()
        for layer, kept in zip(self.layers, zip(*caches, strict=True), strict=True):
            layer.lay(kept, copies)
        copies.make()
        self.filled.zero_()

    def rewind(self) -> None:
        """Forget what was decoded; the prompts stay."""
        copies = Copies()
        for layer in self.layers:
            layer.rewind(copies)
        copies.make()
        self.filled.zero_()

    def get_seq_length(self, layer: int = 0) -> int:
        """Not known to Python; positions are given to every step."""
        return 0


def together(caches: Sequence[Sequence[KeptLayer]]) -> list[int]:
    """Numbers of the rows in an order in which those that roll alike stand together, so that a layer need not pick them out, and
    the same cache many times side by side, so that it is copied at once."""
    sorts = [str([_sort(layer) for layer in cache]) for cache in caches]
    firsts: dict[int, int] = {}
    first = [firsts.setdefault(id(cache), row) for row, cache in enumerate(caches)]
    return sorted(
        range(len(caches)), key=lambda row: (any(layer.rolling for layer in caches[row]), sorts[row], first[row])
    )


def sort_of(caches: Sequence[Sequence[KeptLayer]]) -> Hashable:
    """What two batches must have in common to be decoded by one captured step: how each row rolls in each layer."""
    return tuple(tuple(_sort(layer) for layer in cache) for cache in caches)


def attend_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pool: tuple[Tensor, Tensor],
    offset: Tensor,
    length: Tensor,
    filled: Tensor,
    scaling: float,
) -> Tensor:
    """Attention [R, H_q, 1, D_v] of one query row [R, H_q, 1, D] over each head's stretch of the pool and the new entry.

    The new key and value [R, H_kv, 1, D] are written behind the stretch. Plain PyTorch; the kernel does the same.
    """
    group = query.shape[1] // key.shape[1]
    output = query.new_empty(*query.shape[:3], value.shape[-1])
    for row, head in torch.cartesian_prod(*map(torch.arange, offset.shape)).tolist():
        start = int(offset[row, head])
        end = start + int(length[row, head]) + int(filled)
        for one, new in zip(pool, (key, value), strict=True):
            one[end] = new[row, head, 0]
        mine = slice(head * group, (head + 1) * group)
        weights = (query[row, mine, 0].float() @ pool[0][start : end + 1].float().T * scaling).softmax(-1)
        output[row, mine, 0] = (weights @ pool[1][start : end + 1].float()).to(output.dtype)
    return output


def _place(rows: Sequence[int], ordered: bool, device: torch.device) -> slice | Tensor:
    """Rows of a batch: a stretch of it where they stand together, which costs no kernel to cut out."""
    return slice(rows[0], rows[-1] + 1) if ordered else torch.tensor(rows, device=device)


def _entries(layer: KeptLayer, room: int) -> int:
    return layer.keys.shape[0] * (layer.keys.shape[-2] + room)


def _sort(layer: KeptLayer) -> tuple[bool, bool] | None:
    return None if layer.rolling is None else layer.rolling.sort


def _grouped(sorts: Sequence[tuple[bool, bool] | None]) -> list[list[int]]:
    """Numbers of the rows that roll, by sort."""
    groups: dict[tuple[bool, bool], list[int]] = {}
    for row, sort in enumerate(sorts):
        if sort is not None:
            groups.setdefault(sort, []).append(row)
    return list(groups.values())
