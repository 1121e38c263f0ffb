"""Attention that every key of a prompt gets from all rows, at any length, without a square matrix."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from torch import Tensor

from effivlm.methods._attention import column_sums


def received(queries: Tensor, keys: Tensor, lse: Tensor | None = None) -> Tensor:
    """Causal softmax attention summed over all rows of a prompt, in float32.

    On CUDA two Triton kernels do it, the first of which is left out where the attention itself gave its log-sum-exp; elsewhere,
    and where Triton is not installed, blocks of rows.

    Args:
        queries: [H_q, N, D], after rotary embedding.
        keys: [H_kv, N, D].
        lse: [H_q, N] float32, natural logarithm of every row's sum of exponentials, scaled by 1 / sqrt(D).

    Returns:
        [H_q, N]; every head's sum is N.
    """
    if not queries.is_cuda or not _triton():
        return column_sums(queries, keys)
    from effivlm.methods import _columns_triton as kernels

    queries, keys = queries.contiguous(), keys.contiguous()
    return kernels.sums(queries, keys, kernels.row_lse(queries, keys) if lse is None else lse.contiguous())


@cache
def _triton() -> bool:
    return find_spec("triton") is not None
