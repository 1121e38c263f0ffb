"""A run folder belongs to one session at a time, and only the record of a run is gone on with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_plugin_interrupt import wait_for
from toy_session import Toy

from effivlm.report.document import build, read
from effivlm.session.places import LOCK, Lock, claim, trial
from tests.outcomes import END, HEADER, cell, quality

QUALITY = ("-k", "quality")
HOLDER = "import sys, time; from pathlib import Path; from effivlm.session.places import Lock\n"
HOLDING = HOLDER + "lock = Lock(Path(sys.argv[1])); lock.hold(); print('held', flush=True); time.sleep(60)"


@pytest.fixture
def held(tmp_path: Path) -> Any:
    """A folder that a process holds, and that process."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield tmp_path, process
    process.kill()
    process.wait()


def test_a_held_folder_is_refused_with_who_holds_it(held: tuple[Path, Any]) -> None:
    folder, process = held
    with pytest.raises(ValueError, match=f"in use by process {process.pid} on {socket.gethostname()} since 20"):
        Lock(folder).hold()


def test_the_lock_of_a_killed_process_is_taken_over_with_a_note(held: tuple[Path, Any]) -> None:
    folder, process = held
    process.kill()
    process.wait()
    lock = Lock(folder)
    lock.hold()
    assert f"process {process.pid} on" in lock.note
    lock.release()
    assert not (folder / LOCK).exists()
    again = Lock(folder)
    again.hold()
    assert again.note == ""
    again.release()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"pid": "x", "host": "h"}', "\udcff"])
def test_a_lock_file_that_says_nothing_holds_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_bytes(text.encode("utf-8", "surrogateescape"))
    lock = Lock(tmp_path)
    lock.hold()
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    lock.release()


def test_a_lock_of_another_host_is_refused_with_the_file_to_delete(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "then"}))
    with pytest.raises(ValueError, match=f"process 1 on elsewhere since then: .*delete {tmp_path / LOCK}"):
        Lock(tmp_path).hold()


def test_where_the_file_system_knows_no_locks_the_process_in_the_file_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("effivlm.session.places.fcntl", None)
    ours = Lock(tmp_path)
    ours.hold()
    with pytest.raises(ValueError, match="in use by process"):
        Lock(tmp_path).hold()
    written = json.loads((tmp_path / LOCK).read_text())
    (tmp_path / LOCK).write_text(json.dumps({**written, "born": "another process with that number"}))
    lock = Lock(tmp_path)
    lock.hold()
    assert "which is gone" in lock.note


def test_folders_of_one_second_differ(tmp_path: Path) -> None:
    names = [claim(tmp_path / "reports", "20260101-000000").name for _ in range(3)]
    assert names == ["20260101-000000", "20260101-000000-2", "20260101-000000-3"]


def test_a_trial_leaves_nothing_behind_also_where_it_fails(tmp_path: Path) -> None:
    trial(tmp_path / "a" / "b" / "file")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / "c" / ("x" * 300)):
        with pytest.raises(OSError, match=r"Not a directory|too long|File exists"):
            trial(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file"]


def unnamed(toy: Toy) -> list[str]:
    """Arguments of a quality session whose folder nobody names."""
    return [one for one in toy.arguments(*QUALITY) if one not in ("--vlm-run", "out")]


def test_sessions_of_one_second_get_folders_and_results_of_their_own(toy: Toy) -> None:
    toy.add("import time\ntime.strftime = lambda *given: '20260101-000000'\n")
    toy.wish(sleep=0.3)
    command = [sys.executable, "-m", "pytest", *unnamed(toy)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
    started = [toy.pytester.popen([*command, f"--vlm-limit={limit}"], **pipes) for limit in (2, 3, 4)]
    said = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    folders = sorted((toy.path / "reports").iterdir())
    assert len(folders) == 3
    for limit, output in zip((2, 3, 4), said, strict=True):
        (folder,) = (one for one in folders if f"outcomes.jsonl: {one}/outcomes.jsonl\n" in output)
        report = json.loads((folder / "report.json").read_text())
        assert {one["n"] for one in report["cells"]} == {limit}


def test_a_session_without_a_run_leaves_no_folder(toy: Toy) -> None:
    arguments = unnamed(toy)
    toy.pytester.runpytest_inprocess(*arguments, "--collect-only")
    toy.pytester.runpytest_inprocess(*arguments, "--vlm-methods=nobody")
    toy.pytester.runpytest_inprocess(*arguments, "-k", "nobody")
    assert not (toy.path / "reports").exists()


@pytest.mark.parametrize("option", ["--vlm-run", "--vlm-resume"])
def test_a_second_session_on_one_folder_is_refused_and_the_first_is_unharmed(toy: Toy, option: str) -> None:
    toy.run("-k", "quality and fastv", "--vlm-limit=500")
    toy.wish(sleep=0.1)
    resume = ["--vlm-resume=out"] if option == "--vlm-resume" else []
    first = toy.start(*QUALITY, *resume, "--vlm-limit=500", run="second")
    wait_for(toy, "group", 2)
    folder = "out" if resume else "second"
    before = (toy.path / folder / "outcomes.jsonl").read_text()
    second = toy.run(*QUALITY, f"--vlm-resume={folder}")
    assert second.ret == 4
    assert f"{folder} is in use by process {first.pid} on " in str(second.stderr)
    assert (toy.path / folder / "outcomes.jsonl").read_text() == before
    toy.wish()
    first.communicate(timeout=60)
    assert first.returncode == 0
    assert not (toy.path / folder / LOCK).exists()


def test_two_sessions_that_name_one_new_folder_do_not_share_it(toy: Toy) -> None:
    toy.wish(sleep=0.4)
    both = [toy.start(*QUALITY, run="same") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 4]
    (refused,) = (text for process, text in zip(both, said, strict=True) if process.returncode == 4)
    assert "in use by process" in refused or "holds a run already" in refused
    assert [one["kind"] for one in toy.records("same")].count("run") == 1


def test_workers_of_a_session_share_its_folder(toy: Toy) -> None:
    arguments = [*unnamed(toy), "--vlm-tasks=docvqa_micro,count_micro", "-n2"]
    result = toy.pytester.runpytest_subprocess(*arguments, timeout=120)
    result.assert_outcomes(passed=10)
    assert len(list((toy.path / "reports").iterdir())) == 1


def test_a_killed_session_can_be_gone_on_with_at_once(toy: Toy) -> None:
    toy.wish(sleep=0.2)
    process = toy.start(*QUALITY, "--vlm-tasks=docvqa_micro,count_micro")
    wait_for(toy, "group", 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    assert (toy.path / "out" / LOCK).exists()
    result = toy.run(*QUALITY, "--vlm-tasks=docvqa_micro,count_micro", "--vlm-resume=out")
    assert result.ret == 0
    result.stdout.fnmatch_lines([f"note: *out was held by process {process.pid} on *, which is gone*"])


def without(word: str) -> Callable[[dict[str, Any]], Any]:
    return lambda record: {key: value for key, value in record.items() if key != word}


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (1, lambda record: 42, "line 2 is 42, not a record*"),
        (1, lambda record: [record], "line 2 is [*, not a record*"),
        (1, lambda record: "text", 'line 2 is "text", not a record*'),
        (1, lambda record: None, "line 2 is null, not a record*"),
        (1, lambda record: {**record, "kind": "invoice"}, 'line 2 is of kind "invoice", not one of run, outcome*'),
        (1, lambda record: {**record, "kind": ["outcome"]}, "line 2 is of kind [[]*, not one of run, outcome*"),
        (1, without("kind"), "line 2 is of kind null*"),
        (1, without("cell"), "line 2 is no outcome of schema 1: lacks 'cell'"),
        (1, without("answers"), "line 2 is no outcome of schema 1: lacks 'answers'"),
        (1, lambda record: {**record, "cell": 3}, "line 2 is no outcome of schema 1: its cell is no object"),
        (1, lambda record: {**record, "cell": {**record["cell"], "task": 7}}, "line 2 is no outcome*task '7'*"),
        (1, lambda record: {**record, "score": "high"}, "line 2 is no outcome of schema 1: it has score 'high'*"),
        (
            1,
            lambda record: {**record, "score": 17.5},
            "line 2 is no outcome*it has the score 17.5, which does not lie in [[]0, 1]",
        ),
        (1, lambda record: {**record, "score": -0.01}, "line 2 is no outcome*the score -0.01, which does not lie*"),
        (1, lambda record: {**record, "answers": 5}, "line 2 is no outcome of schema 1: it has answers '5'*"),
        (1, lambda record: {**record, "answers": [5]}, "line 2 is no outcome of schema 1: *"),
        (1, lambda record: {**record, "colour": "red"}, "line 2 is no outcome of schema 1: *colour*"),
        (0, lambda record: {**record, "schema": 2}, "line 1 has schema 2; this version of effivlm writes schema 1"),
        (0, without("schema"), "line 1 has schema null*"),
        (0, lambda record: {"name": "a", "rows": []}, "line 1 is of kind null*"),
        (0, lambda record: {"kind": "end"}, "line 1 is of kind 'end', and a run's header must stand before it*"),
    ],
)
def test_a_record_that_is_no_runs_is_refused_before_anything_runs_or_is_added(
    toy: Toy, place: int, wrong: Callable[[dict[str, Any]], Any], message: str
) -> None:
    toy.run("-k", "quality and fastv")
    toy.forget()
    path = toy.path / "out" / "outcomes.jsonl"
    records = toy.records()
    records[place] = wrong(records[place])
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    before = path.read_bytes()
    result = toy.run(*QUALITY, "--vlm-resume=out")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {path} {message}"])
    assert "Traceback" not in str(result.stderr) + str(result.stdout)
    assert path.read_bytes() == before
    assert not toy.log("open")


@pytest.mark.parametrize("text", ["name,score\na,1\n", "", "\n\n", "\x00\x01"])
def test_a_file_of_another_program_is_not_added_to(toy: Toy, text: str) -> None:
    (toy.path / "out").mkdir()
    path = toy.path / "out" / "outcomes.jsonl"
    path.write_text(text)
    result = toy.run(*QUALITY, "--vlm-resume=out")
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {path} *this file is no record of a run"])
    assert path.read_text() == text


def test_a_foreign_record_beside_a_run_disturbs_no_session(toy: Toy) -> None:
    other = toy.path / "reports" / "other"
    other.mkdir(parents=True)
    foreign = ["42", "[1]", "null", '"text"', "not json", '{"kind": "end", "rates": {}}']
    ends = [{"rates": [1]}, {"rates": {"toy_a docvqa_micro": 3}}, {"rates": {"a b": {"quality": "x"}}}]
    ends += [{"samples": samples, "rates": {"toy_a docvqa_micro": {"quality": 1.0}}} for samples in (1, "many", None)]
    foreign += [json.dumps({"kind": "end", "status": "finished", **end}) for end in ends]
    (other / "outcomes.jsonl").write_text("\n".join(foreign) + "\n")
    (other.parent / "folder" / "outcomes.jsonl").mkdir(parents=True)
    (other.parent / "gone").mkdir()
    (other.parent / "gone" / "outcomes.jsonl").symlink_to("nowhere")
    result = toy.pytester.runpytest_inprocess(*unnamed(toy))
    result.assert_outcomes(passed=5, deselected=10)


@pytest.mark.parametrize("option", ["--vlm-seed=7", "--vlm-dtype=bfloat16", "--vlm-engine=eager"])
def test_a_run_gone_on_with_under_other_settings_shows_one_kind_of_outcomes(toy: Toy, option: str) -> None:
    toy.run(*QUALITY)
    result = toy.run("-k", "quality and fastv", "--vlm-resume=out", option)
    assert result.ret == 0
    word, value = option.removeprefix("--vlm-").split("=")
    result.stdout.fnmatch_lines([f"effivlm: resuming: 5 outcomes do not count any more: {word} *, now {value}"])
    report = toy.report()
    assert {one["method"] for one in report["cells"]} == {"dense", "fastv"}
    assert str(report["run"]["settings"][word]) == value
    (note,) = report["run"]["notes"]
    assert note.startswith("2 outcomes of an earlier session were left out: ")


def test_outcomes_of_two_seeds_in_one_file_are_never_shown_together(tmp_path: Path) -> None:
    one, other = quality(cell(), [1, 1, 0]), quality(cell("fastv", "0.10"), [1, 0, 0])
    lines = [
        {**HEADER, "settings": {"seed": 0}},
        one.to_json(),
        other.to_json(),
        END,
        {**HEADER, "settings": {"seed": 7}},
        replace(one, score=0.5).to_json(),
        END,
    ]
    path = tmp_path / "outcomes.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    header, outcomes, end = read(path)
    document = build(header, outcomes, end)
    assert [(row["method"], row["score"]) for row in document["cells"]] == [("dense", 0.5)]
    assert document["run"]["settings"] == {"seed": 7}
    assert document["run"]["notes"] == ["1 outcomes of an earlier session were left out: seed 0, now 7"]


def test_answers_to_other_questions_are_not_paired_with_denses(tmp_path: Path) -> None:
    dense, fast = quality(cell(), [1, 1, 0, 1]), quality(cell("fastv", "0.10"), [1, 0, 0, 1])
    asked = replace(fast, answers=tuple(replace(one, prompt_sha256="1" * 64) for one in fast.answers))
    rows = [build(HEADER, [dense, one], END)["cells"][1] for one in (fast, asked)]
    assert rows[0]["ratio"] == pytest.approx(2 / 3)
    assert (rows[1]["ratio"], rows[1]["paired"]) == (None, None)
    assert rows[1]["remarks"] == ["4 of its samples ask other questions than dense's, so there is no ratio"]
