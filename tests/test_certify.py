"""The certificate: how often it is given where the truth is known, what it is refused for, and what CI sees of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from effivlm.__main__ import main
from effivlm.metrics import inferiority
from effivlm.metrics.inferiority import Losses, bound
from effivlm.records import Budget, Outcome
from effivlm.report.baseline import Side, of_run
from effivlm.report.certificate import Claim, certify
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, missing, quality, store

MARGIN = 0.05


def certified(lost: Sequence[float], groups: Sequence[str] | None = None, margin: float = MARGIN) -> bool:
    losses = Losses.of(lost, groups or [str(place) for place in range(len(lost))], (0,))
    return bound([losses], [1.0], margin, 0.95).p <= 0.05


@pytest.mark.parametrize(("n", "worse"), [(60, 0), (100, 1), (200, 2), (200, 17)])
def test_of_right_and_wrong_answers_the_bound_is_the_exact_one(n: int, worse: int) -> None:
    lost = [1.0] * worse + [0.0] * (n - worse)
    found = bound([Losses.of(lost, [str(place) for place in range(n)], (0,))], [1.0], MARGIN, 0.95)
    assert found.value == pytest.approx(worse / n)
    assert found.upper == pytest.approx(beta.ppf(0.95, worse + 1, n - worse), rel=0.03)


def _rare(rng: Any, n: int) -> Any:
    return (rng.random(n) < MARGIN).astype(float)


def _both_ways(rng: Any, n: int) -> Any:
    drawn = rng.random(n)
    return np.where(drawn < 0.10 + MARGIN, 1.0, np.where(drawn > 0.90, -1.0, 0.0))


def _graded(rng: Any, n: int) -> Any:
    return np.clip(rng.normal(MARGIN, 0.2, n), -1, 1)


def _skewed(rng: Any, n: int) -> Any:
    return np.where(rng.random(n) < 2 * MARGIN / 0.9, rng.uniform(0, 0.9, n), 0.0)


@pytest.mark.parametrize("n", [40, 150])
@pytest.mark.parametrize("drawn", [_rare, _both_ways, _graded, _skewed], ids=lambda one: one.__name__)
def test_a_method_that_loses_the_whole_margin_is_seldom_certified(
    drawn: Any, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inferiority, "ROUNDS", 500)
    rng = np.random.default_rng(n)
    given = sum(certified(drawn(rng, n)) for _ in range(300))
    assert given <= 0.05 * 300 + 12, "one in twenty, and three standard errors"


def test_questions_about_one_picture_are_no_separate_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferiority, "ROUNDS", 500)
    rng, groups = np.random.default_rng(0), [str(place // 5) for place in range(200)]
    blind = clustered = 0
    for _ in range(300):
        lost = np.repeat(_both_ways(rng, 40), 5)
        blind += certified(lost)
        clustered += certified(lost, groups)
    assert clustered <= 0.05 * 300 + 12
    assert blind > 2 * clustered + 15, "as if they were, it would be given far too often"


@pytest.mark.parametrize("n", [30, 100])
def test_a_method_that_large_groups_alone_lose_is_seldom_certified(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth of the pictures has eight questions each, which are lost together; the others have one, and lose nothing."""
    monkeypatch.setattr(inferiority, "ROUNDS", 500)
    rng, share, given = np.random.default_rng(n), 0.2 * 8 / (0.2 * 8 + 0.8), 0
    margin = 0.1 if n < 50 else MARGIN
    for _ in range(200):
        large = rng.random(n) < 0.2
        lost = large & (rng.random(n) < margin / share)
        sizes = np.where(large, 8, 1)
        groups = np.repeat(np.arange(n), sizes).astype(str).tolist()
        given += certified(np.repeat(lost, sizes).astype(float).tolist(), groups, margin)
    assert given <= 0.05 * 200 + 9


def test_a_method_that_loses_nothing_is_certified_by_enough_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferiority, "ROUNDS", 500)
    rng = np.random.default_rng(3)
    noise = [rng.choice([1.0, 0.0, -1.0], p=[0.02, 0.96, 0.02], size=600) for _ in range(50)]
    assert sum(certified(lost) for lost in noise) >= 45
    assert not certified([0.0] * 50), "fifty samples cannot rule out one loss in twenty"
    assert certified([0.0] * 80)


def run(*outcomes: Outcome) -> Side:
    return of_run(build(HEADER, outcomes, END), outcomes, "run")


def scores(right: int, n: int) -> list[float]:
    return [1.0] * right + [0.0] * (n - right)


def two_tasks(first: int, second: int, n: int = 400, **fields: Any) -> list[Outcome]:
    found = []
    for task, right in (("a", first), ("b", second)):
        found += [
            quality(cell(task=task), scores(300, n)),
            quality(cell("snapkv", "0.20", task), scores(right, n), **fields),
        ]
    return found


def claim(**facts: Any) -> Claim:
    return Claim(**{"method": "snapkv", "preset": "paper", "budget": Budget.parse("0.2"), "margin": 0.05, **facts})


@pytest.mark.parametrize(
    ("first", "second", "status", "tasks"),
    [
        (299, 298, "certified", ["certified", "certified"]),
        (296, 276, "certified", ["certified", "open"]),
        (310, 230, "worse", ["certified", "worse"]),
        (280, 278, "open", ["open", "open"]),
        (200, 210, "worse", ["worse", "worse"]),
    ],
)
def test_the_mean_over_tasks_is_certified_unless_a_task_is_shown_to_lose_more(
    first: int, second: int, status: str, tasks: list[str]
) -> None:
    found = certify(run(*two_tasks(first, second)), claim())
    assert (found["status"], [task["status"] for task in found["tasks"]]) == (status, tasks)
    assert found["overall"]["drop"] == pytest.approx((600 - first - second) / 800)
    each = certify(run(*two_tasks(first, second)), claim(every=True))["status"]
    assert each == ("open" if "open" in tasks and "worse" not in tasks else status)


def test_the_sentence_says_how_much_may_have_been_lost() -> None:
    found = certify(run(*two_tasks(299, 298)), claim())
    assert found["sentence"] == (
        "snapkv at 0.20 loses less than 0.05 of dense's score on 2 tasks, with 95% confidence:"
        f" +0.0037 lost, at most {found['overall']['upper']:.4f}"
    )
    assert 0.0037 < found["overall"]["upper"] < 0.02


def _uneven(task: str, n: int, average: str, parts: Sequence[str]) -> list[Outcome]:
    """Dense and a method that loses a little on a task of `parts`, of which the first holds half of the samples."""
    rng = np.random.default_rng(n)
    places = [parts[0] if at % 2 else parts[at // 2 % len(parts)] for at in range(n)]
    found = []
    for which, kept in ((cell(task=task), 1.0), (cell("snapkv", "0.20", task), 0.98)):
        values = (rng.random(n) < kept).astype(float).tolist()
        means = [np.mean([value for value, own in zip(values, places, strict=True) if own == part]) for part in parts]
        one = quality(which, values, score=float(np.mean(means)), average=average)
        answers = zip(one.answers, places, strict=True)
        found.append(replace(one, answers=tuple(replace(answer, part=part) for answer, part in answers)))
    return found


@pytest.mark.parametrize(
    ("average", "parts"), [("samples", ["only"]), ("parts", ["only"]), ("parts", ["one", "two", "three"])]
)
def test_the_bounds_of_a_task_are_the_same_by_itself_and_among_others(average: str, parts: Sequence[str]) -> None:
    own = _uneven("b", 230, average, parts)
    (alone,), overall = (certify(run(*own), claim())[word] for word in ("tasks", "overall"))
    assert alone["status"] != "cannot be certified"
    assert alone["lower"] < alone["drop"] < alone["upper"]
    assert overall == {word: alone[word] for word in overall}
    for before, after in (([*two_tasks(299, 298)[:2]], []), ([], _uneven("c", 90, "samples", ["only"]))):
        others = certify(run(*before, *own, *after), claim())["tasks"]
        assert len(others) == 2
        assert alone in others


def test_tasks_of_the_same_losses_are_drawn_apart() -> None:
    found = certify(run(*two_tasks(290, 290)), claim())
    first, second = found["tasks"]
    assert (first["drop"], first["upper"] != second["upper"]) == (second["drop"], True)
    assert found["overall"]["upper"] < min(first["upper"], second["upper"])


def test_what_cannot_be_compared_is_never_certified() -> None:
    broke = [quality(cell(), scores(300, 400)), quality(cell("snapkv", "0.20"), [*scores(300, 399), None])]
    found = certify(run(*broke), claim())
    assert (found["status"], found["tasks"][0]["reason"]) == ("open", "1 samples broke that dense answered")
    assert found["sentence"] == "snapkv at 0.20 is not certified: docvqa_micro: 1 samples broke that dense answered"
    alone = certify(run(broke[1]), claim())
    assert (alone["overall"], alone["tasks"][0]["reason"]) == (None, "dense was not measured")
    summed = [broke[0], quality(cell("snapkv", "0.20"), scores(300, 400), score=0.9)]
    assert certify(run(*summed), claim())["tasks"][0]["reason"] == "its score is no mean over samples"
    drawn = [quality(one.cell, scores(300, 400), weights="random") for one in broke]
    assert "weights are random" in certify(run(*drawn), claim())["tasks"][0]["reason"]


def test_a_claim_that_the_run_does_not_hold_is_refused_with_what_it_holds() -> None:
    side = run(*two_tasks(299, 298))
    with pytest.raises(ValueError, match=r"no measured snapkv at 0.10; it holds: snapkv at 0.20 of micro_llava"):
        certify(side, claim(budget=Budget.parse("0.1")))
    with pytest.raises(ValueError, match="margin 0 does not lie between 0 and 1"):
        claim(margin=0.0)
    waiting = [missing(cell(), "unsupported", "shard 1/3: its answers wait")]
    with pytest.raises(ValueError, match=r"it holds: nothing that was measured \(unsupported: shard 1/3: its answers"):
        certify(run(*waiting), claim())
    with pytest.raises(ValueError, match="it holds: dense alone"):
        certify(run(quality(cell(), scores(300, 400))), claim())


def test_ci_gets_an_exit_code_a_sentence_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, two_tasks(299, 298))
    words = ["certify", str(tmp_path), "--method", "snapkv", "--keep", "0.2", "--margin"]
    assert main([*words, "0.05"]) == 0
    assert "certified: snapkv at 0.20 loses less than 0.05" in capsys.readouterr().out
    assert main([*words, "0.005", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["status"], found["claim"]["margin"]) == ("open", 0.005)
    assert main(["certify", str(tmp_path), "--method", "h2o", "--keep", "0.2", "--margin", "0.05"]) == 2
    assert "holds no measured h2o at 0.20" in capsys.readouterr().err
