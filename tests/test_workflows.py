"""The CI workflows: valid, pinned, and every command, option, name and file in them exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from effivlm import __main__ as cli
from effivlm import registry
from effivlm.models._sources import checkpoints
from effivlm.weights.libraries import LIBRARIES

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".github" / "workflows"
NAMES = ("cpu", "nightly-gpu")
STAGES = ("cluster",)  # tests that need an environment or a machine of their own
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARTIFACTS = {"outcomes.jsonl", "report.json", "report.html", "tables", "verdict.json", "verdict.html"}


def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def job(name: str) -> dict[str, Any]:
    """The job of a workflow that other jobs may prepare: its last."""
    found: dict[str, Any] = list(workflow(name)["jobs"].values())[-1]
    return found


def steps(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job(name)["steps"]
    return found


def commands(name: str) -> list[list[str]]:
    """Every command of every step as words, with values in the place of the workflow's variables."""
    known, parts = workflow(name)["env"], [part for text in runs(name) for part in text.split("&&")]
    return [shlex.split(re.sub(r"\$(\w+)", lambda found: str(known.get(found[1], found[1])), part)) for part in parts]


def runs(name: str) -> list[str]:
    return [step["run"] for step in steps(name) if "run" in step]


def test_these_are_all_workflows() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*NAMES, *STAGES, "engines"}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_takes_the_actions_of_the_suites_and_runs_files_that_exist(name: str) -> None:
    known = {step["uses"] for suite in NAMES for step in steps(suite) if "uses" in step}
    assert {step["uses"] for step in steps(name) if "uses" in step} <= known
    files = [word for words in commands(name) for word in words if word.endswith(".py")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_every_night_and_by_hand_and_never_beside_itself(name: str) -> None:
    found = workflow(name)
    triggers = found[True]  # YAML 1.1 reads the word "on" as true
    assert re.fullmatch(r"\d+ \d+ \* \* \*", triggers["schedule"][0]["cron"])
    assert triggers["workflow_dispatch"]["inputs"]["update_baseline"]["type"] == "boolean"
    assert found["concurrency"]["group"].startswith(name)
    assert found["permissions"] == {"contents": "read"}
    for one in found["jobs"].values():
        assert ("self-hosted" in one["runs-on"]) == (name == "nightly-gpu")
        assert one["timeout-minutes"] > 0


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.iterdir()))
def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it(name: str) -> None:
    lines = re.findall(r"uses: (.*)", (FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    assert len(lines) == sum("uses" in step for one in workflow(name)["jobs"].values() for step in one["steps"]) >= 2
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line) for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_it_installs_by_the_commands_of_the_readme(name: str) -> None:
    (install,) = (step["run"] for step in steps(name) if step.get("name") == "Install")
    assert install in README
    assert (ROOT / "constraints.txt").exists()


@pytest.mark.parametrize("name", NAMES)
def test_every_command_exists_and_every_name_is_known(name: str, pytestconfig: pytest.Config) -> None:
    ours = {"pytest": 0, "effivlm": 0}
    for words in commands(name):
        if words[:3] == ["python", "-m", "effivlm"]:
            ours["effivlm"] += 1
            assert callable(cli._parser().parse_args(words[3:]).run)
        elif words[0] == "pytest":
            ours["pytest"] += 1
            options = set(re.findall(r"--vlm-[a-z-]+", " ".join(words)))
            assert len(options) > 5
            for option in options:
                assert hasattr(pytestconfig.option, option[2:].replace("-", "_")), option
            assert (ROOT / words[1]).is_dir()
        else:
            assert words[0] in ("pip", "python", "echo"), words
    assert ours == {"pytest": 1, "effivlm": 2}
    known = workflow(name)["env"]
    assert set(known["MODELS"].split(",")) <= set(checkpoints())
    assert set(known["TASKS"].split(",")) <= set(registry.names("tasks"))


def test_every_engine_outside_the_main_environment_is_built_and_tested_in_a_job_and_in_a_stage() -> None:
    found = workflow("engines")
    one = job("engines")
    names = one["strategy"]["matrix"]["name"]
    assert set(names) == set(LIBRARIES) - {"llmcompressor"}
    assert found["permissions"] == {"contents": "read"}
    assert "schedule" in found[True]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = [step["run"] for step in one["steps"] if step.get("run", "").startswith("make ")]
    stages = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in names:
        words = " ".join(asked).replace("${{ matrix.name }}", name).replace("make ", "").split()
        assert words == ["env", f"env-{name}", f"test-{name}"]
        assert set(words) <= targets
        assert f"make env-{name}" in stages
        assert f"make test-{name}" in stages
    assert not any("continue-on-error" in step or "if" in step for step in one["steps"])


def test_the_cpu_suite_is_every_micro_model_on_every_micro_task() -> None:
    known = workflow("cpu")["env"]
    assert set(known["MODELS"].split(",")) == {model for model in checkpoints() if model.startswith("micro_")}
    assert known["TASKS"].split(",") == [task for task in registry.names("tasks") if task.endswith("_micro")]


@pytest.mark.parametrize("name", NAMES)
def test_artifacts_are_uploaded_also_where_the_gate_failed(name: str) -> None:
    *_, tables, upload = steps(name)
    assert "--tables" in tables["run"]
    assert tables["if"] == upload["if"] == "${{ !cancelled() }}"
    run, baseline = workflow(name)["env"]["RUN"], workflow(name)["env"]["BASELINE"]
    paths = {path.rstrip("/") for path in upload["with"]["path"].split()}
    assert paths == {f"{run}/{one}" for one in ARTIFACTS} | {baseline}
    assert Path(baseline).parent == Path("reports/baselines")


def test_the_readme_of_the_baselines_names_the_command_that_makes_them() -> None:
    text = (ROOT / "reports" / "baselines" / "README.md").read_text(encoding="utf-8")
    known = workflow("cpu")["env"]
    joined = " ".join(text.replace("\\\n", " ").split())
    assert f"--vlm-models {known['MODELS']}" in joined
    assert f"--vlm-tasks {known['TASKS']}" in joined
    assert f"--vlm-update-baseline {known['BASELINE']}" in joined
    assert "-k quality" in joined
    (run,) = [words for words in commands("cpu") if "bench_tests" in words]
    limit = run[run.index("--vlm-limit") + 1]
    sizes = f"--vlm-methods {known['METHODS']} --vlm-budgets {known['BUDGETS']} --vlm-limit {limit}"
    assert joined.count(sizes) == 2


def test_the_nightly_methods_are_known_and_the_page_about_them_follows_from_the_baseline() -> None:
    import sys

    known = workflow("cpu")["env"]
    assert set(known["METHODS"].split(",")) <= set(registry.names("methods"))
    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import sensitivity

    side = sensitivity.load(sensitivity.SOURCE)
    assert sensitivity.PAGE.read_text(encoding="utf-8") == sensitivity.page(side)
    grid = sensitivity.Grid.of(side)
    assert sorted(grid.methods) == sorted(set(known["METHODS"].split(",")) - {"dense"})
    assert [f"{keep:.2f}" for keep in grid.keeps] == known["BUDGETS"].split(",")
