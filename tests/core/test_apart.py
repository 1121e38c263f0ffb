"""Models whose layers stand on several devices: every method answers as it does over one, and no operator mixes devices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers.integrations.accelerate as placing
import twins
from claims import HOST, Claims, halves, spread
from toy_task import Toy, cells

from effivlm.methods.rtn import Rtn
from effivlm.models import _adapter, _compressed, _shapes
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource, resolve, shape
from effivlm.models._spreading import over_all
from effivlm.models._torchvision import ensure_torchvision
from effivlm.records import Budget, Cell, Outcome, Settings, Unsupported
from effivlm.run.group import open_model, run_group
from effivlm.run.steps import asked
from effivlm.timing.timing import prepare_timing
from effivlm.weights.journal import Journal
from effivlm.weights.making import Maker
from effivlm.weights.product import product

pytestmark = pytest.mark.usefixtures("toy_task")
CUTS = (0.8, 0.45)
"""Shares of a twin's bytes on the first device: the tower and some layers, or the tower without the embeddings."""
COMPOSED = (
    "fastv+snapkv",
    "visionzip+cake",
    "pyramiddrop+h2o",
    "sparsevlm@final+expected_attention",
    "downsample+fastv+adakv",
)
SOME = ("dense", "visionzip", "fastv", "sparsevlm", "snapkv", "cake", "h2o", "look_m", "expected_attention")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Accelerate warns of GPUs that are not there."""
    logger = logging.getLogger("accelerate")
    before = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(before)


def all_cells() -> list[Cell]:
    return [*cells(keeps=("0.30",)), *(Cell("twin", *asked(name), "0.30", "toy") for name in COMPOSED)]


def both(
    model: Adapter, those: Sequence[Cell], cut: float, settings: Settings, kind: str = "cpu"
) -> list[list[Outcome]]:
    """The outcomes of a group over one device, and over two."""
    plain = run_group(those, model, settings)
    with spread(model, cut, kind):
        assert model.spread
        return [plain, run_group(those, model, settings)]


@pytest.mark.parametrize("cut", CUTS)
def test_every_method_answers_over_two_devices_as_over_one(model: Adapter, toy_task: Toy, cut: float) -> None:
    toy_task.forms = ("one", "video", "text")
    plain, apart = both(model, all_cells(), cut, Settings())
    assert apart == plain
    assert {one.status for one in apart} <= {"ok", "unsupported"}
    assert sum(one.status == "ok" for one in apart) > len(apart) * 0.8
    assert len({str([answer.tokens for answer in one.answers]) for one in apart}) > len(apart) / 3


@pytest.mark.parametrize("kind", ["cpu", "privateuseone"])
def test_cells_alone_answer_over_two_devices_as_over_one(model: Adapter, toy_task: Toy, kind: str) -> None:
    """A device that is no CPU has samples processed ahead, and prefills pruned prompts whole."""
    toy_task.forms = ("two",)
    plain, apart = both(model, cells(keeps=("0.30",), methods=SOME), CUTS[0], Settings(share=False), kind)
    assert apart == plain


def test_newer_families_answer_over_two_devices_as_over_one(newer: Adapter, toy_task: Toy) -> None:
    toy_task.forms = ("one", "two")
    those = cells(keeps=("0.30",), methods=SOME)
    for cut in (0.8, 0.65):
        plain, apart = both(newer, those, cut, Settings())
        assert apart == plain


def test_rows_leave_a_batch_over_two_devices(model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that ended leave the batch, where what was said and the caches lie on different devices."""
    toy_task.forms = ("one", "two")
    monkeypatch.setattr(Toy, "max_new_tokens", 12)
    those = cells(keeps=("0.05",), methods=SOME)
    said = {token for one in run_group(those, model, Settings()) for answer in one.answers for token in answer.tokens}
    monkeypatch.setattr(model, "eos", model.eos | set(sorted(said)[::3]))
    plain, apart = both(those=those, model=model, cut=CUTS[0], settings=Settings())
    assert apart == plain
    assert len({len(answer.tokens) for one in apart for answer in one.answers}) > 3


def test_what_is_noted_for_the_viewer_is_the_same(model: Adapter, toy_task: Toy) -> None:
    toy_task.forms = ("one",)
    notes: list[list[dict[str, Any]]] = [[], []]
    those = cells(keeps=("0.30",), methods=SOME)
    run_group(those, model, Settings(), on_note=notes[0].append)
    with spread(model, CUTS[0]):
        run_group(those, model, Settings(), on_note=notes[1].append)
    assert notes[0] == notes[1] != []


def test_the_parts_of_a_timing_run_over_two_devices(model: Adapter, toy_task: Toy) -> None:
    toy_task.forms = ("one",)
    settings = Settings(batch=2)
    for cell in [Cell("twin", *asked(name), "0.30", "toy") for name in ("visionzip", "fastv", "cake", "fastv+h2o")]:
        with spread(model, CUTS[0]):
            timing = prepare_timing(cell, model, settings)
            assert timing.ttft() > 0
            assert timing.decode() > 0
            apart = [timing.outcome(part, [1.0]) for part in ("ttft", "decode")]
        plain = [prepare_timing(cell, model, settings).outcome(part, [1.0]) for part in ("ttft", "decode")]
        for one, other in zip(apart, plain, strict=True):
            assert (one.status, one.fingerprint, one.achieved) == (other.status, other.fingerprint, other.achieved)
            assert one.costs.keys() == other.costs.keys()
            assert one.status == "ok"
            same = ("kv_bytes", "weight_bytes", "prompt_tokens")
            assert [one.costs[name] for name in same] == [other.costs[name] for name in same]
            assert any("stands on 2 devices" in remark for remark in one.remarks)
            assert not any("stands on" in remark for remark in other.remarks)


def test_a_model_over_two_devices_is_not_compressed(twin: ModelSource, tmp_path: Path) -> None:
    model, method = open_model(twin, Settings()), Rtn(keep=Budget.parse("w4g32"))
    with spread(model, 0.8), pytest.raises(Unsupported, match="'twin' stands on 2 devices"):
        Maker(model, method, Path(twin.source), Journal(tmp_path / "work", {}), Settings(), None)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Two GPUs as far as accelerate asks, with so many bytes free on each, and the host's memory behind them."""

    def have(free: int) -> None:
        monkeypatch.setattr(placing, "get_max_memory", lambda known=None: known or {0: free, 1: free, "cpu": 1 << 40})

    return have


@pytest.mark.parametrize(
    "name", ["internvl2_5_38b", "llava_onevision_7b", "qwen2_vl_7b", "qwen3_vl_8b", "smolvlm2_2_2b"]
)
def test_the_tower_is_whole_and_stands_with_the_embeddings(name: str, two_cards: Callable[[int], None]) -> None:
    import transformers

    ensure_torchvision()
    facts = shape(name)
    config = _shapes._config(facts["config"], {})
    kind: Any = transformers.AutoModelForImageTextToText._model_mapping[type(config)]
    weights = 2 * facts["parameters"]
    two_cards(int(0.7 * weights))
    found = over_all(kind, config, torch.bfloat16)
    layers = [place for part, place in found.items() if ".layers." in part]
    assert layers == sorted(layers)
    assert abs(layers.count(0) - layers.count(1)) < 0.6 * len(layers)
    first = [part for part, place in found.items() if place == 0 and ".layers." not in part]
    assert any(part.endswith("embed_tokens") for part in first)
    tower = [part for part in found if "vision" in part or "visual" in part]
    assert len(tower) == 1
    assert tower[0] in first
    two_cards(int(0.4 * weights))
    with pytest.raises(ValueError, match="finds no room in what is free of all GPUs"):
        over_all(kind, config, torch.bfloat16)


@pytest.mark.parametrize("packed", [False, True])
def test_a_checkpoint_is_opened_over_two_devices(
    packed: bool, twin: ModelSource, tmp_path: Path, toy_task: Toy, monkeypatch: pytest.MonkeyPatch, own_products: None
) -> None:
    toy_task.forms = ("one", "video")
    source, those = twin, cells(keeps=("0.30",), methods=SOME)
    if packed:
        folder = product(twin, Rtn(keep=Budget.parse("w4g32")), Settings())
        source = replace(twin, source=str(folder))
    plain = run_group(those, open_model(source, Settings()), Settings())

    def halved(kind: Any, config: Any, dtype: torch.dtype) -> dict[str, torch.device]:
        with torch.device("meta"):
            model = kind._from_config(config, dtype=dtype)
        return {name: torch.device("cpu", number) for name, number in halves(model, CUTS[0]).items()}

    monkeypatch.setattr(_adapter, "_placement", lambda *given: "auto")
    monkeypatch.setattr(_compressed, "over_all", halved)
    with Claims():
        model = open_model(source, Settings())
        assert [device.index for device in model.devices] == [0, 1]
        assert run_group(those, model, Settings()) == plain


def test_devices_that_are_claimed_do_not_mix() -> None:
    """Otherwise no test here could fail."""
    first, second = torch.device("cpu:0"), torch.device("cpu:1")
    with Claims():
        one, other = torch.ones(3, device=first), torch.ones(3).to(second)
        assert (one.device, other.device, other[1:].device, torch.ones(2).device) == (first, second, second, HOST)
        assert (one + torch.tensor(1.0)).device == first
        assert one[torch.tensor([1])].device == first
        assert [row.device for row in other[:, None]] == [second] * 3
        one[:] = other
        wrong: list[Callable[[], object]] = [
            lambda: one + other,
            lambda: one + torch.ones(3),
            lambda: one[torch.tensor([1], device=second)],
            lambda: torch.stack([one, other]),
            lambda: one.index_select(0, torch.tensor([1])),
        ]
        for mixing in wrong:
            with pytest.raises(RuntimeError, match="cpu"):
                mixing()
        with pytest.raises(TypeError, match="numpy"):
            one.numpy()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs")
@pytest.mark.parametrize("family", [*twins.FAMILIES, *twins.NEWER])
def test_every_method_answers_over_two_gpus_as_over_one(
    family: str, tmp_path: Path, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_task.forms = ("one", "two")
    source = resolve(f"twin={twins.build(family, tmp_path / 'twin', layers=8)}")
    settings = Settings(device="cuda:0", engine="eager")
    model = open_model(source, settings)
    plain = run_group(all_cells(), model, settings)
    model.close()
    monkeypatch.setattr(_adapter, "_placement", lambda *given: "auto")
    model = open_model(source, settings)
    assert {part.device.index for layer in model.layers for part in layer.parameters()} == {0, 1}
    apart = run_group(all_cells(), model, settings)
    model.close()
    assert [one.status for one in apart] == [one.status for one in plain]
    assert [[answer.tokens for answer in one.answers] for one in apart] == [
        [answer.tokens for answer in one.answers] for one in plain
    ]
