"""Divergences of logits: by hand, against torch's own, and of what is stored against the whole."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import kl_div

from effivlm.records import Divergence
from effivlm.run import expected
from effivlm.run.expected import Expected, whole

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def drawn(places: int, vocab: int, seed: int, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(places, vocab, generator=torch.Generator().manual_seed(seed))


def by_torch(dense: Tensor, other: Tensor) -> Tensor:
    """Divergence [P], as torch has it."""
    p, q = dense.double().log_softmax(-1), other.double().log_softmax(-1)
    return kl_div(q, p, reduction="none", log_target=True).sum(-1)


def test_two_tokens_by_hand() -> None:
    dense, other = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[1.0, 1.0]]).log()
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for found in (whole(dense, other), Expected.of(dense).against(other)):
        assert found == Divergence(pytest.approx(wanted, rel=1e-7), 1, 0.0)
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert whole(other, dense).nats == pytest.approx(back, rel=1e-7), "it has a direction"


@pytest.mark.parametrize("places", [1, 64, 65, 130])
@pytest.mark.parametrize("vocab", [2, 200, 5000])
def test_the_whole_is_what_torch_says_and_what_is_stored_a_little_less(places: int, vocab: int) -> None:
    dense, other = drawn(places, vocab, 1), drawn(places, vocab, 2)
    other = dense + 0.3 * other
    exact = float(by_torch(dense, other).mean())
    found, stored = whole(dense, other), Expected.of(dense).against(other)
    assert found == Divergence(pytest.approx(exact, rel=1e-9), places, 0.0)
    assert stored.positions == places
    if vocab <= expected.MOST:
        assert stored.nats == pytest.approx(exact, rel=1e-4)
        assert stored.rest <= expected.REST
    else:
        assert 0.5 * exact < stored.nats < exact
        mass = dense.double().softmax(-1).topk(expected.MOST).values.sum(-1)
        assert stored.rest == pytest.approx(float(1 - mass.mean()), rel=1e-6)


@given(st.integers(0, 10_000), st.integers(2, 600), st.sampled_from([0.01, 1.0, 30.0]), st.sampled_from(TYPES))
def test_it_is_never_below_0_and_never_above_the_whole(
    seed: int, vocab: int, spread: float, dtype: torch.dtype
) -> None:
    dense, other = (drawn(3, vocab, seed + place, spread).to(dtype) for place in (0, 1))
    stored, exact = Expected.of(dense).against(other), whole(dense, other)
    assert 0 <= stored.nats <= exact.nats * (1 + 1e-9)
    assert exact.nats == pytest.approx(float(by_torch(dense, other).mean()), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("vocab", [7, 5000])
def test_equal_logits_are_0_apart_to_the_last_bit_also_read_back(dtype: torch.dtype, vocab: int) -> None:
    dense = drawn(70, vocab, 5).to(dtype)
    stored = Expected.from_json(json.loads(json.dumps(Expected.of(dense).to_json())))
    assert stored == Expected.of(dense)
    assert stored.against(dense.clone()).nats == whole(dense, dense.clone()).nats == 0.0


def test_no_more_tokens_are_stored_than_hold_the_mass() -> None:
    sure, unsure = torch.zeros(1, 1000), torch.zeros(1, 1000)
    sure[0, 3], unsure[0, :2] = 40.0, 40.0
    sizes = [len(Expected.of(one).ids) // 4 for one in (sure, unsure, torch.zeros(1, 1000))]
    assert sizes == [1, 2, expected.MOST]
    assert Expected.of(torch.zeros(1, 1000)).against(torch.zeros(1, 1000)).rest == pytest.approx(1 - 0.256)


def test_tokens_that_one_side_never_says_leave_no_infinity() -> None:
    dense, other = torch.zeros(1, 300), torch.zeros(1, 300)
    dense[0, 0], other[0, 1] = 1000.0, 1000.0
    for found in (whole(dense, other), Expected.of(dense).against(other)):
        assert found.nats == pytest.approx(1000.0)


def test_what_does_not_fit_is_refused() -> None:
    stored = Expected.of(drawn(3, 50, 1))
    with pytest.raises(ValueError, match="2 places cannot be compared with 3"):
        stored.against(drawn(2, 50, 1))
    data = stored.to_json()
    for name, value in (("ids", data["ids"][:-8]), ("others", "!"), ("counts", "AQA=")):
        with pytest.raises(ValueError, match=r"."):
            Expected.from_json({**data, name: value})
    for wrong in ({"nats": -0.1, "positions": 1}, {"nats": 0.1, "positions": 0}, {"nats": 0.1}, {"kl": 1}):
        with pytest.raises(ValueError, match="is no divergence"):
            Divergence.from_json(wrong)
