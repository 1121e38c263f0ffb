"""Many copies in one go: every head at the beginning of its stretch, and nothing else touched."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.decoding.copies import Copies, _plain
from effivlm.kernels.stretches import Copy, stretches

INTERPRETED = bool(os.environ.get("TRITON_INTERPRET")) and find_spec("triton") is not None
KERNELS = pytest.mark.skipif(not (torch.cuda.is_available() or INTERPRETED), reason="the kernel runs on CUDA")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if torch.cuda.is_available() or INTERPRETED:
    from effivlm.kernels.copies import copied

KINDS = ("own", "same", "turned")
rows = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.sampled_from(KINDS)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=80)
@given(rows, st.integers(1, 3), st.sampled_from([(), (2,)]), st.booleans())
def test_every_head_is_written_to_the_beginning_of_its_stretch(wanted, heads, rest, half) -> None:
    """Rows of other lengths and rooms, some the row before once more, some in memory the other way round."""
    rng = torch.Generator().manual_seed(len(wanted))
    given_rows: list[torch.Tensor] = []
    spaces: list[int] = []
    for length, room, kind in wanted:
        if kind == "same" and given_rows:
            given_rows.append(given_rows[-1])
            spaces.append(spaces[-1])
            continue
        row = torch.randn(heads, length, *rest, generator=rng).to(torch.bfloat16 if half else torch.float32)
        given_rows.append(row if kind == "own" else row.transpose(0, 1).contiguous().transpose(0, 1))
        spaces.append(length + room)
    pool = torch.full((heads * sum(spaces) + 2, *rest), -9.0, dtype=given_rows[0].dtype)
    expected, at = pool.clone(), 0
    for row, space in zip(given_rows, spaces, strict=True):
        for head in row:
            expected[at : at + len(head)] = head
            at += space
    copies = Copies()
    copies.put(pool, given_rows, spaces)
    copies.make()
    assert torch.equal(pool, expected)
    pool.zero_()
    copies.make()
    assert not pool.any(), "what was made is done with"


def test_copies_of_all_types_are_made_together() -> None:
    pools = [torch.zeros(6, 2), torch.zeros(6), torch.zeros(6, 2, dtype=torch.bfloat16)]
    copies = Copies()
    for pool in pools:
        copies.put(pool, [torch.ones(2, 1, *pool.shape[1:], dtype=pool.dtype)], [3])
        assert not pool.any(), "nothing is copied before it is asked for"
    copies.make()
    for pool in pools:
        assert pool.nonzero()[:, 0].unique().tolist() == [0, 3]


@KERNELS
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 8, 80])
def test_the_kernel_copies_what_plain_pytorch_copies(kind: torch.dtype, width: int) -> None:
    """Two pools at once; rows of no entry, of many, the same row twice, and rows that lie in memory the other way round."""
    rng = torch.Generator().manual_seed(width)
    rest = () if width == 1 else (width,)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, *rest, generator=rng).to(DEVICE, kind)

    long, turned = drawn(3, 90), drawn(41, 3).transpose(0, 1)
    cross = drawn(3, 5) if width == 1 else drawn(3, 5).transpose(1, 2).contiguous().transpose(1, 2)
    rows, spaces = [drawn(3, 0), long, long, turned, cross], [2, 95, 95, 41, 6]
    ours, plain = ([torch.zeros(3 * sum(spaces) + 1, *rest, dtype=kind, device=DEVICE) for _ in range(2)] for _ in "ab")
    copied(ours[0], [Copy(ours[0], rows, spaces), Copy(ours[1], rows[::-1], spaces[::-1])])
    _plain(Copy(plain[0], rows, spaces))
    _plain(Copy(plain[1], rows[::-1], spaces[::-1]))
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))
    assert torch.count_nonzero(plain[0]) > 3 * 200 * width


@pytest.mark.parametrize(("rows", "expected"), [("", []), ("a", [(0, 1)]), ("aab", [(0, 2), (2, 3)])])
def test_stretches_of_one_thing(rows: str, expected: list[tuple[int, int]]) -> None:
    assert stretches(rows) == expected
