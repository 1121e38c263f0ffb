"""Scenes of shapes: marks and pixels agree, answers follow from the marks, no answer shows in its question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import NamedTuple

import numpy as np
import pytest
from effivlm_micro import scenes, shapes, words
from effivlm_micro.picture import COLOURS, SHAPES, Asked, Picture
from effivlm_micro.words import Split

Maker = Callable[[Random, Split], Picture]
MAKERS: tuple[Maker, ...] = (scenes.gqa, scenes.mme, scenes.mmbench, scenes.listing)
SPLITS: tuple[Split, ...] = ("train", "heldout")
SHIFTS = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


class Seen(NamedTuple):
    """An object as its mark tells of it."""

    colour: str
    shape: str
    x: float
    y: float

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


def seen(picture: Picture, frame: int = 0) -> list[Seen]:
    """The objects of a frame, decoded without the generator's help."""
    found = []
    for char, x, y in picture.marks[frame]:
        if ord(char) >= 0xE000:
            shape, colour = divmod(ord(char) - 0xE000, len(COLOURS))
            found.append(Seen(COLOURS[colour], SHAPES[shape], x, y))
    return found


def cell(one: Seen) -> int:
    """Its cell of 4 x 4, counted by rows."""
    return int(one.y) // 48 * 4 + int(one.x) // 48


def many(maker: Maker, count: int = 60) -> list[Picture]:
    return [maker(Random(f"{split}/{number}"), split) for split in SPLITS for number in range(count)]


def mentioned(text: str, known: tuple[str, ...]) -> list[str]:
    return re.findall(rf"\b({'|'.join(known)})", text)


def number_of(things: list[Seen], question: str) -> int:
    """How many objects a question is about, by the colour or the shape that it names."""
    colours, forms = mentioned(question, COLOURS), mentioned(question, SHAPES)
    return sum(one.colour in (colours or COLOURS) and one.shape in (forms or SHAPES) for one in things)


def far(one: Seen, other: Seen, question: str) -> float:
    """How far the first lies to the side of the second that the question names."""
    (side,) = mentioned(question, tuple(SHIFTS))
    return (one.x - other.x) * SHIFTS[side][0] + (one.y - other.y) * SHIFTS[side][1]


def named(things: list[Seen], question: str) -> list[Seen]:
    """The objects that the question calls by colour and shape, in its order."""
    names = re.findall(rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})", question)
    return [one for colour, shape in names for one in things if (one.colour, one.shape) == (colour, shape)]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_picture_is_the_same_every_time_and_other_seeds_and_splits_give_others(maker: Maker) -> None:
    first, again = (maker(Random(3), "heldout") for _ in range(2))
    assert first.frames[0].tobytes() == again.frames[0].tobytes()
    assert (first.marks, first.asked) == (again.marks, again.asked)
    assert first.marks != maker(Random(4), "heldout").marks
    assert first.marks != maker(Random(3), "train").marks


@pytest.mark.parametrize("maker", MAKERS)
def test_three_to_seven_different_objects_stand_clear_of_each_other_and_of_the_thirds(maker: Maker) -> None:
    for picture in many(maker):
        things = seen(picture)
        assert 3 <= len(things) <= 7
        assert len({one.name for one in things}) == len({cell(one) for one in things}) == len(things)
        assert all(abs(value - line) >= 6 for one in things for value in (one.x, one.y) for line in (64, 128))
        assert all(13 <= value <= 179 for one in things for value in (one.x, one.y))


@pytest.mark.parametrize("maker", MAKERS)
def test_the_pixels_around_a_mark_have_the_colour_that_it_names(maker: Maker) -> None:
    for picture in many(maker, 30):
        for one in seen(picture):
            patch = picture.frames[0][int(one.y) - 1 : int(one.y) + 2, int(one.x) - 1 : int(one.x) + 2]
            off = {name: np.abs(patch - np.array(tint, float)).max() for name, tint in shapes.TINTS.items()}
            assert min(off, key=lambda name: off[name]) == one.colour
            assert off[one.colour] <= shapes.TINT_JITTER


def test_all_that_is_drawn_is_centred_on_a_mark_and_2_pixels_inside_the_picture() -> None:
    plain = [picture for picture in many(scenes.gqa, 80) if picture.variant.split("/")[1] == "plain"]
    for picture in plain:
        inked = (picture.frames[0] != picture.frames[0][0, 0]).any(2)
        assert not inked[:2].any()
        assert not inked[:, -2:].any()
        points = np.argwhere(inked)
        owner = points[:, 0] // 48 * 4 + points[:, 1] // 48
        assert set(owner.tolist()) == {cell(one) for one in seen(picture)}
        for one in seen(picture):
            mine = points[owner == cell(one)]
            assert np.abs((mine.min(0) + mine.max(0) + 1) / 2 - (one.y, one.x)).max() <= 1
    assert len(plain) >= 30


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_fill_their_box_differ_and_have_a_thin_edge(shape: str) -> None:
    whole, edge = (shapes.coverage(shape, 24, line)[:, ::3] for line in (False, True))
    assert np.ptp(np.nonzero(whole.max(0) > 60)[0]) >= 19
    assert (edge <= whole).all()
    assert 0.1 < edge.sum() / whole.sum() < 0.6
    assert all(
        np.abs(whole.astype(int) - shapes.coverage(other, 24)[:, ::3]).mean() > 15 for other in SHAPES if other != shape
    )


def test_colours_stay_apart_from_each_other_and_from_every_ground() -> None:
    tints = {name: np.array(tint, float) for name, tint in shapes.TINTS.items()}
    grounds = [np.array(tone, float) for tone in shapes.GROUNDS.values()]
    worst = 2 * shapes.TINT_JITTER
    for name, tint in tints.items():
        others = [other for key, other in tints.items() if key != name]
        assert min(np.abs(tint - other).max() for other in others) > 3 * worst
        assert min(np.abs(tint - other).max() for other in grounds) > 2 * worst


def test_the_splits_share_no_style_no_size_and_no_scene() -> None:
    assert not set(shapes.variants("train")) & set(shapes.variants("heldout"))
    assert not set(shapes.SIZES["train"]) & set(shapes.SIZES["heldout"])
    for split in SPLITS:
        assert {name.split("/")[0] for name in shapes.variants(split)} == set(shapes.GROUNDS)
        for maker in MAKERS:
            for number in range(25):
                picture = maker(Random(number), split)
                placed = sorted(f"{one.shape} {one.colour} {cell(one)}" for one in seen(picture))
                assert words.split_of(", ".join(placed)) == split
                assert picture.variant in shapes.variants(split)


def check_gqa(one: Asked, things: list[Seen]) -> None:
    if one.kind == "count":
        assert one.answer == str(number_of(things, one.question))
    elif one.kind in ("colour", "shape"):
        known, attribute = (SHAPES, "shape") if one.kind == "colour" else (COLOURS, "colour")
        (value,) = mentioned(one.question, known)
        (thing,) = [thing for thing in things if getattr(thing, attribute) == value]
        assert one.answer == getattr(thing, one.kind)
    elif one.answer in ("yes", "no"):
        distance = far(*named(things, one.question), one.question)
        assert abs(distance) >= scenes.MARGIN
        assert (one.answer == "yes") is (distance > 0)
    else:
        (anchor,) = named(things, one.question)
        lead = {thing.name: far(thing, anchor, one.question) for thing in things if thing != anchor}
        assert [name for name, distance in lead.items() if distance > 6] == [one.answer]
        assert lead[one.answer] >= scenes.MARGIN


def test_every_gqa_answer_follows_from_the_marks() -> None:
    kinds: Counter[str] = Counter()
    for picture in many(scenes.gqa, 100):
        for one in picture.asked:
            check_gqa(one, seen(picture))
            kinds[one.kind] += 1
    assert set(kinds) == {"count", "colour", "shape", "relation"}
    assert min(kinds.values()) >= 150


def said(question: str) -> int:
    """The number in a question, in letters or as a digit."""
    (number,) = re.findall(r"\b(one|two|three|four|\d)\b", question)
    return {"one": 1, "two": 2, "three": 3, "four": 4}.get(number) or int(number)


def truth_of(one: Asked, things: list[Seen], printed: str) -> bool:
    """Whether a question of MME's kind is to be answered with yes."""
    if one.kind == "existence":
        return bool(named(things, one.question))
    if one.kind == "count":
        return number_of(things, one.question) == said(one.question)
    if one.kind == "position":
        distance = far(*named(things, one.question), one.question)
        assert abs(distance) >= scenes.MARGIN
        return distance > 0
    if one.kind == "color":
        (shape,), (colour,) = mentioned(one.question, SHAPES), mentioned(one.question, COLOURS)
        (thing,) = [thing for thing in things if thing.shape == shape]
        return thing.colour == colour
    return one.question.split('"')[1] == printed


def test_mme_asks_five_pairs_and_the_yes_of_each_is_true_and_the_no_false() -> None:
    for picture in many(scenes.mme):
        printed = "".join(char for char, _, _ in picture.marks[0] if ord(char) < 127)
        pairs = [picture.asked[start : start + 2] for start in range(0, 10, 2)]
        assert sorted(pair[0].kind for pair in pairs) == ["color", "count", "existence", "ocr", "position"]
        for pair in pairs:
            assert pair[0].kind == pair[1].kind
            assert {one.answer for one in pair} == {"Yes", "No"}
            assert all(truth_of(one, seen(picture), printed) is (one.answer == "Yes") for one in pair)


def test_the_word_on_an_mme_picture_is_dark_on_light_where_its_marks_are_and_of_the_split() -> None:
    for split in SPLITS:
        for number in range(40):
            picture = scenes.mme(Random(number), split)
            printed = [mark for mark in picture.marks[0] if ord(mark[0]) < 127]
            assert 4 <= len(printed) <= 8
            assert words.split_of("".join(char for char, _, _ in printed)) == split
            for _, x, y in printed:
                patch = picture.frames[0][int(y) - 7 : int(y) + 8, int(x) - 5 : int(x) + 6].mean(2)
                assert patch.max() >= 222
                assert patch.min() < 160


def test_neither_answer_of_a_pair_is_likelier_for_a_number_or_a_place_in_the_pair() -> None:
    yes, every, first = Counter[int](), Counter[int](), 0
    for picture in many(scenes.mme, 300):
        for one in picture.asked:
            if one.kind == "count":
                every[said(one.question)] += 1
                yes[said(one.question)] += one.answer == "Yes"
        first += sum(one.answer == "Yes" for one in picture.asked[::2])
    assert all(abs(yes[key] / every[key] - 0.5) < 0.12 for key in (1, 2, 3, 4))
    assert abs(first / 3000 - 0.5) < 0.05


def test_mmbench_groups_are_four_rotations_with_one_true_option_in_every_place() -> None:
    kinds: Counter[str] = Counter()
    for picture in many(scenes.mmbench):
        things = seen(picture)
        for start in range(0, len(picture.asked), 4):
            group = picture.asked[start : start + 4]
            assert sorted(one.answer for one in group) == ["A", "B", "C", "D"]
            options = [re.findall(r"^[A-D]\. (.*)$", one.question, re.MULTILINE) for one in group]
            assert all(later == [*earlier[-1:], *earlier[:-1]] for earlier, later in pairwise(options))
            question, head = group[0].question.split("\n")[0], "\nThere are several options:\nA. "
            assert all(one.question.startswith(question + head) and one.question.endswith("\n") for one in group)
            (answer,) = {found["ABCD".index(one.answer)] for one, found in zip(group, options, strict=True)}
            assert len(set(options[0])) == 4
            check_mmbench(group[0].kind, question, answer, options[0], things)
            kinds[group[0].kind] += 1
    assert set(kinds) == {"color", "shape", "count", "place", "which"}


def check_mmbench(kind: str, question: str, answer: str, options: list[str], things: list[Seen]) -> None:
    if kind == "which":
        assert [name for name in options if name in {one.name for one in things}] == [answer]
        assert [len(set(part)) for part in zip(*(name.split() for name in options), strict=True)] == [2, 2]
    elif kind == "place":
        (thing,) = named(things, question)
        assert answer == f"{'top' if thing.y < 96 else 'bottom'} {'left' if thing.x < 96 else 'right'}"
        assert min(abs(thing.x - 96), abs(thing.y - 96)) >= 16
    else:
        check_gqa(Asked("colour" if kind == "color" else kind, question, answer), things)


def test_a_listing_names_every_object_with_its_third_in_reading_order() -> None:
    for picture in many(scenes.listing):
        things = sorted(seen(picture), key=lambda one: (int(one.y) // 48, one.x))
        rows, columns = ("top", "middle", "bottom"), ("left", "center", "right")
        lines = [f"{one.name}, {rows[int(one.y) // 64]} {columns[int(one.x) // 64]}" for one in things]
        (asked,) = picture.asked
        assert 3 <= len(lines) <= 6
        assert asked.answer.split("\n") == lines


def test_counts_and_yes_or_no_are_near_uniform_so_that_a_question_does_not_tell_its_answer() -> None:
    asked = [one for number in range(1200) for one in scenes.gqa(Random(number), "train").asked]
    counted = [one for one in asked if one.kind == "count"]
    parts = Counter(one.answer for one in counted if mentioned(one.question, COLOURS + SHAPES))
    assert set(parts) == set("01234")
    assert max(parts.values()) < 1.25 * 240
    whole = Counter(one.answer for one in counted if not mentioned(one.question, COLOURS + SHAPES))
    assert set(whole) == set("34567")
    assert max(whole.values()) < 0.27 * whole.total()
    sides = Counter(one.answer for one in asked if one.answer in ("yes", "no"))
    assert abs(sides["yes"] / sides.total() - 0.5) < 0.05


def test_questions_are_made_of_the_phrasings_and_words_that_the_tokenizer_is_told() -> None:
    fixed = [re.escape(text).replace(r"\{\}", "(.+?)") for text in scenes.PHRASINGS]
    known = set(" ".join(scenes.WORDS).split())
    for maker in MAKERS:
        for picture in many(maker, 25):
            for one in picture.asked:
                question = one.question.split("\n")[0]
                found = [match for text in fixed if (match := re.fullmatch(text, question))]
                assert found
                if one.kind != "ocr":
                    assert any(set(" ".join(match.groups()).split()) <= known for match in found)
                    assert set(re.findall(r"\w+", one.answer)) <= known
