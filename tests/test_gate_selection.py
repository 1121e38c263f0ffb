"""What `-k`, `-m` and arguments name is looked up in the baseline too: what is gone does not pass for not selected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from hypothesis import given
from hypothesis import strategies as st
from toy_session import Toy

from effivlm.plugin.selection import Selection, holds

WORDS = ("quality", "fastv", "keep0.10", "docvqa_micro", "QUALITY", "not_there", "notes", "order")
NAMES = ("test_quality.py", "test_quality[toy_a-fastv-keep0.10-docvqa_micro]", "notes")


def there(word: str) -> bool:
    return any(word.lower() in name.lower() for name in NAMES)


def expressions() -> st.SearchStrategy[str]:
    def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
            inner.map("not {}".format),
            inner.map("({})".format),
            inner.map("( {} )".format),
        )

    return st.recursive(st.sampled_from(WORDS), grown, max_leaves=8)


@given(expressions())
def test_an_expression_means_what_pytest_takes_it_for(text: str) -> None:
    assert holds(text, there) == Expression.compile(text).evaluate(there)


@pytest.mark.parametrize("text", ["", "and", "a or", "(a", "a b", "a)", "not"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"missing|closed|cannot be read"):
        holds(text, there)


def test_arguments_of_a_mark_are_passed_over() -> None:
    assert holds("slow(n=3) and not fast", lambda word: word == "slow")


@pytest.mark.parametrize(
    ("path", "rest", "taken"),
    [
        ("bench_tests", "", True),
        ("bench_tests/test_quality.py", "", True),
        ("bench_tests/test_other.py", "", False),
        ("bench_tests/test_quality.py", "test_quality", True),
        ("bench_tests/test_quality.py", "test_quality[gone]", True),
        ("bench_tests/test_quality.py", "test_quality[other]", False),
        ("elsewhere", "", False),
    ],
)
def test_a_case_is_taken_where_an_argument_names_its_place(tmp_path: Path, path: str, rest: str, taken: bool) -> None:
    template = {
        "nodeid": ["bench_tests/test_quality.py::test_quality[", "]"],
        "names": ["test_quality.py"],
        "marks": [],
    }
    selection = Selection("", "", [((tmp_path / path).resolve(), rest)], tmp_path.resolve(), {"quality": [template]})
    assert selection.takes("gone", "quality") == taken


def gone(toy: Toy) -> set[tuple[str, str]]:
    found = json.loads((toy.path / "second" / "verdict.json").read_text())
    return {(row["cell"].split("-")[1], row["part"]) for row in found["rows"] if row["check"] == "missing"}


SMALLER = ("--vlm-methods=dense,fastv", "--vlm-baseline=base.json")


@pytest.mark.parametrize(
    ("selection", "missing"),
    [
        (("-k", "quality"), {("snapkv", "quality")}),
        (("-k", "QUALITY and not fastv"), {("snapkv", "quality")}),
        (("-k", "decode or ttft"), {("snapkv", "ttft"), ("snapkv", "decode")}),
        (("-k", "quality and fastv"), set()),
        (("-k", "dense or keep0.40"), {("snapkv", part) for part in ("quality", "ttft", "decode")}),
        (("-m", "benchmark"), {("snapkv", "ttft"), ("snapkv", "decode")}),
        (("-m", "not benchmark"), {("snapkv", "quality")}),
    ],
)
def test_a_method_that_is_gone_is_missing_where_the_selection_names_it(
    toy: Toy, selection: tuple[str, str], missing: set[tuple[str, str]]
) -> None:
    assert toy.run("--vlm-update-baseline=base.json", run="first").ret == 0
    result = toy.run(*selection, *SMALLER, run="second")
    assert gone(toy) == missing
    assert result.ret == (1 if missing else 0)


def test_beside_workers_the_selection_is_looked_up_too(toy: Toy) -> None:
    assert toy.run("--vlm-update-baseline=base.json", run="first").ret == 0
    assert toy.run_apart("-n2", "-m", "benchmark", *SMALLER, run="second").ret == 1
    assert gone(toy) == {("snapkv", "ttft"), ("snapkv", "decode")}


def test_a_deselected_case_that_is_still_there_is_not_missing(toy: Toy) -> None:
    assert toy.run("-k", "quality", "--vlm-update-baseline=base.json", run="first").ret == 0
    name = "bench_tests/test_quality.py::test_quality[toy_a-snapkv-keep0.10-docvqa_micro]"
    assert toy.run("-k", "quality", f"--deselect={name}", "--vlm-baseline=base.json", run="second").ret == 0
    assert gone(toy) == set()


@pytest.mark.parametrize("text", ["print('code')", "{}", "name,score"])
def test_a_file_that_is_no_baseline_is_not_overwritten(toy: Toy, text: str) -> None:
    path = toy.path / "precious.txt"
    path.write_text(text)
    result = toy.run("-k", "quality", "--vlm-update-baseline=precious.txt")
    assert result.ret == 4
    assert "holds something else than a baseline" in str(result.stderr)
    assert path.read_text() == text
    assert not toy.log("open")


@pytest.mark.parametrize("name", ["taken/base.json", "x" * 300, "new/" + "x" * 300, "/proc/base.json"])
def test_a_baseline_that_could_not_be_written_is_refused_before_the_run(toy: Toy, name: str) -> None:
    (toy.path / "taken").touch()
    before = {path.name for path in toy.path.iterdir()}
    result = toy.run("-k", "quality", f"--vlm-update-baseline={name}")
    assert result.ret == 4
    assert "--vlm-update-baseline: " in str(result.stderr)
    assert not toy.log("open")
    assert {path.name for path in toy.path.iterdir()} - {"__pycache__"} == before


FULL = """
import errno, tempfile

honest = tempfile.mkstemp

def full(*given, prefix="", **named):
    if prefix.startswith(".report"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return honest(*given, prefix=prefix, **named)

def pytest_vlm_outcome(config, outcome):
    tempfile.mkstemp = full

def pytest_unconfigure():
    tempfile.mkstemp = honest
"""


def test_a_disk_that_is_full_when_the_report_is_written_costs_no_table_and_fails_the_session(toy: Toy) -> None:
    toy.add(FULL)
    result = toy.run("-k", "quality")
    result.assert_outcomes(passed=5, deselected=10)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["method *keep*", "fastv *", "note: the report could not be written: No space left on device"]
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--vlm-limit=99999999999999999999", "--vlm-limit: '99999999999999999999' is more than 2,147,483,647"),
        (f"--vlm-limit={'9' * 6000}", "--vlm-limit: '9999*...' is more than 2,147,483,647"),
        ("--vlm-seed=-99999999999999999999", "--vlm-seed: '-99999999999999999999' is not a whole number of at least 0"),
        ("--vlm-budgets=1e-99999999999", "--vlm-budgets: budget '1e-99999999999' is not a number*"),
        (f"--vlm-budgets=0.{'1' * 6000}", "--vlm-budgets: budget 0.1111*... is not a number*"),
    ],
)
def test_a_number_beyond_all_sense_is_one_sentence(toy: Toy, option: str, message: str) -> None:
    arguments = [one for one in toy.arguments("-k", "quality") if not one.startswith(option.partition("=")[0])]
    result = toy.pytester.runpytest_inprocess(*arguments, option)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not toy.log("open")
