"""`python -m effivlm`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from effivlm import __main__ as cli
from effivlm import registry
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


@pytest.mark.parametrize("arguments", [[], ["bench"], ["list", "metrics"], ["report"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["report", "list", "doctor"])
def test_each_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"example: python -m effivlm {command}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", registry.KINDS)
def test_list_gives_every_name_with_a_line_and_its_presets(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", kind]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[1:]}
    assert sorted(rows) == registry.names(kind)
    for name, row in rows.items():
        assert len(row.split()) > 1, f"{name} has no docstring"
        for preset in registry.declared(kind, name).get("presets") or ():
            assert preset in row.partition("presets:")[2]


def test_listing_and_reporting_import_neither_torch_nor_pytest(tmp_path: Path) -> None:
    store(tmp_path, small_run())
    code = (
        "import sys; from effivlm.__main__ import main; main(['list']); main(['report', sys.argv[1]]);"
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
    monkeypatch.setattr(cli, "NECESSARY", ("numpy", "no-such-package"))
    assert cli.main(["doctor", "--reports", str(tmp_path)]) == 1
    assert "missing: no-such-package" in capsys.readouterr().out


def test_doctor_is_content_where_all_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "NECESSARY", ("numpy",))
    monkeypatch.setattr(cli, "MICRO", "json")
    assert cli.main(["doctor", "--reports", str(tmp_path / "new")]) == 0
    assert "all that is necessary is here" in capsys.readouterr().out
    file = tmp_path / "file"
    file.touch()
    assert cli.main(["doctor", "--reports", str(file)]) == 1
