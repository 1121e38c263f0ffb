"""Pages and notes are exact, and the splits share nothing."""

from __future__ import annotations

from random import Random

import pytest
from effivlm_micro import layouts, notes, pages, words
from effivlm_micro.canvas import SIDE, faces


def test_a_page_differs_between_seeds_and_splits() -> None:
    made = [pages.page(seed, split) for seed in (11, 12) for split in ("heldout", "train")]  # type: ignore[arg-type]
    assert len({one.pixels.tobytes() for one in made}) == 4
    assert len({repr(one.fields) for one in made}) == 4


def test_the_splits_share_no_value_no_variant_and_no_typeface() -> None:
    train = [pages.page(seed, "train") for seed in range(150)]
    heldout = [pages.page(seed, "heldout") for seed in range(150)]
    assert not {v for p in train for v in p.fields.values()} & {v for p in heldout for v in p.fields.values()}
    assert not set(layouts.variants("train")) & set(layouts.variants("heldout"))
    assert not set(notes.variants("train")) & set(notes.variants("heldout"))
    assert not set(faces("train")) & set(faces("heldout"))
    assert len(faces("train")) >= 8
    assert len(faces("heldout")) >= 3
    assert len(notes.variants("heldout")) >= 5


@pytest.mark.parametrize("known", [words.FIRST_NAMES, words.LAST_NAMES, words.PLACES, words.STREET_WORDS])
def test_every_word_belongs_to_exactly_one_split(known: list[str]) -> None:
    parts = words.owned(tuple(known), "train"), words.owned(tuple(known), "heldout")
    assert sorted(parts[0] + parts[1]) == sorted(known)
    assert all(parts)


def test_every_character_stands_on_the_page_and_every_value_is_printed() -> None:
    made = pages.page(5, "heldout")
    assert all(0 <= x < SIDE and 0 <= y < SIDE for _, x, y in made.characters)
    printed = "".join(char for char, _, _ in made.characters)
    assert all(value.replace(" ", "") in printed for value in made.fields.values())


def test_every_page_holds_three_to_fourteen_fields() -> None:
    assert {len(pages.page(seed, "heldout").fields) for seed in range(120)} <= set(range(3, 15))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_document_has_two_to_four_pages_and_asks_by_page_where_a_label_returns(split: words.Split) -> None:
    counts, kinds = set(), set()
    for seed in range(60):
        made = notes.pages(Random(seed), split)
        counts.add(len(made.frames))
        texts = [one.question for one in made.asked]
        assert len(set(texts)) == len(texts)
        for one in made.asked:
            kinds.add(one.kind)
            assert ("page " in one.question or " page?" in one.question) or one.kind == "unique"
            assert one.answer.lower() not in one.question.lower()
            values = "".join(char for marks in made.marks for char, _, _ in marks)
            assert one.answer.replace(" ", "") in values
    assert counts == {2, 3, 4}
    assert kinds == {"unique", "numbered"}


def test_a_numbered_question_is_answered_by_the_page_it_names() -> None:
    seen = 0
    for seed in range(40):
        made = notes.pages(Random(seed), "heldout")
        for one in made.asked:
            if one.kind == "numbered":
                named = [place for place, word in enumerate(notes.ORDINALS) if f"the {word} page" in one.question]
                number = named[0] if named else int(one.question.rstrip("?").split()[-1]) - 1
                printed = "".join(char for char, _, _ in made.marks[number])
                assert one.answer.replace(" ", "") in printed
                seen += 1
    assert seen > 20


def test_a_note_is_read_from_the_top_and_stays_short() -> None:
    for seed in range(40):
        made = notes.note(Random(seed), "heldout")
        (asked,) = made.asked
        lines = asked.answer.split("\n")
        assert 3 <= len(lines) <= 7
        assert len(asked.answer) <= 150
        rows = sorted({round(y) for _, _, y in made.marks[0]})
        first = "".join(char for char, _, y in made.marks[0] if abs(y - rows[0]) < 4)
        assert sorted(first) == sorted(lines[0].replace(" ", ""))
