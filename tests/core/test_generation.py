"""What a checkpoint's generation configuration asks of greedy search is done as stock `generate` does it, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from forms import FORMS, sample
from test_packed import GPU
from test_packed import starts_of as starts_of_methods

from effivlm.decoding.eager import Start, agreements, greedy
from effivlm.decoding.engine import Captured, Eager, engine_for
from effivlm.decoding.generation import NO_RULES, Rules
from effivlm.methods.dense import Dense
from effivlm.models._adapter import Adapter
from effivlm.models._generation import end_tokens, rules_of
from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.group import open_model
from effivlm.run.tree import Tree

STEPS = 10
Entries = dict[str, Any]
CAPTURED: dict[str, Callable[[list[int]], Entries]] = {  # of what would be said without them
    "penalty": lambda said: {"repetition_penalty": 1.7},
    "reward": lambda said: {"repetition_penalty": 0.6},
    "suppressed": lambda said: {"suppress_tokens": said[1:4]},
    "suppressed first": lambda said: {"begin_suppress_tokens": said[:1]},
    "bad words": lambda said: {"bad_words_ids": [[said[2]], [said[0]]]},
    "together": lambda said: {
        "repetition_penalty": 1.3,
        "suppress_tokens": said[2:3],
        "begin_suppress_tokens": said[:1],
        "bad_words_ids": [[said[4]]],
        "min_new_tokens": 6,
    },
}
ORDERED: dict[str, Callable[[list[int]], Entries]] = {
    "n-grams": lambda said: {"no_repeat_ngram_size": 1},
    "pairs and a penalty": lambda said: {"no_repeat_ngram_size": 2, "repetition_penalty": 1.5, "min_new_tokens": 4},
    "bias": lambda said: {"sequence_bias": [[[60], 9.0], [[60, 61], 20.0]], "repetition_penalty": 1.2},
    "decay": lambda said: {"exponential_decay_length_penalty": (2, 2.0), "suppress_tokens": said[3:4]},
    "words": lambda said: {"bad_words_ids": [said[:2], said[3:6]]},
}
SAMPLING = {"do_sample": True, "temperature": 0.1, "top_p": 0.001, "top_k": 1, "min_p": 0.2, "renormalize_logits": True}


@pytest.fixture
def free(model: Adapter) -> Iterator[Adapter]:
    """The twin, whose generation configuration may be changed."""
    before = model.model.generation_config, model.eos, model.rules
    model.model.generation_config = deepcopy(before[0])
    yield model
    model.model.generation_config, model.eos, model.rules = before


def configured(model: Adapter, entries: dict[str, Any], ends: list[int] | None = None) -> None:
    config = model.model.generation_config
    for name, value in entries.items():
        setattr(config, name, value)
    if ends is not None:
        config.eos_token_id, model.eos = ends, frozenset(ends)
    model.choose_as("checkpoint")


def generated(model: Adapter, form: str) -> list[int]:
    inputs = model.prepare(sample(form))
    with torch.inference_mode():
        full = model.model.generate(**inputs, max_new_tokens=STEPS, do_sample=False)
    said: list[int] = full[0, inputs["input_ids"].shape[1] :].tolist()
    return said[:-1] if said[-1] in model.eos else said


def start_of(model: Adapter, form: str) -> Start:
    return Tree(model, sample(form), [Dense()]).leaf(Dense()).start


@pytest.mark.parametrize("name", [*CAPTURED, *ORDERED])
def test_answers_are_those_of_generate_with_the_checkpoints_configuration(free: Adapter, name: str) -> None:
    plainly = {form: generated(free, form) for form in ("text", "one")}
    configured(free, {**CAPTURED, **ORDERED}[name](plainly["one"]) | SAMPLING)
    free.model.generation_config.do_sample = None
    changed = 0
    for form in ("text", "one"):
        expected = generated(free, form)
        with free.seams():
            start = start_of(free, form)
            assert greedy(free.step, [start], STEPS, free.eos, free.device, free.rules) == [expected]
            assert greedy(free.step, [start] * 3, STEPS, free.eos, free.device, free.rules) == [expected] * 3
            if name in CAPTURED:
                assert (
                    Captured(free.step, free.device, free.rules).greedy([start] * 2, STEPS, free.eos) == [expected] * 2
                )
        changed += expected != plainly[form]
    assert changed, "the configuration must matter"
    free.choose_as("greedy")
    with free.seams():
        assert greedy(free.step, [start_of(free, "one")], STEPS, free.eos, free.device, free.rules) == [plainly["one"]]


@pytest.mark.parametrize("entries", [{"min_new_tokens": 5}, {"min_length": 46}], ids=["new", "together"])
def test_an_answer_does_not_end_before_it_may(free: Adapter, entries: dict[str, Any]) -> None:
    with free.seams():
        said = greedy(free.step, [start_of(free, "text")], STEPS, (), free.device)[0]
    ends = [said[0], said[2]]
    configured(free, {}, ends)
    assert generated(free, "text") == []
    configured(free, entries)
    expected = generated(free, "text")
    with free.seams():
        start = start_of(free, "text")
        for engine in (Eager(free.step, free.device, free.rules), Captured(free.step, free.device, free.rules)):
            assert engine.greedy([start], STEPS, free.eos) == [expected]
    assert expected, "it must have gone on"
    assert not {*expected} & {*ends} or len(expected) > 4


@pytest.mark.parametrize("name", ["penalty", "together"])
def test_what_is_fed_counts_for_the_penalty_also_where_rows_follow_another(free: Adapter, name: str) -> None:
    configured(free, CAPTURED[name](generated(free, "one")))
    with free.seams():
        starts = starts_of_methods(free, "one")
        eager, captured = (kind(free.step, free.device, free.rules) for kind in (Eager, Captured))
        said = eager.greedy(starts, STEPS, ())
        followed, made = captured.followed(starts, STEPS, (), 0)
        assert followed == said
        assert made is not None
        rows, fed = range(len(starts)), said[0][:-1]
        chosen = eager.chosen(starts, rows, fed)
        assert [row[1:] for row in made] == chosen == captured.chosen(starts, rows, fed)
        assert agreements(eager.chosen, starts, said, said[0], STEPS, ())[0] == 1.0
        assert chosen[0] == said[0][1:], "dense fed its own answer says it again"


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"num_beams": 4}, "num_beams=4"),
        ({"forced_eos_token_id": 2}, "forced_eos_token_id=2"),
        ({"guidance_scale": 1.5}, "guidance_scale=1.5"),
        ({"encoder_repetition_penalty": 1.2}, "encoder_repetition_penalty=1.2"),
        ({"remove_invalid_values": True}, "remove_invalid_values=True"),
        ({"stop_strings": ["."]}, "stop_strings"),
        ({"penalty_alpha": 0.6}, "penalty_alpha"),
        ({"token_healing": True}, "token_healing"),
        ({"cache_implementation": "quantized"}, "cache_implementation='quantized'"),
    ],
)
def test_what_is_not_done_is_refused_by_name_and_may_be_left_out(
    free: Adapter, entries: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=rf"'twin'.*{named}.*--vlm-generation greedy"):
        configured(free, entries)
    free.choose_as("greedy")
    assert free.rules == NO_RULES


def test_sampling_and_neutral_entries_ask_for_nothing(free: Adapter) -> None:
    configured(free, {**SAMPLING, "num_beams": 1, "repetition_penalty": 1.0, "guidance_scale": None, "max_length": 99})
    assert free.rules == NO_RULES
    free.model.generation_config.unheard_of = 3  # stock takes no notice of it
    assert rules_of(free.model.generation_config, 10, (), "it") == NO_RULES


def test_an_answer_ends_with_the_tokens_of_the_configuration_and_of_the_tokenizer(model: Adapter) -> None:
    tokenizer, config = model.processor.tokenizer, deepcopy(model.model.generation_config)
    for stated in (None, 7, [7, 8]):
        config.eos_token_id = stated
        given = {stated} if isinstance(stated, int) else {*(stated or ())}
        assert end_tokens(config, tokenizer, "trained") == given | {tokenizer.eos_token_id}
        assert end_tokens(config, tokenizer, "random") == given


def test_rules_about_the_order_of_tokens_want_the_eager_engine() -> None:
    rules = Rules(history=lambda length: lambda ids, logits: logits)
    step, device = (lambda *_: torch.zeros(0)), torch.device("cuda")
    assert isinstance(engine_for(step, device, "auto", rules=rules), Eager)
    assert isinstance(engine_for(step, device, "auto"), Captured)
    with pytest.raises(ValueError, match="order of tokens"):
        engine_for(step, device, "cuda_graph", rules=rules)


def test_an_opened_checkpoint_is_asked_what_its_configuration_says(model: Adapter, tmp_path: Any) -> None:
    import json
    import shutil

    folder = tmp_path / "twin"
    shutil.copytree(model.source.source, folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "repetition_penalty": 1.05, "do_sample": True}))
    opened = open_model(resolve(f"twin={folder}"), Settings())
    assert opened.rules.penalty == 1.05
    assert open_model(resolve(f"twin={folder}"), Settings(generation="greedy")).rules == NO_RULES


@GPU
@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("family", ["micro_llava_onevision", "micro_qwen2_vl", "micro_internvl2_5"])
def test_captured_steps_obey_the_configuration_on_a_gpu(family: str, name: str) -> None:
    model = open_model(resolve(family), Settings(device="cuda"))
    try:
        configured(model, CAPTURED[name](generated(model, "one") + list(range(9))))
        engine = Captured(model.step, model.device, model.rules)
        for form in FORMS:
            expected = generated(model, form)
            with model.seams():
                starts = [start_of(model, form)] * 3
                assert engine.greedy(starts, STEPS, model.eos) == [expected] * 3
    finally:
        model.close()
