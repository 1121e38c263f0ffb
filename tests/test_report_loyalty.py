"""Loyalty of a cell, and the noise under it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from effivlm.records import Answer, Divergence, Outcome, dump
from effivlm.report.document import build
from tests.outcomes import END, HEADER, cell, quality

FASTV = cell("fastv", "0.10")
NAMES = ("text", "score", "tokens", "same", "exact", "common", "forced")


def told(which: Any, *rows: Sequence[Any], answer_type: str = "short", **fields: Any) -> Outcome:
    """An outcome from answers in the order of NAMES; what is left out of a row is None."""
    answers = []
    for place, row in enumerate(rows):
        given = dict(zip(NAMES, (*row, *[None] * len(NAMES)), strict=False))
        answers.append(
            Answer(
                f"s{place}",
                "0" * 64,
                given["text"],
                given["text"],
                given["score"],
                tokens=tuple(given["tokens"] or ()),
                same_as_dense=given["same"],
                exact_as_dense=given["exact"],
                common_prefix_tokens=given["common"],
                forced=given["forced"],
            )
        )
    scores = [answer.score for answer in answers]
    return replace(quality(which, scores), answers=tuple(answers), answer_type=answer_type, **fields)


def loyalty(*outcomes: Outcome) -> dict[str, Any]:
    (found,) = [one["loyalty"] for one in build(HEADER, outcomes, END)["cells"] if one["method"] != "dense"]
    assert found is not None
    return found


def dense_noise(outcome: Outcome) -> Any:
    (one,) = build(HEADER, [outcome], END)["cells"]
    return one["noise"]


def test_every_number_of_loyalty_stands_in_its_own_key() -> None:
    dense = told(cell(), ("a red car", 1.0, (1, 2, 3, 4)), ("two", 0.0, (7,)), ("three", 0.0, (8, 9)))
    own = told(
        FASTV,
        ("a blue car", 0.0, (1, 2, 5), False, False, 2, 0.75),
        ("2", 1.0, (6,), True, False, 0, 0.5),
        ("three", 0.0, (8, 9), True, True, 2, 1.0),
    )
    found = loyalty(dense, own)
    assert (found["same"], found["exact"], found["n"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3), 3)
    assert found["score_agreement"] == pytest.approx(1 / 3)
    assert found["soft"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert found["prefix"] == pytest.approx((2 / 4 + 0 + 1) / 3)
    assert found["forced"] == 0.75
    assert found["kappa"] is None
    assert list(found["flips"].values()) == [1, 1, 0, 1, 0]


def test_kappa_takes_chance_from_what_both_sides_name_and_only_for_closed_answers() -> None:
    words = ["yes", "no"] * 5
    changed = ["Yes.", *words[1:9], "yes"]
    for answer_type, expected in (("yes_no", 0.8), ("short", None)):
        dense = told(cell(), *[(word, 1.0) for word in [*words, "yes"]], answer_type=answer_type)
        rows = [(word, 1.0, (), place < 9) for place, word in enumerate(changed)]
        found = loyalty(dense, told(FASTV, *rows, ("", None), answer_type=answer_type))  # the last one broke
        assert found["same"] == 0.9
        assert found["kappa"] == (None if expected is None else pytest.approx(expected))


def test_one_answer_for_all_leaves_kappa_undefined() -> None:
    dense = told(cell(), ("A", 1.0), ("A", 0.0), answer_type="choice")
    own = told(FASTV, ("(A)", 1.0, (), True), ("A", 0.0, (), True), answer_type="choice")
    assert (loyalty(dense, own)["kappa"], loyalty(dense, own)["same"]) == (None, 1.0)


def test_a_free_answer_has_graded_loyalty_and_is_in_no_share_of_same_answers() -> None:
    dense = told(cell(), ("a red car", 1.0), ("a car", 1.0), answer_type="free")
    own = told(FASTV, ("the red car", 0.5, (), True, False), ("a car", 1.0, (), True, True), answer_type="free")
    found = loyalty(dense, own)
    assert (found["same"], found["interval"], found["exact"], found["n"]) == (None, None, 0.5, 2)
    assert sum(found["flips"].values()) == 2
    assert found["soft"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["score_agreement"] == 0.75
    summary = build(HEADER, [dense, own], END)["summary"]
    assert (summary["ol"], summary["refused"]) == ([], [])


def test_random_weights_leave_only_what_is_compared_by_token() -> None:
    dense = told(cell(), ("x", 1.0, (1, 2)), weights="random")
    own = told(FASTV, ("y", 0.0, (1, 3), False, False, 1, 0.5), weights="random")
    found = loyalty(dense, own)
    assert (found["prefix"], found["forced"], found["n"]) == (0.5, 0.5, 1)
    assert {name for name, value in found.items() if value is None} == {
        *("same", "interval", "exact", "score_agreement", "soft", "kappa", "flips", "kl")
    }


def far(*nats: float | None, which: Any = FASTV, positions: int = 4, rest: float = 0.0, **fields: Any) -> Outcome:
    """An outcome whose answers are so far from dense's; None: nobody knows."""
    found = told(which, *[("x", 1.0)] * len(nats), **fields)
    known = [None if one is None else Divergence(one, positions + at, rest) for at, one in enumerate(nats)]
    answers = (replace(answer, kl=kl) for answer, kl in zip(found.answers, known, strict=True))
    return replace(found, answers=tuple(answers))


def test_the_divergence_is_a_mean_over_samples_with_an_interval_of_its_own() -> None:
    nats = (0.0, 0.5, 0.25, 0.01, 0.04, None)
    dense = told(cell(), *[("x", 1.0)] * 6, answer_type="free")
    found = loyalty(dense, far(*nats, rest=0.02, answer_type="free"))
    kl = found["kl"]
    assert (kl["value"], kl["n"], kl["positions"], kl["rest"]) == (pytest.approx(0.16), 5, 4 + 5 + 6 + 7 + 8, 0.02)
    draws = [sum(one) / 5 for one in product([0.0, 0.5, 0.25, 0.01, 0.04], repeat=5)]
    low, high = (sorted(draws)[round(at * (len(draws) - 1))] for at in (0.025, 0.975))
    assert kl["interval"] == [pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03)]
    assert found["same"] is None, "it is a loyalty of free answers, which have no other"


def test_a_divergence_has_no_interval_of_too_few_samples_or_where_all_are_alike() -> None:
    for nats in ((0.1, 0.2, 0.3, 0.4), (0.2,) * 8):
        dense = told(cell(), *[("x", 1.0)] * len(nats))
        kl = loyalty(dense, far(*nats))["kl"]
        assert (kl["value"], kl["interval"], kl["n"]) == (pytest.approx(sum(nats) / len(nats)), None, len(nats))


def test_a_divergence_is_told_of_random_weights_and_alone_and_is_none_where_nobody_measured_it() -> None:
    alone = far(0.5, 0.25, weights="random")
    assert loyalty(alone)["kl"]["value"] == 0.375
    (one,) = build(HEADER, [replace(alone, answers=told(FASTV, ("x", None)).answers)], END)["cells"]
    assert one["loyalty"] is None
    assert loyalty(told(cell(), ("x", 1.0)), told(FASTV, ("x", 1.0, (), True)))["kl"] is None


def test_an_answer_with_its_divergence_reads_back_equal() -> None:
    outcome = far(0.0, 0.125, None, rest=0.5)
    stored = json.loads(dump(outcome.to_json()))
    assert Outcome.from_json(stored) == outcome
    for answer in stored["answers"]:
        del answer["pictures"]  # as a run before this version left it
    assert Outcome.from_json(stored) == outcome
    stored["answers"][0]["kl"] = {"nats": -1.0, "positions": 1}
    with pytest.raises(ValueError, match="is no divergence"):
        Outcome.from_json(stored)


def test_without_dense_only_what_was_stored_is_known() -> None:
    found = loyalty(told(FASTV, ("y", 0.0, (1,), False, False, 0, 0.5)))
    assert (found["same"], found["forced"]) == (0.0, 0.5)
    assert found["soft"] is found["prefix"] is found["flips"] is found["score_agreement"] is None


def test_an_answer_that_broke_is_in_no_number_of_loyalty() -> None:
    dense = told(cell(), ("a", 1.0, (1,)), ("b", 1.0, (2,)))
    own = told(FASTV, ("a", 1.0, (1,), True, True, 1), ("", None))
    found = loyalty(dense, own)
    assert (found["same"], found["soft"], found["prefix"], found["n"]) == (1.0, 1.0, 1.0, 1)
    assert sum(found["flips"].values()) == 1


def test_the_noise_is_dense_against_its_own_second_answer() -> None:
    outcome = told(cell(), ("yes", 1.0, (1, 2), None, None, None, 1.0), ("no", 1.0, (3,), None, None, None, 0.5))
    again = [
        replace(one, again=text, again_tokens=ids)
        for one, text, ids in zip(outcome.answers, ("Yes.", "yes"), ((1, 5), (4,)), strict=True)
    ]
    found = dense_noise(replace(outcome, answers=tuple(again), answer_type="yes_no", change="weights in bfloat16"))
    assert found == {
        "same": 0.5,
        "exact": 0.0,
        "soft": 0.0,
        "prefix": 0.25,
        "forced": 0.75,
        "n": 2,
        "change": "weights in bfloat16",
    }


def test_dense_that_was_asked_once_has_no_noise_and_no_loyalty() -> None:
    outcome = told(cell(), ("yes", 1.0, (1,), None, None, None, 1.0))
    assert dense_noise(outcome) is None
    assert build(HEADER, [outcome], END)["cells"][0]["loyalty"] is None


@pytest.mark.parametrize(
    ("fields", "without"),
    [({"answer_type": "free"}, {"same"}), ({"weights": "random"}, {"same", "exact", "soft"})],
)
def test_the_noise_leaves_out_what_loyalty_leaves_out(fields: dict[str, str], without: set[str]) -> None:
    outcome = told(cell(), ("yes", 1.0, (1,), None, None, None, 1.0), **fields)
    answers = (replace(outcome.answers[0], again="yes", again_tokens=(1,)),)
    found = dense_noise(replace(outcome, answers=answers))
    assert {name for name, value in found.items() if value is None} == without


def with_noise(task: str, again: str, model: str = "m") -> Outcome:
    outcome = told(cell(task=task, model=model), ("yes", 1.0, (1,)))
    return replace(outcome, answers=(replace(outcome.answers[0], again=again),))


def test_a_row_of_ol_stands_beside_the_noise_of_the_same_pairs() -> None:
    own = [told(cell("fastv", "0.10", task, "m"), ("yes", 1.0, (1,), True, True)) for task in "abc"]
    (row,) = build(HEADER, [with_noise("a", "yes"), with_noise("b", "no"), *own[:2]], END)["summary"]["ol"]
    assert (row["value"], row["noise"], row["free"]) == (1.0, 0.5, 0)
    once = told(cell(task="c", model="m"), ("yes", 1.0, (1,)))
    (row,) = build(HEADER, [with_noise("a", "yes"), with_noise("b", "no"), once, *own], END)["summary"]["ol"]
    assert (row["n"], row["noise"]) == (3, None)


def test_free_tasks_are_left_out_of_ol_and_counted() -> None:
    closed = [told(cell(*setting, "a"), ("yes", 1.0, (), True)) for setting in (("dense", "1.00"), ("fastv", "0.10"))]
    free = [replace(one, cell=replace(one.cell, task="b"), answer_type="free") for one in closed]
    (row,) = build(HEADER, [*closed, *free], END)["summary"]["ol"]
    assert (row["tasks"], row["n"], row["free"], row["undefined"]) == (["a"], 1, 1, 1)
