"""Many copies in one go: every head at the beginning of its stretch, and nothing else touched."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.copies import Copies, alike

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


@pytest.mark.parametrize(("rows", "stretches"), [("", []), ("a", [(0, 1)]), ("aab", [(0, 2), (2, 3)])])
def test_stretches_of_one_thing(rows: str, stretches: list[tuple[int, int]]) -> None:
    assert alike(rows) == stretches
