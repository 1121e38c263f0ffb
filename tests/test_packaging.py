"""What is in the wheel: every package of the checkout, and the cases with their fixtures where `--pyargs` finds them.

`.ci/wheel` builds it, installs it where no checkout is, and runs a cell.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from toy_session import ROOT

from effivlm.commands import run

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = SETTINGS["package-dir"]
CASES = ("__init__.py", "conftest.py", "test_quality.py", "test_efficiency.py")


def test_every_folder_of_the_package_is_in_the_wheel() -> None:
    here = {path.parent.relative_to(ROOT) for path in (ROOT / "effivlm").rglob("__init__.py")}
    named = {name for name in SETTINGS["packages"] if name not in FOLDERS}
    assert named == {".".join(folder.parts) for folder in here}
    assert set(FOLDERS) <= set(SETTINGS["packages"])


def test_cases_and_their_fixtures_stand_in_the_wheel_under_the_package() -> None:
    cases, fixtures = (ROOT / FOLDERS[name] for name in ("effivlm.bench", "effivlm.bench.fixtures"))
    assert all((cases / name).is_file() for name in CASES)
    conftest = (cases / "conftest.py").read_text(encoding="utf-8")
    for path in fixtures.glob("*.py"):
        assert f'"{path.stem}"' in conftest, f"{path.name} is loaded by no conftest.py of the wheel"
        assert "from fixtures" not in path.read_text(encoding="utf-8"), "that name is not in the wheel"


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ("site/effivlm/bench", ["--pyargs", "effivlm.bench"]),
        ("site/bench_tests", ["{site}/bench_tests", "--rootdir={site}"]),
    ],
    ids=["installed", "checkout"],
)
def test_run_takes_the_cases_of_the_wheel_or_of_the_checkout(
    there: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.effivlm, "__file__", str(tmp_path / "site/effivlm/__init__.py"))
    with pytest.raises(ValueError, match="the cases are missing"):
        run.cases()
    (tmp_path / there).mkdir(parents=True)
    (tmp_path / there / "test_quality.py").touch()
    assert run.cases() == [word.format(site=tmp_path / "site") for word in found]


def test_doctor_says_where_no_cases_are(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from effivlm.__main__ import main

    monkeypatch.setattr(run.effivlm, "__file__", str(tmp_path / "effivlm/__init__.py"))
    assert main(["doctor", "--reports", str(tmp_path)]) == 1
    assert "missing: cases" in capsys.readouterr().out
