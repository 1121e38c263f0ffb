"""What the README says is what there is."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_method_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import twins

    from effivlm import registry
    from effivlm.models._sources import resolve
    from effivlm.records import Budget, Settings
    from effivlm.run.group import open_model
    from effivlm.run.tree import Tree

    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(code.strip().splitlines()) <= 32
    (tmp_path / "largest_keys.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = registry.Entry("largest_keys", "largest_keys", "LargestKeys")
    monkeypatch.setattr(registry, "entries", lambda kind: {"largest_keys": entry})
    registry.declared.cache_clear()
    registry.inherited.cache_clear()
    registry._outline.cache_clear()
    assert set(registry.declared("methods", "largest_keys")["presets"]) == {"paper", "recent"}
    method = registry.load("methods", "largest_keys")(keep=Budget.parse("0.25"))
    monkeypatch.undo()
    registry.declared.cache_clear()
    registry.inherited.cache_clear()
    registry._outline.cache_clear()
    folder = twins.build("qwen2_vl", tmp_path / "twin")
    model = open_model(resolve(f"twin={folder}"), Settings())
    sys.path.insert(0, str(ROOT / "tests" / "core"))
    from forms import sample

    with model.seams():
        leaf = Tree(model, sample("two"), [method]).leaf(method)
    assert abs(leaf.kept - 0.25 * leaf.of) <= len(model.layers)


def test_every_path_of_the_tree_exists() -> None:
    (tree,) = re.findall(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)
    top = ""
    for line in tree.splitlines():
        names, inner = line.split("  ")[0] if not line.startswith(" ") else line.strip().split("  ")[0], line[0] == " "
        for name in names.split(", "):
            assert (ROOT / (top if inner else "") / name).exists(), name
        top = top if inner else names


def test_the_figures_are_those_of_the_report_file() -> None:
    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import figures

    stored = json.loads(figures.FILE.read_text(encoding="utf-8"))
    assert figures.written(README, stored) == README


def test_every_option_of_the_readme_exists() -> None:
    plugin = "".join(
        (ROOT / "effivlm" / "plugin" / name).read_text(encoding="utf-8") for name in ("options.py", "gate.py")
    )
    options = set(re.findall(r"--vlm-([a-z-]+)", README))
    assert len(options) > 8
    for option in options:
        assert f"--vlm-{option}" in plugin or f'"{option}"' in plugin, option


def test_the_table_of_methods_names_all_of_them_with_their_presets() -> None:
    from effivlm import registry

    rows = {}
    for line in README.splitlines():
        cells = line.split(" | ")
        for name in re.findall(r"`(\w+)`", cells[0]) if line.startswith("| `") and len(cells) == 3 else []:
            rows[name] = set(re.findall(r"`(\w+)`", cells[2]))
    for name in registry.names("methods"):
        presets = set(registry.declared("methods", name)["presets"])
        assert name in rows, name
        assert presets == rows[name] or presets == {"paper"} or name == "random_kv", name
