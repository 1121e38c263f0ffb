"""The kernels that pick tokens one after another: what plain PyTorch picks, on pools of odd and different sizes, ties included.

Without a GPU they run in Triton's interpreter where that was asked for; `test_method_kernels.py` says how.
"""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from brute_visual import seen
from test_method_kernels import DEVICE, GPU, HAVE_GPU, KERNELS, drawn
from torch import Tensor

from effivlm.compression import pools as pooled
from effivlm.compression.base import ImageView
from effivlm.compression.clusters import peaks
from effivlm.compression.per_image import PerImage, Seen
from effivlm.compression.pools import Pools, parts_of
from effivlm.compression.similar import alike, closest_other, unit
from effivlm.methods.cdpruner import SMALL, CdPruner, determinant
from effivlm.methods.divprune import SAME, DivPrune, farthest
from effivlm.methods.holov import HoloV
from effivlm.methods.prumerge_plain import PruMergePlain
from effivlm.methods.prumerge_plus import PruMergePlus
from effivlm.methods.visionzip import VisionZip
from effivlm.methods.vispruner import VisPruner
from effivlm.records import Budget
from effivlm.seams.hooks import Tower

SHAPES = [([1], [1]), ([2, 1], [1, 1]), ([17, 33, 5], [17, 9, 1]), ([40, 40, 39], [12, 11, 11])]
KINDS = ["plain", "signs", "zeros"]


def tokens(sizes: list[int], dim: int, kind: str) -> list[Tensor]:
    """Unit tokens of pools. Signs in 4 or 16 dimensions are alike often, and their products are exact on every device."""
    made = [drawn(size + number, size, dim) for number, size in enumerate(sizes)]
    if kind == "signs":
        made = [part.sign() for part in made]
    elif kind == "zeros":
        made = [part.masked_fill((torch.arange(len(part), device=DEVICE) % 3 == 1)[:, None], 0) for part in made]
    return [unit(part) for part in made]


def squares(parts: list[Tensor]) -> Tensor:
    """Products [T, N, N] of every pool's rows with each other, filled up with what nobody may look at."""
    most = max(map(len, parts))
    out = torch.full((len(parts), most, most), 7.0, device=DEVICE)
    for number, part in enumerate(parts):
        out[number, : len(part), : len(part)] = part @ part.T
    return out


def filled(rows: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-5)


def whole(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)


@KERNELS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sizes", "counts"), SHAPES)
def test_the_farthest_tokens_are_those_that_plain_pytorch_picks(sizes: list[int], counts: list[int], kind: str) -> None:
    from effivlm.kernels import greedy

    parts = tokens(sizes, 16, kind)
    near = [(closest_other(part) if len(part) > 1 else part.new_zeros(1)).clamp(max=SAME) for part in parts]
    found = greedy.farthest(squares(parts), filled(near), whole(sizes), whole(counts), max(counts), SAME)
    for row, part, count in zip(found, parts, counts, strict=True):
        assert row[:count].tolist() == farthest(part.cpu(), count).tolist()


@KERNELS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [4, 16])
@pytest.mark.parametrize(("sizes", "counts"), SHAPES)
def test_the_most_of_a_determinant_is_what_plain_pytorch_picks(
    sizes: list[int], counts: list[int], dim: int, kind: str
) -> None:
    """With fewer dimensions than picks, the others follow by relevance."""
    from effivlm.kernels import greedy

    parts = tokens(sizes, dim, kind)
    relevance = [drawn(9 + number, len(part)).sigmoid() for number, part in enumerate(parts)]
    gram = squares([part * own[:, None] for part, own in zip(parts, relevance, strict=True)])
    facts = whole(sizes), whole(counts), max(counts), min(max(counts), dim), SMALL
    found = greedy.determinant(gram, filled(relevance), *facts)
    for row, part, own, count in zip(found, parts, relevance, counts, strict=True):
        assert row[:count].tolist() == determinant(part.cpu(), own.cpu(), count).tolist()


@KERNELS
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(("sizes", "counts"), SHAPES)
def test_a_set_without_likenesses_is_the_one_of_plain_pytorch(
    sizes: list[int], counts: list[int], step: int, kind: str
) -> None:
    from effivlm.kernels import greedy

    method, parts = VisPruner(step=step), tokens(sizes, 16, kind)
    orders = [drawn(3 + number, len(part)).argsort() for number, part in enumerate(parts)]
    few = [method.first(count) for count in counts]
    facts = [
        [size, first, count - first, method.steps(size - first, count - first)]
        for size, first, count in zip(sizes, few, counts, strict=True)
    ]
    rows = torch.tensor(facts, dtype=torch.int32, device=DEVICE)
    order = torch.nn.utils.rnn.pad_sequence(orders, batch_first=True)
    found = greedy.varied(squares(parts), order, rows, max(counts))
    for row, part, dealt, first, count in zip(found, parts, orders, few, counts, strict=True):
        left = method._varied(part.cpu(), dealt[first:].cpu(), count - first)
        assert row[:count].tolist() == [*dealt[:first].tolist(), *left.tolist()]


@pytest.mark.parametrize("length", [1, 2, 7, 9, 41])
def test_similarities_of_all_pairs_are_those_of_the_whole_product(length: int) -> None:
    rows = unit(drawn(length, length, 5))
    torch.testing.assert_close(alike(rows), rows @ rows.T)


def view(sizes: list[int], dim: int = 16, device: str = DEVICE, signs: bool = False) -> ImageView:
    """An image of tiles of these sizes, their tokens dealt in turn as where tiles are packed side by side."""
    blocks = torch.cat([torch.full((size,), number) for number, size in enumerate(sizes)])
    places = torch.stack([blocks, torch.zeros_like(blocks), torch.arange(len(blocks))], 1)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(3))
    made = seen(5, len(places), dim)
    tower = Tower(*(part.to(device) for part in (made.shown.received, made.shown.single, made.shown.keys)))
    features = made.features.sign() if signs else made.features
    return ImageView(features.to(device), places[order].to(device), tower, made.features[:3].to(device) + 0.1)


def test_pools_are_held_in_parts_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooled, "MOST", 200)
    sizes = [3, 7, 10, 9, 1]
    pools = Pools.of(Seen(torch.randn(30, 2), None), list(torch.arange(30).split(sizes)))
    parts = list(parts_of(pools, [1, 2, 3, 4, 5]))
    assert [(part.sizes, budgets) for part, budgets in parts] == [((3, 7), [1, 2]), ((10, 9), [3, 4]), ((1,), [5])]
    assert torch.equal(torch.cat([part.numbers for part, _ in parts]), pools.numbers)
    assert all(part.tokens is pools.tokens for part, _ in parts)


@pytest.mark.parametrize("step", [1, 5, 40])
def test_likenesses_known_at_once_drop_what_those_of_every_round_drop(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = view([80], 16, "cpu", signs=True)
    tokens = Seen(shown.features, shown.tower)
    plain = VisPruner(step=step).choose(tokens, 13).kept.tolist()
    monkeypatch.setattr("effivlm.methods.vispruner.one_program", lambda _: True)
    monkeypatch.setattr("effivlm.methods.vispruner.closest", lambda *_: pytest.fail("compared anew"))
    assert VisPruner(step=step).choose(tokens, 13).kept.tolist() == plain


METHODS = [CdPruner, DivPrune, HoloV, PruMergePlain, PruMergePlus, VisionZip, VisPruner]


@KERNELS
@pytest.mark.parametrize("share", [Fraction(1, 10), Fraction(2, 5)])
@pytest.mark.parametrize("kind", METHODS)
def test_a_method_keeps_on_the_device_what_it_keeps_on_the_cpu(
    kind: type[PerImage], share: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, method = [33, 33, 20, 33], kind(keep=Budget(share))
    plain = method.select([view(sizes, device="cpu"), view([9, 8], device="cpu")], "s")
    if not HAVE_GPU:  # the interpreter's tensors lie on the CPU
        for name in ("cdpruner.fused", "vispruner.fused", "divprune.one_program"):
            monkeypatch.setattr(f"effivlm.methods.{name}", lambda _: True)
    ours = method.select([view(sizes), view([9, 8])], "s")
    for mine, theirs in zip(ours, plain, strict=True):
        assert mine.kept.tolist() == theirs.kept.tolist()
        assert (mine.features is None) == (theirs.features is None)
        if mine.features is not None and theirs.features is not None:
            torch.testing.assert_close(mine.features.cpu(), theirs.features, rtol=1e-4, atol=1e-5)


@GPU
@pytest.mark.parametrize("sizes", [[729] * 4 + [702] * 2, [2500]], ids=["tiles", "one"])
@pytest.mark.parametrize("kind", [CdPruner, DivPrune, VisPruner])
def test_of_a_large_image_the_device_keeps_what_the_cpu_keeps(kind: type[PerImage], sizes: list[int]) -> None:
    """The shapes of a large picture: pools of 729 tokens, and one of thousands."""
    method = kind(keep=Budget(Fraction(1, 10)))
    exact = kind is not CdPruner  # products of signs are exact on every device, and most of them ties
    plain, ours = (method.select([view(sizes, 64, device, exact)], "s")[0].kept for device in ("cpu", DEVICE))
    same = len(set(ours.tolist()) & set(plain.tolist()))
    assert len(ours) == len(plain)
    assert same >= (1 if exact else 0.98) * len(plain)  # rounding decides between tokens that are almost as far


@GPU
@pytest.mark.parametrize("length", [3, 50, 701])
def test_density_peaks_are_those_of_the_cpu_where_distances_are_kept(length: int) -> None:
    points = drawn(length, length, 24)
    points[length // 2] = points[0]
    ours, plain, twins = peaks(points, 4).cpu(), peaks(points.cpu(), 4), [0, length // 2]
    for found in (
        ours,
        plain,
    ):  # which of two equal points is the denser, rounding decides, and how far the other lies from it
        low, high = found[twins].sort().values
        assert low < high - 4
        found[twins] = high
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
