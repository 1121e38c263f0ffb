"""What an outcome was made of: all bytes of its checkpoint, its settings, and the code of its method, task and model."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from effivlm import registry
from effivlm.models import _content
from effivlm.models._sources import ModelSource
from effivlm.records import Cell, Settings
from effivlm.run import provenance
from effivlm.run.group import cell_fingerprint
from effivlm.session import recorder

MIB = 1 << 20
CELL = Cell("m", "fastv", "paper", "0.10", "docvqa_micro")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of 40 MiB, in a world whose cache is empty and where files settle at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(_content, "SETTLED_NS", -(10**12))
    monkeypatch.setattr(_content, "_read", {})
    found = tmp_path / "checkpoint"
    found.mkdir()
    (found / "config.json").write_text('{"model_type": "llava_onevision"}')
    (found / "model.safetensors").write_bytes(bytes(40 * MIB))
    return found


def identity(folder: Path) -> str:
    return ModelSource("m", str(folder), "llava_onevision").identity


@pytest.mark.parametrize("place", [0, 70_000, 16 * MIB - 1, 16 * MIB, 39 * MIB, 40 * MIB - 1])
def test_one_changed_byte_is_another_checkpoint_also_where_its_time_is_set_back(folder: Path, place: int) -> None:
    before, file = identity(folder), folder / "model.safetensors"
    times = file.stat()
    with file.open("r+b") as weights:
        weights.seek(place)
        weights.write(b"\1")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert identity(folder) != before


def test_two_blocks_that_change_places_are_another_checkpoint(folder: Path) -> None:
    one, other = bytes(16 * MIB), b"\1" * (16 * MIB)
    (folder / "model.safetensors").write_bytes(one + other)
    before = identity(folder)
    (folder / "model.safetensors").write_bytes(other + one)
    assert identity(folder) != before


def test_a_copy_elsewhere_is_the_same_checkpoint_and_what_decides_no_answer_does_not_count(folder: Path) -> None:
    before = identity(folder)
    moved = folder.rename(folder.with_name("elsewhere"))
    (moved / "LICENSE").write_text("new")
    (moved / "README.md").write_text("new")
    assert identity(moved) == before
    (moved / "chat_template.jinja").write_text("{{ messages }}")
    assert identity(moved) != before


def test_large_files_are_read_once_by_all_processes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(folder)
    assert _content.unread_bytes(folder) == 0
    _content._read.clear()  # another process
    read: list[Path] = []
    honest = _content._digest
    monkeypatch.setattr(_content, "_digest", lambda path, size: (read.append(path), honest(path, size))[1])
    assert identity(folder) == before
    assert [path.name for path in read] == ["config.json"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 5}', "\0"])
def test_a_damaged_cache_is_read_past_and_written_anew(folder: Path, text: str) -> None:
    before = identity(folder)
    cache = _content._cache_file()
    cache.write_text(text)
    _content._read.clear()
    assert identity(folder) == before
    assert str(folder / "model.safetensors") in cache.read_text()


def test_without_a_cache_to_write_the_checkpoint_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "file"))
    before = identity(folder)
    _content._read.clear()
    assert identity(folder) == before
    assert _content.unread_bytes(folder) > 40 * MIB - 1 or _content._read


def test_a_file_that_changed_just_now_is_not_taken_for_settled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_content, "SETTLED_NS", 2 * 10**9)
    os.utime(folder / "model.safetensors", ns=(time.time_ns(), time.time_ns()))
    identity(folder)
    assert not _content._read


AUTHORS = {
    "__init__.py": "",
    "base.py": "class Base:\n    def choose(self):\n        return 1\n",
    "helper.py": "NUMBER = 1\n",
    "aside.py": "NUMBER = 1\n",
    "method.py": "import json\nfrom .base import Base\n\n\ndef late():\n    from authors import helper\n",
}


@pytest.fixture
def authors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a method that imports its base and, inside a function, a helper."""
    folder = tmp_path / "authors"
    folder.mkdir()
    for name, text in AUTHORS.items():
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    yield folder
    _forget()


def _forget() -> None:
    provenance.module_digest.cache_clear()
    provenance._bytes_digest.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "authors"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "counts"),
    [("method.py", True), ("base.py", True), ("helper.py", True), ("__init__.py", True), ("aside.py", False)],
)
def test_the_code_of_a_method_is_all_its_author_lets_it_import(authors: Path, name: str, counts: bool) -> None:
    before = provenance.module_digest("authors.method")
    _forget()
    (authors / name).write_text(AUTHORS[name] + "# changed\n")
    assert (provenance.module_digest("authors.method") != before) == counts


def test_the_code_of_a_shipped_method_holds_its_base_and_no_other_method() -> None:
    files = dict[str, Path]()
    waiting = [registry.entries("methods")["fastv"].module]
    while waiting:
        module = waiting.pop()
        if module in files or not module.startswith("effivlm") or (file := provenance._file(module)) is None:
            continue
        files[module] = file
        waiting += provenance._imported(module, file)
    assert {"effivlm.methods.fastv", "effivlm.compression.base", "effivlm.seams"} <= set(files)
    assert "effivlm.methods.snapkv" not in files


def test_every_setting_and_all_code_name_another_outcome(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    source, settings = ModelSource("m", str(folder), "llava_onevision"), Settings()
    before = cell_fingerprint(CELL, source, settings)
    assert cell_fingerprint(CELL, source, settings) == before
    changes = ({"seed": 7}, {"dtype": "bfloat16"}, {"engine": "eager"}, {"limit": 3}, {"device": "cuda:1"})
    found = {cell_fingerprint(CELL, source, replace(settings, **one)) for one in changes}
    for module in ("effivlm.methods.fastv", "effivlm.tasks.docvqa_micro", "effivlm.models.llava_onevision"):
        honest = provenance.module_digest
        monkeypatch.setattr(provenance, "module_digest", lambda one, new=module, old=honest: one == new or old(one))
        found.add(cell_fingerprint(CELL, source, settings))
        monkeypatch.setattr(provenance, "module_digest", honest)
    assert len(found | {before}) == 9


@pytest.mark.parametrize("kind", registry.KINDS)
def test_no_shipped_class_counts_as_patched_and_a_patched_one_does(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [registry.load(kind, name) for name in registry.names(kind)]
    libraries = {"Adapter.seams"}  # a decorator of contextlib around it
    assert {word.split()[0] for one in classes for word in provenance.replaced(one)} <= libraries

    def everything(self: object, *given: object) -> None:
        return None

    own = next(name for name, value in vars(classes[0]).items() if callable(value) and not name.startswith("__"))
    monkeypatch.setattr(classes[0], own, everything)
    assert any(word.startswith(f"{classes[0].__name__}.{own} ") for word in provenance.replaced(classes[0]))


def test_the_header_names_the_device_that_was_used(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = "NVIDIA A, 580.1, 80 MiB\nNVIDIA B, 580.1, 40 MiB"
    monkeypatch.setattr(recorder, "_said", lambda *command: listed if command[0] == "nvidia-smi" else "")
    processor = recorder.devices()["processor"]
    named = {used: recorder.devices(used)["device"] for used in ("", "cuda:0", "cuda:1", "cpu")}
    assert named == {"": "NVIDIA A", "cuda:0": "NVIDIA A", "cuda:1": "NVIDIA B", "cpu": processor}
    assert (recorder.devices("cpu")["driver"], len(recorder.devices("cpu")["gpus"])) == ("", 2)
    header = recorder.facts(Path(), ["pytest"], {"device": "cpu"})
    assert header["device"] == processor
