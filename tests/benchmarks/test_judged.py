"""Answers that a judge marks: in a run of pytest, resumed, from disk, by `rescore`, and with a judge that fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jsonschema
import pytest
from judge_server import SECRET, SPEC, Handler, Server, Step, fails, says, sends, serving
from published_sets import Opened
from toy_session import ROOT

from effivlm import __main__ as cli
from effivlm import registry
from effivlm.judging.breaker import Breaker
from effivlm.judging.endpoint import KEY_VARIABLE
from effivlm.judging.judge import Query, Reply
from effivlm.judging.local import Local
from effivlm.judging.rubrics import RUBRICS
from effivlm.records import Outcome
from effivlm.session import judges
from effivlm.session.judges import ADDRESS, judge_of
from effivlm.session.recorder import read

pytest.importorskip("openai", reason="the client of the extra 'judge' is not installed")
Run = Callable[..., pytest.RunResult]
SCHEMA = json.loads((ROOT / "effivlm" / "report" / "schema" / "outcome.schema.json").read_text())


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], None]:
    def told(server: Server) -> None:
        monkeypatch.setenv(KEY_VARIABLE, SECRET)
        monkeypatch.setenv(ADDRESS, server.url)

    return told


@pytest.fixture
def run(pytester: pytest.Pytester, twin: Path, opened: Opened, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A session of two cells of a tiny model over a task's small set."""
    (pytester.path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT}\naddopts = -p no:cacheprovider -p no:hypothesispytest\n"
    )
    (pytester.path / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (pytester.path / "test_quality.py").write_text((ROOT / "bench_tests" / "test_quality.py").read_text())

    def ran(*arguments: str, task: str = "mmvet", folder: str = "out") -> pytest.RunResult:
        opened(task)  # tells the class how few rows there are
        monkeypatch.setattr(registry.load("tasks", task), "max_new_tokens", 3)
        where = ["--vlm-run", folder, "--vlm-models", f"twin={twin}", "--vlm-data", str(mirror), "--vlm-device", "cpu"]
        what = ["--vlm-tasks", task, "--vlm-methods", "dense,snapkv", "--vlm-budgets", "0.40"]
        return pytester.runpytest_inprocess(*where, *what, *arguments)

    return ran


def outcomes(folder: Path) -> list[Outcome]:
    found = [one for one in read(folder) if one["kind"] == "outcome"]
    for one in found:
        jsonschema.validate(one, SCHEMA)
    return [Outcome.from_json(one) for one in found]


def text_of(body: dict[str, object]) -> str:
    (message,) = body["messages"]  # type: ignore[misc, attr-defined]
    content = message["content"]
    return content if isinstance(content, str) else content[0]["text"]  # type: ignore[no-any-return]


def marks_by_question(first: str, other: str) -> Step:
    """One mark for the question about x, another for any other."""
    return lambda handler: says(first if "What is x?" in text_of(handler.script.bodies[-1]) else other)(handler)


def marks_in_turn(marks: Sequence[str]) -> Step:
    def step(handler: Handler) -> None:
        says(marks[len(handler.script.bodies) % len(marks)])(handler)

    return step


def test_a_run_marks_its_answers_and_a_second_one_asks_nothing(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester
) -> None:
    with serving(says("0.5")) as server:
        environment(server)
        run("--vlm-judge", SPEC).assert_outcomes(passed=2)
        asked = len(server.bodies)
        run("--vlm-judge", SPEC, folder="again").assert_outcomes(passed=2)
    first, again = outcomes(pytester.path / "out"), outcomes(pytester.path / "again")
    assert [one.score for one in first] == [0.5, 0.5] == [one.score for one in again]
    assert len(server.bodies) == asked > 0
    assert {one.fingerprint for one in first} == {one.fingerprint for one in again}
    questions = [text_of(body) for body in server.bodies]
    assert any("Question: What is x?\nReference: -1<AND>-5\n" in text for text in questions)
    for path in (path for path in pytester.path.rglob("*") if path.is_file() and "twin" not in path.parts):
        assert SECRET.encode() not in path.read_bytes(), path


def test_who_marked_and_how_far_to_trust_it_stands_beside_the_score(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester
) -> None:
    with serving(marks_by_question("1.0", "0.5")) as server:
        environment(server)
        result = run("--vlm-judge", SPEC, "--vlm-second-judge", "openai:other", "--vlm-judge-repeats", "2")
        host = server.url.split("/")[2]
    (dense, _) = outcomes(pytester.path / "out")
    assert dense.judged is not None
    assert (dense.score, dense.judged["judge"]) == (0.75, f"endpoint:{host}:some-judge")
    assert (dense.judged["models"], dense.judged["rubric"]) == (["judge-2026-01-01"], "mmvet")
    assert dense.judged["prompt_sha256"] == RUBRICS["mmvet"].sha256
    assert dense.judged["noise"] == {"scores": [0.75, 0.75], "spread": 0.0, "changed": 0.0, "n": 2}
    assert dense.judged["agreement"]["same"] == 1.0
    assert dense.judged["agreement"]["judge"] == f"endpoint:{host}:other"
    result.stdout.fnmatch_lines([f"marked by endpoint:{host}:some-judge: its noise is up to 0.0"])
    result.stdout.fnmatch_lines([f"endpoint:{host}:other gives the same mark to 100% of 2 answers at least"])
    page = (pytester.path / "out" / "report.html").read_text()
    assert "smaller differences say nothing" in page
    assert SECRET not in page


def test_a_judge_that_changes_its_mind_has_noise(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "THREADS", 1)
    with serving(marks_in_turn(["0.0", "1.0", "1.0"])) as server:
        environment(server)
        run("--vlm-judge", SPEC).assert_outcomes(passed=2)
    noise = (outcomes(pytester.path / "out")[0].judged or {})["noise"]
    assert (noise["spread"], noise["changed"]) == (0.5, 1.0)
    (row,) = json.loads((pytester.path / "out" / "report.json").read_text())["judges"]
    assert (row["task"], row["cells"], row["marks"], row["missing"]) == ("mmvet", 2, 4, 0)
    assert (row["noise"]["spread"], row["noise"]["repeats"], row["agreement"]) == (0.5, 3, None)
    assert row["prompt_sha256"] == RUBRICS["mmvet"].sha256


@pytest.mark.parametrize(
    "failing",
    [fails(400), fails(429, retry_after="0"), says("I would say half"), sends("{")],
    ids=["400", "429", "no_mark", "torn"],
)
def test_a_failing_judge_leaves_marks_missing_and_the_run_standing(
    failing: Step, run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester
) -> None:
    with serving(failing) as server:
        environment(server)
        run("--vlm-judge", SPEC).assert_outcomes(failed=2)
        for one in outcomes(pytester.path / "out"):
            assert (one.status, one.score, one.n, one.broken) == ("failed", None, 0, 2)
            assert all(
                answer.score is None and answer.error.startswith("the judge gave no mark: ") for answer in one.answers
            )
        server.steps[:] = [says("0.5")]
        assert cli.main(["rescore", str(pytester.path / "out"), "--judge", SPEC]) == 0
    assert [one.score for one in outcomes(pytester.path / "out-rescored")] == [0.5, 0.5]


def test_a_dead_server_is_given_up_and_the_rest_is_missing_at_once_until_a_resumed_run_fills_it(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "THREADS", 1)
    monkeypatch.setattr(judges, "Breaker", partial(Breaker, most=2))
    with serving(says("0.5"), fails(400)) as server:
        environment(server)
        run("--vlm-judge", SPEC, "--vlm-judge-repeats", "1").assert_outcomes(passed=1, failed=1)
        assert len(server.bodies) == 3, "one mark, two failures, and nobody asked for the fourth"
        dense, other = outcomes(pytester.path / "out")
        assert [(one.score, one.n, one.broken) for one in (dense, other)] == [(0.5, 1, 1), (None, 0, 2)]
        last = other.answers[-1].error
        assert "is not asked any more: 2 queries in a row had no reply, the last: " in last
        server.steps[:] = [says("1.0")]
        monkeypatch.setattr("effivlm.run.group.run_group", lambda *_: pytest.fail("no model is asked again"))
        resumed = run("--vlm-judge", SPEC, "--vlm-judge-repeats", "1", "--vlm-run", "", "--vlm-resume", "out")
        resumed.assert_outcomes(passed=2)
    found = outcomes(pytester.path / "out")[-2:]
    assert [(one.score, one.n, one.broken) for one in found] == [(0.75, 2, 0), (1.0, 2, 0)]
    assert found[0].fingerprint == dense.fingerprint


def test_answers_that_were_stored_for_a_judge_are_marked_by_a_resumed_run_without_a_model(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("--vlm-judge", "none").assert_outcomes(skipped=2)
    monkeypatch.setattr("effivlm.run.group.run_group", lambda *_: pytest.fail("no model is asked again"))
    with serving(says("0.2")) as server:
        environment(server)
        run("--vlm-judge", SPEC, "--vlm-run", "", "--vlm-resume", "out").assert_outcomes(passed=2)
    assert [one.score for one in outcomes(pytester.path / "out")[-2:]] == pytest.approx([0.2, 0.2])


def test_one_missing_mark_is_no_zero(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester
) -> None:
    with serving(marks_by_question("1.0", "well")) as server:
        environment(server)
        run("--vlm-judge", SPEC).assert_outcomes(passed=2)
    for one in outcomes(pytester.path / "out"):
        assert (one.score, one.n, one.broken) == (1.0, 1, 1)
        assert any(remark.startswith("judge: 1 of 2 answers have no mark, over 1%") for remark in one.remarks)


def test_answers_that_wait_are_marked_by_rescore_as_in_the_run(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    waits = run("--vlm-judge", "none")
    waits.assert_outcomes(skipped=2)
    assert waits.ret == 0, "answers were stored, so the run did what it was asked for"
    for one in outcomes(pytester.path / "out"):
        assert (one.status, one.score) == ("unsupported", None)
        assert one.reason == "its answers wait for a judge: python -m effivlm rescore RUN --judge SPEC"
        assert len(one.answers) == 2
    with serving(marks_by_question("1.0", "0.2")) as server:
        environment(server)
        assert cli.main(["rescore", str(pytester.path / "out"), "--judge", SPEC]) == 0
        assert "twin-dense-keep1.00-mmvet: no score is 60.00 now" in capsys.readouterr().out
        run("--vlm-judge", SPEC, folder="judged").assert_outcomes(passed=2)
    late, now = outcomes(pytester.path / "out-rescored"), outcomes(pytester.path / "judged")
    assert [(one.score, one.judged, one.answers) for one in late] == [
        (one.score, one.judged, one.answers) for one in now
    ]
    (header,) = [one for one in read(pytester.path / "out-rescored") if one["kind"] == "run"]
    assert header["settings"]["judge"] == SPEC


def test_rescoring_without_a_judge_leaves_marks_alone_and_says_so(
    run: Run, pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--vlm-judge", "none")
    assert cli.main(["rescore", str(pytester.path / "out")]) == 0
    assert "as they were: mmvet, whose answers a judge marks (--judge SPEC)" in capsys.readouterr().out
    assert outcomes(pytester.path / "out-rescored") == outcomes(pytester.path / "out")


@pytest.mark.parametrize(
    ("task", "said", "score"), [("llava_wilder", "8 6", 0.75), ("imagedc", "Final Score: 40", 0.4)]
)
def test_a_judge_sees_the_picture_where_the_rubric_shows_it(
    task: str, said: str, score: float, run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester
) -> None:
    with serving(says(said)) as server:
        environment(server)
        run("--vlm-judge", SPEC, task=task).assert_outcomes(passed=2)
    assert [one.score for one in outcomes(pytester.path / "out")] == pytest.approx([score] * 2)
    assert all(
        body["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/jpeg") for body in server.bodies
    )


def test_a_run_is_marked_by_a_vision_language_model_on_this_machine_that_sees_the_pictures(
    run: Run, twin: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    heard = Local.reply

    def reply(judge: Local, query: Query, repeat: int = 0) -> Reply:
        asked.append(len(query.images))
        assert heard(judge, replace(query, max_tokens=4), repeat).text
        return Reply("Final Score: 40", judge.name)

    monkeypatch.setattr(Local, "reply", reply)
    run("--vlm-judge", f"local:{twin}", "--vlm-judge-repeats", "1", task="imagedc").assert_outcomes(passed=2)
    assert set(asked) == {1}
    (first, _) = outcomes(pytester.path / "out")
    assert first.judged is not None
    assert (first.score, first.judged["judge"]) == (0.4, judge_of(f"local:{twin}").name)


def test_a_resumed_run_with_another_judge_says_why_its_outcomes_do_not_count(
    run: Run, environment: Callable[[Server], None], pytester: pytest.Pytester
) -> None:
    with serving(says("0.5")) as server:
        environment(server)
        run("--vlm-judge", SPEC)
        asked = len(server.bodies)
        same = run("--vlm-judge", SPEC, "--vlm-run", "", "--vlm-resume", "out")
        assert len(server.bodies) == asked
        same.stdout.fnmatch_lines(["*2 of 2 outcomes of * stand*"])
        other = run("--vlm-judge", "openai:other", "--vlm-run", "", "--vlm-resume", "out")
    other.stdout.fnmatch_lines(["*2 outcomes do not count any more: answers to mmvet are marked by another judge*"])
