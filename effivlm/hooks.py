"""The seams' mechanism: the only place that swaps an attention function, registers hooks or builds caches.

Transformers routes every attention through a named function. `seams(model)` puts one wrapper around scaled dot-product
attention there; it computes what the stock function computes, lets watchers look at queries, keys and values after rotary
embedding, and lets a cache answer for itself while many compressed caches are decoded in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ATTENTION = "effivlm"
Watcher = Callable[[Tensor, Tensor, Tensor], None]
"""Looks at query [B, H_q, N, D], key and value [B, H_kv, N, D] of one attention call, after rotary embedding."""

_WATCHERS: ContextVar[Mapping[nn.Module, Watcher] | None] = ContextVar("effivlm_watchers", default=None)


@contextmanager
def seams(model: Any) -> Iterator[None]:
    """Route all attention of a transformers model through the wrapper, and put everything back on exit, also after an error.

    Inside, callers pass whole unpadded prompts (batch 1) or a `ForkedCache`: transformers builds no mask for this name.

    Raises:
        ValueError: the model was loaded with another attention than sdpa, so that dense would not be what is measured.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    before = {"": model.config._attn_implementation} | {
        name: sub._attn_implementation
        for name in model.config.sub_configs
        if (sub := getattr(model.config, name)) is not None
    }
    if other := sorted({value for value in before.values() if value not in ("sdpa", ATTENTION)}):
        raise ValueError(f"attention {', '.join(other)} is in use; load the model with attn_implementation='sdpa'")
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def watching(watchers: Mapping[nn.Module, Watcher]) -> Iterator[None]:
    """Let each watcher see the attention calls of its module; only inside `seams`.

    Raises:
        RuntimeError: on a clean exit, when a watched module never called the wrapped attention.
    """
    seen: set[nn.Module] = set()

    def noting(module: nn.Module, watcher: Watcher) -> Watcher:
        def note(query: Tensor, key: Tensor, value: Tensor) -> None:
            seen.add(module)
            watcher(query, key, value)

        return note

    token = _WATCHERS.set({module: noting(module, watcher) for module, watcher in watchers.items()})
    try:
        yield
    finally:
        _WATCHERS.reset(token)
    if missing := len(watchers) - len(seen):
        raise RuntimeError(
            f"{missing} of {len(watchers)} watched attention modules were never reached: wrong model for the seam?"
        )


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if isinstance(key, ForkedLayer):
        return key.attend(query, scaling), None
    watchers = _WATCHERS.get()
    if watchers and (watcher := watchers.get(module)):
        watcher(query, key, value)
    output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return output, None


class PromptCache:
    """What one prefill leaves: keys and values [1, H_kv, N_l, D] of every layer; lengths may differ after layer-k pruning."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

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
    """

    keys: Tensor
    values: Tensor
    lengths: tuple[int, ...] | None = None
    indices: Tensor | None = None

    @property
    def kept(self) -> float:
        """Entries kept, mean over KV heads, counted on the tensors."""
        return sum(self.lengths) / len(self.lengths) if self.lengths else float(self.keys.shape[-2])

    @property
    def nbytes(self) -> int:
        """Bytes of the kept keys and values, padding not counted."""
        per_entry = self.keys.element_size() * self.keys.shape[-1] + self.values.element_size() * self.values.shape[-1]
        return round(self.kept * self.keys.shape[0] * per_entry)


@dataclass(slots=True)
class _Segment:
    """Rows of a decoding batch whose caches have one length in this layer, so that they need no padding between them."""

    rows: Tensor
    keys: Tensor
    values: Tensor
    length: int
    valid: Tensor | None

    def attend(self, query: Tensor, key: Tensor, value: Tensor, filled: int, scaling: float | None) -> Tensor:
        """Take the new entries and attend over all of this segment's rows: [R, H_q, Q, D]."""
        queries, heads, start = query.shape[2], query.shape[1], self.length + filled
        self.keys[:, :, start : start + queries] = key
        self.values[:, :, start : start + queries] = value
        keys, values = self.keys[:, :, : start + queries], self.values[:, :, : start + queries]
        mask = self.mask(queries, start)
        if mask is not None and mask.dim() == 4:
            mask = mask.repeat_interleave(heads // mask.shape[1], dim=1)
        return scaled_dot_product_attention(
            query, keys, values, attn_mask=mask, scale=scaling, enable_gqa=heads != keys.shape[1]
        )

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


class ForkedLayer:
    """One layer of a decoding batch. It takes the new keys and values and answers attention for all its rows."""

    def __init__(self, layers: Sequence[KeptLayer], room: int) -> None:
        self.segments = [_segment(rows, [layers[row] for row in rows], room) for rows in _alike(layers)]
        self.filled = 0
        self._new: tuple[Tensor, Tensor] | None = None

    def offer(self, key: Tensor, value: Tensor) -> None:
        self._new = (key, value)

    def attend(self, query: Tensor, scaling: float | None) -> Tensor:
        """Attention of query [B, H_q, Q, D] over each row's own cache and the new entries; returns [B, Q, H_q, D]."""
        assert self._new is not None
        (new_key, new_value), self._new = self._new, None
        if len(self.segments) == 1:  # rows stand in batch order then, so nothing has to be gathered
            output = self.segments[0].attend(query, new_key, new_value, self.filled, scaling)
        else:
            output = new_value.new_empty(*query.shape[:3], new_value.shape[-1])
            for part in self.segments:
                at = part.rows
                output[at] = part.attend(query[at], new_key[at], new_value[at], self.filled, scaling)
        self.filled += query.shape[2]
        return output.transpose(1, 2).contiguous()

    def select(self, rows: Tensor) -> None:
        """Keep only `rows` of the batch (ascending), in that order."""
        place = {int(row): index for index, row in enumerate(rows)}
        kept = []
        for part in self.segments:
            stay = [index for index, row in enumerate(part.rows.tolist()) if row in place]
            if stay:
                at = torch.tensor(stay, device=part.rows.device)
                renamed = torch.tensor([place[int(part.rows[index])] for index in stay], device=part.rows.device)
                valid = None if part.valid is None else part.valid[at]
                kept.append(_Segment(renamed, part.keys[at], part.values[at], part.length, valid))
        self.segments = kept


class ForkedCache:
    """Many compressed caches of one prompt, decoded as one batch; passed to the text model as `past_key_values`.

    Args:
        caches: one list of `KeptLayer` per row, one entry per decoder layer.
        room: how many new tokens each row may still get.
    """

    def __init__(self, caches: Sequence[Sequence[KeptLayer]], room: int) -> None:
        self.layers = [ForkedLayer(layer, room) for layer in zip(*caches, strict=True)]

    def update(self, key: Tensor, value: Tensor, layer: int, *_: Any, **__: Any) -> tuple[ForkedLayer, Tensor]:
        self.layers[layer].offer(key, value)
        return self.layers[layer], value

    def get_seq_length(self, layer: int = 0) -> int:
        return self.layers[layer].segments[0].length + self.layers[layer].filled

    def select(self, rows: Tensor) -> None:
        for layer in self.layers:
            layer.select(rows)

    def rewind(self) -> None:
        """Forget the new entries, so that the same steps can be taken again."""
        for layer in self.layers:
            layer.filled = 0


def _alike(layers: Sequence[KeptLayer]) -> list[list[int]]:
    """Row numbers grouped by physical length and by whether heads differ."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for row, layer in enumerate(layers):
        groups.setdefault((layer.keys.shape[-2], layer.lengths is not None), []).append(row)
    return list(groups.values())


def _segment(rows: list[int], layers: Sequence[KeptLayer], room: int) -> _Segment:
    first = layers[0]
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


@contextmanager
def pruning(layers: Sequence[nn.Module], at: int, choose: Callable[[], Tensor]) -> Iterator[list[Tensor]]:
    """Drop prompt positions on entry to decoder layer `at` of one prefill; later layers see only what stays.

    `choose` is called once, when hidden states reach layer `at`, and returns the kept positions, ascending [K]. Positions
    keep their original rotary angles. Yields a list that holds the kept positions after the forward.

    Raises:
        ValueError: `at` is not a layer of the model.
        RuntimeError: on a clean exit, when the forward never reached layer `at`.
    """
    if not 0 <= at < len(layers):
        raise ValueError(f"layer {at} does not exist: the decoder has layers 0 to {len(layers) - 1}")
    kept: list[Tensor] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        kept.append(choose())
        return (args[0].index_select(1, kept[0].to(args[0].device)), *args[1:]), _gathered(kwargs, kept[0])

    def follow(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, _gathered(kwargs, kept[0])

    handles = [layers[at].register_forward_pre_hook(enter, with_kwargs=True)]
    handles += [layer.register_forward_pre_hook(follow, with_kwargs=True) for layer in layers[at + 1 :]]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
    if not kept:
        raise RuntimeError(f"decoder layer {at} was never reached, so nothing was pruned")


def _gathered(kwargs: dict[str, Any], kept: Tensor) -> dict[str, Any]:
    """Rotary tables [B, N, D] and position ids [B, N] cut to the kept positions."""
    cut = dict(kwargs)
    cut["position_embeddings"] = tuple(
        table.index_select(1, kept.to(table.device)) for table in kwargs["position_embeddings"]
    )
    if (ids := kwargs.get("position_ids")) is not None:
        cut["position_ids"] = ids.index_select(-1, kept.to(ids.device))
    if kwargs.get("attention_mask") is not None:
        raise RuntimeError("a mask reached a pruned layer; prompts are prefilled one at a time, without padding")
    return cut
