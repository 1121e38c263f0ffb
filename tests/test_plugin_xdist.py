"""Beside other workers: the same outcomes, groups that stay together, workers that die; and life without xdist."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from test_plugin_interrupt import wait_for
from toy_session import Toy

TASKS = "--vlm-tasks=docvqa_micro,count_micro"
QUALITY = ("-k", "quality")
FOLDER = [".gitignore", "outcomes.jsonl", "report.html", "report.json"]


def answers(toy: Toy, run: str) -> list[tuple[object, ...]]:
    """What was measured, without the order in which it came."""
    return sorted(
        (one["cell"]["task"], one["cell"]["method"], one["cell"]["keep"], one["part"], one["status"], one["score"])
        for one in toy.records(run)
        if one["kind"] == "outcome"
    )  # fmt: skip


def test_two_workers_record_what_one_process_records_and_a_group_stays_on_one(toy: Toy) -> None:
    toy.run(*QUALITY, TASKS, run="serial")
    toy.forget()
    toy.add(
        "import os\n\ndef pytest_runtest_setup(item):\n"
        "    toy_world.note('ran', os.environ['PYTEST_XDIST_WORKER'], item.callspec.params['cell'].task)\n"
    )
    result = toy.run_apart(*QUALITY, TASKS, "-n2", run="beside")
    result.assert_outcomes(passed=10)
    assert answers(toy, "beside") == answers(toy, "serial")
    assert len(toy.log("group")) == 2
    ran = [tuple(line.split()) for line in toy.log("ran")]
    assert len(ran) == 10
    assert len(set(ran)) == 2, "every task on one worker"
    assert toy.records("beside")[0]["workers"] == 2
    result.stdout.fnmatch_lines(["effivlm: 10 cells in 10 cases*", "report.html: *beside/report.html"])


def asked(toy: Toy) -> dict[int, list[str]]:
    """By sample number of the one task, the processes that asked it."""
    found: dict[int, list[str]] = {}
    for line in toy.log("asked"):
        process, _, number = line.split()
        found.setdefault(int(number), []).append(process)
    return found


def test_one_task_keeps_all_workers_busy_and_asks_no_sample_twice(toy: Toy) -> None:
    toy.wish(sleep=0.01, gather=3)
    result = toy.run_apart(*QUALITY, "-n3", "--vlm-limit=48")
    result.assert_outcomes(passed=5)
    found = asked(toy)
    assert {number: len(who) for number, who in found.items()} == dict.fromkeys(range(48), 1)
    each = Counter(process for (process,) in found.values())
    assert len(each) == 3, "nobody goes on before all three have a block"
    assert len(toy.log("group")) == 1
    assert len([one for one in toy.records() if one["kind"] == "sample"]) == 48
    assert sorted(path.name for path in (toy.path / "out").iterdir()) == FOLDER


@pytest.mark.parametrize("owner", [True, False], ids=["with the cases", "without a case"])
def test_the_block_of_a_killed_worker_is_taken_again_and_its_answers_stand(toy: Toy, owner: bool) -> None:
    toy.wish(sleep=0.02, gather=2)
    toy.add(
        "import os\n\ndef through(group, numbers, *rest):\n"
        "    for given in whole(group, numbers, *rest):\n"
        f"        if OWNS is {owner} and given[0] == numbers[-1]:\n            toy_world.kill_once()\n"
        "        yield given\n\n"
        "whole, toy_world.Group.through, OWNS = toy_world.Group.through, through, False\n\n"
        "def pytest_runtest_setup(item):\n    global OWNS\n    OWNS = True\n"
    )
    toy.run_apart(*QUALITY, "-n2", "--vlm-limit=48")
    found = {number: len(who) for number, who in asked(toy).items()}
    assert sorted(found) == list(range(48))
    assert sorted(found.values()) == [1] * 47 + [2], "the answer that was in work, and no other, is asked again"
    assert (toy.path / "killed").exists()
    assert set(toy.outcomes().values()) == {"ok"}


def test_help_that_cannot_be_given_is_told_and_changes_nothing(toy: Toy) -> None:
    toy.wish(sleep=0.1)
    toy.add(
        "def begun(group, cells, *rest):\n"
        "    if not OWNS:\n        raise RuntimeError('no room here')\n    whole(group, cells, *rest)\n\n"
        "whole, toy_world.Group.__init__, OWNS = toy_world.Group.__init__, begun, False\n\n"
        "def pytest_runtest_setup(item):\n    global OWNS\n    OWNS = True\n"
    )
    result = toy.run_apart(*QUALITY, "-n2", "--vlm-limit=16")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        ["note: xdist worker gw*: no help with toy_a docvqa_micro: RuntimeError: no room here*"]
    )


def test_timings_beside_other_workers_are_recorded_and_marked(toy: Toy) -> None:
    result = toy.run_apart("-k", "ttft or decode", "-n2")
    result.assert_outcomes(passed=10)
    timed = [one for one in toy.records() if one["kind"] == "outcome"]
    assert len(timed) == 10
    assert all("measured beside other xdist workers" in one["remarks"] for one in timed)
    assert {len(rounds["rounds"]) for one in timed for rounds in one["costs"].values()} == {6}
    assert {tuple(one["trust"]["ttft"]["untrusted"]) for one in toy.report()["cells"]} == {
        ("measured beside other xdist workers",)
    }
    assert toy.report()["summary"]["oe"] == []
    result.stdout.fnmatch_lines(
        ["! untrusted, so in no mean and not in the gate:", "* x measured beside other xdist workers"]
    )
    result.stdout.fnmatch_lines(["10 timings stand in report.json and not in pytest-benchmark's table*"])


def test_a_wrong_option_is_refused_once_for_all_workers(toy: Toy) -> None:
    result = toy.run_apart("--vlm-methods=fastvv", "-n2")
    assert result.ret == 4
    assert [line for line in result.errlines if "unknown method 'fastvv'" in line and line.startswith("ERROR")]
    assert "Traceback" not in str(result.stdout) + str(result.stderr)
    assert not (toy.path / "out").exists()


def test_an_unwritable_folder_is_refused_before_a_worker_opens_a_model(toy: Toy) -> None:
    (toy.path / "taken").write_text("")
    result = toy.run_apart("-n2", run="taken/out")
    assert result.ret == 4
    assert "cannot be written" in str(result.stderr)
    assert toy.log("open") == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vlm-run=out"], "--vlm-run: *out holds a run already"),
        (["--vlm-resume=nowhere"], "--vlm-resume: *nowhere holds no outcomes.jsonl"),
        (["--vlm-resume=out", "--vlm-run=new"], "--vlm-run names a new folder and --vlm-resume an old one"),
    ],
)
def test_a_folder_that_cannot_be_this_runs_is_refused_beside_workers_too(
    toy: Toy, arguments: list[str], words: str
) -> None:
    """Where it was not, all cases ran, passed, and nothing was recorded."""
    toy.run(*QUALITY)
    toy.forget()
    before = toy.records()
    result = toy.run_apart(*QUALITY, "-n2", *arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {words}*"])
    assert (toy.log("open"), toy.records()) == ([], before)
    assert not (toy.path / "new").exists()


def test_an_empty_selection_is_explained_beside_workers_too(toy: Toy) -> None:
    result = toy.run_apart("-n2", "-k", "fastw")
    assert result.ret == 5
    result.stdout.fnmatch_lines(["no case is left of 15: -k 'fastw'*", "  methods: dense, fastv, snapkv"])


def test_a_killed_worker_loses_nothing_that_was_finished_and_is_replaced(toy: Toy) -> None:
    toy.add(
        "def pytest_runtest_call(item):\n"
        "    if item.callspec.params['cell'].id == 'toy_a-snapkv-keep0.10-count_micro':\n"
        "        toy_world.kill_once()\n"
    )
    result = toy.run_apart(*QUALITY, TASKS, "-n2")
    assert result.ret == 1
    assert len(answers(toy, "out")) == 10
    assert set(toy.outcomes().values()) == {"ok"}
    assert sum("count_micro" in line for line in toy.log("group")) == 1, "the finished group was not run again"
    end = toy.records()[-1]
    assert end["status"] == "finished"
    assert "was lost" in end["reason"]
    result.stdout.fnmatch_lines(["note: xdist worker gw* was lost*"])


MOMENTS = """
import os, signal, time
from pathlib import Path
import pytest

ME = os.environ.get("PYTEST_XDIST_WORKER", "")

def wait(word):
    while word and not Path(word).exists():
        time.sleep(0.02)

@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    Path(f"ready-{ME}").touch()

@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session):
    wait(BEFORE.get(ME, ""))
    time.sleep(0.5 * (ME in BEFORE))  # until what was waited for is known to the controller

@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    Path(f"collected-{ME}").touch()
    if ME in DIES:
        wait(DIES[ME])
        Path(f"dead-{ME}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("before", "dies"),
    [
        ({"gw1": "ready-gw2", "gw2": "collected-gw1"}, {"gw0": ""}),
        ({"gw2": "dead-gw1"}, {"gw0": "collected-gw1", "gw1": "ready-gw2"}),
    ],
    ids=["while another collects", "while its replacement collects"],
)
def test_workers_killed_while_others_collect_are_replaced(
    toy: Toy, before: dict[str, str], dies: dict[str, str]
) -> None:
    """`before` names what a worker waits for before it tells what it collected, `dies` what for before it is killed."""
    toy.add(f"BEFORE, DIES = {before}, {dies}\n{MOMENTS}")
    toy.run_apart(*QUALITY, TASKS, "-n2")
    assert {path.name for path in toy.path.glob("dead-*")} == {f"dead-{name}" for name in dies}
    assert len(answers(toy, "out")) == 10
    assert set(toy.outcomes().values()) == {"ok"}
    assert toy.records()[-1]["status"] == "finished"


def test_cases_of_a_worker_lost_when_all_others_are_done_are_run_by_its_replacement(toy: Toy) -> None:
    """It dies in the last of several groups: what it had finished before is not waited for again."""
    toy.add(
        "import os\n\ndef pytest_runtest_call(item):\n"
        "    cell = item.callspec.params['cell']\n"
        "    if cell.id.startswith('toy_b-snapkv-keep0.40-count_micro'):\n"
        "        toy_world.kill_once()\n"
    )
    result = toy.run_apart(*QUALITY, TASKS, "--vlm-models=toy_a,toy_b", "-n1")
    assert (toy.path / "killed").exists()
    assert len(answers(toy, "out")) == 20
    assert {status for *_, status, _ in answers(toy, "out")} == {"ok"}
    result.stdout.fnmatch_lines(["note: xdist worker gw0 was lost*"])


def test_a_worker_killed_while_it_helps_leaves_a_session_that_ends(toy: Toy) -> None:
    toy.wish(sleep=0.05, gather=2)
    toy.add(
        "def begun(group, *rest):\n    whole(group, *rest)\n    if not OWNS:\n        toy_world.kill_once()\n\n"
        "whole, toy_world.Group.__init__, OWNS = toy_world.Group.__init__, begun, False\n\n"
        "def pytest_runtest_setup(item):\n    global OWNS\n    OWNS = True\n"
    )
    toy.run_apart(*QUALITY, "-n2", "--vlm-limit=32")
    assert (toy.path / "killed").exists()
    assert set(toy.outcomes().values()) == {"ok"}
    assert {len(who) for who in asked(toy).values()} == {1}


def test_a_worker_that_found_other_cases_gets_none_and_is_named(toy: Toy) -> None:
    toy.add(
        "import os\nimport time\nfrom pathlib import Path\n\nimport pytest\n\n"
        "@pytest.hookimpl(trylast=True)\ndef pytest_collection_modifyitems(items):\n"
        "    if os.environ.get('PYTEST_XDIST_WORKER') == 'gw0':\n        Path('first').touch()\n"
        "    if os.environ.get('PYTEST_XDIST_WORKER') == 'gw1':\n"
        "        while not Path('first').exists():\n            time.sleep(0.1)\n"
        "        time.sleep(1)\n        del items[-2:]\n"
    )
    result = toy.run_apart(*QUALITY, "-n2")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        ["note: xdist worker gw1 found other cases than the first one did, 2 fewer and 0 more*"]
    )


def test_cells_lost_with_their_worker_are_recorded_as_interrupted(toy: Toy) -> None:
    toy.add(
        "import toy_world\nfrom toy_world import assembled\n\n"
        "def dying(cells, *rest):\n"
        "    if cells[0].task == 'count_micro':\n        toy_world.kill_once()\n"
        "    return assembled(cells, *rest)\n\n"
        "toy_world.sys.modules['effivlm.run.assembling'].assembled = dying\n"
    )
    result = toy.run_apart(*QUALITY, TASKS, "-n2", "--max-worker-restart=0")
    assert result.ret != 0
    statuses = {(task, status) for task, *_, status, _ in answers(toy, "out")}
    assert statuses == {("docvqa_micro", "ok"), ("count_micro", "interrupted")}
    end = toy.records()[-1]
    assert (end["status"], end["not_run"]) == ("interrupted", 5)
    assert "was lost" in end["reason"]
    toy.forget()
    again = toy.run_apart(*QUALITY, TASKS, "-n2", "--vlm-resume=out")
    assert again.ret == 0
    assert len(toy.log("group")) == 1
    assert toy.report()["failed"] == []


@pytest.mark.parametrize("everyone", [True, False], ids=["the whole group of processes", "the controller alone"])
def test_an_interrupt_beside_workers_keeps_what_is_done(toy: Toy, everyone: bool) -> None:
    toy.wish(sleep=1.0)
    process = toy.start(*QUALITY, "--vlm-tasks=docvqa_micro,count_micro", "--vlm-models=toy_a,toy_b", "-n2")
    wait_for(toy, "group", 2)
    outcomes = toy.path / "out" / "outcomes.jsonl"
    deadline = time.monotonic() + 60
    while outcomes.read_text().count('"status":"ok"') < 5:  # the others are asked for seconds yet
        assert time.monotonic() < deadline, outcomes.read_text()
        time.sleep(0.02)
    (os.killpg if everyone else os.kill)(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 2
    statuses = [one["status"] for one in toy.records() if one["kind"] == "outcome"]
    assert len(statuses) == 20
    assert 5 <= statuses.count("ok") < 20, "what was made until then, and not what was still asked"
    assert set(statuses) == {"ok", "interrupted"}
    assert toy.records()[-1]["status"] == "interrupted"


def test_switched_off_it_is_not_missed(toy: Toy) -> None:
    result = toy.run_apart(*QUALITY, "-p", "no:xdist")
    result.assert_outcomes(passed=5, deselected=10)


def test_not_installed_it_is_not_missed(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    (toy.path / "xdist.py").write_text("raise ModuleNotFoundError('xdist is not installed')")
    monkeypatch.setenv("PYTHONPATH", str(toy.path), prepend=os.pathsep)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = toy.run_apart(*QUALITY, "-p", "effivlm.plugin.bench", "-p", "pytest_benchmark.plugin")
    result.assert_outcomes(passed=5, deselected=10)


FOREIGN = """
import os, pytest

@pytest.mark.parametrize("number", range(6))
def test_number(number):
    with open("where.txt", "a") as file:
        file.write(f"{os.environ['PYTEST_XDIST_WORKER']} {__name__}\\n")
"""


def test_a_session_without_cells_keeps_the_distribution_it_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_first=FOREIGN, test_second=FOREIGN)
    quiet = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    result = pytester.runpytest_subprocess("-n2", "--dist=loadfile", *quiet)
    result.assert_outcomes(passed=12)
    lines = (pytester.path / "where.txt").read_text().splitlines()
    assert len(set(lines)) == 2, "a file on one worker"
    result = pytester.runpytest_subprocess("-n2", "--dist=each", *quiet)
    result.assert_outcomes(passed=24)
