"""Who may import whom, held over the syntax trees: the wings of the package, and who knows torch and pytest."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from toy_session import ROOT

PACKAGE = ROOT / "effivlm"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each wing imports only those of the rows below it. Wings of one row do not know each other.
WINGS = (
    ("__main__",),
    ("commands",),
    ("plugin",),
    ("cluster",),
    ("session",),
    ("timing",),
    ("extending",),
    ("run",),
    ("methods",),
    ("weights",),
    ("models",),
    ("compression",),
    ("decoding",),
    ("seams",),
    ("kernels",),
    ("report", "tasks", "judging"),
    ("data", "metrics"),
    ("registry",),
    ("records",),
    ("sample", "stored", "budget", "suites", "spelling", "settings", "divergence"),
    ("__init__",),
)
ROW = {wing: number for number, wings in enumerate(WINGS) for wing in wings}
DEVICE = {"kernels", "seams", "decoding", "compression", "methods", "models"}  # know nothing of tasks and reports
LISTED = {"methods", "models", "tasks"}
APART = {"methods": {"models"}}  # they meet in a run
LIGHT = {
    *(
        "records",
        "sample",
        "stored",
        "budget",
        "spelling",
        "suites",
        "settings",
        "divergence",
        "registry",
        "metrics",
        "report",
        "tasks",
        "judging",
        "data",
    ),
    *("plugin", "commands", "__main__", "__init__"),
}
# A type's word: it has no business at run time, and the file it stands in must not be loaded for it.
LIGHT_FILES = {"session/matrix.py", "session/recorder.py", "models/_sources.py", "run/steps.py"}


def wing(path: Path) -> str:
    """The word of a file in the table above: its folder in the package, or its stem."""
    inner = path.relative_to(PACKAGE)
    return inner.parts[0] if len(inner.parts) > 1 else inner.stem


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_once(path: Path) -> Iterator[str]:
    """Top-level packages that importing a file imports: not those inside functions or for types alone."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def ours(path: Path) -> set[str]:
    """Wings that a file imports."""
    names = {name.split(".")[1] for name in imported(path) if name.startswith("effivlm.")}
    return {"__init__" if name.startswith("__") and name != "__main__" else name for name in names}


def outside(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def wrong(here: str, words: set[str]) -> set[str]:
    """Wings among `words` that a file of the wing `here` must not import."""
    above = {word for word in words if word not in ROW or ROW[word] < ROW[here]}
    beside = {word for word in words if word in ROW and ROW[word] == ROW[here] and word != here}
    aside = {"tasks", "report", "judging", "data"} & words if here in DEVICE else set()
    door = {"extending"} if here in LISTED else set()  # what an author may import, a file that ships may import too
    return (above | beside | aside | (APART.get(here, set()) & words)) - door


def modules() -> Mapping[str, set[str]]:
    """By module of the package, the modules of it that it imports anywhere, types included."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    found = {}
    for name, path in names.items():
        words = [word for word in imported(path) if word.startswith("effivlm")]
        found[name] = {word if word in names else word.rpartition(".")[0] for word in words} & set(names) - {name}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_lies_below_it(path: Path) -> None:
    here = wing(path)
    assert here in ROW, f"{path.name} has no place in the table of wings"
    assert wrong(here, ours(path)) == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    order = list(TopologicalSorter(modules()).static_order())  # raises CycleError with the circle
    assert order.index("effivlm.records") < order.index("effivlm.plugin.bench")


def test_pytest_is_imported_by_the_plugin_alone() -> None:
    assert {wing(path) for path in FILES if {"pytest", "_pytest", "xdist"} & outside(path)} == {"plugin"}


def test_transformers_is_imported_by_models_and_a_local_judge_alone() -> None:
    named = {str(path.relative_to(PACKAGE)) for path in FILES if "transformers" in outside(path)}
    assert {name for name in named if not name.startswith(("models/", "seams/"))} <= {"judging/local.py"}


def test_what_is_imported_to_collect_or_report_needs_no_torch() -> None:
    light = [path for path in FILES if wing(path) in LIGHT or str(path.relative_to(PACKAGE)) in LIGHT_FILES]
    assert len(light) > 60
    assert [path for path in light if {"torch", "torchvision", "transformers"} & set(at_once(path))] == []
    assert [path for path in light if wing(path) in LIGHT and {"torch", "torchvision"} & outside(path)] == []


def test_kernels_alone_know_triton() -> None:
    assert {wing(path) for path in FILES if "triton" in outside(path)} == {"kernels"}


@pytest.mark.parametrize(
    ("here", "word"),
    [
        *[
            ("seams", "decoding"),
            ("methods", "models"),
            ("models", "methods"),
            ("session", "plugin"),
            ("run", "timing"),
        ],
        *[("compression", "tasks"), ("tasks", "report"), ("records", "registry"), ("decoding", "elsewhere")],
    ],
)
def test_a_wrong_import_would_be_seen(here: str, word: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(f"def late():\n    import torch.nn\n    from effivlm.{word}.some import thing\n")
    assert set(imported(path)) == {"torch.nn", f"effivlm.{word}.some.thing"}
    assert wrong(here, ours(path)) == {word}
    assert set(at_once(path)) == set()
