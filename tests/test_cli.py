"""`python -m effivlm`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effivlm import __main__ as cli
from effivlm import registry
from effivlm.commands import doctor
from effivlm.weights.libraries import installed, missing
from tests.outcomes import HEADER, lines, small_run, store

ROOT = Path(cli.__file__).parent.parent


def test_report_writes_both_files_and_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, small_run())
    assert cli.main(["report", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "micro_llava on docvqa_micro" in out
    assert out.rstrip().endswith("report.html")
    assert {path.name for path in tmp_path.iterdir()} == {"outcomes.jsonl", "report.json", "report.html"}


@pytest.mark.parametrize("text", [None, lines([], header={**HEADER, "schema": 9}), "not json\n"])
def test_a_folder_without_a_readable_run_fails_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    if text is not None:
        (tmp_path / "outcomes.jsonl").write_text(text, encoding="utf-8")
    assert cli.main(["report", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("effivlm report: ")
    assert error.count("\n") == 1
    assert str(tmp_path) in error


@pytest.mark.parametrize("arguments", [[], ["bench"], ["list", "metrics"], ["report"], ["compare", "one"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "compare", "list", "doctor"])
def test_each_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"example: python -m effivlm {command}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", registry.KINDS)
def test_list_gives_every_name_with_a_line_and_its_presets(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", kind]) == 0
    *lines, last = capsys.readouterr().out.splitlines()[1:]
    shapes = last.partition("real shapes with random weights: ")[2]
    assert bool(shapes) == (kind == "models")
    assert "random:internvl2_5_38b" in shapes or kind != "models"
    rows = {line.split()[0]: line for line in (lines if shapes else [*lines, last])}
    opened = [f"{name}:NAME" for name in registry.open_methods()] if kind == "methods" else []
    assert sorted(rows) == sorted([*registry.names(kind), *opened])
    for name, row in rows.items():
        assert len(row.split()) > 1, f"{name} has no docstring"
        for preset in () if name in opened else registry.declared(kind, name).get("presets") or ():
            assert preset in row.partition("presets:")[2]


def two_runs(tmp_path: Path) -> tuple[str, str]:
    """A run, and one that ended earlier."""
    for name, outcomes in (("good", small_run()), ("bad", small_run()[:-8])):
        (tmp_path / name).mkdir()
        store(tmp_path / name, outcomes)
    return str(tmp_path / "good"), str(tmp_path / "bad")


def test_compare_ends_with_0_1_or_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = two_runs(tmp_path)
    assert cli.main(["compare", good, good]) == 0
    assert cli.main(["compare", good, bad]) == 1
    assert "is missing" in capsys.readouterr().out
    assert cli.main(["compare", good, bad, "--missing", "ok"]) == 0
    assert cli.main(["compare", good, str(tmp_path / "nowhere")]) == 2
    assert cli.main(["compare", good, bad, "--tolerance", "nobody.score=0.1"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 2
    assert "there is no such file" in error
    assert "'nobody' is no task, model or method of these runs; there are: chartqa_micro" in error


def test_compare_prints_json_and_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = two_runs(tmp_path)
    assert cli.main(["compare", good, bad, "--json", "--html", str(tmp_path / "page.html")]) == 1
    found = json.loads(capsys.readouterr().out)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (found["status"], found["counts"]["fail"]) == ("failed", page.count(">FAIL<"))
    assert "prefers-color-scheme:dark" in page
    assert "http" not in page
    assert page.count("<tr>") == len(found["rows"]) + 5  # four rows of facts and the head


def test_report_merges_into_a_new_folder_and_writes_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = two_runs(tmp_path)
    out = tmp_path / "both"
    assert cli.main(["report", good, bad]) == 1
    assert cli.main(["report", good, bad, "--out", str(out), "--tables", "csv,xlsx"]) == 1
    error = capsys.readouterr().err
    assert "name it with --out FOLDER" in error
    assert "--tables: 'xlsx' is not one of csv, md, latex" in error
    assert not out.exists()
    assert cli.main(["report", good, bad, "--out", str(out), "--tables", "csv,latex"]) == 0
    assert {"outcomes.jsonl", "report.json", "report.html", "tables"} <= {path.name for path in out.iterdir()}
    assert len(list((out / "tables").iterdir())) == 18
    assert len(json.loads((out / "report.json").read_text(encoding="utf-8"))["run"]["machines"]) == 2


def test_listing_and_reporting_import_neither_torch_nor_pytest(tmp_path: Path) -> None:
    store(tmp_path, small_run())
    code = (
        "import sys; from effivlm.__main__ import main; main(['list']); main(['report', sys.argv[1]]);"
        "main(['compare', sys.argv[1], sys.argv[1]]);"
        "sys.exit(bool({'torch', 'transformers', 'pytest'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_doctor_names_what_is_missing_and_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NECESSARY", ("numpy", "no-such-package"))
    assert cli.main(["doctor", "--reports", str(tmp_path)]) == 1
    assert "missing: no-such-package" in capsys.readouterr().out


def test_doctor_is_content_where_all_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NECESSARY", ("numpy",))
    monkeypatch.setattr(doctor, "MICRO", "json")
    assert cli.main(["doctor", "--reports", str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out
    assert "all that is necessary is here" in said
    assert f"autoawq           {missing('autoawq') or installed('autoawq')}" in said
    file = tmp_path / "file"
    file.touch()
    assert cli.main(["doctor", "--reports", str(file)]) == 1
