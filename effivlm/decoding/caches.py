"""Caches: what one prefill leaves, one compressed layer, and many compressed caches decoded in one batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from effivlm.decoding.rolling import RolledLayer, Rolling, RollingSegment
from effivlm.seams.answering import AnsweringLayer


class PromptCache:
    """What one prefill leaves: keys and values [1, H_kv, N_l, D] of every layer; lengths may differ after layer-k pruning."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # a compiled layer must not be compiled anew for its number
    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if layer != len(self.keys):
            raise RuntimeError(f"layer {layer} was cached out of order: {len(self.keys)} layers are there")
        self.keys.append(key)
        self.values.append(value)
        return key, value

    def get_seq_length(self, layer: int = 0) -> int:
        return self.keys[layer].shape[-2] if len(self.keys) > layer else 0


@dataclass(frozen=True, slots=True)
class KeptLayer:
    """One layer of one compressed cache: keys and values [H_kv, K, D]; `lengths` per head where they differ (rest is padding).

    `indices` [H_kv, K] are the places of its entries in the layer it came from; None where all stayed, or nobody noted them.
    `rolling` says which entry goes for every new one, in the order of the entries; None: decoding adds to them.
    """

    keys: Tensor
    values: Tensor
    lengths: tuple[int, ...] | None = None
    indices: Tensor | None = None
    rolling: Rolling | None = None

    def __post_init__(self) -> None:
        if self.rolling is not None and self.lengths is not None:
            raise ValueError(
                "a layer whose heads differ in length cannot roll: every head needs a slot for each new entry"
            )

    @property
    def kept(self) -> float:
        """Entries kept, mean over KV heads, counted on the tensors."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else float(self.keys.shape[-2])

    @property
    def nbytes(self) -> int:
        """Bytes of the kept keys and values, padding not counted."""
        per_entry = self.keys.element_size() * self.keys.shape[-1] + self.values.element_size() * self.values.shape[-1]
        return round(self.kept * self.keys.shape[0] * per_entry)


def kv_bytes(cache: Sequence[KeptLayer]) -> int:
    """Bytes of all keys and values of a prompt that are kept."""
    return sum(layer.nbytes for layer in cache)


def row_bytes(cache: Sequence[KeptLayer], room: int) -> int:
    """Bytes that a row of a decoding batch takes for a prompt, padding and `room` for new tokens counted."""
    layers = ((layer.keys.nbytes + layer.values.nbytes, layer.keys.shape[-2]) for layer in cache)
    return sum(size + size * room // max(1, entries) for size, entries in layers)


@dataclass(slots=True)
class _Segment:
    """Rows of a decoding batch whose caches have one length in this layer, so that they need no padding between them."""

    rows: Tensor
    keys: Tensor
    values: Tensor
    length: int
    valid: Tensor | None
    filled: int = 0

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Take the new entries and attend over all of this segment's rows: [R, H_q, Q, D]."""
        queries, heads, start = query.shape[2], query.shape[1], self.length + self.filled
        self.keys[:, :, start : start + queries] = key
        self.values[:, :, start : start + queries] = value
        keys, values = self.keys[:, :, : start + queries], self.values[:, :, : start + queries]
        self.filled += queries
        mask = self.mask(queries, start)
        if mask is not None and mask.dim() == 4:
            mask = mask.repeat_interleave(heads // mask.shape[1], dim=1)
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=scaling, enable_gqa=heads != keys.shape[1]
        )

    def only(self, at: Tensor, rows: Tensor) -> _Segment:
        """The rows `at` of this segment, which are now `rows` of the batch."""
        valid = None if self.valid is None else self.valid[at]
        return _Segment(rows, self.keys[at], self.values[at], self.length, valid, self.filled)

    def rewind(self) -> None:
        """Forget the new entries; they are written over."""
        self.filled = 0

    def mask(self, queries: int, filled: int) -> Tensor | None:
        """None for plain decoding; else [R, H_kv, queries, filled + queries], True where attention may look."""
        if queries == 1 and self.valid is None:
            return None
        new = torch.ones(queries, filled + queries, dtype=torch.bool, device=self.keys.device).tril(filled)
        if self.valid is None:
            return new
        rows, heads, length = self.valid.shape
        mask = new.expand(rows, heads, -1, -1).clone()
        mask[..., :length] &= self.valid[:, :, None]
        return mask


class ForkedLayer(AnsweringLayer):
    """A layer whose rows stand in segments of one length each; lengths are known to Python."""

    def __init__(self, layers: Sequence[KeptLayer], room: int) -> None:
        super().__init__()
        self.segments: list[_Segment | RollingSegment] = [
            _segment(rows, [layers[row] for row in rows], room) for rows in _alike(layers)
        ]
        self._places = [*map(_place, self.segments)]

    def attend(self, query: Tensor, scaling: float | None) -> Tensor:
        new_key, new_value = self.taken()
        if len(self.segments) == 1:  # rows stand in batch order then, so nothing has to be gathered
            output = self.segments[0].attend(query, new_key, new_value, scaling)
        else:
            output = new_value.new_empty(*query.shape[:3], new_value.shape[-1])
            for at, part in zip(self._places, self.segments, strict=True):
                output[at] = part.attend(query[at], new_key[at], new_value[at], scaling)
        return output.transpose(1, 2).contiguous()

    def select(self, rows: Tensor) -> None:
        """Keep only `rows` of the batch (ascending), in that order."""
        place = {int(row): index for index, row in enumerate(rows)}
        kept: list[_Segment | RollingSegment] = []
        for part in self.segments:
            stay = [index for index, row in enumerate(part.rows.tolist()) if row in place]
            if stay:
                at = torch.tensor(stay, device=part.rows.device)
                renamed = torch.tensor([place[int(part.rows[index])] for index in stay], device=part.rows.device)
                kept.append(part.only(at, renamed))
        self.segments, self._places = kept, [*map(_place, kept)]


class DecodingCache(ABC):
    """What decodes a batch; passed to the text model as `past_key_values`."""

    layers: Sequence[AnsweringLayer]

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # as in `PromptCache`
    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[AnsweringLayer, Tensor]:
        self.layers[layer].offer(key, value)
        return self.layers[layer], value

    @abstractmethod
    def get_seq_length(self, layer: int = 0) -> int: ...


class ForkedCache(DecodingCache):
    """Many compressed caches of one prompt, decoded as one batch.

    Args:
        caches: one list of `KeptLayer` per row, one entry per decoder layer.
        room: how many new tokens each row may still get.
    """

    def __init__(self, caches: Sequence[Sequence[KeptLayer]], room: int) -> None:
        self.layers: list[ForkedLayer] = [ForkedLayer(layer, room) for layer in zip(*caches, strict=True)]

    def get_seq_length(self, layer: int = 0) -> int:
        first = self.layers[layer].segments[0]
        return first.length + first.filled

    def select(self, rows: Tensor) -> None:
        for layer in self.layers:
            layer.select(rows)

    def rewind(self) -> None:
        """Forget the new entries, so that the same steps can be taken again."""
        for layer in self.layers:
            for part in layer.segments:
                part.rewind()


def _place(part: _Segment | RollingSegment) -> slice | Tensor:
    """Rows of a batch: a stretch of it where they stand side by side, which costs no copy to cut out."""
    first, *others = part.rows.tolist()
    last = others[-1] if others else first
    return slice(first, last + 1) if last - first == len(others) else part.rows


def rolled(layers: Sequence[KeptLayer]) -> list[RolledLayer]:
    """Rows that roll, as their segment takes them."""
    return [(layer.keys, layer.values, layer.rolling) for layer in layers if layer.rolling is not None]


def _alike(layers: Sequence[KeptLayer]) -> list[list[int]]:
    """Row numbers grouped by how they roll, and else by physical length and by whether heads differ."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, layer in enumerate(layers):
        sort = (layer.keys.shape[-2], layer.lengths is not None) if layer.rolling is None else layer.rolling.sort
        groups.setdefault((layer.rolling is None, *sort), []).append(row)
    return list(groups.values())


def _segment(rows: list[int], layers: Sequence[KeptLayer], room: int) -> _Segment | RollingSegment:
    first = layers[0]
    if first.rolling is not None:
        return RollingSegment(torch.tensor(rows, device=first.keys.device), rolled(layers), exact=True)
    heads, length, dim = first.keys.shape
    keys = first.keys.new_zeros(len(rows), heads, length + room, dim)
    values = first.values.new_zeros(len(rows), heads, length + room, first.values.shape[-1])
    for index, layer in enumerate(layers):
        keys[index, :, :length] = layer.keys
        values[index, :, :length] = layer.values
    valid = None
    if first.lengths is not None:
        counts = torch.tensor([layer.lengths for layer in layers], device=keys.device)
        valid = torch.arange(length, device=keys.device) < counts[..., None]
    return _Segment(torch.tensor(rows, device=keys.device), keys, values, length, valid)
