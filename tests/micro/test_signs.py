"""Signs and snippets say what their answers say, marks lie on the ink, and the two splits share nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import combinations, pairwise, permutations
from math import dist
from random import Random

import numpy as np
import numpy.typing as npt
import pytest
from effivlm_micro import signs
from effivlm_micro.canvas import Face, faces, glyph_of
from effivlm_micro.picture import COLOURS, Mark, Picture
from effivlm_micro.shapes import TINTS
from effivlm_micro.words import Split, split_of
from PIL import Image

from effivlm.metrics.vqa_accuracy import vqa_accuracy

SPLITS: tuple[Split, ...] = ("train", "heldout")
MAKERS = {"scene": signs.scene, "snippet": signs.snippet}
PLACES = ("left", "middle", "right")


@cache
def drawn(maker: str, split: Split) -> tuple[Picture, ...]:
    return tuple(MAKERS[maker](Random(f"test/{maker}/{split}/{seed}"), split) for seed in range(200))


def every(*makers: str) -> Iterator[Picture]:
    for maker in makers:
        for split in SPLITS:
            yield from drawn(maker, split)


def by_sign(made: Picture) -> dict[str, tuple[Mark, ...]]:
    """What each sign of a scene says -> its marks, which stand sign by sign."""
    texts = {asked.answer for asked in made.asked}
    spelt = "".join(char for char, _, _ in made.marks[0])
    order = next(found for found in permutations(texts) if "".join(found) == spelt)
    found, start = {}, 0
    for text in order:
        found[text], start = made.marks[0][start : start + len(text)], start + len(text)
    return found


def middle(marks: tuple[Mark, ...]) -> float:
    return sum(x for _, x, _ in marks) / len(marks)


def around(made: Picture, marks: tuple[Mark, ...], margin: int) -> npt.NDArray[np.float64]:
    """Pixels [h, w, 3] of the box of the marks, widened by a margin."""
    xs, ys = [int(x) for _, x, _ in marks], [int(y) for _, _, y in marks]
    rows = slice(max(0, min(ys) - margin), max(ys) + margin + 1)
    return made.frames[0][rows, max(0, min(xs) - margin) : max(xs) + margin + 1].astype(np.float64)


def named(question: str) -> str:
    """The colour or place a question names, or nothing."""
    return next((word for word in (*COLOURS, *PLACES) if f"the {word} sign" in question), "")


@pytest.mark.parametrize("maker", MAKERS)
def test_a_seed_gives_the_same_picture_and_the_next_seed_another(maker: str) -> None:
    first, again, other = (MAKERS[maker](Random(seed), "heldout") for seed in (4, 4, 5))
    assert first.frames[0].tobytes() == again.frames[0].tobytes()
    assert (first.marks, first.asked, first.variant) == (again.marks, again.asked, again.variant)
    assert first.asked != other.asked


@pytest.mark.parametrize("split", SPLITS)
def test_every_word_every_number_and_every_ground_belongs_to_the_split(split: Split) -> None:
    for made in (*drawn("scene", split), *drawn("snippet", split)):
        assert {split_of(word) for asked in made.asked for word in asked.answer.split()} == {split}
        assert split_of(made.variant) == split


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_a_style_for_every_colour_texture_and_bend(split: Split) -> None:
    assert all(signs.variants(split, f"plate/{colour}/") for colour in COLOURS)
    assert len({made.variant.split("/")[1] for made in drawn("scene", split)}) == 6
    assert len({made.variant.split("/")[1] for made in drawn("snippet", split)}) == 4


def test_the_splits_share_no_style() -> None:
    assert not set(signs.variants("train", "")) & set(signs.variants("heldout", ""))


@pytest.mark.parametrize(("maker", "low", "high"), [("scene", 0.58, 0.75), ("snippet", 0.25, 0.42)])
def test_two_thirds_of_scenes_and_a_third_of_snippets_are_wide(maker: str, low: float, high: float) -> None:
    sizes = Counter(made.frames[0].shape for made in every(maker))
    assert set(sizes) == {(192, 384, 3), (192, 192, 3)}
    assert low < sizes[192, 384, 3] / sizes.total() < high


@pytest.mark.parametrize(("degrees", "slant"), [(0, 0), (18, 0), (-18, 0), (5, 0.3), (0, -0.3)])
def test_a_turn_takes_ink_where_it_says(degrees: float, slant: float) -> None:
    spot = np.zeros((31, 90), np.uint8)
    spot[6:10, 70:76] = 255
    turn = signs.Turn((90, 31), degrees, slant)
    seen = np.asarray(turn.picture(Image.fromarray(spot)), np.float64)
    y, x = (np.average(line + 0.5, weights=seen) for line in np.indices(seen.shape))
    assert seen.shape == turn.out[::-1]
    assert (x, y) == pytest.approx(turn.place(73, 8), abs=0.1)


@pytest.mark.parametrize("arc", [0, 12, -12])
def test_marks_of_set_text_lie_on_their_characters(arc: float) -> None:
    set_text = signs.lettering(["Market", "Hello"], Face("heldout_00", 24), True, arc)
    assert "".join(char for char, _, _ in set_text.marks) == "MarketHello"
    for (_, x, y), (left, top, right, bottom) in zip(set_text.marks, set_text.boxes, strict=True):
        assert abs(x - (left + right) / 2) < 2
        assert top < y < bottom
    ends = set_text.marks[0][2] + set_text.marks[5][2] - set_text.marks[2][2] - set_text.marks[3][2]
    assert np.sign(round(ends)) == np.sign(arc)


def test_ink_and_ground_are_both_seen_at_every_mark() -> None:
    for made in every("scene", "snippet"):
        for mark in made.marks[0]:
            light = around(made, (mark,), 10) @ (0.299, 0.587, 0.114)
            assert light.max() - light.min() > 90, (made.asked, mark)


def test_ink_of_a_plain_snippet_lies_near_marks_only() -> None:
    plain = [made for made in every("snippet") if made.variant.split("/")[2] == "plain"]
    for made in plain:
        ground = np.median(made.frames[0], axis=(0, 1))
        rows, columns = np.nonzero(np.abs(made.frames[0] - ground).max(axis=2) > 90)
        ink = np.stack([columns, rows], axis=1)[:, None]
        away = np.abs(ink - [(x, y) for _, x, y in made.marks[0]]).max(axis=2).min(axis=1)
        assert away.max() < 26
    assert len(plain) > 100


@pytest.mark.parametrize("split", SPLITS)
def test_small_letters_are_nine_pixels_high(split: Split) -> None:
    rng = Random(1)
    found = [
        face
        for _ in range(3000 if split == "train" else 300)
        if (face := signs.face_for(rng, split, ["nose"], 40, 100))
    ]
    assert min(glyph_of(face, "x").coverage.shape[0] for face in found) == 9
    assert {face.name for face in found} == set(faces(split))
    assert max(face.width("nose") for face in found) <= 100 + 1.3 * len("nose"), (
        "a font rounds each character to whole pixels"
    )


def test_marks_of_a_scene_spell_its_answers_and_nothing_else() -> None:
    for made in every("scene"):
        assert sum(map(len, by_sign(made))) == len(made.marks[0])
        assert len(by_sign(made)) in (1, 2, 3)


def test_marks_of_a_snippet_spell_its_answer_in_reading_order() -> None:
    for made in every("snippet"):
        assert "".join(char for char, _, _ in made.marks[0]) == made.asked[0].answer.replace(" ", "")


def test_signs_keep_clear_of_each_other_and_of_the_seam() -> None:
    for made in every("scene"):
        for one, other in combinations(by_sign(made).values(), 2):
            assert min(dist(a[1:], b[1:]) for a in one for b in other) > 18
        for marks in by_sign(made).values():
            assert min(abs(x - 192) for _, x, _ in marks) > 8 or made.frames[0].shape[1] == 192
            assert len({x < 192 for _, x, _ in marks}) == 1


def test_no_ink_of_a_plain_snippet_lies_across_the_seam() -> None:
    wide = [
        made for made in every("snippet") if made.frames[0].shape[1] == 384 and made.variant.split("/")[2] == "plain"
    ]
    for made in wide:
        inked = np.abs(made.frames[0][:, 191:193] - np.median(made.frames[0], axis=(0, 1))).max(axis=2) > 90
        assert not inked.all(axis=1).any()
    assert (
        sum(min(x for _, x, _ in made.marks[0]) < 180 < 204 < max(x for _, x, _ in made.marks[0]) for made in wide) > 5
    )


def test_a_sign_has_the_colour_its_question_names() -> None:
    for made in every("scene"):
        plates, texts = (
            by_sign(made),
            {named(asked.question): asked.answer for asked in made.asked if asked.kind == "colour"},
        )
        assert len(texts) == len(plates)
        for colour, text in texts.items():
            pixels = around(made, plates[text], 3)
            shares = {name: (np.abs(pixels - TINTS[name]).max(axis=2) < 36).mean() for name in texts}
            assert max(shares, key=lambda name: shares[name]) == colour
            assert shares[colour] > 0.1


def test_plates_of_one_scene_have_colours_well_apart() -> None:
    for made in every("scene"):
        colours = [named(asked.question) for asked in made.asked if asked.kind == "colour"]
        assert all(dist(TINTS[one], TINTS[other]) >= 130 for one, other in combinations(colours, 2))


def test_places_are_asked_where_signs_stand_clearly_side_by_side() -> None:
    several = 0
    for made in every("scene"):
        places = {named(asked.question): asked.answer for asked in made.asked if asked.kind == "place"}
        middles = sorted((middle(marks), text) for text, marks in by_sign(made).items())
        clear = len(middles) > 1 and min(b[0] - a[0] for a, b in pairwise(middles)) > 60
        assert bool(places) or not clear
        if places:
            several += len(places) == 3
            order = [places[place] for place in PLACES if place in places]
            assert order == [text for _, text in middles]
            assert min(b[0] - a[0] for a, b in pairwise(middles)) > 52
    assert several > 10


def test_numbers_are_asked_of_signs_with_numbers_and_the_sign_alone_where_it_is_alone() -> None:
    for made in every("scene"):
        numbers = sorted(text for text in by_sign(made) if text.isdigit())
        assert sorted(asked.answer for asked in made.asked if asked.kind == "number") == numbers
        assert [asked.answer for asked in made.asked if asked.kind == "only"] == list(by_sign(made))[
            : len(by_sign(made)) == 1
        ]


def test_every_question_is_one_of_the_phrasings_and_stands_once() -> None:
    for made in every("scene", "snippet"):
        questions = [asked.question for asked in made.asked]
        assert len(set(questions)) == len(questions)
        for question in questions:
            assert question in signs.PHRASINGS or question.replace(f" {named(question)} ", " {} ") in signs.PHRASINGS


def test_a_snippet_asks_for_a_word_a_line_or_four_to_eight_digits() -> None:
    seen = Counter(asked.kind for made in every("snippet") for asked in made.asked)
    for asked in (asked for made in every("snippet") for asked in made.asked):
        parts = len(asked.answer.split())
        assert {"word": parts == 1, "line": parts in (2, 3, 4), "digits": asked.answer.isdigit()}[asked.kind]
        assert asked.kind != "digits" or 4 <= len(asked.answer) <= 8
        assert ("number" in asked.question) == (asked.kind == "digits")
    assert len(seen) == 3
    assert min(seen.values()) > 60


@pytest.mark.parametrize("split", SPLITS)
def test_no_answer_is_common_enough_to_be_guessed(split: Split) -> None:
    seen = Counter(made.asked[0].answer.lower() for made in (*drawn("scene", split), *drawn("snippet", split)))
    assert seen.most_common(1)[0][1] / seen.total() < 0.03


@pytest.mark.parametrize("answer", ["Kendal", "LANGLEY", "sloutheal", "42", "6817", "7"])
def test_the_right_answer_has_full_accuracy_among_ten_and_others_misread_it(answer: str) -> None:
    drawn_tens = [signs.ten_answers(answer, Random(seed)) for seed in range(60)]
    assert {len(ten) for ten in drawn_tens} == {10}
    assert {vqa_accuracy(answer, ten) for ten in drawn_tens} == {1.0}
    wrong = Counter(sum(given.lower() != answer.lower() for given in ten) for ten in drawn_tens)
    assert set(wrong) == {0, 1, 2, 3}
    misread = {(given, ten) for ten in drawn_tens for given in ten if given.lower() != answer.lower()}
    assert max(vqa_accuracy(given, ten) for given, ten in misread) < 1
    assert {abs(len(given) - len(answer)) for given, _ in misread if given != "unanswerable"} <= {0, 1}
