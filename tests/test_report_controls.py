"""Settings against their random control, and how little few samples say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from effivlm.metrics.statistics import LEAST, LEVEL, stated
from effivlm.records import Outcome
from effivlm.report.document import build
from effivlm.report.terminal import table
from tests.outcomes import END, HEADER, cell, quality

N = 24


def outcome(method: str, right: int, keep: str = "0.10", task: str = "docvqa_micro", **fields: Any) -> Outcome:
    return quality(cell(method, keep, task), [1.0] * right + [0.0] * (N - right), **fields)


def cells(*outcomes: Outcome) -> dict[str, dict[str, Any]]:
    return {one["method"]: one for one in build(HEADER, outcomes, END)["cells"]}


@pytest.mark.parametrize(
    ("right", "verdict"), [(20, "beats random"), (7, "open"), (6, "open"), (5, "open"), (0, "below random")]
)
def test_a_method_stands_against_the_random_row_at_its_budget_on_the_same_samples(right: int, verdict: str) -> None:
    random = quality(cell("random_visual", "0.10"), [0.0] * 2 + [1.0] * 8 + [0.0] * (N - 10))
    found = cells(outcome("dense", N, "1.00"), outcome("fastv", right), random)
    control = found["fastv"]["control"]
    assert (control["method"], control["verdict"]) == ("random_visual", verdict)
    assert control["difference"] == pytest.approx((right - 8) / N)
    assert control["n"] == N
    assert control["interval"][0] <= control["difference"] <= control["interval"][1]
    assert (found["random_visual"]["control"], found["dense"]["control"]) == (None, None)


def test_tokens_are_set_against_random_tokens_and_cache_entries_against_random_entries() -> None:
    rows = [outcome(name, 12) for name in ("fastv", "snapkv", "random_visual", "random_kv")]
    found = cells(outcome("dense", N, "1.00"), *rows)
    assert found["fastv"]["control"]["method"] == "random_visual"
    assert found["snapkv"]["control"]["method"] == "random_kv"


def test_a_control_at_another_budget_or_of_another_kind_is_none_and_that_is_said() -> None:
    outcomes = [outcome("dense", N, "1.00"), outcome("fastv", 12), outcome("random_visual", 3, "0.40")]
    outcomes.append(outcome("random_kv", 3))
    found = build(HEADER, outcomes, END)
    (control,) = [one["control"] for one in found["cells"] if one["method"] == "fastv"]
    assert (control["verdict"], control["difference"], control["n"]) == ("no control ran", None, 0)
    assert "no control ran for 1 cell: without random_visual at the same budget" in table(found)


def test_the_terminal_shows_the_difference_and_the_verdict_beside_each_setting() -> None:
    outcomes = [outcome("dense", N, "1.00"), outcome("fastv", 20), outcome("random_visual", 6)]
    text = table(build(HEADER, outcomes, END))
    assert "- random" in text
    assert "+58.3 beats" in text
    assert "no control ran" not in text


def test_op_stands_against_the_op_of_the_random_row_on_the_same_tasks() -> None:
    outcomes = []
    for task in ("a", "b"):
        outcomes += [outcome("dense", N, "1.00", task), outcome("fastv", 18, task=task)]
        outcomes.append(outcome("random_visual", 6, task=task))
    rows = {row["method"]: row for row in build(HEADER, outcomes, END)["summary"]["op"]}
    control = rows["fastv"]["control"]
    assert control["difference"] == pytest.approx(rows["fastv"]["value"] - rows["random_visual"]["value"])
    assert (control["verdict"], control["n"]) == ("beats random", 2)
    assert control["interval"][0] > 0
    assert rows["random_visual"]["control"] is None


def test_a_preset_is_set_against_the_control_of_that_preset_where_it_ran() -> None:
    def preset(method: str, right: int, name: str) -> Outcome:
        return quality(cell(method, "0.10", preset=name), [1.0] * right + [0.0] * (N - right))

    rows = [preset("random_kv", 2, "paper"), preset("random_kv", 4, "effivlm"), preset("snapkv", 12, "effivlm")]
    found = build(HEADER, [outcome("dense", N, "1.00"), *rows], END)["cells"]
    assert found[-1]["control"]["difference"] == pytest.approx(8 / N)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_few_samples_get_no_interval_anywhere_and_the_terminal_says_why(n: int) -> None:
    rows = [quality(cell(), [1.0] * n), quality(cell("fastv", "0.10"), [1.0] * n, [True] * n)]
    rows.append(quality(cell("random_visual", "0.10"), [0.0] * n, [False] * n))
    found = build(HEADER, rows, END)
    one = found["cells"][1]
    assert (one["interval"], one["ratio_interval"], one["loyalty"]["interval"]) == (None, None, None)
    assert (one["paired"]["interval"], one["control"]["verdict"]) == (None, "n too small")
    assert [row["interval"] for name in ("op", "ol") for row in found["summary"][name]] == [None] * 4
    assert f"100.0 [n < {LEAST}]" in table(found)


def test_samples_that_all_score_alike_get_the_bound_of_samples_unlike_them() -> None:
    found = cells(quality(cell(), [1.0] * 24), quality(cell("fastv", "0.10"), [0.0] * 24))
    unlike = 1 - 0.05 ** (1 / 24)
    assert found["dense"]["interval"] == pytest.approx([1 - unlike, 1.0])
    assert found["fastv"]["interval"] == pytest.approx([0.0, unlike])
    assert unlike == pytest.approx(3 / 24, abs=0.01)
    same = cells(quality(cell(), [1.0, 0.0] * 12), quality(cell("fastv", "0.10"), [1.0, 0.0] * 12))["fastv"]
    assert same["paired"]["interval"] == pytest.approx([-unlike, unlike])
    assert same["ratio_interval"] == pytest.approx([1 - 2 * unlike, 1 + 2 * unlike])


def test_a_score_of_nothing_has_a_ratio_that_reaches_as_far_as_its_score() -> None:
    one = cells(quality(cell(), [1.0, 0.0] * 12), quality(cell("fastv", "0.10"), [0.0] * 24))["fastv"]
    assert one["ratio"] == 0.0
    assert one["ratio_interval"] == pytest.approx([0.0, one["interval"][1] / 0.5])


@pytest.mark.parametrize("share", [0.9, 0.97])
def test_the_stated_interval_holds_a_rare_failure_where_the_bootstrap_alone_seldom_does(share: float) -> None:
    """Of samples that nearly all succeed most draws of ten succeed alike, where a bootstrap says that nothing is uncertain."""
    rng, bare, held = np.random.default_rng(0), 0, 0
    for _ in range(300):
        drawn = (rng.random(10) < share).astype(float)
        picks = np.sort(rng.choice(drawn, (400, 10)).mean(axis=1))
        found = (float(picks[10]), float(picks[389]))
        (said,) = stated([found], [10], 0, 1)
        assert said is not None
        bare += found[0] <= share <= found[1]
        held += said[0] <= share <= said[1]
    assert bare < 210
    assert held > 285


def test_what_is_seen_in_one_of_many_comparisons_only_is_no_discovery() -> None:
    """An effect that is told alone is open beside many comparisons that show nothing."""
    random = [quality(cell("random_visual", "0.10"), [0.0] * 10 + [1.0] * 14)]
    lucky = quality(cell("fastv", "0.10"), [1.0] * 7 + [0.0] * 3 + [1.0] * 14)
    alike = [
        quality(cell("fastv", "0.10", preset=f"p{number}"), [0.0] * 9 + [1.0] * 14 + [0.0]) for number in range(30)
    ]
    alone = cells(outcome("dense", N, "1.00"), *random, lucky)["fastv"]["control"]
    found = build(HEADER, [outcome("dense", N, "1.00"), *random, lucky, *alike], END)
    (beside,) = [one["control"] for one in found["cells"] if one["method"] == "fastv" and one["preset"] == "paper"]
    assert (alone["verdict"], beside["verdict"]) == ("beats random", "open")
    assert beside["interval"] == alone["interval"]
    assert beside["q"] > 0.05 > alone["q"]
    assert found["run"]["discoveries"]["families"] == {"dense": 32, "random": 31, "random_op": 31}
    assert f"{found['run']['discoveries']['rate']}" == f"{1 - LEVEL:.2f}", "a rate that reads as it is meant"
    assert "at 5% over 31 comparisons (Benjamini-Hochberg)" in table(found)


def test_each_block_says_what_its_samples_could_show() -> None:
    few = [quality(cell(), [1.0, 0.0] * 8), quality(cell("fastv", "0.10"), [0.0, 1.0, 1.0, 0.0] * 4)]
    many = [quality(cell(), [1.0, 0.0] * 80), quality(cell("fastv", "0.10"), [0.0, 1.0, 1.0, 0.0] * 40)]
    (small, large) = (cells(*one)["fastv"]["paired"]["detectable"] for one in (few, many))
    assert small == pytest.approx(large * 10**0.5, rel=0.15)
    assert f"a difference to dense of {100 * small:.1f} four times in five" in table(build(HEADER, few, END))
