"""A method that changes in place what cells share fails by name; all others answer as if it had not been there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
import twins
from PIL.Image import Image
from toy_task import Toy, cells

from effivlm import registry
from effivlm.compression.base import CachePart, ImagePart, ImageView, LayerPart, LayerView, Selection, Stage, VisualPart
from effivlm.decoding.caches import KeptLayer
from effivlm.methods.snapkv import SnapKv
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Outcome, Settings
from effivlm.run.group import open_model, run_group
from effivlm.run.untouched import Blamed, tracked, untouched

ASKED = cells(methods=["dense", "snapkv", "h2o", "fastv", "visionzip"], keeps=("0.30",))
PLANTED = replace(ASKED[1], method="tova", preset="paper", keep="0.30")


@pytest.fixture(scope="module", params=["llava_onevision", "qwen2_vl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build(request.param, tmp_path_factory.mktemp("untouched"))
    return open_model(resolve(f"twin={folder}"), Settings())


def change(tensor: torch.Tensor) -> None:
    """As it happens by accident: float() of float32 is no copy."""
    tensor.float().mul_(3).add_(1)


@dataclass(frozen=True, kw_only=True)
class Cache(CachePart):
    what: ClassVar[Callable[[LayerView], torch.Tensor]]
    hook: ClassVar[str] = "select"
    columns: ClassVar[bool] = True

    def rows(self, visual: torch.Tensor) -> int:
        if self.hook == "rows":
            visual.logical_not_()
        return 4

    def look(self, view: LayerView) -> None:
        if self.hook == "look" and view.layer == 1:
            change(type(self).what(view))

    def select(self, view: LayerView, budget: int, sample_id: str) -> torch.Tensor:
        if self.hook == "select" and view.layer == 1:
            change(type(self).what(view))
        return torch.arange(budget).expand(len(view.keys), -1)


@dataclass(frozen=True, kw_only=True)
class Layer(LayerPart):
    what: ClassVar[Callable[[Stage], torch.Tensor]]

    def stages(self, depth: int) -> tuple[int, ...]:
        return (1,)

    def rows(self, visual: torch.Tensor) -> int:
        return 1

    def select(self, stage: Stage, budget: int, sample_id: str) -> Selection:
        change(type(self).what(stage))
        return Selection(stage.visual.nonzero()[:budget, 0])


@dataclass(frozen=True, kw_only=True)
class Visual(VisualPart):
    what: ClassVar[Callable[[ImageView], torch.Tensor]]
    looks: ClassVar[bool] = True

    def select(self, views: Sequence[ImageView], sample_id: str) -> list[Selection]:
        change(type(self).what(views[0]))
        return [Selection(view.real[:share]) for view, share in zip(views, self.shares(views), strict=True)]


CASES: list[tuple[type, dict[str, Any], str]] = [
    (Cache, {"what": lambda view: view.keys}, "views[1].keys"),
    (Cache, {"what": lambda view: view.values[0]}, "views[1].values"),
    (Cache, {"what": lambda view: view.queries}, "views[1].queries"),
    (Cache, {"what": lambda view: view.received}, "views[1].received"),
    (Cache, {"what": lambda view: view.keys, "hook": "look"}, "view.keys"),
    (Cache, {"what": lambda view: view.keys, "hook": "rows"}, "visual"),
    (Layer, {"what": lambda stage: stage.embeds}, "stage.embeds"),
    (Layer, {"what": lambda stage: stage.before.keys}, "stage.before.keys"),
    (Visual, {"what": lambda view: view.features}, "views[0].features"),
    (Visual, {"what": lambda view: view.tower.keys}, "views[0].tower.keys"),
]


def exchanged(array: Any) -> None:
    """Two rows change places: what all entries add up to stays as it was."""
    array[:, [0, 1]] = array[:, [1, 0]]


UNSEEN: list[tuple[type, Callable[[Any], None], str]] = [
    (Cache, lambda view: view.keys.data.mul_(3), "views[1].keys"),
    (Cache, lambda view: view.values.numpy().fill(0), "views[1].values"),
    (Cache, lambda view: exchanged(view.values.numpy()), "views[1].values"),
    (Layer, lambda stage: stage.hidden.data.zero_(), "stage.hidden"),
    (Visual, lambda view: view.places.numpy().fill(-1), "views[0].places"),
]


def planted(monkeypatch: pytest.MonkeyPatch, bad: type) -> None:
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda what, name: bad if name == "tova" else load(what, name))


def alone(outcomes: Sequence[Outcome]) -> Outcome:
    return next(one for one in outcomes if one.cell == PLANTED)


@pytest.mark.parametrize(
    ("base", "facts", "named"), CASES, ids=[f"{case[2]}-{case[1].get('hook', '')}" for case in CASES]
)
@pytest.mark.usefixtures("toy_task")
def test_who_changes_what_is_shared_fails_by_name_and_nobody_else_notices(
    base: type, facts: dict[str, Any], named: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = run_group(ASKED, model, Settings(limit=3))
    planted(monkeypatch, type("Meddler", (base,), facts))
    found = run_group([ASKED[0], PLANTED, *ASKED[1:]], model, Settings(limit=3))
    assert [one for one in found if one.cell != PLANTED] == right
    assert alone(found).status == "failed"
    assert alone(found).reason.startswith(f"Meddler changed {named} in place, which other cells share")


@pytest.mark.parametrize(("base", "write", "named"), UNSEEN)
@pytest.mark.usefixtures("toy_task")
def test_what_no_counter_sees_is_seen_the_first_time_that_a_method_works(
    base: type, write: Callable[[Any], None], named: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def what(seen: Any) -> torch.Tensor:
        write(seen)
        return torch.zeros(1)

    right = run_group(ASKED, model, Settings(limit=2))
    planted(monkeypatch, type("Meddler", (base,), {"what": staticmethod(what)}))
    found = run_group([ASKED[0], PLANTED, *ASKED[1:]], model, Settings(limit=2))
    assert [one for one in found if one.cell != PLANTED] == right
    assert alone(found).reason.startswith(f"Meddler changed {named} in place, which other cells share")


def test_a_change_is_told_by_the_name_of_a_view_and_not_by_that_of_what_it_remembers() -> None:
    keys = [torch.ones(1, 2, 2), torch.ones(1, 2, 2)]
    marks = torch.ones(2, dtype=torch.bool)
    views = [LayerView(keys[0][:, :0], each, each.clone(), marks, number) for number, each in enumerate(keys)]
    views[0].found["keys", id(keys)] = (keys, torch.ones(3))
    part = type("Meddler", (Cache,), {})()

    def meddle() -> None:
        with tracked(), untouched(part, views=views):
            keys[1].zero_()
            views[0].found["keys", id(keys)][1].zero_()

    with pytest.raises(Blamed, match=r"^Meddler changed views\[0\]\.found, views\[1\]\.keys in place"):
        meddle()


@pytest.mark.usefixtures("toy_task")
def test_who_copies_before_changing_is_left_alone(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, type("Copier", (Cache,), {"what": lambda view: view.keys.clone()}))
    assert alone(run_group([ASKED[0], PLANTED], model, Settings(limit=2))).status == "ok"


def test_a_method_gets_pictures_of_its_own(model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shrinker(ImagePart):
        def shrink(self, images: Sequence[Image], count: Callable[[Sequence[Image]], int]) -> list[Image]:
            for image in images:
                image.thumbnail((32, 32))
            return list(images)

    samples = toy_task.samples(3, 0)
    toy_task.samples = lambda limit, seed: samples  # type: ignore[method-assign]
    right = run_group(ASKED, model, Settings())
    planted(monkeypatch, dataclass(frozen=True, kw_only=True)(Shrinker))
    assert [one for one in run_group([PLANTED, *ASKED], model, Settings()) if one.cell != PLANTED] == right


def test_what_was_changed_and_taken_away_is_told_too() -> None:
    keys, marks = torch.ones(1, 2, 2), torch.ones(2, dtype=torch.bool)
    view = LayerView(keys[:, :0], keys, keys.clone(), marks, 0)
    view.found["sums"] = torch.ones(3)
    part = type("Meddler", (Cache,), {})()

    def meddle() -> None:
        with tracked(), untouched(part, views=[view]):
            view.found["sums"].zero_()
            del view.found["sums"]

    with pytest.raises(Blamed, match=r"^Meddler changed what was computed before in place"):
        meddle()


@pytest.mark.parametrize("kind", [list, dict])
def test_what_holds_itself_is_told_and_not_followed_for_ever(kind: type) -> None:
    keys, marks = torch.ones(1, 2, 2), torch.ones(2, dtype=torch.bool)
    view = LayerView(keys[:, :0], keys, keys.clone(), marks, 0)
    loop: Any = kind()
    loop.append(loop) if kind is list else loop.update(own=loop)
    view.found["own"] = loop
    part = type("Meddler", (Cache,), {})()
    with tracked(), pytest.raises(RecursionError), untouched(part, views=[view]):
        pass


LEFT: dict[str, Callable[[list[KeptLayer]], list[KeptLayer]]] = {
    "a layer too few": lambda layers: layers[:-1],
    "lengths of more heads": lambda layers: [replace(one, lengths=(5,) * 3, indices=None) for one in layers],
    "lengths of no head": lambda layers: [replace(layers[0], lengths=()), *layers[1:]],
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.parametrize("place", [1, 3])
@pytest.mark.usefixtures("toy_task")
def test_a_cache_that_cannot_be_decoded_breaks_its_cell_and_nobody_else_notices(
    name: str, place: int, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Leaves(SnapKv):
        def compress(self, views: Sequence[LayerView], sample_id: str) -> list[KeptLayer]:
            return LEFT[name](super().compress(views, sample_id))

    right = run_group(ASKED, model, Settings(limit=3))
    planted(monkeypatch, Leaves)
    found = run_group([*ASKED[:place], PLANTED, *ASKED[place:]], model, Settings(limit=3))
    assert [one for one in found if one.cell != PLANTED] == right
    assert alone(found).reason.startswith("every sample broke; the first: ")
