"""NaN and infinity, wherever they arise, break the answer and say where they were seen first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from forms import sample
from test_packed import GPU
from toy_task import Toy, cells

from effivlm.compression.base import CachePart, LayerView
from effivlm.decoding.caches import KeptLayer
from effivlm.decoding.eager import Start, agreements, greedy
from effivlm.decoding.engine import Captured, Eager
from effivlm.decoding.generation import sound, spoilt, told
from effivlm.methods.dense import Dense
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Outcome, Settings
from effivlm.run.faults import Ill
from effivlm.run.finite import NotFiniteError
from effivlm.run.group import open_model, run_group
from effivlm.run.tree import Tree

VALUES = (float("nan"), float("inf"), float("-inf"))


@contextmanager
def planted(weight: torch.Tensor, value: float, at: int = 0) -> Iterator[None]:
    """One entry of a weight replaced."""
    flat = weight.data.view(-1)
    before = flat[at].clone()
    flat[at] = value
    try:
        yield
    finally:
        flat[at] = before


def start_of(model: Adapter, form: str) -> Start:
    return Tree(model, sample(form), [Dense()]).leaf(Dense()).start


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_are_sound_only_if_all_are_finite(dtype: torch.dtype) -> None:
    logits = torch.linspace(-60000, 60000, 300, dtype=torch.float32).to(dtype).repeat(4, 2, 1)
    assert sound(logits).all()
    for row, value in enumerate(VALUES, start=1):
        logits[row, 1, 7 * row] = value
    assert sound(logits).tolist() == [[True, True], *[[True, False]] * 3]
    best = logits.nan_to_num(0, 0, 0).argmax(-1)
    marked = told(best, sound(logits)).tolist()
    assert [spoilt(row) for row in marked] == [None, 1, 1, 1]


@pytest.mark.parametrize("value", VALUES)
def test_a_first_token_says_where_its_prefill_was_not_finite(model: Adapter, value: float) -> None:
    layer = model.layers[2].self_attn.v_proj.weight  # type: ignore[union-attr]
    places = {
        "the logits of the prefill": model.head.weight,
        "the keys and values of decoder layer 2": layer,
    }
    with model.seams():
        for place, weight in places.items():
            with planted(weight, value), pytest.raises(NotFiniteError, match=place):  # type: ignore[arg-type]
                start_of(model, "text")


def test_a_tower_and_a_projector_that_are_not_finite_are_named_for_every_cell(model: Adapter, toy_task: Toy) -> None:
    toy_task.forms = ("text", "one")
    vision = getattr(model.model.model, "visual", None) or model.model.model.vision_tower
    projector = getattr(model.model.model, "multi_modal_projector", None) or vision.merger
    for module in (vision, projector):
        weight = [parameter for parameter in module.parameters() if parameter.dim() > 1][-1]
        with planted(weight, float("nan")):
            found = run_group(cells(methods=["snapkv", "fastv"], keeps=("0.30",)), model, Settings(share=True))
        ran = [one for one in found if one.status != "unsupported"]
        assert {"dense", "snapkv"} <= {one.cell.method for one in ran}
        for one in ran:
            by_id = {answer.id: answer for answer in one.answers}
            assert by_id["one-1"].score is None
            assert "first seen in the visual features of image 1 of 1" in by_id["one-1"].error
            assert by_id["text-0"].score is not None, "a question without a picture does not suffer"


def spoiled(start: Start, layer: int, value: float) -> Start:
    kept = list(start.cache)
    values = kept[layer].values.clone()
    values[0, 1, 0] = value
    kept[layer] = KeptLayer(kept[layer].keys, values)
    return Start(kept, start.token, start.position)


@pytest.mark.parametrize("engine", [Eager, Captured])
@pytest.mark.parametrize("value", VALUES[:2])
def test_a_cache_that_is_not_finite_ends_its_row_and_no_other(model: Adapter, engine: type, value: float) -> None:
    with model.seams():
        good = start_of(model, "one")
        bad = spoiled(good, 3, value)
        expected = greedy(model.step, [good], 6, (), model.device)[0]
        decoder = engine(model.step, model.device)
        said = decoder.greedy([good, bad, good], 6, ())
        assert said[0] == said[2] == expected
        assert (len(said[1]), spoilt(said[1])) == (2, 1)
        shares = agreements(decoder.chosen, [good, bad], [expected, said[1]], expected, 6, ())
        assert shares == [1.0, None]
        lone, _ = decoder.followed([bad], 6, (), None)
        assert spoilt(lone[0]) == 1


@pytest.mark.parametrize("engine", [Eager, Captured])
def test_the_step_that_was_not_finite_is_the_one_that_is_told(model: Adapter, engine: type) -> None:
    """A head that breaks once a row has come to a certain position."""

    def step(tokens: torch.Tensor, positions: torch.Tensor, cache: object) -> torch.Tensor:
        logits = model.step(tokens, positions, cache)  # type: ignore[arg-type]
        late = positions >= start.position + 4
        return torch.where(late[..., None] & (torch.arange(logits.shape[-1]) == 9), float("-inf"), logits)

    with model.seams():
        start = start_of(model, "text")
        expected = greedy(model.step, [start], 9, (), model.device)[0]
        for rows in (1, 3):
            said = engine(step, model.device).greedy([start] * rows, 9, ())
            assert [row[:5] for row in said] == [expected[:5]] * rows
            assert [spoilt(row) for row in said] == [5] * rows


def test_an_answer_that_broke_on_its_way_is_counted_and_named(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_task.forms = ("text", "one")
    stock = Tree.unsure_leaf

    def leaf(self: Tree, method: object) -> object:
        found, doubts = stock(self, method)  # type: ignore[arg-type]
        if type(method).__name__ != "SnapKv" or self.sample.id != "one-1":
            return found, doubts
        cache = spoiled(Start(found.cache, 0, 0), 1, float("nan")).cache
        return type(found)(**{name: getattr(found, name) for name in found.__slots__} | {"cache": cache}), doubts

    monkeypatch.setattr(Tree, "unsure_leaf", leaf)
    dense, snapkv = run_group(cells(methods=["snapkv"], keeps=("0.30",)), model, Settings())[:2]
    assert [answer.error for answer in dense.answers] == ["", ""]
    broken = snapkv.answers[1]
    assert broken.score is None
    assert broken.error == "NotFiniteError: NaN or infinity, first seen in the logits of decoding step 1"
    assert (snapkv.n, snapkv.broken) == (1, 1)
    assert isinstance(Outcome.from_json(snapkv.to_json()), Outcome)


@dataclass(frozen=True, kw_only=True)
class Nothing(CachePart):
    """Keeps no entry, as by a threshold that NaN is never above."""

    def select(self, view: LayerView, budget: int, sample_id: str) -> torch.Tensor:
        return torch.zeros(len(view.keys), 0, dtype=torch.long)


def test_a_method_that_keeps_nothing_is_told_so_unless_there_was_nothing_to_compare(model: Adapter) -> None:
    method = Nothing(keep=Budget.parse("0.5"))
    with model.seams():
        with pytest.raises(Ill, match="no entry of the prompt stays in any layer"):
            Tree(model, sample("text"), [method]).leaf(method)
        with planted(model.head.weight, float("nan")), pytest.raises(NotFiniteError, match="logits of the prefill"):  # type: ignore[arg-type]
            Tree(model, sample("text"), [method]).leaf(method)


@GPU
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_captured_steps_tell_on_a_gpu_what_was_not_finite(dtype: str) -> None:
    model = open_model(resolve("micro_llava_onevision"), Settings(device="cuda", dtype=dtype))
    try:
        with model.seams():
            good = start_of(model, "one")
            bad = spoiled(good, 1, float("nan"))
            engine = Captured(model.step, model.device)
            said = engine.greedy([good, bad, good], 8, ())
            assert [spoilt(row) for row in said] == [None, 1, None]
            assert said[0] == said[2]
            with planted(model.head.weight, float("inf")), pytest.raises(NotFiniteError, match="logits of the prefill"):  # type: ignore[arg-type]
                start_of(model, "text")
            assert [spoilt(row) for row in engine.greedy([good, good, good], 8, ())] == [None] * 3
    finally:
        model.close()
