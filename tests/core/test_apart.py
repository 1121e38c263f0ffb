"""Models whose layers stand on several devices: every method answers as it does over one, and no operator mixes devices."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from claims import HOST, Claims, spread
from toy_task import Toy, cells

from effivlm.models import _adapter
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Cell, Outcome, Settings
from effivlm.run.group import open_model, run_group
from effivlm.run.steps import asked

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
