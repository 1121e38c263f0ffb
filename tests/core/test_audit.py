"""A cell that kept other than what was asked fails, or is said to be impossible; rounding is forgiven and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
import twins
from forms import sample
from toy_task import Toy, cells

from effivlm import registry
from effivlm.compression.base import CachePart, ImageView, LayerView, Method, Selection, VisualPart
from effivlm.compression.composed import Composed
from effivlm.methods.fastv import FastV
from effivlm.methods.random_kv import RandomKv
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Cell, Outcome, Settings
from effivlm.run.audit import verdict
from effivlm.run.group import open_model, run_group
from effivlm.run.leaf import Leaf

DENSE, PLANTED = Cell("twin", "dense", "paper", "1.00", "toy"), Cell("twin", "tova", "paper", "0.40", "toy")
COMPOSED = replace(PLANTED, method="fastv:0.50+tova")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build("qwen2_vl", tmp_path_factory.mktemp("audit"))
    return open_model(resolve(f"twin={folder}"), Settings())


@dataclass(frozen=True, kw_only=True)
class Visual(VisualPart):
    """Keeps `times` what was asked, and `more`."""

    times: ClassVar[float] = 1.0
    more: ClassVar[int] = 0

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        asked = (max(1, round(self.times * share) + self.more) for share in self.shares(views))
        shares = [min(len(view.real), share) for view, share in zip(views, asked, strict=True)]
        return [Selection(view.real[:share]) for view, share in zip(views, shares, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Cache(CachePart):
    times: ClassVar[float] = 1.0

    def select(self, view: LayerView, budget: int, sample_id: str) -> torch.Tensor:
        return torch.arange(min(view.length, round(self.times * budget))).expand(len(view.keys), -1)


def run(model: Adapter, monkeypatch: pytest.MonkeyPatch, kind: type, facts: dict[str, Any], cell: Cell) -> Outcome:
    load = registry.load
    planted = type("Planted", (kind,), facts)
    monkeypatch.setattr(registry, "load", lambda what, name: planted if name == "tova" else load(what, name))
    return run_group([DENSE, cell], model, Settings(limit=4))[-1]


CASES = [
    (Visual, {}, PLANTED, "ok", ""),
    (Visual, {"more": 1}, PLANTED, "failed", "visual tokens"),  # two images: two more in that sample
    (Visual, {"times": 2.0}, PLANTED, "failed", "visual tokens (0.792)"),
    (Visual, {"times": 9.0}, PLANTED, "failed", "visual tokens (1) where 0.40 was asked: off by more than rounding in 3 of 4"),
    (Visual, {"times": 0.2}, PLANTED, "failed", "where 0.40 was asked"),
    (Visual, {"times": 0.2, "allowance": lambda self, units: (math.inf, units)}, PLANTED, "ok", ""),
    (Visual, {"times": 2.0, "allowance": lambda self, units: (math.inf, units)}, PLANTED, "failed", "visual tokens"),
    (Visual, {}, replace(PLANTED, keep="0.000000001"), "unsupported", "keep 1e-09 of "),
    (Cache, {}, PLANTED, "ok", ""),
    (Cache, {"times": 2.0}, PLANTED, "failed", "prompt entries (0.79)"),
    (Cache, {"times": 9.0}, PLANTED, "failed", "prompt entries (1) where 0.40 was asked: off by more than rounding in 4 of 4"),
    (Cache, {"times": 9.0}, replace(PLANTED, keep="1.00"), "ok", ""),
    (Cache, {}, replace(PLANTED, keep="0.000000001"), "unsupported", "prompt entries is less than half of one"),
    (Cache, {}, COMPOSED, "ok", ""),
    (Cache, {"times": 2.0}, COMPOSED, "failed", "tova: kept "),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "facts", "asked", "status", "reason"), CASES)
@pytest.mark.usefixtures("toy_task")
def test_what_was_kept_decides_whether_a_cell_stands(
    kind: type,
    facts: dict[str, Any],
    asked: Cell,
    status: str,
    reason: str,
    model: Adapter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = run(model, monkeypatch, kind, facts, asked)
    assert (one.status, bool(one.reason)) == (status, status != "ok")
    assert reason in one.reason
    assert one.achieved is not None, "what was kept is told in any case"
    assert (one.score is None) == (status != "ok")


def test_a_task_without_pictures_gives_visual_methods_nothing_to_keep(model: Adapter, toy_task: Toy) -> None:
    toy_task.forms = ("text",)
    asked = cells(methods=["dense", "fastv", "downsample", "snapkv"], keeps=("0.40", "1.00"))
    for one in run_group(asked, model, Settings()):
        visual = one.cell.method in ("fastv", "downsample") and one.cell.keep == "0.40"
        assert one.status == ("unsupported" if visual else "ok")
        if visual:
            assert one.reason == "no sample of the task has visual tokens, so there is nothing to keep 0.40 of"


def leaf(*shares: tuple[int, int], layers: int = 4) -> Leaf:
    return Leaf((), 0, 0, 0, 0, 0, 0, 0, shares, ((0.0,) * layers, 0))


@pytest.mark.parametrize(
    ("method", "leaves", "status"),
    [
        (FastV(keep=Budget.parse("0.05")), [leaf((1, 9)), leaf((2, 30))], "ok"),  # 0.45 of one sample alone is a floor
        (FastV(keep=Budget.parse("0.05")), [leaf((1, 9)), leaf((1, 9))], "unsupported"),
        (FastV(keep=Budget.parse("0.05")), [leaf((1, 9)), leaf((0, 9))], "ok"),  # one of 0.9 in all
        (FastV(keep=Budget.parse("0.40")), [leaf((40, 100)), leaf((41, 100))], "ok"),
        (FastV(keep=Budget.parse("0.40")), [leaf((40, 100)), leaf((42, 100))], "failed"),
        (FastV(keep=Budget.parse("0.40")), [leaf((40, 100)), leaf((38, 100))], "failed"),
        (FastV(keep=Budget.parse("0.40")), [leaf((0, 0)), leaf((40, 100))], "ok"),
        (RandomKv(keep=Budget.parse("0.40")), [leaf((164, 400))], "ok"),
        (RandomKv(keep=Budget.parse("0.40")), [leaf((165, 400))], "failed"),
        (RandomKv(keep=Budget.parse("0.40")), [leaf((165, 400), layers=5)], "ok"),
    ],
)
def test_rounding_is_one_token_a_sample_and_one_entry_a_layer(method: Method, leaves: list[Leaf], status: str) -> None:
    name = "fastv" if isinstance(method, FastV) else "random_kv"
    assert verdict(replace(PLANTED, method=name), method, leaves)[0] == status


def test_every_part_of_a_composition_is_looked_at() -> None:
    keep = Budget.parse("0.40")
    method = Composed(keep=keep, methods=(FastV(keep=Budget.parse("0.5")), RandomKv(keep=keep)))
    cell = replace(PLANTED, method="fastv:0.50+random_kv")
    assert verdict(cell, method, [leaf((50, 100), (40, 100))]) == ("ok", "")
    assert verdict(cell, method, [leaf((60, 100), (40, 100))])[1].startswith(
        "fastv: kept 60 of 100 visual tokens (0.6)"
    )
    assert verdict(cell, method, [leaf((50, 100), (90, 100))])[1].startswith("random_kv: kept 90 of 100 prompt entries")


def test_a_sample_whose_picture_is_a_few_tokens_is_rounded_like_any_other(model: Adapter, toy_task: Toy) -> None:
    toy_task.samples = lambda limit, seed: [sample("one", number) for number in range(3)]  # type: ignore[method-assign]
    (_, one) = run_group([DENSE, replace(PLANTED, method="random_visual", keep="0.05")], model, Settings())
    assert one.status == "ok"
