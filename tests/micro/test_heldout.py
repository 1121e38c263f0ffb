"""Held-out samples: lazy, alike on every machine, and nothing that training sees."""

from __future__ import annotations

import hashlib
from itertools import chain

import numpy as np
import pytest
from effivlm_micro.data import SUFFIXES, Encoder
from effivlm_micro.heldout import GROUPS, MAKERS, items
from effivlm_micro.vocabulary import END, SIZE, build_tokenizer, whole_words

from effivlm import registry

PIXELS = {
    "docvqa_micro": "a3798b5e2200",
    "mpdoc_micro": "8869338e5e66",
    "chartqa_micro": "e99a669154f8",
    "textvqa_micro": "b4d3cc1b2f82",
    "ocrbench_micro": "f92c3a2ae615",
    "gqa_micro": "3465ef4eae17",
    "mme_image_micro": "24fac0b106af",
    "mmbench_micro": "4e74376e4038",
    "video_micro": "b02719fd3af7",
    "imagedc_micro": "1c10a66b5159",
}
"""The first hex digits of a checksum over the pixels of eight samples of each task."""

TEXTS = {
    "docvqa_micro": "dc612246e1e6",
    "mpdoc_micro": "f9090e7a6837",
    "chartqa_micro": "3c936ee8bdc0",
    "textvqa_micro": "9a6610cad060",
    "ocrbench_micro": "486942b5747c",
    "gqa_micro": "3f530747ac57",
    "mme_image_micro": "5c977236b31f",
    "mmbench_micro": "02d9eda8837f",
    "video_micro": "4b3daf9e0cd2",
    "imagedc_micro": "718bcc67acf6",
}
"""The same over questions, answers and references: these depend on nothing but Python's generator."""


def digest(parts: list[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


@pytest.mark.parametrize("task", MAKERS)
def test_pixels_and_texts_are_the_same_on_every_machine(task: str) -> None:
    chosen = items(task, 8, 0)
    texts = [repr((one.id, one.kind, one.question, one.answer, one.references)).encode() for one in chosen]
    assert digest(texts) == TEXTS[task]
    assert digest([np.asarray(image).tobytes() for one in chosen for image in one.images]) == PIXELS[task]


@pytest.mark.parametrize("task", MAKERS)
def test_a_sample_does_not_depend_on_how_many_are_asked_for(task: str) -> None:
    few, many = items(task, 3, 9), items(task, 30, 9)
    assert [one.question for one in few] == [one.question for one in many[:3]]
    assert few[2].images[0].tobytes() == many[2].images[0].tobytes()
    assert len({one.id for one in many}) == 30


def test_another_seed_gives_other_samples_under_the_same_names() -> None:
    first, second = items("gqa_micro", 6, 0), items("gqa_micro", 6, 1)
    assert [one.id for one in first] == [one.id for one in second]
    assert [one.question for one in first] != [one.question for one in second]


@pytest.mark.parametrize("task", GROUPS)
def test_samples_of_a_group_share_their_picture_and_the_next_group_has_another(task: str) -> None:
    size = GROUPS[task]
    chosen = items(task, 2 * size, 0)
    assert len({one.images[0].tobytes() for one in chosen[:size]}) == 1
    assert chosen[0].images[0].tobytes() != chosen[size].images[0].tobytes()
    assert len({one.answer for one in chosen[:size]}) == size


def test_an_unknown_task_is_named_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'docvqa' is not one of docvqa_micro, mpdoc_micro"):
        items("docvqa", 1, 0)


def test_every_task_of_the_suite_has_a_maker_and_training_uses_its_prompt() -> None:
    micro = [name for name in registry.names("tasks") if name.endswith("_micro")]
    assert sorted(micro) == sorted(MAKERS) == sorted(SUFFIXES)
    for name in micro:
        assert registry.declared("tasks", name)["instruction"] == SUFFIXES[name]


def test_answers_are_spelt_or_whole_words_and_prompt_words_are_whole() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.get_vocab_size() <= SIZE
    for one in items("docvqa_micro", 40, 0):
        assert len(tokenizer.encode(one.answer).ids) == len(one.answer)
    assert len(tokenizer.encode(SUFFIXES["docvqa_micro"]).ids) == 11
    assert len(tokenizer.encode("red circle, top left").ids) == 5
    assert len(set(whole_words())) == len(whole_words())


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    text = "Z\u00fcrich \u6771\u4eac \U0001f600 what is\n\tthe total?"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_labels_ask_for_the_answers_and_nothing_else() -> None:
    encoder, tokenizer = Encoder(), build_tokenizer()
    ids, labels = encoder.conversation([("What is the total?", "$1.20"), ("What is the date?", "3 May 2020")], 96)
    asked = [int(label) for label in labels if label >= 0]
    assert tokenizer.decode(asked, skip_special_tokens=False) == f"$1.20{END}3 May 2020{END}"
    given = list(chain.from_iterable(zip(labels[:-1], ids[1:], strict=True)))
    assert all(label in (-100, token) for label, token in zip(given[::2], given[1::2], strict=True))


def test_a_turn_that_does_not_fit_is_left_out_whole() -> None:
    encoder = Encoder()
    one = encoder.conversation([("What is the total?", "$1.20")], 64)
    two = encoder.conversation([("What is the total?", "$1.20"), ("x" * 60, "y")], 64)
    assert (one[0] == two[0]).all()
    assert (one[1] == two[1]).all()
