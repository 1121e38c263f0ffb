"""Benchmarks scored by a judge, over a server on the loopback that says what a test wants."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from published_sets import Opened

sys.path.insert(0, str(Path(__file__).parent.parent))

from judge_server import Server, says, serving

from effivlm import __main__ as cli
from effivlm.data.places import data_home
from effivlm.records import Answer, Cell, Outcome, Settings, Unsupported
from effivlm.run.group import task_in
from effivlm.run.judged import judge_of
from effivlm.session import matrix
from effivlm.session.matrix import Asked
from effivlm.session.recorder import Recorder, read

KEY = "sk-not-to-be-seen"


def told(server: Server) -> str:
    return f"endpoint:gpt-x@{server.url}"


def test_a_judge_gives_the_marks_and_is_asked_once(
    opened: Opened, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened("mmvet")
    with serving(says("0.5")) as server:
        for _ in range(2):
            task = task_in("mmvet", Settings(data=str(mirror), judge=told(server)))
            samples = list(task.samples(10, 0))
            assert [task.score("-1", one) for one in samples] == [0.5, 0.5]
        assert len(server.bodies) == 2, "the second round is remembered"
    assert task.metric.startswith("judge (endpoint:127.0.0.1")
    assert "prompt " in task.metric
    assert type(task).metric == "judge"
    kept = "".join(path.read_text() for path in (data_home() / "judged").rglob("*.json"))
    assert kept
    assert KEY not in kept


def test_a_reply_without_a_mark_is_missing_and_never_zero(
    opened: Opened, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    opened("imagedc")
    with serving(says("a fine picture")) as server:
        task = task_in("imagedc", Settings(data=str(mirror), judge=told(server)))
        with pytest.raises(ValueError, match="the judge's reply holds no mark: 'a fine picture'"):
            task.score("text", task.samples(1, 0)[0])
        content = server.bodies[0]["messages"][0]["content"]
        assert [part["type"] for part in content] == ["text", "image_url"], "the judge sees the picture"


@pytest.mark.parametrize("failing", [False, True])
def test_stored_answers_are_marked_again_by_another_judge_whose_failures_are_missing(
    failing: bool, tmp_path: Path, opened: Opened, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    samples = list(opened("mmvet").samples(10, 0))
    answers = tuple(Answer(one.id, one.prompt_sha256, "-1", "-1", 0.1, tokens=(1,)) for one in samples)
    recorder = Recorder(tmp_path / "run")
    recorder.open(
        {"settings": {"limit": 10, "seed": 0, "data": str(mirror), "folders": {}}, "started": "2026-11-28T12:00:00"}
    )
    cell = Cell("twin", "dense", "paper", "1.00", "mmvet")
    recorder.add(Outcome(cell, "before", "ok", n=2, score=0.1, scoring="judge", answers=answers))
    recorder.close({"status": "finished", "reason": "", "exit_code": 0, "seconds": 1.0})
    steps = [says("0.9"), says("nothing" if failing else "0.7")]
    with serving(*steps) as server:
        assert cli.main(["rescore", str(tmp_path / "run"), "--judge", told(server)]) == 0
    (outcome,) = [Outcome.from_json(one) for one in read(tmp_path / "run-rescored") if one["kind"] == "outcome"]
    assert outcome.score == pytest.approx(0.9 if failing else 0.8)
    assert [one.score is None for one in outcome.answers].count(True) == failing
    assert (outcome.n, outcome.broken) == (2 - failing, int(failing))
    assert "gpt-x" in outcome.metric
    assert KEY not in (tmp_path / "run-rescored" / "outcomes.jsonl").read_text()


def test_a_judge_that_never_answers_fails_the_case_and_gives_no_zero(
    tmp_path: Path, opened: Opened, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (sample, *_) = opened("mmvet").samples(1, 0)
    recorder = Recorder(tmp_path / "run")
    recorder.open(
        {"settings": {"limit": 1, "seed": 0, "data": str(mirror), "folders": {}}, "started": "2026-11-28T12:00:00"}
    )
    answer = Answer(sample.id, sample.prompt_sha256, "-1", "-1", 0.1, tokens=(1,))
    cell = Cell("twin", "dense", "paper", "1.00", "mmvet")
    recorder.add(Outcome(cell, "before", "ok", n=1, score=0.1, scoring="judge", answers=(answer,)))
    recorder.close({"status": "finished", "reason": "", "exit_code": 0, "seconds": 1.0})
    assert cli.main(["rescore", str(tmp_path / "run"), "--judge", "endpoint:gpt-x@http://127.0.0.1:9"]) == 0
    (outcome,) = [Outcome.from_json(one) for one in read(tmp_path / "run-rescored") if one["kind"] == "outcome"]
    assert (outcome.status, outcome.score, outcome.broken) == ("failed", None, 1)
    assert "OPENAI_API_KEY holds no key" in outcome.reason


def test_without_a_judge_a_task_says_what_is_missing(mirror: Path) -> None:
    with pytest.raises(Unsupported, match="none is configured: name one with --vlm-judge"):
        task_in("mmvet", Settings(data=str(mirror))).samples(1, 0)
    with pytest.raises(Unsupported, match="the ratio of two marks of a judge, which no run gives yet"):
        task_in("llava_wilder", Settings(data=str(mirror), judge="endpoint:x")).samples(1, 0)


@pytest.mark.parametrize("text", ["gpt-4o", "endpoint:", "elsewhere:x", "endpoint:a b"])
def test_a_judge_that_is_none_is_refused_before_anything_loads(text: str) -> None:
    with pytest.raises(ValueError, match=r"--vlm-judge: .* is neither endpoint:MODEL"):
        matrix.build(Asked(models=("random:qwen2_vl_7b",), judge=text))


def test_judges_by_name(tmp_path: Path) -> None:
    assert judge_of("endpoint:gpt-4o", tmp_path).name == "endpoint:api.openai.com:gpt-4o"
    assert judge_of("local:qwen", tmp_path).name == "local:qwen"
    with pytest.raises(ValueError, match="is no commit"):
        judge_of("local:qwen@main", tmp_path)
