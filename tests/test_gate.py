"""The verdict on pairs of documents: what must fail, what must not, and what may not be compared."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from effivlm.records import Outcome
from effivlm.report.baseline import Side, of_document
from effivlm.report.differences import lines, page
from effivlm.report.document import build
from effivlm.report.limits import Limits, Tolerance, tolerances
from effivlm.report.verdict import verdict
from tests.gating import DENSE, FASTV, PARTS, judged, right, rows, side
from tests.outcomes import END, HEADER, achieved, cell, missing, quality, timed


def test_a_method_that_silently_runs_dense_fails() -> None:
    honest = quality(FASTV, right(4, 8))
    dense = replace(honest, achieved=replace(achieved(1.0), asked_keep=0.1))
    found = judged(side([honest]), side([dense]))
    assert rows(found, "fail") == [(FASTV.id, "kept"), (FASTV.id, "cache")]
    assert found["status"] == "failed"


def test_a_method_that_counts_a_small_budget_and_stores_a_dense_cache_fails() -> None:
    honest = quality(FASTV, right(4, 8))
    pretending = replace(honest, achieved=replace(achieved(0.1), kv_bytes=64000))
    assert rows(judged(side([honest]), side([pretending])), "fail") == [(FASTV.id, "cache")]


def test_one_token_a_sample_of_rounding_passes_and_two_do_not() -> None:
    honest = quality(FASTV, right(4, 8))
    for tokens, status in ((8, "passed"), (16, "failed"), (-8, "passed"), (-16, "failed")):
        kept = replace(achieved(0.1), kept=100 + tokens, keep=(100 + tokens) / 1000)
        assert judged(side([honest]), side([replace(honest, achieved=kept)]))["status"] == status


def test_two_points_lost_everywhere_fail_and_two_points_of_noise_do_not() -> None:
    before = quality(FASTV, [0.5 + 0.01 * (place % 20) for place in range(50)])
    lost = [answer.score - 0.02 for answer in before.answers if answer.score is not None]
    assert rows(judged(side([before]), side([quality(FASTV, lost)])), "fail") == [(FASTV.id, "score")]
    draw = random.Random(0)
    wide = [one + (0.28 if place % 2 else -0.32) for place, one in enumerate(draw.sample([0.5] * 50, 50))]
    noisy = judged(side([quality(FASTV, [0.5] * 50)]), side([quality(FASTV, wide)]))
    (row,) = (row for row in noisy["rows"] if row["check"] == "score")
    assert row["change"] == pytest.approx(0.02)
    assert noisy["status"] == "passed"


def test_pairing_finds_a_loss_that_unpaired_intervals_hide() -> None:
    before, after = side([quality(FASTV, right(100))]), side([quality(FASTV, right(90))])
    assert judged(before, after)["status"] == "failed"
    document = build(HEADER, [quality(FASTV, right(100))], END)
    unpaired = judged(of_document(document, "report.json"), after)
    (row,) = (row for row in unpaired["rows"] if row["check"] == "score")
    assert (row["status"], row["how"]) == ("warn", "unpaired, n 200")


def test_answers_scored_together_are_drawn_together() -> None:
    scores = right(40, 40)
    pairs = quality(FASTV, scores)
    names = [replace(one, id=f"s-{place // 2}-{place % 2}") for place, one in enumerate(pairs.answers)]
    worse = [replace(one, score=0.0 if place < 4 else 1.0) for place, one in enumerate(names)]
    widths = []
    for group in (1, 2):
        old, new = (replace(pairs, answers=tuple(given), group=group) for given in (names, worse))
        new = replace(new, score=0.9)
        (row,) = (row for row in judged(side([old]), side([new]))["rows"] if row["check"] == "score")
        widths.append(row["interval"][1] - row["interval"][0])
    assert widths[1] > 1.2 * widths[0]


def test_a_small_loss_on_every_task_is_seen_over_the_tasks_alone() -> None:
    tasks = [f"task_{number}" for number in range(8)]
    cells = [cell("fastv", "0.10", task) for task in tasks]
    before = side([quality(one, right(60, 100)) for one in cells])
    after = side([quality(one, right(57, 100)) for one in cells])
    assert rows(judged(before, after), "fail") == [("micro_llava-fastv-keep0.10 over 8 tasks", "score")]


def test_of_many_cells_that_only_wobble_none_fails_and_one_that_fell_does() -> None:
    """Two in a hundred cells would fail by chance: their intervals hold each by itself."""
    rng = random.Random(5)
    alone = beside = 0
    for number in range(4):
        names = [cell("fastv", "0.10", f"task_{number}_{place}") for place in range(60)]
        old = {one: [float(rng.random() < 0.5) for _ in range(120)] for one in names}
        new = {one: [score if rng.random() < 0.8 else 1.0 - score for score in scores] for one, scores in old.items()}
        new[names[0]] = [score if rng.random() < 0.5 else 0.0 for score in old[names[0]]]
        sides = [side([quality(one, scores) for one, scores in scored.items()]) for scored in (old, new)]
        found = judged(*sides, defaults={**Limits().defaults, "score": 0.0})
        failed = [name for name, check in rows(found, "fail") if check == "score"]
        alone += sum(row["p"] is not None and row["p"] <= 0.025 for row in found["rows"]) - 1
        beside += sum(name != names[0].id for name in failed)
        assert names[0].id in failed
    assert alone >= 3, "by themselves some would have failed"
    assert beside <= 1


def test_a_tenth_slower_decode_fails_and_a_fiftieth_does_not() -> None:
    rounds = [4.0, 4.02, 3.98, 4.01, 3.99, 4.0]
    for factor, status in ((1.10, "failed"), (1.02, "passed"), (0.5, "passed")):
        slower = timed(FASTV, "decode", *[one * factor for one in rounds])
        assert judged(side([timed(FASTV, "decode", *rounds)]), side([slower]))["status"] == status


def test_a_vanished_part_fails_with_its_reason_and_a_new_one_warns() -> None:
    both = [quality(DENSE, right(5, 8)), timed(DENSE, "decode", *[4.0] * 6), quality(FASTV, right(4, 8))]
    fewer = side([both[0], missing(FASTV)])
    found = judged(side(both), fewer)
    assert rows(found, "fail") == [(DENSE.id, "missing"), (FASTV.id, "missing")]
    assert any("failed: out of memory" in line for line in lines(found))
    assert judged(side(both), fewer, missing="ok")["status"] == "passed"
    more = judged(fewer, side(both))
    assert (more["status"], rows(more, "warn")) == ("passed", [(DENSE.id, "new"), (FASTV.id, "new")])
    assert judged(fewer, side(both), new="fail")["status"] == "failed"


def test_on_another_device_scores_compare_and_timings_do_not() -> None:
    fast = [quality(DENSE, right(6, 8)), timed(DENSE, "decode", *[4.0] * 6)]
    slow = [quality(DENSE, right(6, 8)), timed(DENSE, "decode", *[40.0] * 6)]
    for device in ({"name": "other device", "driver": "1.0"}, {"name": "test device", "driver": "2.0"}):
        found = judged(side(fast), side(slow, device=device))
        assert found["status"] == "passed"
        assert rows(found, "warn") == [("", "device")]
        assert {row["check"] for row in found["rows"] if row["status"] == "ok"} == {"score", "kept", "cache"}
        assert judged(side(fast), side(slow, device=device), device="fail")["status"] == "failed"
        worse = [quality(DENSE, right(1, 8)), slow[1]]
        assert rows(judged(side(fast), side(worse, device=device)), "fail") == [(DENSE.id, "score")]
    assert judged(side(fast), side(slow))["status"] == "failed"


@pytest.mark.parametrize(
    ("other", "words"),
    [({"judge": "b"}, "marked by a, now by b"), ({"prompt_sha256": "2"}, "asked in other words now")],
)
def test_scores_of_two_judges_are_not_compared(other: dict[str, str], words: str) -> None:
    marks = {"judge": "a", "models": [], "rubric": "mmvet", "prompt_sha256": "1", "missing": 0}
    marks |= {"noise": None, "agreement": None}
    one, two = (replace(quality(FASTV, [1.0] * 8), judged=own) for own in (marks, {**marks, **other}))
    (row,) = (row for row in judged(side([one]), side([two]))["rows"] if row["check"] == "judge")
    assert words in row["text"]
    assert not [row for row in judged(side([one]), side([one]))["rows"] if row["check"] == "judge"]


@pytest.mark.parametrize(
    ("facts", "advice"),
    [
        ({"settings": {"dtype": "bfloat16"}}, "--vlm-dtype float32"),
        ({"settings": {"dtype": "float32"}, "task_versions": {"docvqa_micro": 2}}, "--vlm-update-baseline"),
    ],
)
def test_another_precision_or_task_version_is_refused_with_what_to_do(facts: dict[str, Any], advice: str) -> None:
    run = [quality(DENSE, right(6, 8))]
    before = side(run, settings={"dtype": "float32"}, task_versions={"docvqa_micro": 1})
    found = judged(before, side(run, **facts))
    assert found["status"] == "refused"
    assert rows(found, "ok") == []
    assert advice in " ".join(lines(found))


def test_other_samples_questions_or_metrics_are_refused() -> None:
    run = quality(DENSE, right(6, 8))
    fewer = quality(DENSE, right(5, 7))
    renamed = replace(run, answers=tuple(replace(one, id=f"other {one.id}") for one in run.answers))
    asked = replace(run, answers=tuple(replace(one, prompt_sha256="1" * 64) for one in run.answers))
    for other in (fewer, renamed, asked, replace(run, metric="exact")):
        found = judged(side([run]), side([other]))
        assert found["status"] == "refused", other
        assert not any(row["check"] == "score" for row in found["rows"])


def test_a_timing_on_another_engine_is_refused() -> None:
    graph = timed(DENSE, "decode", *[4.0] * 6, engine="cuda graph")
    found = judged(side([timed(DENSE, "decode", *[4.0] * 6)]), side([graph]))
    assert (found["status"], rows(found, "refused")) == ("refused", [("", "engine")])


def test_more_broken_samples_fail_though_the_score_of_the_rest_is_higher() -> None:
    before, after = quality(DENSE, [1, 1, 0, 0]), quality(DENSE, [1, 1, None, 0])
    assert rows(judged(side([before]), side([after])), "fail") == [(DENSE.id, "broken")]


def test_one_sample_cannot_tell_and_says_so() -> None:
    found = judged(side([quality(DENSE, [1])]), side([quality(DENSE, [0])]))
    assert rows(found, "warn") == [(DENSE.id, "score")]
    assert any("too few to tell" in line for line in lines(found))


def test_a_drop_that_few_samples_cannot_tell_is_inconclusive_and_acts_as_asked() -> None:
    before, after = side([quality(DENSE, right(8, 8))]), side([quality(DENSE, right(6, 8))])
    for policy, status in (("warn", "warn"), ("fail", "fail"), ("ok", "ok")):
        (row,) = (row for row in judged(before, after, inconclusive=policy)["rows"] if row["check"] == "score")
        assert (row["status"], row["change"], row["interval"][0]) == (status, 0.25, 0.0)
        assert "inconclusive" in row["text"]
    assert judged(before, after)["policies"]["inconclusive"] == "warn"
    with pytest.raises(ValueError, match="inconclusive: 'maybe' is not one of"):
        Limits(inconclusive="maybe")


def test_one_failure_stands_before_forty_warnings_which_are_summed_up() -> None:
    tasks = [cell("fastv", "0.10", f"task_{number}") for number in range(42)]
    before = side([quality(FASTV, right(200))])
    text = lines(judged(before, side([quality(FASTV, right(100)), *(quality(one, right(9, 9)) for one in tasks)])))
    (place,) = (number for number, line in enumerate(text) if line.startswith("FAIL"))
    warned = [number for number, line in enumerate(text) if line.startswith("warn")]
    assert place < min(warned)
    assert text[max(warned)] == "warn: and 39 more of this kind (new)"
    assert len(warned) == 4
    assert "42 warn" in text[-1]


def test_another_seed_is_refused_and_no_new_baseline_is_advised() -> None:
    run = [quality(DENSE, right(6, 8))]
    found = judged(side(run, settings={"seed": 0, "limit": 8}), side(run, settings={"seed": 7, "limit": 8}))
    assert (found["status"], rows(found, "refused")) == ("refused", [("", "seed")])
    text = " ".join(lines(found))
    assert "seed 0 against 7" in text
    assert "run with --vlm-seed 0" in text
    assert "--vlm-update-baseline" not in text


def test_two_runs_with_nothing_in_common_are_refused_even_where_all_is_allowed() -> None:
    one, other = side([quality(DENSE, right(4, 8))]), side([quality(FASTV, right(4, 8))])
    assert judged(one, other, missing="ok", new="ok")["status"] == "refused"


def test_hostile_names_stay_text_on_the_page_and_in_the_terminal() -> None:
    hostile = cell("<script>alert(1)</script>\x1b[31m\u202e", "0.10")
    found = judged(side([quality(hostile, right(8, 8))]), side([quality(hostile, right(0, 8))]))
    html = page(found)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert not {"\x1b", "\u202e"} & set(html + "\n".join(lines(found)))


values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, None]), min_size=1, max_size=8)
costs = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=7)
settings = st.tuples(st.sampled_from(["dense", "fastv"]), st.sampled_from(["a_micro", "b_micro"]))


SLOWLY = hypothesis.settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # draws make a document


@st.composite
def runs(draw: st.DrawFn) -> Side:
    outcomes: list[Outcome] = []
    for method, task in draw(st.lists(settings, unique=True, min_size=1)):
        which = cell(method, "1.00" if method == "dense" else "0.10", task)
        scores = draw(values.filter(lambda found: any(score is not None for score in found)))
        outcomes.append(quality(which, scores))
        if draw(st.booleans()):
            outcomes.append(timed(which, draw(st.sampled_from(PARTS)), *draw(costs)))
    return side(outcomes)


@SLOWLY
@given(runs())
def test_a_document_compared_with_itself_passes_without_a_tolerance(run: Side) -> None:
    strict = Limits(tolerances("score=0,kept=0,ttft=1,decode=1,memory=1"), "fail", "fail", "fail")
    found = verdict(run, run, strict)
    spread = [row for row in found["rows"] if row["status"] != "ok"]
    assert spread == []
    assert found["status"] == "passed"


@SLOWLY
@given(runs(), runs(), st.floats(0, 1), st.floats(0, 1), st.floats(1, 3), st.floats(1, 3))
def test_a_larger_tolerance_never_turns_a_pass_into_a_failure(
    before: Side, after: Side, score: float, more: float, decode: float, longer: float
) -> None:
    tight = (Tolerance("score", min(score, more)), Tolerance("decode", min(decode, longer)))
    loose = (Tolerance("score", max(score, more)), Tolerance("decode", max(decode, longer)))
    failing = [
        {
            (row["cell"], row["check"])
            for row in verdict(before, after, Limits(table))["rows"]
            if row["status"] == "fail"
        }
        for table in (tight, loose)
    ]
    assert failing[1] <= failing[0]
