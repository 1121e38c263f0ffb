"""Between a prefill and the first look at its token nothing waits for the device, which meanwhile has the prefill to do."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from claims import HOST, claimed, spread
from forms import sample
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from toy_task import cells

from effivlm import registry
from effivlm.compression.base import CachePart, LayerPart, LayerView, Selection, Stage
from effivlm.methods.dense import Dense
from effivlm.methods.pyramiddrop import PyramidDrop
from effivlm.methods.vl_cache import VlCache
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Settings
from effivlm.run.group import run_group
from effivlm.run.prefill import Choices
from effivlm.run.tree import Tree
from effivlm.run.views import Views
from effivlm.seams.meters import untimed

COPIES = ("cpu", "numpy", "tolist")
"""What fetches entries without an operator of its own, on a CPU."""
ATEN = torch.ops.aten
LOOKS = {
    ATEN._local_scalar_dense,  # item(), and all that makes a number of a tensor: bool(), int(), a slice, range()
    ATEN._unique2,
    ATEN.allclose,
    ATEN.bincount,
    ATEN.equal,
    ATEN.masked_select,
    ATEN.nonzero,
    ATEN.unique_consecutive,
    ATEN.unique_dim,
    ATEN.unique_dim_consecutive,
}
PLACES = {ATEN.index, ATEN.index_put, ATEN.index_put_, ATEN._unsafe_index}


def waits(func: Any, args: Sequence[Any], named: dict[str, Any]) -> bool:
    """Whether an operator on a device has to know entries, or how many there are, before it can go on."""
    kind = func.overloadpacket
    if kind is ATEN.repeat_interleave:
        return named.get("output_size") is None
    if kind in PLACES:
        marks = any(isinstance(at, Tensor) and at.dtype in (torch.bool, torch.uint8) for at in args[1])
        return marks and (len(args) < 3 or args[2].numel() != 1)  # one number is written by a mask as it is
    return kind in LOOKS


class Waits(TorchDispatchMode):
    """Where the values of tensors are read, from the end of the second sample's first prefill to its first token, other
    prefills apart: who prunes inside them has to look.

    Of the first sample methods are looked at entry by entry, whether they change what they share.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.found: list[str] = []
        self.noting = self.done = False
        self.samples: list[str] = []
        for name in COPIES:
            monkeypatch.setattr(Tensor, name, self._noted(getattr(Tensor, name), name))
        monkeypatch.setattr(Tree, "_prefill", self._from(Tree._prefill))
        monkeypatch.setattr(Tree, "begun", self._until(Tree.begun))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.noting and waits(func, args, kwargs or {}):
            self._note(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))

    def _note(self, name: str) -> None:
        with self._apart():
            calls = [one for one in traceback.extract_stack()[:-2] if "torch" not in one.filename]
        self.found.append(f"{name} in {[(one.name, one.lineno) for one in calls[-3:]]}")

    def _noted(self, stock: Callable[..., Any], name: str) -> Callable[..., Any]:
        def looked(tensor: Tensor, *given: Any, **named: Any) -> Any:
            if self.noting:
                self._note(name)
            return stock(tensor, *given, **named)

        return looked

    @contextmanager
    def _apart(self) -> Iterator[None]:
        self.noting = False
        yield
        self.noting = True

    def _from(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def prefilled(tree: Tree, *given: Any) -> Any:
            self.noting = False
            found = stock(tree, *given)
            self.samples = list(dict.fromkeys([*self.samples, tree.sample.id]))
            self.noting = len(self.samples) == 2
            return found

        return prefilled

    def _until(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        def begun(tree: Tree, *given: Any) -> Any:
            self.done |= self.noting
            self.noting = False
            return stock(tree, *given)

        return begun


def _asked(model: Adapter, monkeypatch: pytest.MonkeyPatch, method: str) -> list[str]:
    with Waits(monkeypatch) as waits:
        outcomes = run_group(cells(methods=[method], keeps=("0.30", "0.60")), model, Settings(limit=2))
    assert "ok" in {one.status for one in outcomes[1:] or outcomes}
    assert waits.done
    return waits.found


def _methods(waiting: bool) -> list[str]:
    """Methods that ship and work in the decoder, or behind it, by what they declare."""
    kinds = {name: registry.load("methods", name) for name in registry.names("methods")}
    those = {name: kind for name, kind in kinds.items() if issubclass(kind, CachePart | LayerPart)}
    return [
        name
        for name, kind in those.items()
        if waiting is (issubclass(kind, CachePart) and kind(keep=Budget.parse("0.30")).waits)
    ]


@pytest.mark.parametrize("method", [*_methods(waiting=False), "dense"])
@pytest.mark.usefixtures("toy_task")
def test_a_cell_is_asked_for_while_the_prefill_runs(
    method: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _asked(model, monkeypatch, method) == []


@pytest.mark.parametrize("method", _methods(waiting=True))
@pytest.mark.usefixtures("toy_task")
def test_a_budget_that_depends_on_the_prefill_waits_for_it(
    method: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _asked(model, monkeypatch, method), "else the test above could not fail"


@pytest.mark.usefixtures("toy_task")
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


PLANTED: dict[str, Callable[[Tensor], Any]] = {
    "an if": lambda marks: 1 if marks.any() else 0,
    "iteration": lambda marks: [1 for one in marks if one],
    "membership": lambda marks: True in marks,
    "range": lambda marks: range(marks.sum()),  # type: ignore[call-overload]
    "slice": lambda marks: marks[: marks.sum()],  # type: ignore[misc]
    "place": lambda marks: marks[marks.long().argmax()],
    "float": lambda marks: float(marks.sum()),
    "list": lambda marks: marks.tolist(),
    "array": lambda marks: np.asarray(marks),
    "copy": lambda marks: marks.cpu(),
    "equal": lambda marks: torch.equal(marks, ~marks),
    "allclose": lambda marks: torch.allclose(marks.float(), marks.float()),
    "marked": lambda marks: marks[marks],
    "written": lambda marks: marks.long().index_put_((marks,), torch.arange(2)),
    "where": lambda marks: torch.where(marks),
    "selected": lambda marks: marks.masked_select(marks),
    "unique": lambda marks: marks.unique(),
    "repeated": lambda marks: torch.repeat_interleave(marks.long()),
}
FREE: dict[str, Callable[[Tensor], Any]] = {
    "one number by a mask": lambda marks: marks.long().__setitem__(marks, 1),
    "a known size": lambda marks: torch.repeat_interleave(marks.long(), output_size=2),
    "places": lambda marks: marks[torch.tensor([0, 2])],
    "parts": lambda marks: list(marks),
}


@pytest.mark.parametrize(("name", "waiting"), [*((name, True) for name in PLANTED), *((name, False) for name in FREE)])
def test_every_kind_of_wait_is_seen_and_no_other_work(
    name: str, waiting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Waits(monkeypatch) as waits:
        marks = torch.tensor([True, False, True])
        waits.noting = True
        (PLANTED | FREE)[name](marks)
    assert bool(waits.found) is waiting, waits.found


@dataclass(frozen=True, kw_only=True)
class Looking(CachePart):
    """Reads what the prefill is still at."""

    plant: ClassVar[Callable[[Tensor], Any]]

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        type(self).plant(view.visual)
        return torch.arange(budget).expand(len(view.keys), -1)


@pytest.mark.parametrize("name", ["an if", "iteration", "equal", "list"])
@pytest.mark.usefixtures("toy_task")
def test_a_method_that_waits_is_seen(name: str, model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    load, looking = registry.load, type("Looks", (Looking,), {"plant": staticmethod(PLANTED[name])})
    monkeypatch.setattr(registry, "load", lambda what, name: looking if name == "tova" else load(what, name))
    assert any("select" in one for one in _asked(model, monkeypatch, "tova"))


class Reads(TorchFunctionMode):
    """What is fetched from a device that tensors claim to lie on."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        fetches = {*COPIES, "__bool__", "__index__", "__int__", "item", "nonzero"}
        if name in fetches and any(isinstance(one, Tensor) and claimed(one) != HOST for one in args):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_marks_are_fetched_once_for_all_who_ask_before_a_prefill(model: Adapter) -> None:
    """Observers that count the question's rows, and methods that prune on the way; none gets what another may change."""
    observers = [VlCache(keep=Budget.parse(keep)) for keep in ("0.3", "0.6")]
    with model.seams(), spread(model, 0.8):
        inputs = model.prepare(sample("one"))
        prompt = model.prompt(inputs, model.encode(inputs).to(model.device))
        with Reads() as reads:
            views = Views(model, prompt, observers, untimed, True)
            for keep in ("0.3", "0.6"):
                choices = Choices(PyramidDrop(keep=Budget.parse(keep)), prompt, 4, model.text.norm, "one-0")
                assert len(choices.budgets) == len(choices.stages)
        assert reads.found == ["cpu"]
    assert views.rows == views.question == prompt.length - 1 - int(prompt.visual.nonzero()[-1])


@dataclass(frozen=True, kw_only=True)
class Turning(LayerPart):
    """Changes the marks that it is asked with."""

    def stages(self, depth: int) -> tuple[int, ...]:
        return (1,)

    def rows(self, visual: Tensor) -> int:
        visual.logical_not_()
        return 1

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        return Selection(stage.visual.nonzero()[:budget, 0])


def test_marks_that_a_method_changes_are_its_own(model: Adapter) -> None:
    turning, dense = Turning(keep=Budget.parse("0.5")), Dense()
    with model.seams():
        tree = Tree(model, sample("one"), [turning, dense])
        leaf = tree.leaf(turning)
        prompt = tree.prompt((None, None))
        assert torch.equal(prompt.marks, prompt.visual)
        assert leaf.kept == turning.keep.of(leaf.of)
        assert leaf.cache[-1].kept == leaf.length - leaf.of + leaf.kept
        assert tree.leaf(dense).kept == tree.leaf(dense).of == leaf.of
