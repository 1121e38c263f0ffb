"""The documentation says what there is: nothing is missing, every command starts, every example runs, nothing is fetched."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import shell_lines
from toy_session import ROOT

from effivlm import registry

sys.path.insert(0, str(ROOT / "docs" / "hooks"))
import fields
import generate

DOCS = ROOT / "docs"
GENERATED = {page.path: page.text for pages in generate.generated().values() for page in pages}
WRITTEN = {str(path.relative_to(DOCS)): path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {"sh", "python", "toml", "yaml", "json"}


def blocks(language: str) -> list[tuple[str, str]]:
    """Every block of a language: the page it stands on, and its text."""
    pages = {**WRITTEN, **GENERATED}
    return [
        (page, text) for page, all_of in pages.items() for _, name, text in FENCE.findall(all_of) if name == language
    ]


def test_every_method_and_every_task_has_a_page_with_its_whole_docstring() -> None:
    for kind in ("methods", "tasks"):
        assert {Path(path).stem for path in GENERATED if path.startswith(kind)} == {*registry.names(kind), "index"}
        for name in registry.names(kind):
            words = re.findall(r"\w+", fields.docstring(kind, name)[1])
            page = " ".join(re.findall(r"\w+", GENERATED[f"{kind}/{name}.md"].replace("\\", "")))
            assert words[-1] in page
            assert f"]({name}.md)" in GENERATED[f"{kind}/index.md"]


def test_the_fields_of_a_page_are_those_of_the_class_with_their_defaults() -> None:
    for name in registry.names("methods"):
        every = [field for field in dataclasses.fields(registry.load("methods", name)) if field.init]
        found = {field.name: field.default for field in every if field.name not in fields.COMMON}
        assert {field: eval(default) for field, default in fields.fields(name).items()} == found, name


def test_every_block_is_in_a_language_that_a_test_reads() -> None:
    names = {name for text in (*WRITTEN.values(), *GENERATED.values()) for _, name, _ in FENCE.findall(text)}
    assert names <= LANGUAGES
    for text in (*WRITTEN.values(), *GENERATED.values()):
        assert text.count("```") == 2 * len(FENCE.findall(text))


def test_every_command_would_start(
    pytestconfig: pytest.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "a key, as a reader has one")
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
        "curl example.org",
    ],
)
def test_a_command_that_would_not_start_is_found(line: str, pytestconfig: pytest.Config) -> None:
    with pytest.raises((ValueError, AssertionError, SystemExit, pytest.UsageError)):
        shell_lines.check(line, pytestconfig)
