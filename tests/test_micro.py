"""Pages are exact, the splits share nothing, and the training forward is the stock model's."""

import hashlib
from pathlib import Path

import pytest
import torch
from effivlm_micro import data, layouts, model, pages, processor, words
from effivlm_micro.canvas import SIDE, faces
from effivlm_micro.scoring import score

from effivlm.models._torchvision import ensure_torchvision

CHECKPOINT = Path(pages.__file__).parent / "micro_llava_onevision"


def _text_digest(made: pages.Page) -> str:
    return hashlib.sha256(repr((made.fields, made.characters, made.variant)).encode()).hexdigest()


def test_a_page_is_the_same_every_time_and_differs_between_seeds_and_splits() -> None:
    first, again = pages.page(11, "heldout"), pages.page(11, "heldout")
    assert first.pixels.tobytes() == again.pixels.tobytes()
    assert _text_digest(first) == _text_digest(again)
    assert _text_digest(first) != _text_digest(pages.page(12, "heldout"))
    assert _text_digest(first) != _text_digest(pages.page(11, "train"))


def test_the_splits_share_no_value_no_variant_and_no_typeface() -> None:
    train = [pages.page(seed, "train") for seed in range(150)]
    heldout = [pages.page(seed, "heldout") for seed in range(150)]
    assert not {v for p in train for v in p.fields.values()} & {v for p in heldout for v in p.fields.values()}
    assert not set(layouts.variants("train")) & set(layouts.variants("heldout"))
    assert not set(faces("train")) & set(faces("heldout"))
    assert len(faces("train")) >= 8
    assert len(faces("heldout")) >= 3


@pytest.mark.parametrize("known", [words.FIRST_NAMES, words.LAST_NAMES, words.PLACES, words.STREET_WORDS])
def test_every_word_belongs_to_exactly_one_split(known: list[str]) -> None:
    parts = words.owned(tuple(known), "train"), words.owned(tuple(known), "heldout")
    assert sorted(parts[0] + parts[1]) == sorted(known)
    assert all(parts)


def test_every_character_stands_on_the_page_and_most_ink_stands_at_a_character() -> None:
    made = pages.page(5, "heldout")
    assert all(0 <= x < SIDE and 0 <= y < SIDE for _, x, y in made.characters)
    printed = "".join(char for char, _, _ in made.characters)
    assert all(value.replace(" ", "") in printed for value in made.fields.values())


def test_every_page_holds_three_to_fourteen_fields() -> None:
    assert {len(pages.page(seed, "heldout").fields) for seed in range(120)} <= set(range(3, 15))


def test_the_answer_does_not_stand_in_the_question() -> None:
    for _, _, question, references in pages.samples(60, 3):
        assert references[0].lower() not in question.lower()


def test_a_sample_does_not_depend_on_how_many_are_asked_for() -> None:
    few, many = pages.samples(3, 9), pages.samples(30, 9)
    assert (few[2][0], few[2][2], few[2][3]) == (many[2][0], many[2][2], many[2][3])
    assert few[2][0] == "docvqa_micro-000002"


def test_values_are_spelt_character_by_character_and_prompt_words_are_whole() -> None:
    tokenizer = processor.build_tokenizer()
    for seed in range(40):
        for value in pages.page(seed, "heldout").fields.values():
            assert len(tokenizer.encode(value).ids) == len(value)
    assert len(tokenizer.encode(pages.SUFFIX).ids) == 11
    assert tokenizer.get_vocab_size() <= 512


def test_any_text_survives_the_tokenizer() -> None:
    tokenizer = processor.build_tokenizer()
    text = "Z\u00fcrich \u6771\u4eac \U0001f600 what is\n\tthe total?"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_character_cells_hold_the_characters_whose_centres_they_contain() -> None:
    made = pages.page(4, "train")
    cells = data.character_cells(made)
    char, x, y = made.characters[0]
    assert ord(char) - 31 in cells[int(y) // 16, int(x) // 16]
    assert (cells > 0).sum() <= len(made.characters)


def test_labels_ask_for_the_answers_and_nothing_else() -> None:
    encoder, tokenizer = data.Encoder(), processor.build_tokenizer()
    _, labels = encoder.conversation([("What is the total?", "$1.20"), ("What is the date?", "3 May 2020")])
    asked = [int(label) for label in labels if label != data.IGNORED]
    end = processor.END
    assert tokenizer.decode(asked, skip_special_tokens=False) == f"$1.20{end}3 May 2020{end}"


def test_the_batched_forward_gives_the_stock_models_embeddings_and_logits() -> None:
    ensure_torchvision()
    net, prepared, made = model.build_model(0).eval(), processor.build_processor(), pages.page(3, "heldout")
    turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is the total?"}]}]
    text = prepared.apply_chat_template(turn, add_generation_prompt=True)
    inputs = prepared(images=made.image, text=text, return_tensors="pt")
    seen: dict[str, torch.Tensor] = {}
    net.model.language_model.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    with torch.no_grad():
        stock = net(**inputs).logits
        row = inputs.input_ids[0]
        start = int((row == net.config.image_token_id).nonzero()[0, 0])
        visual = model.page_features(net, inputs.pixel_values)
        end = start + model.PAGE_TOKENS
        states = model.text_states(net, row[:start], visual, row[None, end:])
    assert model.PAGE_TOKENS == 744 == int((row == net.config.image_token_id).sum())
    torch.testing.assert_close(seen["inputs_embeds"][:, start:end], visual)
    torch.testing.assert_close(net.lm_head(states), stock[:, end:], atol=2e-4, rtol=0)


def test_pages_cut_on_the_device_are_the_processors_pixels_up_to_rounding() -> None:
    ensure_torchvision()
    made = pages.page(8, "heldout")
    pixels = processor.build_processor().image_processor(made.image, return_tensors="pt").pixel_values
    assert (model.page_tiles(torch.from_numpy(made.pixels)[None]) - pixels).abs().max() < 0.01


def test_exact_match_counts_equal_answers() -> None:
    assert score(["a", "b"], [["a"], ["c"]]).exact == 0.5


def test_the_shipped_folder_is_small_and_still_reads() -> None:
    from effivlm_micro.evaluate import answer

    ensure_torchvision()
    from transformers import LlavaOnevisionForConditionalGeneration

    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) < 16_000_000
    torch.set_num_threads(2)
    net = LlavaOnevisionForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    prepared, chosen = processor.load(CHECKPOINT), list(pages.samples(40, 2024))
    answers = [answer(net, prepared, sample, blank=False) for sample in chosen]
    assert score(answers, [sample[3] for sample in chosen]).anls >= 0.95
    guessed = [answer(net, prepared, sample, blank=True) for sample in chosen[:20]]
    assert score(guessed, [sample[3] for sample in chosen[:20]]).anls < 0.1
