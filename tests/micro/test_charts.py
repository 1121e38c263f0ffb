"""Charts say what their answers say, are drawn to scale, and the two splits share nothing."""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from random import Random

import numpy as np
import pytest
from effivlm_micro import charts
from effivlm_micro.picture import COLOURS, Picture
from effivlm_micro.words import Split, split_of

SPLITS: tuple[Split, ...] = ("train", "heldout")
FAMILIES = ("bars", "rows", "lines", "pie")
OBJECTS_FROM = 0xE000


@cache
def drawn(split: Split) -> tuple[Picture, ...]:
    return tuple(charts.chart(Random(f"test/{split}/{seed}"), split) for seed in range(300))


def every() -> tuple[Picture, ...]:
    return drawn("train") + drawn("heldout")


def named(template: str, question: str) -> tuple[str, ...]:
    """The names that stand in a question; empty if it is none of this template."""
    found = re.fullmatch(re.escape(template).replace(r"\{\}", r"(\w+)"), question)
    return found.groups() if found else ()


def printed(made: Picture) -> dict[str, str]:
    """Name -> printed value, from the questions."""
    pairs = [
        (names[0], asked.answer)
        for asked in made.asked
        for template in charts.VALUE
        if (names := named(template, asked.question))
    ]
    return dict(pairs)


def numbers(made: Picture) -> dict[str, float]:
    return {name: float(value.rstrip("%")) for name, value in printed(made).items()}


def text_of(made: Picture) -> str:
    """All characters in the order of drawing."""
    return "".join(char for char, _, _ in made.marks[0] if ord(char) < OBJECTS_FROM)


def swatches(made: Picture) -> list[tuple[str, float, float]]:
    return [mark for mark in made.marks[0] if ord(mark[0]) >= OBJECTS_FROM]


def family(made: Picture) -> str:
    name, *_ = made.variant.split("/")
    return str(name)


def test_a_chart_is_the_same_every_time_and_differs_between_seeds() -> None:
    first, again, other = (charts.chart(Random(seed), "train") for seed in (5, 5, 6))
    assert first.frames[0].tobytes() == again.frames[0].tobytes()
    assert (first.marks, first.asked, first.variant) == (again.marks, again.asked, again.variant)
    assert first.frames[0].tobytes() != other.frames[0].tobytes()
    assert first.frames[0].shape == (192, 384, 3)


def test_a_variant_belongs_to_one_split_and_every_choice_to_both() -> None:
    for name in FAMILIES:
        train, heldout = (charts.variants(name, split) for split in SPLITS)
        assert not set(train) & set(heldout)
        assert {part for one in train for part in one.split("/")} == {
            part for one in heldout for part in one.split("/")
        }
    assert {family(made) for made in every()} == set(FAMILIES)


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_and_every_series_is_the_splits_own(split: Split) -> None:
    for made in drawn(split):
        assert made.variant in charts.variants(family(made), split)
        assert all(split_of(name) == split for name in printed(made) if len(name) > 4)


def test_no_series_of_months_or_years_stands_in_both_splits() -> None:
    seen = [{frozenset(printed(made).items()) for made in drawn(split)} for split in SPLITS]
    assert not seen[0] & seen[1]
    series = charts._series(Random(3), "heldout", "bars", 3, lambda name: True)
    assert split_of(" ".join(map(str, (*series.names, *series.values)))) == "heldout"


def test_names_and_values_are_printed_in_the_chart() -> None:
    for made in every():
        text = text_of(made)
        assert all(name in text and value in text for name, value in printed(made).items())


def test_every_mark_stands_on_ink_and_no_two_in_one_place() -> None:
    for made in every()[::7]:
        for char, x, y in made.marks[0]:
            part = made.frames[0][max(0, round(y) - 7) : round(y) + 8, max(0, round(x) - 4) : round(x) + 5]
            assert np.ptp(part.astype(int).sum(2)) > 150, (made.variant, char, x, y)
        places = np.array([(x, y) for _, x, y in made.marks[0]])
        gaps = np.abs(places[:, None] - places[None]) / (2.5, 8.0)
        assert (gaps.max(2) + 2 * np.eye(len(places)) > 1).all(), made.variant


def test_a_swatch_has_the_colour_of_its_mark_and_the_colours_of_a_pie_are_well_apart() -> None:
    pies = [made for made in every() if family(made) == "pie"]
    for made in pies:
        tones = [
            made.frames[0][int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].mean((0, 1)) for _, x, y in swatches(made)
        ]
        assert len(tones) == len(printed(made))
        assert all(np.abs(one - other).sum() > 110 for one, other in combinations(tones, 2)), made.variant
        for (mark, _, _), tone in zip(swatches(made), tones, strict=True):
            colour = COLOURS[(ord(mark) - OBJECTS_FROM) % len(COLOURS)]
            if colour in ("red", "green", "blue"):
                assert int(tone.argmax()) == ("red", "green", "blue").index(colour)


def test_upright_bars_are_as_high_as_their_values() -> None:
    plain = [
        made for made in every() if family(made) == "bars" and {"untitled", "unscaled"} < set(made.variant.split("/"))
    ]
    assert len(plain) >= 10
    for made in plain:
        values = numbers(made)
        assert text_of(made).endswith("".join(printed(made)[name] for name in sorted(values, key=text_of(made).index)))
        at, heights = len("".join(values)), {}
        for name in sorted(values, key=text_of(made).index):
            heights[name] = -made.marks[0][at][2]
            at += len(printed(made)[name])
        low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        unit = (heights[high] - heights[low]) / (values[high] - values[low])
        assert unit * values[high] > 60
        for name, value in values.items():
            assert abs(heights[name] - heights[low] - unit * (value - values[low])) < 2


def test_the_shares_of_a_pie_add_up_and_its_largest_slice_covers_most() -> None:
    for made in (made for made in every() if family(made) == "pie" and "/flush" in made.variant):
        values = numbers(made)
        assert sum(values.values()) == 100
        name_of = sorted(values, key=text_of(made).index)
        areas = {}
        left = made.frames[0][:, :200].astype(int)
        for name, (_, x, y) in zip(name_of, swatches(made), strict=True):
            tone = made.frames[0][int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].mean((0, 1))
            areas[name] = int((np.abs(left - tone).sum(2) < 50).sum())
        assert max(areas, key=areas.__getitem__) == max(values, key=values.__getitem__), made.variant


def test_no_value_is_taken_for_another_and_the_extremes_stand_out() -> None:
    for made in every():
        values = sorted(numbers(made).values())
        assert all(abs(one - other) > 0.06 * max(one, other) for one, other in combinations(values, 2))
        assert min(values[-1] - values[-2], values[1] - values[0]) >= 0.08 * values[-1] - 1e-9


def test_answers_are_what_the_values_say() -> None:
    kinds = set()
    for made in every():
        values = numbers(made)
        for asked in made.asked:
            kinds.add(asked.kind)
            if asked.kind == "extreme":
                best = max if asked.question in charts.HIGHEST else min
                assert asked.answer == best(values, key=values.__getitem__)
            elif names := named(charts.GREATER, asked.question):
                assert asked.answer == ("Yes" if values[names[0]] > values[names[1]] else "No")
            elif names := named(charts.LARGER, asked.question):
                assert asked.answer == max(names, key=values.__getitem__)
            else:
                assert asked.kind == "value"
    assert kinds == {"value", "extreme", "comparison"}


def test_no_answer_but_a_value_is_a_number() -> None:
    years = [made for made in every() if next(iter(printed(made))).isdigit()]
    assert years
    assert not [a for made in every() for a in made.asked if a.kind != "value" and a.answer.isdigit()]


@pytest.mark.parametrize("split", SPLITS)
def test_comparisons_are_balanced(split: Split) -> None:
    asked = [one for made in drawn(split) for one in made.asked if one.kind == "comparison"]
    yes = [one.answer == "Yes" for one in asked if one.answer in ("Yes", "No")]
    first = [named(charts.LARGER, one.question)[0] == one.answer for one in asked if one.answer not in ("Yes", "No")]
    assert 0.43 < sum(yes) / len(yes) < 0.57
    assert 0.43 < sum(first) / len(first) < 0.57


def test_the_name_mentioned_first_need_not_stand_first_in_the_chart() -> None:
    mentioned = [(made, named(charts.LARGER, one.question)) for made in every() for one in made.asked]
    order = [text_of(made).index(names[0]) < text_of(made).index(names[1]) for made, names in mentioned if names]
    assert 0.43 < sum(order) / len(order) < 0.57


def test_questions_hold_names_and_lower_case_words_of_the_phrasings_only() -> None:
    for made in every():
        for asked in made.asked:
            found = [one for one in charts.PHRASINGS if one == asked.question or named(one, asked.question)]
            assert len(found) == 1
            assert set(named(found[0], asked.question)) <= set(printed(made))
    assert all(re.fullmatch(r"[A-Z][a-z]+( [a-z]+,?| \{\},?)+\?", phrasing) for phrasing in charts.PHRASINGS)
