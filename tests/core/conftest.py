"""Twins of the families, loaded once: `model` are the three of the paper, `newer` all others; `twin` is one to compress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
import twins
from toy_task import Toy

from effivlm import registry
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import Settings
from effivlm.run import group
from effivlm.run.group import open_model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def toy_task(monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The one task there is."""
    task = Toy()
    monkeypatch.setattr(group, "task_of", lambda name: task)
    declared = registry.declared
    monkeypatch.setattr(registry, "declared", lambda kind, name: {} if kind == "tasks" else declared(kind, name))
    return task


@pytest.fixture(scope="session", params=twins.FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build(request.param, tmp_path_factory.mktemp(request.param))
    return open_model(resolve(f"twin={folder}"), Settings())


@pytest.fixture(scope="session", params=twins.NEWER)
def newer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    if request.param in twins.NEEDS:
        pytest.importorskip(twins.NEEDS[request.param])
    folder = twins.build(request.param, tmp_path_factory.mktemp(request.param))
    return open_model(resolve(f"twin={folder}"), Settings())


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A twin in float16, as small checkpoints are stored."""
    return resolve(f"twin={twins.build('qwen2_vl', tmp_path_factory.mktemp('half'), layers=3, dtype=torch.float16)}")


@pytest.fixture
def own_products(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressed checkpoints go to the test's folder."""
    monkeypatch.setenv("EFFIVLM_PRODUCTS", str(tmp_path / "products"))


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Compressed checkpoints of all tests of a file go to one folder."""
    folder = tmp_path_factory.mktemp("products")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFIVLM_PRODUCTS", str(folder))
        yield folder
