"""Who may import whom, held over the syntax trees: the layers of the package, and who knows torch and pytest."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_session import ROOT

PACKAGE = ROOT / "effivlm"
FILES = sorted(PACKAGE.rglob("*.py"))

# What a file may import of the package, by its place; a folder's name stands for all of its files.
ALLOWED = {
    "records": set(),
    "registry": set(),
    "steps": {"records", "registry", "methods"},
    "_device": set(),
    "columns": {"_columns_triton"},
    "_columns_triton": {"_device"},
    "copies": {"columns", "_copies_triton"},
    "_copies_triton": {"_device", "copies"},
    "rolling": {"columns", "copies", "_rolling_triton"},
    "_rolling_triton": {"_device", "_packed_triton"},
    "caches": {"rolling"},
    "hooks": {"caches"},
    "decode": {"records", "caches"},
    "packed": {"copies", "rolling", "caches", "_packed_triton"},
    "_packed_triton": {"_device"},
    "joined": set(),
    "engine": {"caches", "decode", "joined", "meters", "packed"},
    "capacity": {"decode", "engine", "meters"},
    "meters": {"records", "caches"},
    "watch": set(),
    "drawn": {"records", "models"},
    "rounds": {"records", "metrics"},
    "floors": {"meters", "models"},
    "metrics": {"records", "metrics"},
    "tasks": {"records", "metrics", "tasks"},
    "methods": {"records", "_device", "columns", "rolling", "caches", "hooks", "methods"},
    "models": {"records", "registry", "columns", "caches", "hooks", "meters", "models"},
    "report": {"records", "metrics", "report"},
    "prefill": {"columns", "caches", "hooks", "meters", "methods", "models"},
    "tree": {"records", "caches", "decode", "meters", "methods", "models", "prefill"},
    "noise": {"records", "caches", "decode", "models", "tree"},
    "shown": {"records", "methods", "tree"},
    "answers": {"records", "decode", "engine", "methods", "models", "tasks", "metrics", "tree", "noise", "shown"},
    "run": {
        "records",
        "registry",
        "engine",
        "methods",
        "models",
        "tasks",
        "tree",
        "answers",
        "noise",
        "shown",
        "steps",
    },
    "timing": {
        "records",
        "registry",
        "caches",
        "hooks",
        "decode",
        "engine",
        "meters",
        "rounds",
        "watch",
        "capacity",
        "drawn",
        "floors",
        "methods",
        "models",
        "tasks",
        "metrics",
        "tree",
        "run",
    },
}
SESSION = {
    "plugin",
    "hookspec",
    "_controller",
    "_gate",
    "_groups",
    "_matrix",
    "_progress",
    "_recorder",
    "_scheduler",
    "_summary",
    "__main__",
}
PYTEST = {"plugin", "hookspec", "_controller"}


def place(path: Path) -> str:
    """The word of a file in the tables above: its folder in the package, or its stem."""
    inner = path.relative_to(PACKAGE)
    return inner.parts[0] if len(inner.parts) > 1 else inner.stem


def imported(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    words = {name.split(".")[1] for name in imported(path) if name.startswith("effivlm.")}
    return {word for word in words if not word.startswith("__")}


def outside(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    word = place(path)
    if word in SESSION or word == "__init__":
        assert word != "__init__" or not ours(path)
    else:
        assert word in ALLOWED, f"{path.name} has no place in the table of import directions"
        assert ours(path) <= ALLOWED[word]


def test_pytest_is_imported_by_the_plugin_alone() -> None:
    found = {place(path) for path in FILES if {"pytest", "_pytest", "xdist"} & outside(path)}
    assert found == PYTEST | {"_scheduler"}  # which imports xdist, inside a function


def test_transformers_is_imported_by_models_alone() -> None:
    assert {place(path) for path in FILES if "transformers" in outside(path)} <= {"models", "hooks"}


def test_metrics_report_and_tasks_need_no_torch() -> None:
    light = ("records", "registry", "metrics", "report", "tasks", *(SESSION - {"_groups"}))
    assert [path for path in FILES if place(path) in light and {"torch", "torchvision"} & outside(path)] == []


def test_methods_and_models_do_not_know_each_other() -> None:
    assert not any("models" in ours(path) for path in FILES if place(path) == "methods")
    assert not any("methods" in ours(path) for path in FILES if place(path) == "models")


def test_a_wrong_import_would_be_seen(tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text("def late():\n    import torch.nn\n    from effivlm.models import _adapter\n")
    assert set(imported(path)) == {"torch.nn", "effivlm.models._adapter"}
