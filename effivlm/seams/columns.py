"""Attention of a few query rows, or what every key gets from them or from all, at any length, without a square matrix.

Everything in float32. On CUDA, Triton kernels do the sums; elsewhere, and where Triton is not installed, blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor

from effivlm.kernels.placed import has_triton

ELEMENTS = 1 << 24
"""Attention weights that `received_by_all` holds at once; 64 MiB in float32."""
WIDEST = 256
"""Width of a head up to which a kernel holds its tile."""
BLOCK = 64  # rows at a time: what they make stays in the cache of a processor core


def products(left: Tensor, right: Tensor) -> Tensor:
    """Batched left [B, M, D] times right [B, N, D] turned: [B, M, N] in float32.

    On CUDA factors of half precision are multiplied as they are and summed in float32, which loses nothing.
    """
    turned, exact = right.transpose(1, 2), left.is_cuda and left.dtype in (torch.float16, torch.bfloat16)
    found: Tensor = torch.bmm(left, turned, out_dtype=torch.float32) if exact else left.float() @ turned.float()
    return found


def row_logits(queries: Tensor, keys: Tensor) -> Tensor:
    """What `row_attention` is the softmax of: -inf where the causal order lets a row see nothing."""
    heads, rows, dim = queries.shape
    kv_heads, length, _ = keys.shape
    grouped = queries.reshape(kv_heads, heads // kv_heads * rows, dim)
    logits: Tensor = products(grouped, keys).reshape(heads, rows, length) / dim**0.5
    if rows > 1:  # the last row alone sees everything
        later = torch.ones(rows, length, dtype=torch.bool, device=keys.device).triu(length - rows + 1)
        logits = logits.masked_fill(later, float("-inf"))
    return logits


def row_attention(queries: Tensor, keys: Tensor) -> Tensor:
    """Causal softmax attention of the last W rows of a prompt.

    Args:
        queries: [H_q, W, D], rows N-W .. N-1, after rotary embedding.
        keys: [H_kv, N, D]; a KV head serves H_q / H_kv query heads.

    Returns:
        [H_q, W, N] in float32; every row sums to 1.
    """
    return row_logits(queries, keys).softmax(-1)


def column_sums(queries: Tensor, keys: Tensor) -> Tensor:
    """Attention that every key gets, summed over the W given rows [H_q, N] in float32, block by block of rows."""
    heads, rows, _ = queries.shape
    length = keys.shape[1]
    total: Tensor = torch.zeros(heads, length, device=keys.device)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        seen = length - rows + end
        total[:, :seen] += row_attention(queries[:, start:end], keys[:, :seen]).sum(1)
    return total


def received(queries: Tensor, keys: Tensor, lse: Tensor | None = None) -> Tensor:
    """Causal softmax attention summed over the last W rows of a prompt, in float32.

    The first of two kernels is left out where the attention itself gave its log-sum-exp.

    Args:
        queries: [H_q, W, D], rows N-W .. N-1, after rotary embedding.
        keys: [H_kv, N, D].
        lse: [H_q, W] float32, natural logarithm of every row's sum of exponentials, scaled by 1 / sqrt(D).

    Returns:
        [H_q, N]; every head's sum is W.
    """
    if not queries.is_cuda or not has_triton():
        return column_sums(queries, keys)
    from effivlm.kernels import columns as kernels

    seen = _one(queries), _one(keys)[0], _first(keys.device)
    stats = kernels.row_stats(*seen) if lse is None else lse.contiguous()[None, None]
    return kernels.sums(*seen, stats)[0]


def received_and_near(queries: Tensor, keys: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """`received` of the last W rows [H_q, N], and the share [H_q] of their attention entries that reach `threshold` times their
    row's largest.

    Only entries that the causal order lets a row see are counted. Told from logits: a softmax keeps their differences.
    """
    rows, length = queries.shape[1], keys.shape[1]
    below, visible = _below(threshold), _visible(rows, length)
    if queries.is_cuda and has_triton():
        sums, near = _sums_and_near(_one(queries), _one(keys)[0], _first(keys.device), below)
        return sums[0], near[0].sum(-1) / visible
    count = torch.zeros(len(queries), device=keys.device)
    for start in range(0, rows, BLOCK):
        end = min(start + BLOCK, rows)
        logits = row_logits(queries[:, start:end], keys[:, : length - rows + end])
        lowest = (logits.amax(-1, keepdim=True) + below).clamp(min=torch.finfo(torch.float32).min)  # -inf is not seen
        count += (logits >= lowest).sum((1, 2), dtype=torch.int32)
    return received(queries, keys), count / visible


@dataclass(frozen=True, eq=False)
class LayeredKeys:
    """Keys [H_kv, N, D] of layers that are looked at together, where they lie.

    `begin` [L] says how far behind the first layer's each layer's keys begin; None where one kernel does not serve all.
    """

    layers: Sequence[Tensor]
    begin: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "begin", _begin(self.layers) if of_one_form(self.layers) else None)


def received_of_layers(queries: Sequence[Tensor], keys: LayeredKeys) -> Tensor:
    """`received` of the last W rows of every layer [L, H_q, N], in as many kernels as one layer takes where one serves all."""
    if keys.begin is None:
        return torch.stack([received(*layer) for layer in zip(queries, keys.layers, strict=True)])
    from effivlm.kernels import columns as kernels

    seen = torch.stack(list(queries)), keys.layers[0], keys.begin
    return kernels.sums(*seen, kernels.row_stats(*seen))


def received_and_near_of_layers(
    queries: Sequence[Tensor], keys: LayeredKeys, threshold: float
) -> tuple[Tensor, Tensor]:
    """`received_and_near` of every layer: [L, H_q, N] and [L, H_q]."""
    if keys.begin is None:
        pairs = [received_and_near(*layer, threshold) for layer in zip(queries, keys.layers, strict=True)]
        return torch.stack([sums for sums, _ in pairs]), torch.stack([near for _, near in pairs])
    below, visible = _below(threshold), _visible(queries[0].shape[1], keys.layers[0].shape[1])
    sums, near = _sums_and_near(torch.stack(list(queries)), keys.layers[0], keys.begin, below)
    return sums, near.sum(-1) / visible


def received_by_all(queries: Tensor, keys: Tensor) -> Tensor:
    """Softmax attention that every key gets, mean over heads and rows [P] in float32; every row sees every key.

    Args:
        queries: [H, R, D].
        keys: [H, P, D].
    """
    heads, rows, dim = queries.shape
    if queries.is_cuda and dim <= WIDEST and has_triton():
        from effivlm.kernels import columns as kernels

        seen = _one(queries), _one(keys)[0], _first(keys.device)
        return kernels.sums(*seen, kernels.row_stats(*seen, False), False)[0].sum(0) / (heads * rows)
    total = torch.zeros(keys.shape[1], device=keys.device)
    for block in queries.split(max(1, ELEMENTS // (heads * keys.shape[1])), dim=1):
        total += (products(block, keys) / dim**0.5).softmax(-1).sum((0, 1))
    return total / (heads * rows)


def of_one_form(layers: Sequence[Tensor]) -> bool:
    """Whether one kernel reads all layers: they lie on one GPU, in one type, and in memory alike."""
    first = layers[0]

    def form(one: Tensor) -> tuple[object, ...]:
        return one.device, one.dtype, one.shape[0], one.shape[2], one.stride(1), one.stride(2)

    return first.is_cuda and has_triton() and first.stride(2) == 1 and all(form(one) == form(first) for one in layers)


def _begin(layers: Sequence[Tensor]) -> Tensor | None:
    """How far behind the first layer each begins [L], in elements; None where not all lie as the first does."""
    from effivlm.kernels.columns import ALIGNED

    first = layers[0]
    apart = [layer.data_ptr() - first.data_ptr() for layer in layers]
    wide = first.element_size() * ALIGNED.value
    if any(layer.shape != first.shape or layer.stride(0) != first.stride(0) for layer in layers):
        return None
    if any(bytes_ % wide for bytes_ in apart):
        return None
    return torch.tensor([bytes_ // first.element_size() for bytes_ in apart]).to(first.device, non_blocking=True)


def _one(entries: Tensor) -> Tensor:
    """[H, N, D] as the only layer [1, H, N, D], with what the kernels need: the numbers of an entry side by side."""
    return (entries if entries.stride(2) == 1 else entries.contiguous())[None]


@cache
def _first(device: torch.device) -> Tensor:
    """Where the keys of a first and only layer begin."""
    return torch.zeros(1, dtype=torch.long, device=device)


def _sums_and_near(queries: Tensor, keys: Tensor, begin: Tensor, below: float) -> tuple[Tensor, Tensor]:
    from effivlm.kernels import columns as kernels

    return kernels.sums_and_near(queries, keys, begin, kernels.row_stats(queries, keys, begin), below)


def _below(threshold: float) -> float:
    """How far a logit may lie under its row's largest."""
    return math.log(threshold) if threshold else -math.inf


def _visible(rows: int, length: int) -> int:
    """Entries that the causal order lets the last rows see, of all of them together."""
    return sum(range(length - rows + 1, length + 1))
