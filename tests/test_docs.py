"""The documentation says what there is: nothing is missing, every command would start, every example runs."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import tomllib
from html import unescape
from pathlib import Path
from types import ModuleType

import pytest
import shell_lines
import yaml
from toy_session import ROOT

from effivlm import registry
from effivlm.report.write import write
from effivlm.tasks._folder import Folder
from tests.outcomes import small_run, store

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
import fields
import generate
import markers
import methods

DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
GENERATED = {page.path: page.text for pages in generate.generated().values() for page in pages}
WRITTEN = {
    str(path.relative_to(DOCS)): markers.expanded(path.read_text(encoding="utf-8"))
    for path in sorted(DOCS.rglob("*.md"))
}
PAGES = {**WRITTEN, **{path: text for path, text in GENERATED.items() if not path.startswith("measured/")}}
"""Pages whose blocks a reader runs; those of studies say what was run."""
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {"sh", "python", "toml", "yaml", "json"}


def blocks(language: str) -> list[tuple[str, str]]:
    """Every block of a language: the page it stands on, and its text."""
    return [(page, text) for page, whole in PAGES.items() for _, name, text in FENCE.findall(whole) if name == language]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as somebody has it who follows the pages: a run, a set and a checkpoint of their own, the examples installed."""
    (tmp_path / "reports" / "my_run").mkdir(parents=True)
    store(tmp_path / "reports" / "my_run", small_run())
    write(tmp_path / "reports" / "my_run")
    (tmp_path / "my_folder" / "images").mkdir(parents=True)
    shutil.copy(ROOT / "reports" / "baselines" / "report.png", tmp_path / "my_folder" / "images" / "1.png")
    (tmp_path / "my_folder" / "set.jsonl").write_text(blocks("json")[0][1], encoding="utf-8")
    (tmp_path / "my_checkpoint").symlink_to(ROOT / "fixtures" / "micro" / "micro_qwen2_vl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "a key, as a reader has one")
    for project in EXAMPLES.iterdir():
        monkeypatch.syspath_prepend(str(project))
    return tmp_path


def test_every_method_and_every_task_has_a_page_with_its_whole_docstring() -> None:
    for kind in ("methods", "tasks"):
        assert {Path(path).stem for path in GENERATED if path.startswith(kind)} == {*registry.names(kind), "index"}
        for name in registry.names(kind):
            shown = re.sub(r"\\|\]\([^)]*\)", "", unescape(GENERATED[f"{kind}/{name}.md"]))
            for text in fields.docstring(kind, name):
                words = re.findall(r"\w+", text)
                assert words
                assert " ".join(words) in " ".join(re.findall(r"\w+", shown)), f"{kind}/{name}: {text}"
            assert f"]({name}.md)" in GENERATED[f"{kind}/index.md"]


def test_the_index_of_methods_lists_what_runs_anything_of_a_library_where_it_works() -> None:
    index = GENERATED["methods/index.md"]
    assert registry.open_methods()
    for name in registry.open_methods():
        assert f"measured/{name}.md" in GENERATED
        (line,) = [one for one in index.splitlines() if one.startswith(f"| [`{name}:NAME`](../measured/{name}.md) | ")]
        works = registry.inherited("methods", f"{name}:", "seam")
        assert index[: index.index(line)].rpartition("\n## ")[2].partition("\n")[0] == methods.SECTIONS[works]


def test_the_fields_of_a_page_are_those_of_the_class_with_their_defaults() -> None:
    for name in registry.names("methods"):
        every = [field for field in dataclasses.fields(registry.load("methods", name)) if field.init]
        found = {field.name: field.default for field in every if field.name not in fields.COMMON}
        assert {field: eval(default) for field, default in fields.fields(name).items()} == found, name


def test_the_page_of_options_names_all_that_pytest_takes(pytestconfig: pytest.Config) -> None:
    found = set(re.findall(r"\| `--(vlm-[a-z-]+)` \|", WRITTEN["options.md"]))
    assert {name.replace("-", "_") for name in found} == {
        name for name in vars(pytestconfig.option) if name[:4] == "vlm_"
    }


def test_every_page_of_a_study_stands_in_the_site_as_it_was_written() -> None:
    written = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "reports" / "baselines").glob("*.md")}
    del written["README.md"]
    shown = {Path(path).name: text for path, text in GENERATED.items() if path.startswith("measured/")}
    assert all(f"]({name})" in shown["index.md"] for name in written)
    assert shown == {**written, "index.md": shown["index.md"]}


def test_every_block_is_in_a_language_that_a_test_reads() -> None:
    for page, text in PAGES.items():
        found = FENCE.findall(text)
        assert {name for _, name, _ in found} <= LANGUAGES, page
        assert text.count("```") == 2 * len(found), f"{page}: a block is not closed"


def test_every_command_would_start(reader: Path, pytestconfig: pytest.Config) -> None:
    seen = 0
    for page, text in blocks("sh"):
        for line in shell_lines.lines(text):
            seen += 1
            try:
                shell_lines.check(line, pytestconfig)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{page}: {line}: {type(error).__name__}: {error}")
    assert seen > len(registry.names("methods")) + len(registry.names("tasks"))


@pytest.mark.parametrize(
    "line",
    [
        "pytest bench_tests --vlm-method fastv",
        "pytest bench_tests -k 'fastw and docvqa'",
        "pytest bench_tests --vlm-methods fastv --vlm-budgets 2:4",
        "pytest no_such_folder",
        "python -m effivlm reprot reports/run",
        "python -m effivlm run --tasks docvga_micro",
        "python -m effivlm compress micro_qwen2_vl --method fastv --budget w4g128 --to new",
        "make benhc",
        "make bench K=fastw",
        "pip install -e '.[tset]'",
        "pip install -e docs/examples/methods",
        "curl example.org",
    ],
)
def test_a_command_that_would_not_start_is_found(line: str, pytestconfig: pytest.Config) -> None:
    with pytest.raises((ValueError, AssertionError, SystemExit, pytest.UsageError)):
        shell_lines.check(line, pytestconfig)


@pytest.mark.parametrize("page", sorted({page for page, _ in blocks("python")}))
def test_the_examples_of_a_page_run_in_their_order(page: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)  # where a dataclass looks for its names
    texts = [text for place, text in blocks("python") if place == page]
    for text in texts:
        exec(compile(text, page, "exec", dont_inherit=True), vars(module))
    assert len(vars(module)) > len(vars(ModuleType("example"))), "the examples define nothing"


def test_a_row_of_a_folder_is_a_sample_as_the_page_says(reader: Path) -> None:
    task = Folder("my_set", "my_folder")
    (sample,) = task.samples(limit=5, seed=0)
    (row,) = [json.loads(line) for _, text in blocks("json") for line in text.splitlines()]
    assert sample.references == tuple(row["answers"])
    assert task.score(row["answers"][0], sample) == 1.0


def test_entry_points_of_the_examples_name_classes_of_their_packages(reader: Path) -> None:
    found = [tomllib.loads(text)["project"]["entry-points"] for _, text in blocks("toml")]
    assert sorted(group for points in found for group in points) == [
        f"effivlm.{kind}" for kind in sorted(registry.KINDS)
    ]
    for group, point in ((group, one) for points in found for group, named in points.items() for one in named.values()):
        module, _, name = point.partition(":")
        assert registry._fitting(group.removeprefix("effivlm."), getattr(__import__(module, fromlist=[name]), name))


def test_the_workflow_runs_commands_that_would_start_with_actions_of_the_repository(
    reader: Path, pytestconfig: pytest.Config
) -> None:
    known = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").iterdir())
    ((_, text),) = blocks("yaml")
    for line in re.findall(r"uses: (.*)", text):
        assert line in known
    steps = [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]
    lines = [line for step in steps if "run" in step for line in shell_lines.lines(step["run"])]
    assert len(lines) == 3
    for line in lines:
        shell_lines.check(line, pytestconfig)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("picture nothing", "docs/pictures/nothing.svg .* does not exist"),
        ("code effivlm/nothing.py", "nothing.py .* does not exist"),
        ("quote overhead.md / ## no such line", "no line that begins with '## no such line'"),
        ("figure figures.json sweep.nothing .1f", "'nothing' is not among device, "),
        ("figure gpu_efficiency.json cells.99999.keep .1f", "'99999' is not among 0, "),
        ("table nothing", "no table 'nothing', only budgets, "),
    ],
)
def test_what_a_page_takes_and_is_not_there_is_refused_by_name(marker: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        markers.expanded(f"before {{{{ {marker} }}}} behind")


def test_no_marker_is_left_on_a_page() -> None:
    for page, text in PAGES.items():
        assert not re.search(r"(?<!\$)\{\{", text), page


def test_pages_hold_no_measured_figure_that_was_typed() -> None:
    """Times and speed-ups of the written text come from reports: a number with such a unit stands in a marker only."""
    for path in sorted(DOCS.rglob("*.md")):
        text = markers.MARKER.sub("", FENCE.sub("", path.read_text(encoding="utf-8")))
        bare = re.sub(r"`[^`]*`", "", text)
        assert not re.findall(r"\d[\d.,]* ?(?:ms|s|GB|MB|x|times)\b", bare), path.name
