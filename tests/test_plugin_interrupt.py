"""Interrupts, kills and full disks lose no finished outcome, and a run can be gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from toy_session import Toy

from effivlm.session import recorder

QUALITY = ("-k", "quality")
TASKS = "--vlm-tasks=docvqa_micro,count_micro"
LIMITED = """
import resource, signal

def pytest_vlm_outcome(config, outcome):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
"""


def wait_for(toy: Toy, word: str, count: int) -> None:
    """Until the toy log holds `count` lines of that kind."""
    deadline = time.monotonic() + 60
    while len(toy.log(word)) < count:
        assert time.monotonic() < deadline, f"no {word} in {(toy.path / 'toy_log.txt').read_text()}"
        time.sleep(0.02)


def test_an_interrupt_keeps_what_is_done_and_names_what_is_not(toy: Toy) -> None:
    toy.add("def pytest_vlm_outcome(config, outcome):\n    toy_world.note('saved', outcome.cell.id)\n")
    toy.wish(sleep=0.2)
    process = toy.start(*QUALITY, TASKS)
    wait_for(toy, "group", 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    outcomes = [one for one in toy.records() if one["kind"] == "outcome"]
    assert [one["status"] for one in outcomes] == ["ok"] * 5 + ["interrupted"] * 5
    assert {one["cell"]["task"] for one in outcomes[5:]} == {"count_micro"}
    end = toy.records()[-1]
    assert (end["kind"], end["status"], end["reason"]) == ("end", "interrupted", "interrupted from the keyboard")
    assert toy.report()["run"]["status"] == "interrupted"
    assert "RUN INTERRUPTED" in output


def test_a_killed_session_has_every_finished_group_on_disk(toy: Toy) -> None:
    toy.wish(sleep=0.2)
    process = toy.start(*QUALITY, TASKS)
    wait_for(toy, "group", 2)
    process.kill()
    process.communicate(timeout=30)
    records = toy.records()
    assert [one["kind"] for one in records] == ["run"] + ["outcome"] * 5 + ["sample"] * 2
    assert set(toy.outcomes().values()) == {"ok"}


def test_a_resumed_run_runs_only_what_is_missing(toy: Toy) -> None:
    toy.run("-k", "quality and fastv")
    toy.forget()
    result = toy.run(*QUALITY, "--vlm-resume=out")
    result.assert_outcomes(passed=5, deselected=10)
    assert toy.log("group") == ["toy_a-snapkv-keep0.10-docvqa_micro toy_a-snapkv-keep0.40-docvqa_micro"]
    result.stdout.fnmatch_lines(["effivlm: resuming: 3 of 5 outcomes of * stand and are not run again"])
    assert len([one for one in toy.records() if one["kind"] == "outcome"]) == 5
    assert toy.report()["run"]["status"] == "finished"


def test_a_finished_run_resumed_opens_no_model(toy: Toy) -> None:
    toy.run()
    toy.forget()
    result = toy.run("--vlm-resume=out")
    result.assert_outcomes(passed=15)
    assert not (toy.path / "toy_log.txt").exists()


def test_failures_run_again_and_their_last_word_counts(toy: Toy) -> None:
    toy.wish(failing=["toy_a-fastv-keep0.10-docvqa_micro"])
    assert toy.run(*QUALITY).ret == 1
    toy.wish()
    toy.forget()
    assert toy.run(*QUALITY, "--vlm-resume=out").ret == 0
    assert toy.log("group") == ["toy_a-fastv-keep0.10-docvqa_micro"]
    assert toy.report()["failed"] == []


def test_outcomes_of_other_settings_are_not_reused(toy: Toy) -> None:
    toy.run(*QUALITY)
    toy.forget()
    toy.run(*QUALITY, "--vlm-resume=out", "--vlm-limit=3")
    assert len(toy.log("group")[0].split()) == 5
    assert {cell["n"] for cell in toy.report()["cells"]} == {3}


def test_a_line_cut_by_a_kill_is_passed_over_when_going_on(toy: Toy) -> None:
    toy.run(*QUALITY)
    path = toy.path / "out" / "outcomes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    toy.forget()
    result = toy.run(*QUALITY, "--vlm-resume=out")
    assert result.ret == 0
    assert len(toy.log("group")[0].split()) == 3
    records = list(recorder.read(toy.path / "out"))
    assert [one["kind"] for one in records] == [
        "run",
        "outcome",
        "outcome",
        "run",
        "outcome",
        "outcome",
        "outcome",
        "sample",
        "sample",
        "end",
    ]


def test_a_disk_that_fills_up_ends_the_run_in_one_sentence(toy: Toy) -> None:
    toy.add(LIMITED)
    toy.wish(length=5000)
    result = toy.run_apart(*QUALITY, TASKS)
    assert result.ret == 1
    output = str(result.stdout) + str(result.stderr)
    assert "outcomes can no longer be saved: File too large: cannot write" in output
    assert "--vlm-resume" in output
    assert "Traceback" not in output
    assert toy.log("group")[1:] == []
    assert "ok" in {one["status"] for one in recorder.read(toy.path / "out") if one["kind"] == "outcome"}


def test_stopping_at_the_first_failure_leaves_the_rest_as_interrupted(toy: Toy) -> None:
    toy.wish(boom="docvqa_micro")
    result = toy.run(*QUALITY, TASKS, "-x")
    assert result.ret == 1
    assert toy.records()[-1]["reason"] == "stopping after 1 failures"
    statuses = [one["status"] for one in toy.records() if one["kind"] == "outcome"]
    assert statuses == ["failed"] * 5 + ["interrupted"] * 5


def test_an_answer_may_hold_characters_that_other_programs_take_for_line_ends(toy: Toy) -> None:
    folder = toy.path / "odd"
    kept = recorder.Recorder(folder)
    kept.open({"note": "one\u2028two\x85three"})
    kept.close({})
    assert [one["kind"] for one in recorder.read(folder)] == ["run", "end"]
    assert set(os.listdir(folder)) == {".gitignore", "outcomes.jsonl"}


def test_a_record_says_whether_the_code_was_that_of_its_commit(tmp_path: Path) -> None:
    assert recorder.commit(tmp_path) == "", "no repository"
    file = tmp_path / "code.py"
    file.write_text("a = 1\n", encoding="utf-8")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "code.py"], ["commit", "-q", "-m", "first"], ["tag", "-m", "one", "v1"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "note.txt").write_text("not code", encoding="utf-8")
    assert recorder.commit(tmp_path) == head
    file.write_text("a = 2\n", encoding="utf-8")
    assert recorder.commit(tmp_path) == f"{head}+changes"
