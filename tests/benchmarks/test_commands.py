"""`run --dry-run` and `rescore`: what a run will mean, and what its answers are worth after a scorer changed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from published_sets import Opened

from effivlm import __main__ as cli
from effivlm import registry, suites
from effivlm.records import Answer, Cell, Outcome
from effivlm.session import matrix
from effivlm.session.matrix import Asked
from effivlm.session.recorder import Recorder, read


@pytest.mark.parametrize("kind", ["tasks", "models", "methods"])
def test_suites_hold_names_that_exist(kind: str) -> None:
    from effivlm.models._sources import checkpoints
    from effivlm.run import steps

    for word, names in suites.suites(kind).items():
        assert len(set(names)) == len(names)
        assert word not in registry.names("tasks")
        for name in names:
            if kind == "tasks":
                assert name in registry.names("tasks")
            elif kind == "models":
                assert name in checkpoints()
            else:
                assert steps.asked(name)


def test_suites_expand_beside_names_and_each_name_counts_once() -> None:
    assert suites.expanded("tasks", ("hard", "gqa", "docvqa"))[-1] == "gqa"
    assert suites.expanded("tasks", ("hard", "docvqa")) == suites.suites("tasks")["hard"]
    plan = matrix.build(Asked(tasks=("hard",), methods=("paper",), budgets=("0.10",)))
    assert {cell.task for cell in plan.cells} == set(suites.suites("tasks")["hard"])
    assert ("fastv", "effivlm") in {(cell.method, cell.preset) for cell in plan.cells}


def test_a_dry_run_says_cells_downloads_memory_time_and_the_command(
    mirror: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    models = "random:qwen2_vl_7b,micro_qwen2_vl"
    assert (
        cli.main(
            ["run", "--suite", "hard", "--models", models, "--budgets", "0.1", "--methods", "dense,fastv", "--dry-run"]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cells: 24 (2 models x 6 tasks x 2 methods and budgets), 24 cases"
    assert sum(line.startswith("set ") and line.endswith("to download") for line in lines) == 6
    assert any("memory random:qwen2_vl_7b: 16.6 GB of weights and about 630.8 MB of caches" in line for line in lines)
    assert any(line.startswith("memory here: ") for line in lines)
    assert [line.split()[1] for line in lines if line.startswith("time ")] == [
        f"{x}:" for x in suites.suites("tasks")["hard"]
    ]
    assert any(line.startswith("time docvqa: ") and line.endswith("5349 samples a cell") for line in lines)
    assert lines[-1].endswith(
        f"--vlm-models={models} --vlm-methods=dense,fastv --vlm-budgets=0.1 --vlm-tasks=hard --vlm-limit=1000000000"
    )


def test_a_dry_run_sees_what_is_here_and_names_models_that_are_not(
    mirror: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--tasks", "docvqa,gqa_micro", "--models", "nowhere_7b", "--data", str(mirror), "--dry-run"]
    assert cli.main(["run", *arguments]) == 0
    out = capsys.readouterr().out
    assert f"set docvqa: here ({mirror / 'docvqa'})" in out
    assert "model nowhere_7b: unknown model 'nowhere_7b'" in out


def test_a_dry_run_says_which_tasks_lack_a_judge(mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["run", "--tasks", "mmvet,gqa_micro", "--data", str(mirror), "--dry-run"]
    assert cli.main(arguments) == 0
    assert "judge of mmvet: missing; give --judge SPEC, or --judge none to store" in capsys.readouterr().out
    assert cli.main([*arguments, "--judge", "none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "judge of mmvet: none" in lines
    assert " --vlm-judge=none" in lines[-1]


def test_a_run_without_tasks_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--dry-run"]) == 1
    assert "name what to run: --suite paper, or --tasks docvqa,gqa" in capsys.readouterr().err


def stored(folder: Path, opened: Opened, mirror: Path, name: str, said: str, score: float) -> Path:
    """A run of one task whose answers all say the same, and were scored by somebody else."""
    samples = list(opened(name).samples(100, 0))
    answers = tuple(Answer(one.id, one.prompt_sha256, said, said, score, tokens=(1,)) for one in samples)
    broken = Answer("gone", "0" * 64, "", "", None, error="ValueError: torn")
    cell = Cell("twin", "dense", "paper", "1.00", name)
    recorder = Recorder(folder)
    recorder.open(
        {"settings": {"limit": 100, "seed": 0, "data": str(mirror), "folders": {}}, "started": "2026-11-28T12:00:00"}
    )
    recorder.add(Outcome(cell, "before", "ok", n=len(samples), broken=1, score=score, answers=(*answers, broken)))
    recorder.close({"status": "finished", "reason": "", "exit_code": 0, "seconds": 1.0})
    return folder


@pytest.mark.parametrize(
    ("name", "said", "expected"), [("docvqa", "value 1", 5 / 6), ("vqa2", "Yes", 1.0), ("mmbench_en", "A", 0.0)]
)
def test_answers_are_scored_again_without_a_model(
    name: str,
    said: str,
    expected: float,
    tmp_path: Path,
    opened: Opened,
    mirror: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = stored(tmp_path / "run", opened, mirror, name, said, 0.5)
    assert cli.main(["rescore", str(run)]) == 0
    (outcome,) = [Outcome.from_json(one) for one in read(tmp_path / "run-rescored") if one["kind"] == "outcome"]
    assert outcome.score is not None
    assert (outcome.score > 0.8) == (expected > 0.8)
    assert outcome.answers[-1].error == "ValueError: torn"
    assert outcome.fingerprint != "before"
    assert outcome.metric == registry.load("tasks", name).metric
    assert f"twin-dense-keep1.00-{name}: 50.00 is " in capsys.readouterr().out
    assert (tmp_path / "run-rescored" / "report.html").exists()
    assert json.loads((tmp_path / "run" / "outcomes.jsonl").read_text().split("\n")[1])["score"] == 0.5


def test_answers_to_other_prompts_are_not_scored_again(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stored(tmp_path / "run", opened, mirror, "docvqa", "x", 0.5)
    monkeypatch.setattr("effivlm.tasks.docvqa.SHORT", "\nBriefly.")
    assert cli.main(["rescore", str(run)]) == 1
    assert "with another prompt or set than there is now" in capsys.readouterr().err


def test_of_a_run_gone_on_with_the_last_session_is_scored_again(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its samples are those of the last session; what another seed asked before is no part of the run any more."""
    run = stored(tmp_path / "run", opened, mirror, "docvqa", "value 1", 0.5)
    header, *lines = (run / "outcomes.jsonl").read_text().splitlines()
    before = json.loads(header)
    before["settings"] |= {"limit": 1, "seed": 7}
    outdated = json.loads(lines[0])
    outdated["cell"]["method"] = "fastv"
    outdated["answers"][0]["prompt_sha256"] = "1" * 64
    ended = {"kind": "end", "status": "interrupted", "reason": "stopped", "exit_code": 2, "seconds": 1.0}
    sessions = [json.dumps(before), json.dumps(outdated), json.dumps(ended), header, *lines]
    (run / "outcomes.jsonl").write_text("\n".join(sessions) + "\n")
    found = again(run, capsys)
    assert (found.cell.method, found.n) == ("dense", len(found.answers) - 1)
    document = json.loads((tmp_path / "run-rescored" / "report.json").read_text())
    assert (document["run"]["settings"]["limit"], document["run"]["status"]) == (100, "finished")


def test_a_shard_has_no_scores_to_make_again(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "run", opened, mirror, "docvqa", "value 1", 0.5)
    text = (run / "outcomes.jsonl").read_text()
    (run / "outcomes.jsonl").write_text(text.replace('"limit":100', '"shard":"1/3","limit":100', 1))
    assert cli.main(["rescore", str(run)]) == 1
    assert "is shard 1/3, which has no scores: merge all of them" in capsys.readouterr().err
    assert not (tmp_path / "run-rescored").exists()


def test_a_run_without_answers_is_not_scored_again(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "run", opened, mirror, "docvqa", "value 1", 0.5)
    header, outcome, *end = (run / "outcomes.jsonl").read_text().splitlines()
    cut = {**json.loads(outcome), "status": "interrupted", "score": None, "answers": [], "n": 0}
    (run / "outcomes.jsonl").write_text("\n".join([header, json.dumps(cut), *end]) + "\n")
    assert cli.main(["rescore", str(run)]) == 1
    assert "holds no answers to score: no quality case of it was measured" in capsys.readouterr().err
    assert not (tmp_path / "run-rescored").exists()


def test_commands_start_without_torch_and_datasets() -> None:
    code = (
        "import sys; from effivlm.__main__ import main; main(['run', '--suite', 'paper', '--dry-run', '--models',"
        " 'random:qwen2_vl_7b']); sys.exit(bool({'torch', 'transformers', 'datasets', 'pytest'} & set(sys.modules)))"
    )
    environment = {"PYTHONPATH": str(Path(cli.__file__).parent.parent), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


def again(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> Outcome:
    assert cli.main(["rescore", str(folder), *arguments]) == 0, capsys.readouterr().err
    out = Path(arguments[-1]) if "--out" in arguments else folder.with_name(f"{folder.name}-rescored")
    (outcome,) = [Outcome.from_json(one) for one in read(out) if one["kind"] == "outcome"]
    return outcome


def test_stored_answers_are_scored_in_the_profile_that_is_asked_for_or_as_the_run_was(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "run", opened, mirror, "ai2d", "The answer is (A).", 0.5)
    as_it_was = again(run, capsys, "--out", str(tmp_path / "one"))
    assert (as_it_was.profile, as_it_was.score) == ("fixed", 0.25)
    assert all(one.invalid is False for one in as_it_was.answers[:-1])
    compat = again(run, capsys, "--scoring", "compat", "--out", str(tmp_path / "two"))
    assert (compat.profile, compat.score) == ("compat", 0.0)
    assert compat.fingerprint != as_it_was.fingerprint
    once_more = again(tmp_path / "two", capsys, "--out", str(tmp_path / "three"))
    assert (once_more.profile, once_more.score) == ("compat", 0.0), "a run's own profile stands"
    with pytest.raises(SystemExit):
        cli.main(["rescore", str(run), "--scoring", "paper"])
    assert "invalid choice: 'paper'" in capsys.readouterr().err


def test_scoring_again_counts_answers_that_say_nothing_and_tells_parts(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = stored(tmp_path / "run", opened, mirror, "pope", "perhaps", 0.5)
    found = again(run, capsys)
    assert all(one.invalid for one in found.answers[:-1])
    assert set(found.parts) == {"popular", "F1", "precision", "recall", "yes ratio"}
    assert {one.part for one in found.answers[:-1]} == {"popular"}
    document = json.loads((tmp_path / "run-rescored" / "report.json").read_text())
    assert document["cells"][0]["invalid"]["rate"] == 1.0


def test_a_dry_run_measures_samples_here_and_foresees_the_time_by_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    arguments = ["--tasks", "gqa_micro,docvqa", "--models", "micro_qwen2_vl", "--methods", "dense,snapkv"]
    assert cli.main(["run", *arguments, "--budgets", "0.1,0.4", "--limit", "200", "--dry-run", "--measure"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [one for one in lines if one.startswith("time micro_qwen2_vl gqa_micro: ")]
    said = re.fullmatch(
        r"time .*: about (\d+) (s|min), 200 samples \(measured now: (\S+) s a sample under 3 cells, (\S+) s under dense alone\)",
        line,
    )
    assert said, line
    foreseen = int(said[1]) * (60 if said[2] == "min" else 1)
    assert foreseen >= 0.6 * 200 * float(said[3])
    assert float(said[4]) > 0
    assert "time micro_qwen2_vl docvqa: not measured, its set is not here" in lines
    assert any(one.endswith("and what 1 groups take that were not measured") for one in lines)
    assert not list(tmp_path.rglob("outcomes.jsonl")), "nothing was stored"


def test_measuring_without_a_dry_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["run", "--tasks", "gqa_micro", "--measure"]) == 1
    assert "--measure asks samples for --dry-run: give both, or neither" in capsys.readouterr().err


def test_a_group_that_breaks_says_why_and_the_next_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from effivlm.run import group
    from effivlm.session.measure import measure

    run_group = group.run_group

    def broken(cells: list[Cell], *given: object) -> list[Outcome]:
        if cells[0].task == "gqa_micro":
            return [Outcome(cells[0].dense, "", "failed", reason="every sample broke")]
        return run_group(cells, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(group, "run_group", broken)
    asked = Asked(models=("micro_qwen2_vl",), methods=("dense",), tasks=("gqa_micro", "mme_image_micro"), device="cpu")
    first, second = measure(matrix.build(asked), {})
    assert (first.task, first.sample_s) == ("gqa_micro", 0.0)
    assert "every sample broke" in first.reason
    assert (second.task, second.reason) == ("mme_image_micro", "")
    assert second.seconds(100) == pytest.approx(second.once_s + 100 * second.sample_s)


def waiting(folder: Path, opened: Opened, errors: bool = False) -> Path:
    """A run of DocVQA's test questions, whose answers only a server can score."""
    samples = list(opened("docserver").samples(100, 0))
    answers = [Answer(one.id, one.prompt_sha256, f" W {one.id[-1]}\n", "", None, tokens=(1,)) for one in samples]
    if errors:
        answers[1] = replace(answers[1], error="OSError: torn")
    recorder = Recorder(folder)
    recorder.open({"settings": {"limit": 100, "seed": 0}, "started": "2026-11-28T12:00:00"})
    cell = Cell("twin", "dense", "paper", "1.00", "docserver")
    recorder.add(Outcome(cell, "f", "unsupported", reason="scored elsewhere", answers=tuple(answers)))
    recorder.close({"status": "finished", "reason": "", "exit_code": 0, "seconds": 1.0})
    return folder


def test_answers_to_docvqas_test_questions_are_written_as_its_server_takes_them(
    tmp_path: Path, opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = waiting(tmp_path / "run", opened)
    assert cli.main(["export", str(folder)]) == 0
    path = folder / "export" / "twin-dense-keep1.00-docserver.json"
    assert capsys.readouterr().out == f"{path}\n"
    found = sorted(json.loads(path.read_text()), key=lambda one: one["questionId"])
    assert found == [{"questionId": 500 + n, "answer": f"W {n}"} for n in range(4)]


def test_answers_to_what_an_earlier_session_asked_are_not_exported(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = waiting(tmp_path / "run", opened)
    header, outcome, *rest = (folder / "outcomes.jsonl").read_text().splitlines()
    before, outdated = json.loads(header), json.loads(outcome)
    before["settings"]["seed"], outdated["cell"]["method"] = 7, "fastv"
    text = "\n".join([json.dumps(before), json.dumps(outdated), header, outcome, *rest, ""])
    (folder / "outcomes.jsonl").write_text(text)
    assert cli.main(["export", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'export' / 'twin-dense-keep1.00-docserver.json'}\n"


def test_an_export_that_would_be_incomplete_or_empty_is_refused(
    tmp_path: Path, opened: Opened, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = waiting(tmp_path / "broken", opened, errors=True)
    assert cli.main(["export", str(broken)]) == 1
    assert "1 of its samples broke, the first is 60-501: resume the run first" in capsys.readouterr().err
    other = stored(tmp_path / "other", opened, mirror, "gqa", "no", 1.0)
    assert cli.main(["export", str(other)]) == 1
    assert "holds no answers of a task that a server scores (docserver)" in capsys.readouterr().err
    assert cli.main(["export", str(tmp_path / "nowhere")]) == 1
    assert "holds no outcomes.jsonl" in capsys.readouterr().err


def test_a_dry_run_names_the_checkpoints_that_methods_make(
    mirror: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    methods = "dense,wanda,gptq@balanced,awq+fastv,wanda:2:4+snapkv"
    command = ["run", "--tasks", "docvqa", "--models", "micro_qwen2_vl", "--methods", methods, "--dry-run"]
    assert cli.main([*command, "--budgets", "64tok,2:4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (made,) = [line for line in lines if line.startswith("checkpoints: ")]
    assert made.startswith("checkpoints: wanda 2:4, gptq@balanced w4g128, awq w4g128 of each model are made once")
    assert lines[0].startswith("cells: 5 ")
