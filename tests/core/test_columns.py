"""Column sums: the same on every path, and never a square matrix."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from effivlm.seams import columns
from effivlm.seams.columns import column_sums, received, received_and_near, received_by_all, row_logits

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels run on CUDA")


def drawn(heads: int, kv_heads: int, length: int, dim: int, device: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(length)
    queries, keys = (torch.randn(count, length, dim, generator=rng) * 2 for count in (heads, kv_heads))
    return queries.to(device, dtype), keys.to(device, dtype)


def written_out(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Column sums [H_q, N] and log-sum-exp of the rows [H_q, N], one head at a time in float64."""
    groups, length = len(queries) // len(keys), queries.shape[1]
    later = torch.ones(length, length, dtype=torch.bool, device=keys.device).triu(1)
    sums, rows = [], []
    for head, query in enumerate(queries.double()):
        logits = (query @ keys[head // groups].double().T / query.shape[-1] ** 0.5).masked_fill(later, float("-inf"))
        sums.append(logits.softmax(-1).sum(0))
        rows.append(logits.logsumexp(-1))
    return torch.stack(sums), torch.stack(rows)


@pytest.mark.parametrize(("heads", "kv_heads", "length", "dim"), [(4, 2, 130, 16), (3, 3, 1, 8), (8, 1, 77, 24)])
def test_a_prompts_column_sums_are_those_of_the_written_out_attention(heads, kv_heads, length, dim) -> None:
    queries, keys = drawn(heads, kv_heads, length, dim, "cpu", torch.float32)
    expected, _ = written_out(queries, keys)
    ours = received(queries, keys)
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.sum(1), torch.full((heads,), float(length)), rtol=1e-5, atol=0)


def test_column_sums_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys = drawn(4, 2, 50, 8, "cpu", torch.float32)
    whole = column_sums(queries, keys)
    monkeypatch.setattr(columns, "BLOCK", 7)
    torch.testing.assert_close(column_sums(queries, keys), whole)


def test_memory_grows_with_the_length_and_not_with_its_square(monkeypatch: pytest.MonkeyPatch) -> None:
    largest: list[int] = []
    stock = columns.row_attention

    def watched(queries: Tensor, keys: Tensor) -> Tensor:
        found = stock(queries, keys)
        largest.append(found.numel())
        return found

    monkeypatch.setattr(columns, "row_attention", watched)
    peaks = {}
    for length in (512, 2048):
        largest.clear()
        received(*drawn(2, 1, length, 8, "cpu", torch.float32))
        peaks[length] = max(largest)
    assert peaks == {length: 2 * columns.BLOCK * length for length in peaks}


@GPU
@pytest.mark.parametrize(
    ("heads", "kv_heads", "length", "dim", "dtype"),
    [
        (4, 2, 150, 16, torch.float32),
        (8, 4, 1027, 32, torch.float32),
        (28, 4, 2901, 128, torch.bfloat16),
        (40, 8, 1999, 128, torch.bfloat16),
        (12, 2, 777, 64, torch.float16),
    ],
)
def test_the_kernels_equal_the_written_out_attention(heads, kv_heads, length, dim, dtype) -> None:
    from effivlm.kernels import columns as kernels

    queries, keys = drawn(heads, kv_heads, length, dim, "cuda", dtype)
    expected, rows = written_out(queries, keys)
    lse = kernels.row_stats(queries[None], keys, torch.zeros(1, dtype=torch.long, device="cuda"))[0].logsumexp(0)
    torch.testing.assert_close(lse.double(), rows, rtol=0, atol=2e-5)
    torch.testing.assert_close(received(queries, keys).double(), expected, rtol=1e-5, atol=0)


@GPU
@pytest.mark.parametrize(
    ("heads", "kv_heads", "length", "dim"), [(28, 4, 2901, 128), (40, 8, 1999, 128), (8, 4, 772, 32)]
)
def test_the_attention_that_gives_the_log_sum_exp_is_the_one_that_sdpa_takes(heads, kv_heads, length, dim) -> None:
    """Else a dense answer would depend on whether a method beside it asks for column sums."""
    from torch.nn.functional import scaled_dot_product_attention

    from effivlm.seams.hooks import _with_lse

    queries, keys = drawn(heads, kv_heads, length, dim, "cuda", torch.bfloat16)
    values = keys.flip(1).contiguous()
    found = _with_lse(queries[None], keys[None], values[None], None)
    assert found is not None, "the kernel that sdpa takes here gives its log-sum-exp"
    ours, lse = found
    stock = scaled_dot_product_attention(queries[None], keys[None], values[None], is_causal=True, enable_gqa=True)
    assert torch.equal(ours, stock.transpose(1, 2))
    _, rows = written_out(queries, keys)
    torch.testing.assert_close(lse[0].double(), rows, rtol=0, atol=1e-3)


@GPU
@pytest.mark.parametrize("rows", [1, 17, 32, 130])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "dtype"), [(8, 2, 24, torch.float32), (28, 4, 128, torch.bfloat16)]
)
def test_the_last_rows_alone_get_the_same_from_the_kernels(rows, heads, kv_heads, dim, dtype) -> None:
    queries, keys = drawn(heads, kv_heads, 1027, dim, "cuda", dtype)
    last = queries[:, -rows:]
    torch.testing.assert_close(received(last, keys), column_sums(last, keys), rtol=1e-5, atol=1e-9)
    for threshold in (0.0, 0.01, 0.5):
        sums, near = received_and_near(last, keys, threshold)
        torch.testing.assert_close(sums, received(last, keys))
        logits = row_logits(last.double(), keys.double())
        largest = logits.amax(-1, keepdim=True)
        margin = torch.where(logits > -torch.inf, logits - largest - math.log(threshold or 1e-300), -1.0)
        seen = sum(range(len(keys[0]) - rows + 1, len(keys[0]) + 1))
        exact, unsure = (margin >= 0).sum((1, 2)) / seen, (margin.abs() < 1e-4).sum((1, 2)) / seen
        assert ((near - exact).abs() <= unsure + 1e-6).all()


@GPU
@pytest.mark.parametrize(
    ("heads", "dim", "dtype"), [(4, 72, torch.float32), (16, 80, torch.bfloat16), (1, 1280, torch.bfloat16)]
)
def test_every_row_sees_every_key_of_a_tower(heads, dim, dtype) -> None:
    queries, keys = drawn(heads, heads, 733, dim, "cuda", dtype)
    weights = (queries.double() @ keys.double().transpose(1, 2) / dim**0.5).softmax(-1)
    ours = received_by_all(queries, keys)
    torch.testing.assert_close(ours.double(), weights.mean((0, 1)), rtol=1e-5, atol=1e-9)
