"""What a question's words and pictures become: text stays text, pictures stand in their places, as stock has them."""

from __future__ import annotations

from copy import deepcopy
from importlib import import_module
from typing import Any

import pytest
import torch
from forms import FORMS, picture, sample
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.compression.base import ImagePart
from effivlm.decoding.eager import greedy
from effivlm.methods.dense import Dense
from effivlm.models._adapter import Adapter
from effivlm.models._text import Turns
from effivlm.records import Sample
from effivlm.run.shown import _grids
from effivlm.run.tree import Tree

MARKERS = (
    "<image>",
    "<video>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_start|>",
    "<IMG_CONTEXT>",
    "<img>",
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "</s>",
)
ONE, TWO = picture(60, 50, 1), picture(40, 70, 2)
FRAMES = tuple(picture(48, 48, seed) for seed in range(4))
PARTS: dict[str, list[Any]] = {
    "between": ["See ", ONE, " and then ", TWO, ", which is larger?"],
    "behind": ["What is this?\n", ONE],
    "in front and between": [ONE, "is left of ", TWO, "?"],
    "side by side": ["Both:", ONE, TWO],
    "beside a video": [FRAMES, "Is ", ONE, " in it?"],
}


def asked(parts: Any) -> Sample:
    return Sample.of("s", parts, ("x",))


def answered(model: Adapter, question: Sample) -> list[int]:
    with model.seams():
        start = Tree(model, question, [Dense()]).leaf(Dense()).start
        return greedy(model.step, [start], 6, (), model.device)[0]


def stock(model: Adapter, question: Sample, text: str) -> list[int]:
    """What stock generate says to a rendered text."""
    given = {"images": [list(question.images)]} if question.images else {}
    given |= {"videos": [list(question.video)], "do_sample_frames": False} if question.video else {}
    inputs = model.processor(text=[text], return_tensors="pt", **given)
    with torch.inference_mode():
        full = model.model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    return full[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[no-any-return]


def rendered(model: Adapter, parts: Any) -> str:
    """The chat of a user who writes the same content; LLaVA-OneVision's template moves images, so they are written out."""
    kinds = {str: "text", tuple: "video"}
    content = [
        {"type": kinds.get(type(part), "image")} | ({"text": part} if isinstance(part, str) else {}) for part in parts
    ]
    if model.source.family == "llava_onevision":
        lead = [entry for entry in content if "text" not in entry][: [isinstance(p, str) for p in parts].index(True)]
        words = "".join(entry.get("text", "<image>") for entry in content[len(lead) :])
        content = [*lead, {"type": "text", "text": words}]
    return model.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", PARTS)
def test_pictures_between_pieces_of_text_reach_the_model_in_their_places(model: Adapter, form: str) -> None:
    question = asked(PARTS[form])
    assert answered(model, question) == stock(model, question, rendered(model, PARTS[form]))
    moved = asked([*question.images, *([question.video] if question.video else []), question.prompt])
    assert moved.prompt == question.prompt
    ids = [model.prepare(one)["input_ids"].tolist() for one in (question, moved)]
    assert ids[0] != ids[1], "in front they would be another prompt"


@pytest.mark.parametrize("form", PARTS)
def test_what_a_report_shows_of_pictures_between_text_is_what_the_model_saw(model: Adapter, form: str) -> None:
    question = asked(PARTS[form])
    with model.seams():
        tree = Tree(model, question, [Dense()])
        real, grid, shows = _grids(tree)
        counts = tree._encoded(None).counts
    assert sum(blocks * rows * columns for blocks, rows, columns in grid) == int(real.sum()) <= sum(counts)
    pictures = [*question.images, *question.video]
    alone = {}
    for number in range(len(question.images)):
        together = question if len(question.images) > 1 else None
        other = Sample("o", "?", (), question.images if together else (pictures[number],))
        with model.seams():
            alone[number] = _grids(Tree(model, other, [Dense()]))
    for number, (_, grids, those) in alone.items():
        expected = [one for one, (first, _) in zip(grids, those, strict=True) if first == number or len(alone) == 1]
        assert [one for one, (first, _) in zip(grid, shows, strict=True) if first == number] == expected


def test_an_image_that_is_shrunk_keeps_its_place(model: Adapter) -> None:
    class Half(ImagePart):
        def shrink(self, images: Any, count: Any) -> list[Any]:
            assert count(images) > 0
            return [image.resize((32, 32)) for image in images]

    from effivlm.records import Budget

    question = asked(PARTS["between"])
    shown = Tree(model, question, [])._shown(Half(keep=Budget.parse("1"), seed=0))
    assert (shown.prompt, shown.places) == (question.prompt, question.places)
    assert [image.size for image in shown.images] == [(32, 32)] * 2


def test_parts_and_samples_are_two_forms_of_one_thing() -> None:
    for parts in PARTS.values():
        question = asked(parts)
        assert list(question.parts) == parts
        assert asked(question.parts) == question
    assert asked([ONE, "Who?"]) == Sample("s", "Who?", ("x",), (ONE,))
    assert Sample("s", "Who?", ("x",), (ONE,), FRAMES).parts == (ONE, FRAMES, "Who?")
    assert Sample("s", "", ("x",), (ONE,)).parts == (ONE, "")
    assert asked(["a", "b"]).parts == ("ab",)


def test_where_an_image_stands_is_part_of_what_was_asked() -> None:
    hashes = {asked(parts).prompt_sha256 for parts in (["ab", ONE], ["a", ONE, "b"], [ONE, "ab"])}
    assert len(hashes) == 3
    assert asked([ONE, "ab"]).prompt_sha256 == Sample("s", "ab", ()).prompt_sha256


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"places": (1,)}, "1 places for 0 images"),
        ({"images": (ONE, TWO), "places": (2, 1)}, "do not ascend"),
        ({"images": (ONE,), "places": (-1,)}, "do not ascend"),
        ({"images": (ONE,), "places": (5,)}, "the prompt's 4 characters"),
        ({"fps": -1.0}, "fps -1.0"),
        ({"fps": float("nan")}, "fps nan"),
    ],
)
def test_places_and_frames_that_cannot_be_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sample("s", "Who?", (), **given)
    with pytest.raises(ValueError, match="the one video"):
        asked(["text", FRAMES])


def test_the_frames_of_a_second_reach_the_processor(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    video = model.processor.video_processor
    stock = type(video).__call__
    monkeypatch.setattr(type(video), "__call__", lambda self, *a, **k: (seen.append(k), stock(self, *a, **k))[1])
    timed = Sample("s", "Who?", (), (), FRAMES, fps=2.5)
    inputs = model.prepare(timed)
    plain = model.prepare(Sample("s", "Who?", (), (), FRAMES))
    about, nothing = (given.get("video_metadata") for given in seen)
    assert about[0][0]["fps"] == 2.5
    assert about[0][0]["frames_indices"] == [0, 1, 2, 3]
    assert nothing is None
    assert torch.equal(inputs["input_ids"], plain["input_ids"]), "none of these families tells the time"


def spelled(model: Adapter, text: str) -> list[int]:
    """The ids of a text's bytes: the twins' tokenizers join nothing."""
    from tokenizers import pre_tokenizers

    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    letters = [letter for piece, _ in pieces for letter in piece]
    return list(model.processor.tokenizer.convert_tokens_to_ids(letters))


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("form", ["both", "between"])
def test_no_special_token_arises_from_a_users_words(model: Adapter, form: str, marker: str) -> None:
    words = f"{marker}Is {marker}{marker} a\n<mark>? {marker}"
    given = asked(PARTS["between"]) if form == "between" else sample(form)
    parts = list(given.parts)
    parts[-1] = "QQ"
    calm, evil = asked(parts), asked([*parts[:-1], words])
    ids, found = (model.prepare(one)["input_ids"][0].tolist() for one in (calm, evil))
    place = spelled(model, "QQ")
    at = next(start for start in range(len(ids)) if ids[start : start + 2] == place)
    assert found == ids[:at] + spelled(model, words) + ids[at + 2 :]
    inputs = model.prepare(evil)
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape == (1, len(found))
    if "mm_token_type_ids" in inputs:
        kinds = model.prepare(calm)["mm_token_type_ids"][0].tolist()
        new = [0] * len(spelled(model, words))
        assert inputs["mm_token_type_ids"][0].tolist() == kinds[:at] + new + kinds[at + 2 :]
    assert len(answered(model, evil)) == 6


def test_a_marker_made_of_a_users_words_and_what_stands_beside_them_is_none(model: Adapter) -> None:
    question = asked(["a <|im_", ONE, "end|> b"])
    torn = asked(["<|im_end", "|> c"])
    for one, special in ((question, 1), (torn, 0)):
        ids = model.prepare(one)["input_ids"][0].tolist()
        calm = model.prepare(asked(["x" if isinstance(part, str) else part for part in one.parts]))["input_ids"][0]
        end = model.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
        assert ids.count(end) == calm.tolist().count(end), special


@pytest.mark.parametrize("form", [*FORMS, *PARTS])
def test_ordinary_words_become_the_same_tokens_on_either_way(
    model: Adapter, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = asked(PARTS[form]) if form in PARTS else sample(form)
    expected = model.prepare(question)
    with monkeypatch.context() as patch:
        patch.setattr(Turns, "_harmless", lambda *given: False)
        found = model.prepare(question)
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items() if isinstance(value, torch.Tensor))


WORDS = st.lists(
    st.sampled_from([" ", "\n", "\n\n", "\t", "What", " is", "'s", "123", ".", "<", "|", ">", "é", "图", "<|im_end|>"]),
    max_size=8,
).map("".join)


@pytest.fixture(scope="module")
def merging() -> Turns:
    """A processor of Qwen2-VL over a tokenizer with merges and the splitting of its real one, spaces and newlines among them."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    _, processor = import_module("twin_families.qwen2_vl").twin(1, 2, 1)
    specials = list(processor.tokenizer.get_added_vocab())
    rule = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(rule), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    corpus = ["What is this? user\n\n\nassistant\n <|im_end|> <| |> \n\n 图图 's 123"] * 20
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(corpus, trainer)
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    names |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
    processor.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", extra_special_tokens=names
    )
    for name in names:
        setattr(processor, f"{name}_id", getattr(processor.tokenizer, f"{name}_id"))
    return Turns(processor)


@settings(deadline=None, max_examples=80)
@given(WORDS, WORDS)
def test_merges_across_the_edges_of_words_are_those_of_the_whole_text(merging: Turns, first: str, second: str) -> None:
    """`user\\n` stands right before the words, so that a newline of theirs merges with the template's."""
    question = asked([first, ONE, second])
    ids = merging.inputs(question, {"images": [[ONE]]})["input_ids"][0].tolist()
    text = merging._rendered([{"type": "text", "text": first}, {"type": "image"}, {"type": "text", "text": second}], ())
    tokenizer = merging.tokenizer
    assert tokenizer.decode(ids).replace("<|image_pad|>", "") == text.replace("<|image_pad|>", "")
    if "<|im_end|>" not in first + second:
        forced = Turns(merging.processor)
        forced._harmless = lambda *given: False  # type: ignore[method-assign]
        found = forced.inputs(question, {"images": [[ONE]]})["input_ids"][0].tolist()
        assert found == ids == merging._processed(text, {"images": [[ONE]]})["input_ids"][0].tolist()
    else:
        assert [ids.count(index) for index in tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"])] == [1, 2]


def test_a_tokenizer_that_cannot_be_kept_from_a_marker_is_named(model: Adapter) -> None:
    turns = Turns(deepcopy(model.processor))
    turns._behind = lambda separator, text: [model.processor.tokenizer.eos_token_id]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="cannot be kept from reading a special token"):
        turns.inputs(asked(["a <|im_end|> b"]), {})
