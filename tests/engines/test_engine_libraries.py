"""Which engines are here, and what is said of one that is not."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from effivlm.weights import libraries
from effivlm.weights.libraries import LIBRARIES, SPARSEML_PYTHON, installed, missing, sparseml_python

ROOT = Path(__file__).parents[2]


def test_an_unknown_engine_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'quanto' is not one of llmcompressor, autoawq, sparseml, kvpress"):
        missing("quanto")


def test_a_library_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", nowhere)
    assert missing("autoawq") == "autoawq is not installed: make env-autoawq brings it"
    assert 'pip install "effivlm[weights]"' in missing("llmcompressor")
    monkeypatch.setattr(libraries, "version", lambda name: "1.0")
    assert missing("autoawq") == missing("llmcompressor") == ""


def test_the_variable_comes_before_the_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    python = tmp_path / ".venv-sparseml" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SPARSEML_PYTHON, raising=False)
    if not (ROOT / ".venv-sparseml").exists():
        with pytest.raises(ValueError, match=r"make env-sparseml makes \.venv-sparseml"):  # it cannot be run yet
            sparseml_python()
    python.chmod(0o755)
    assert sparseml_python() == python
    assert missing("sparseml") == f"{python} has no sparseml: make env-sparseml makes one that has"
    facts = tmp_path / ".venv-sparseml" / "lib" / "python3.11" / "site-packages" / "sparseml-1.8.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: sparseml\nVersion: 1.8.0\n")
    assert (missing("sparseml"), installed("sparseml")) == ("", "1.8.0")
    monkeypatch.setenv(SPARSEML_PYTHON, sys.executable)
    assert sparseml_python() == Path(sys.executable)
    monkeypatch.setenv(SPARSEML_PYTHON, str(tmp_path / "nothing"))
    assert missing("sparseml").endswith("nothing is no Python that can be run: make env-sparseml makes one")


def test_every_command_that_brings_an_engine_is_one_of_the_makefile() -> None:
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = [command for command in libraries._MADE_BY.values() if command.startswith("make ")]
    assert len(named) == 3
    for command in named:
        assert f"\n{command.removeprefix('make ')}: " in made
    assert set(libraries._MADE_BY) == set(LIBRARIES)
