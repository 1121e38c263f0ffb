"""A model from the hub: the same answers as from a folder, its weights fetched when it is opened, and placed by their size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import twins
from fake_hub import FakeHub
from forms import sample

from effivlm.models import _adapter, _compressed
from effivlm.models._adapter import Adapter, _placement
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import Cell, Settings
from effivlm.run.group import cell_fingerprint, open_model

NAME = "somebody/tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twins.build("internvl2_5", tmp_path_factory.mktemp("hub") / "tiny", layers=2)


def answer(model: Adapter) -> list[int]:
    inputs = model.prepare(sample("one"))
    with torch.inference_mode():
        return model.model.generate(**inputs, max_new_tokens=4, do_sample=False)[0].tolist()  # type: ignore[no-any-return]


def test_a_repository_answers_as_the_folder_that_was_put_there(hub: FakeHub, folder: Path) -> None:
    hub.put(NAME, folder)
    source = resolve(NAME)
    assert not any(path.endswith(".safetensors") for _, path, _ in hub.asked)
    model = open_model(source, Settings())
    assert answer(model) == answer(open_model(resolve(f"tiny={folder}"), Settings()))
    assert model.source.commit == hub.commit(NAME, "main")
    hub.down = True
    assert answer(open_model(source, Settings())) == answer(model)


def test_another_commit_is_another_outcome(hub: FakeHub, folder: Path) -> None:
    hub.put(NAME, folder)
    cell = Cell("tiny", "dense", "paper", "1.00", "docvqa_micro")
    old = cell_fingerprint(cell, resolve(NAME), Settings())
    assert cell_fingerprint(cell, resolve(f"{NAME}@{hub.commit(NAME, 'main')}"), Settings()) == old
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    files["model.safetensors"] = files["model.safetensors"][:-1] + b"\x01"
    hub.put(NAME, files)
    assert cell_fingerprint(cell, resolve(NAME), Settings()) != old


def test_weights_that_are_refused_are_told_when_the_model_is_opened(hub: FakeHub, folder: Path) -> None:
    hub.put(NAME, folder)
    source = resolve(NAME)
    hub.gated.add(NAME)
    with pytest.raises(ValueError, match=rf"model 'tiny': {NAME} is gated: .*hf auth login"):
        open_model(source, Settings())


@pytest.mark.parametrize(("full", "expected"), [(0.5, "auto"), (2.0, "cuda:0")])
def test_a_repository_is_spread_over_gpus_by_the_size_of_its_weights(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch, full: float, expected: str
) -> None:
    hub.put(NAME, folder)
    source = resolve(NAME)
    _adapter.bring(source)
    stored = (folder / "model.safetensors").stat().st_size
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, int(full * stored)))
    assert _placement(source, "cuda:0", "bfloat16") == expected


def test_a_repository_that_is_spread_is_opened_from_its_snapshot(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, folder)
    placed: list[str] = []

    def apart(source: ModelSource, *given: str) -> str:
        placed.append(source.source)
        return "auto"

    monkeypatch.setattr(_adapter, "_placement", apart)
    monkeypatch.setattr(_compressed, "over_all", lambda kind, config, dtype: {"": "cpu"})
    assert answer(open_model(resolve(NAME), Settings())) == answer(open_model(resolve(f"tiny={folder}"), Settings()))
    snapshot, plain = map(Path, placed)
    assert (snapshot.parts[-2:], plain) == (("snapshots", hub.commit(NAME, "main")), folder)


def test_a_repository_too_large_for_all_gpus_is_refused_before_it_is_fetched(
    hub: FakeHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    index = {"metadata": {"total_size": 3 * 10**9}, "weight_map": {"lm_head.weight": "model-1.safetensors"}}
    del files["model.safetensors"]
    files |= {"model.safetensors.index.json": json.dumps(index).encode(), "model-1.safetensors": b"0" * 64}
    hub.put(NAME, files)
    source = resolve(NAME)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 10**9))
    said = r"model 'tiny': its weights are \d\.\d GB in float32, and 2 GPU\(s\) with 2\.0 GB are here"
    with pytest.raises(ValueError, match=said):
        open_model(source, Settings(device="cuda:0"))
    assert not any(path.endswith(".safetensors") for _, path, _ in hub.asked)
