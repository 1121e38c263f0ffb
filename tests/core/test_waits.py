"""Between a prefill and the first look at its token nothing waits for the device, which meanwhile has the prefill to do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor
from toy_task import cells

from effivlm import registry
from effivlm.compression.base import CachePart
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Settings
from effivlm.run.group import run_group
from effivlm.run.tree import Tree

LOOKS = ("__bool__", "__float__", "__index__", "__int__", "cpu", "item", "nonzero", "numpy", "tolist")
pytestmark = pytest.mark.usefixtures("toy_task")


class Waits:
    """Where the values of tensors are read, from the end of a sample's first prefill to its first token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[str] = []
        self.noting = self.done = False
        for name in LOOKS:
            monkeypatch.setattr(Tensor, name, self._noted(getattr(Tensor, name), name))
        monkeypatch.setattr(Tree, "_prefill", self._from(Tree._prefill))
        monkeypatch.setattr(Tree, "begun", self._until(Tree.begun))

    def _noted(self, stock: Callable[..., Any], name: str) -> Callable[..., Any]:
        def looked(tensor: Tensor, *given: Any, **named: Any) -> Any:
            if self.noting:
                with self._apart():
                    at = [one for one in traceback.extract_stack() if "effivlm" in one.filename][-2:]
                self.found.append(f"{name} in {[(one.name, one.lineno) for one in at]}")
            return stock(tensor, *given, **named)

        return looked

    @contextmanager
    def _apart(self) -> Iterator[None]:
        self.noting = False
        yield
        self.noting = True

    def _from(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def prefilled(tree: Tree, *given: Any) -> Any:
            found = stock(tree, *given)
            self.noting = True
            return found

        return prefilled

    def _until(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def begun(tree: Tree, *given: Any) -> Any:
            self.noting, self.done = False, True
            return stock(tree, *given)

        return begun


def _asked(model: Adapter, waits: Waits, method: str) -> list[str]:
    outcome = run_group(cells(methods=[method], keeps=("0.30", "0.60")), model, Settings(limit=2))[-1]
    assert outcome.status == "ok"
    assert waits.done
    return waits.found


def _methods(waiting: bool) -> list[str]:
    """Cache methods that ship, by what they declare."""
    kinds = {name: registry.load("methods", name) for name in registry.names("methods")}
    return [
        name
        for name, kind in kinds.items()
        if issubclass(kind, CachePart) and kind(keep=Budget.parse("0.30")).waits is waiting
    ]


@pytest.mark.parametrize("method", [*_methods(waiting=False), "dense"])
def test_a_cell_is_asked_for_while_the_prefill_runs(
    method: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _asked(model, Waits(monkeypatch), method) == []


@pytest.mark.parametrize("method", _methods(waiting=True))
def test_a_budget_that_depends_on_the_prefill_waits_for_it(
    method: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _asked(model, Waits(monkeypatch), method), "else the test above could not fail"


def test_cells_that_wait_come_after_those_that_do_not(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    grown, stock = [], Tree.unsure_leaf

    def noted(tree: Tree, method: Any) -> Any:
        grown.append(type(method).__name__)
        return stock(tree, method)

    monkeypatch.setattr(Tree, "unsure_leaf", noted)
    asked = cells(methods=["vl_cache", "adakv", "snapkv", "cake", "h2o"], keeps=("0.30",))
    found = dict.fromkeys(one.cell.method for one in run_group(asked, model, Settings(limit=1)))
    assert list(dict.fromkeys(grown)) == ["Dense", "SnapKv", "H2o", "VlCache", "AdaKv", "Cake"]
    assert list(found) == ["dense", "vl_cache", "adakv", "snapkv", "cake", "h2o"], (
        "outcomes come as they were asked for"
    )


def test_where_a_model_stands_is_known_without_looking_through_its_weights(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def walked() -> None:
        raise AssertionError("every cell asks, and a large model has hundreds of weights")

    monkeypatch.setattr(model.model, "parameters", walked)
    assert (model.devices, model.spread) == ((model.device,), False)
