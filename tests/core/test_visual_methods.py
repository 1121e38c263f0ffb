"""Methods that choose visual tokens: against loops in float64, worked examples, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from brute_visual import KINDS, brute, by, double, picked, seen
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from effivlm.compression import similar
from effivlm.compression.per_image import Seen
from effivlm.compression.similar import closest, closest_other, neighbours, unit
from effivlm.methods.divprune import DivPrune, farthest
from effivlm.methods.prumerge_plain import PruMergePlain
from effivlm.methods.prumerge_plus import PruMergePlus, outliers
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vispruner import VisPruner
from effivlm.seams.hooks import Tower

VARIANTS = [
    VisionZip(),
    VisionZip(rounding="down"),
    VisionZip(context=0.5, centre="linspace", merge="mean"),
    PruMergePlain(),
    PruMergePlain(neighbours=3, normalise=True),
    PruMergePlus(neighbours=5),
    PruMergePlus(neighbours=5, extra=False, spatial="front_stride"),
    DivPrune(),
    VisPruner(),
    VisPruner(step=2, important=0.75),
    VisPruner(step=1, rounds=3, important=0),
]
few = settings(deadline=None, max_examples=25)
SEEDS, LENGTHS = st.integers(0, 10**6), st.integers(1, 40)


@pytest.mark.parametrize("method", VARIANTS, ids=repr)
@few
@given(SEEDS, LENGTHS, st.sampled_from(["any", "any", "equal", "one"]), st.data())
def test_a_method_chooses_and_merges_what_loops_in_float64_do(method, seed, length, scores, data) -> None:
    budget = data.draw(st.integers(1, length))
    shown = seen(seed, length, scores=scores)
    expected = brute(method, double(shown), budget)
    assume(expected.margin > 1e-5)  # float32 may decide between closer ones otherwise
    ours = method.choose(shown, budget)
    assert ours.kept.tolist() == expected.kept
    assert len(expected.kept) == budget
    features = shown.features[ours.kept] if ours.features is None else ours.features
    theirs = shown.features.double().numpy()[expected.kept] if expected.features is None else expected.features
    torch.testing.assert_close(features.double(), torch.from_numpy(theirs), rtol=1e-5, atol=1e-5)


def test_visionzip_worked_example() -> None:
    keys = [[1.0, 0], [0, 0], [1, 0.1], [0, 0], [0, 1], [0, 1], [1, 0.2], [0.1, 1]]
    shown = by([0.05, 0.30, 0.02, 0.20, 0.08, 0.15, 0.10, 0.10], keys)
    chosen = VisionZip(context=0.5).choose(shown, 4)
    assert chosen.kept.tolist() == [0, 1, 3, 5]
    assert chosen.features is not None
    torch.testing.assert_close(chosen.features[:, 0], torch.tensor([4.0, 1, 3, 10.5]))


@pytest.mark.parametrize(
    ("budget", "paper", "effivlm"),
    [(64, 10, 10), (128, 20, 20), (192, 30, 30), (1, 0, 0), (3, 0, 1), (7, 1, 1), (10, 2, 1)],
)
def test_visionzip_splits_as_its_authors_do(budget: int, paper: int, effivlm: int) -> None:
    assert VisionZip().contextual(budget) == paper
    assert VisionZip(**VisionZip.presets["effivlm"]).contextual(budget) == effivlm


SCORES = [0.02, 0.02, 0.03, 0.40, 0.02, 0.25, 0.02, 0.02]


def test_prumerge_worked_examples() -> None:
    scores = torch.tensor(SCORES)
    assert outliers(scores) == 2
    assert picked(PruMergePlus(extra=False), scores, 2) == [3, 5]
    assert picked(PruMergePlus(), scores, 5) == [1, 3, 4, 5, 7], "the middles of thirds of what is left"
    assert picked(PruMergePlus(spatial="front_stride"), scores, 5) == [0, 1, 2, 3, 5]
    extra = PruMergePlain(neighbours=0).choose(by(SCORES), 3)
    assert extra.kept.tolist() == [3, 5, 7]
    assert extra.features is not None
    torch.testing.assert_close(extra.features[:, 0], torch.tensor([3, 5, 0.02 * (0 + 1 + 4 + 6 + 7) + 0.03 * 2]))


def test_divprune_worked_examples() -> None:
    for angles, order in (([0.0, 10, 90], [2, 0, 1]), ([0.0, 1, 3, 90], [3, 0, 2, 1])):
        turned = torch.tensor(angles).deg2rad()
        assert farthest(torch.stack([turned.cos(), turned.sin()], 1), len(order)).tolist() == order
    assert farthest(torch.ones(5, 4), 3).tolist() == [0, 1, 2], "no token is picked twice"
    assert farthest(torch.tensor([[3.0, 4]]), 1).tolist() == [0]


def test_vispruner_worked_example() -> None:
    features = [[1, 0], [1, 0.05], [0, 1], [0.1, 1], [-1, 0], [0.7, 0.7]]
    shown = by([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], features=features)
    assert VisPruner(important=0.0).choose(shown, 5).kept.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", [VisionZip, PruMergePlain, PruMergePlus, VisPruner])
def test_a_tower_that_nobody_looked_at_or_that_shows_nan_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="without looking"):
        kind().choose(Seen(torch.ones(3, 2), None), 2)
    tower = Tower(torch.full((3,), torch.nan), torch.full((3,), torch.nan), torch.ones(3, 1, 2))
    with pytest.raises(ValueError, match="NaN"):
        kind().choose(Seen(torch.ones(3, 2), tower), 2)


def test_features_with_nan_are_refused_where_they_decide() -> None:
    with pytest.raises(ValueError, match="NaN"):
        DivPrune().choose(Seen(torch.full((3, 2), torch.nan), None), 2)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (VisionZip, {"context": 1.5}),
        (VisionZip, {"rounding": "up"}),
        (VisionZip, {"centre": "first"}),
        (VisionZip, {"merge": "sum"}),
        (PruMergePlain, {"neighbours": -1}),
        (PruMergePlus, {"spatial": "grid"}),
        (PruMergePlus, {"neighbours": -1}),
        (VisPruner, {"important": -0.5}),
        (VisPruner, {"step": 0}),
        (VisPruner, {"rounds": 0}),
    ],
)
def test_impossible_fields_are_refused_with_their_value(kind: Any, values: dict[str, Any]) -> None:
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"{name} {value!r}"):
        kind(**values)


@few
@given(SEEDS, st.integers(2, 30), st.integers(1, 12), st.sampled_from([1, 7, 40, 1 << 20]), st.booleans())
def test_similarity_in_blocks_is_that_of_the_whole_matrix(seed, length, count, elements, ties) -> None:
    vectors = seen(seed, length).features
    if ties:  # corners of a cube: cosines take few values
        vectors = vectors.sign()
    tokens = unit(vectors)
    count = min(count, length - 1)
    rows = torch.arange(0, length, 2)
    alike = tokens @ tokens.T
    alike[torch.arange(length), torch.arange(length)] = -2
    before, similar.ELEMENTS = similar.ELEMENTS, elements
    try:
        near, (values, numbers), other = (
            neighbours(tokens, rows, count),
            closest(tokens, tokens[rows]),
            closest_other(tokens),
        )
    finally:
        similar.ELEMENTS = before
    torch.testing.assert_close(other, alike.max(1).values)
    torch.testing.assert_close(values, (tokens @ tokens[rows].T).max(1).values)
    torch.testing.assert_close((tokens * tokens[rows][numbers]).sum(1), values)
    assert near.shape == (len(rows), count)
    assert (near.diff(dim=1) > 0).all()
    assert not (near == rows[:, None]).any()
    torch.testing.assert_close(
        alike[rows].gather(1, near).sort(1).values, alike[rows].topk(count).values.sort(1).values, rtol=0, atol=1e-6
    )


def test_equal_neighbours_go_by_place() -> None:
    tokens = torch.eye(2)[torch.tensor([0, 1, 0, 0, 1, 0])]
    assert neighbours(tokens, torch.tensor([2, 4]), 2).tolist() == [[0, 3], [0, 1]]


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor) and not func.is_view:
                self.elements = max(self.elements, one.numel())
        return made


@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_grows_with_the_square_of_the_tokens(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    length, dim = 1500, 16
    monkeypatch.setattr(similar, "ELEMENTS", 40_000)
    with Largest() as largest:
        kind().choose(seen(1, length, dim), 300)
    assert 0 < largest.elements <= max(40_000, 2 * length * dim, 300 * 32)
