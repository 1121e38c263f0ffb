"""Clips: what the marks say moved is what the answers say, one object at a time, and the picture shows it."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from random import Random

import numpy as np
import pytest
from effivlm_micro import clips, shapes, words
from effivlm_micro.picture import COLOURS, SHAPES, Picture, object_mark
from effivlm_micro.words import Split

SPLITS: tuple[Split, ...] = ("train", "heldout")
NAMES = {object_mark(shape, colour, 0, 0)[0]: f"{colour} {shape}" for shape in SHAPES for colour in COLOURS}
Tracks = dict[str, np.ndarray]


def many(count: int = 80) -> list[Picture]:
    return [clips.clip(Random(f"{split}/{number}"), split) for split in SPLITS for number in range(count)]


def tracks(picture: Picture) -> Tracks:
    """Name -> centres [frames, 2] in pixels (x, y), from the marks alone."""
    found: dict[str, list[tuple[float, float]]] = {}
    for marks in picture.marks:
        for char, x, y in marks:
            found.setdefault(NAMES[char], []).append((x, y))
    return {name: np.array(places) for name, places in found.items()}


def moved(found: Tracks) -> list[tuple[int, int, str]]:
    """For each object that moves, in order: the last frame before, the frame in which it has arrived, its name."""
    spans = []
    for name, places in found.items():
        steps = np.nonzero(np.abs(np.diff(places, axis=0)).max(1))[0]
        if len(steps):
            spans.append((int(steps[0]), int(steps[-1]) + 1, name))
    return sorted(spans)


def towards(places: np.ndarray) -> str:
    x, y = places[-1] - places[0]
    return ("right" if x > 0 else "left") if abs(x) > abs(y) else ("down" if y > 0 else "up")


def test_a_clip_is_the_same_every_time_and_other_seeds_and_splits_give_others() -> None:
    first, again = (clips.clip(Random(3), "train") for _ in range(2))
    assert [frame.tobytes() for frame in first.frames] == [frame.tobytes() for frame in again.frames]
    assert (first.marks, first.asked) == (again.marks, again.asked)
    assert first.marks != clips.clip(Random(4), "train").marks
    assert first.marks != clips.clip(Random(3), "heldout").marks


def test_clips_have_4_6_or_8_frames_with_the_same_2_to_4_objects_in_each() -> None:
    made = many()
    assert {len(picture.frames) for picture in made} == {4, 6, 8}
    assert {len(tracks(picture)) for picture in made} == {2, 3, 4}
    for picture in made:
        assert all(frame.shape == (192, 192, 3) and frame.dtype == np.uint8 for frame in picture.frames)
        assert all(len(places) == len(picture.frames) for places in tracks(picture).values())


def test_one_or_two_objects_move_straight_and_far_in_even_steps_and_never_at_once() -> None:
    numbers, lengths = Counter[int](), set[tuple[str, int]]()
    for picture in many():
        found = tracks(picture)
        spans = moved(found)
        numbers[len(spans)] += 1
        assert all(earlier[1] <= later[0] for earlier, later in combinations(spans, 2))
        for begin, end, name in spans:
            way = found[name][end] - found[name][begin]
            assert np.abs(way).min() == 0
            assert np.abs(way).max() >= 80
            steps = np.abs(np.diff(found[name][begin : end + 1], axis=0)).max(1)
            assert steps.min() >= 26
            assert np.ptp(steps) <= 1
            lengths.add((towards(found[name]), len(steps)))
    assert set(numbers) == {1, 2}
    assert min(numbers.values()) >= 50
    assert lengths == {(way, steps) for way in clips.DIRECTIONS for steps in (1, 2, 3)}


@pytest.mark.parametrize("split", SPLITS)
def test_objects_are_36_to_48_pixels_and_drawn_where_their_marks_are_in_every_frame(split: Split) -> None:
    made = [clips.clip(Random(number), split) for number in range(60)]
    plain = [picture for picture in made if picture.variant.split("/")[1] == "plain"]
    for picture in plain:
        for frame, marks in zip(picture.frames, picture.marks, strict=True):
            inked = (frame != frame[0, 0]).any(2)
            assert not inked[[0, 1, 190, 191]].any()
            assert not inked[:, [0, 1, 190, 191]].any()
            for _, x, y in marks:
                across = np.nonzero(inked[int(y)])[0]
                mine = across[np.abs(across + 0.5 - x) < 25]
                assert 14 <= len(mine) <= 48
                assert abs(mine.mean() + 0.5 - x) <= 1
                inked[max(0, round(y - 24)) : round(y + 24), max(0, round(x - 24)) : round(x + 24)] = False
            assert not inked.any()
    assert len(plain) >= 5
    assert {size % 2 for size in clips.SIZES[split]} == {int(split == "heldout")}


def test_only_moving_objects_change_pixels_between_frames() -> None:
    for picture in many(30):
        found = tracks(picture)
        for before, (first, second) in enumerate(zip(picture.frames, picture.frames[1:], strict=False)):
            moving = any(begin <= before < end for begin, end, _ in moved(found))
            assert bool((first != second).any()) is moving


def test_no_path_comes_near_another_object() -> None:
    for picture in many():
        found = tracks(picture)
        for one, other in combinations(found.values(), 2):
            gaps = np.abs(one[:, None] - other[None]).max(2)
            assert gaps.min() >= 36 + clips.GAP


def test_every_answer_follows_from_the_marks() -> None:
    kinds = Counter[str]()
    for picture in many():
        found = tracks(picture)
        names = [name for _, _, name in moved(found)]
        for one in picture.asked:
            kinds[one.kind] += 1
            mentioned = [name for name in found if name in one.question]
            if one.kind == "where":
                assert one.answer == towards(found[mentioned[0]])
            else:
                assert one.answer == names[-1 if "last" in one.question else 0]
                assert ("first" in one.question or "last" in one.question) is (len(names) == 2)
                assert sorted(mentioned) == (sorted(names) if one.kind == "order" else [])
    assert set(kinds) == {"what", "where", "order"}


def test_directions_and_the_order_of_mention_do_not_tell_the_answer() -> None:
    asked = [one for number in range(500) for one in clips.clip(Random(number), "train").asked]
    ways = Counter(one.answer for one in asked if one.kind == "where")
    assert set(ways) == set(clips.DIRECTIONS)
    assert max(ways.values()) < 0.31 * ways.total()
    for rank in ("first", "last"):
        order = [one for one in asked if one.kind == "order" and rank in one.question]
        leads = sum(f"the {one.answer} or" in one.question for one in order)
        assert abs(leads / len(order) - 0.5) < 0.1


def test_the_splits_share_no_size_no_style_and_no_clip() -> None:
    assert not set(clips.SIZES["train"]) & set(clips.SIZES["heldout"])
    for split in SPLITS:
        for number in range(60):
            picture = clips.clip(Random(number), split)
            assert picture.variant in shapes.variants(split)
            assert words.split_of(signature(tracks(picture))) == split


def signature(found: Tracks) -> str:
    """What the split is decided by, again from the marks: movers in order with their cells, then the others by name."""
    cells = {name: [int(y) // 48 * 4 + int(x) // 48 for x, y in places[[0, -1]]] for name, places in found.items()}
    order = [name for _, _, name in moved(found)]
    parts = {name: f"{' '.join(reversed(name.split()))} ({ends[0]}, {ends[1]})" for name, ends in cells.items()}
    return "; ".join([parts[name] for name in order] + sorted(parts[name] for name in parts if name not in order))


def test_questions_are_made_of_the_phrasings_and_words_that_the_tokenizer_is_told() -> None:
    fixed = [re.escape(text).replace(r"\{\}", "(.+?)") for text in clips.PHRASINGS]
    for picture in many(30):
        for one in picture.asked:
            found = [match for text in fixed if (match := re.fullmatch(text, one.question))]
            assert any(set(" ".join(match.groups()).split()) <= set(clips.WORDS) for match in found)
            assert set(one.answer.split()) <= set(clips.WORDS)
