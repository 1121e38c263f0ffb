"""Rotary angles that grow with the prompt: those of stock `generate`, without a question to the device inside a step."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from forms import sample
from torch import Tensor

from effivlm.decoding.caches import DecodingCache, PromptCache
from effivlm.decoding.eager import Start, chosen, greedy
from effivlm.decoding.engine import Captured
from effivlm.methods.dense import Dense
from effivlm.models import _shapes
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource, resolve, shape, shapes
from effivlm.models._torchvision import ensure_torchvision
from effivlm.records import Settings
from effivlm.registry import load
from effivlm.run.group import open_model
from effivlm.run.tree import Tree
from effivlm.seams.answering import AnsweringLayer

PLAIN = ("llava_onevision", "internvl2_5")  # the third has positions of three dimensions


def growing(family: str, folder: Path, limit: int, **rope: Any) -> Adapter:
    """A twin whose rotary frequencies shrink beyond `limit` positions."""
    twins.build(family, folder)
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    text["max_position_embeddings"] = limit
    text["rope_parameters"] = {**text["rope_parameters"], "rope_type": "dynamic", "factor": 2.0, **rope}
    (folder / "config.json").write_text(json.dumps(config))
    return open_model(resolve(f"twin={folder}"), Settings())


def generated(model: Adapter, form: str, steps: int) -> list[int]:
    """Of a copy that has seen nothing: stock goes on with the frequencies of the longest prompt so far."""
    inputs = model.prepare(sample(form))
    with torch.inference_mode():
        full = deepcopy(model.model).generate(**inputs, max_new_tokens=steps, do_sample=False, eos_token_id=None)
    return full[0, inputs["input_ids"].shape[1] :].tolist()  # type: ignore[no-any-return]


def start_of(model: Adapter, form: str) -> Start:
    return Tree(model, sample(form), [Dense()]).leaf(Dense()).start


@pytest.mark.parametrize("family", PLAIN)
def test_prompts_beyond_the_limit_and_answers_that_cross_it_are_those_of_generate(family: str, tmp_path: Path) -> None:
    length = dict.fromkeys(("text", "two"), 0)
    plain = growing(family, tmp_path / "plain", 4096)
    for form in length:
        length[form] = plain.prepare(sample(form))["input_ids"].shape[1]
    found = {}
    for limit in (length["text"] + 3, 20, 4096):  # crossed while the short one answers, long before, and never
        model = growing(family, tmp_path / f"at_{limit}", limit)
        for form in ("two", "text", "two"):  # what a long prompt left must not reach a short one
            expected = generated(model, form, 8)
            with model.seams():
                start = start_of(model, form)
                assert greedy(model.step, [start], 8, (), model.device)[0] == expected
                assert Captured(model.step, model.device).greedy([start], 8, ()) == [expected]
                assert chosen(model.step, [start], [0], expected[:-1], model.device) == [expected[1:]]
            found[limit, form] = expected
    assert len({str(found[limit, "two"]) for limit in (20, 4096)}) == 2, "the limit must matter"


def test_rows_beyond_the_limit_do_not_turn_those_below_it(tmp_path: Path) -> None:
    model = growing("internvl2_5", tmp_path, 72)
    with model.seams():
        rows = [start_of(model, form) for form in ("text", "two")]
        assert rows[0].position + 8 < 72 < rows[1].position
        together = greedy(model.step, rows, 8, (), model.device)
        assert together == [greedy(model.step, [row], 8, (), model.device)[0] for row in rows]


@pytest.mark.parametrize("limit", [4096, 20])
def test_a_prefill_is_the_stock_forward_bit_for_bit(tmp_path: Path, limit: int) -> None:
    model = growing("internvl2_5", tmp_path, limit)
    inputs = model.prepare(sample("one"))
    with torch.inference_mode():
        expected = model.model(**inputs, logits_to_keep=1).logits[0, -1]
    with model.seams():
        assert torch.equal(model.prefill(model.prompt(inputs, model.encode(inputs)), PromptCache()), expected)
    assert "forward" not in vars(model.text.rotary_emb), "afterwards the module is as it was"


def test_a_scaling_that_would_ask_the_device_and_is_not_computed_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dynamic over three-dimensional positions"):
        growing("qwen2_vl", tmp_path, 64)


class Answering(AnsweringLayer):
    """Any answer of the right form."""

    def attend(self, query: Tensor, scaling: float | None) -> Tensor:
        self.taken()
        return query.transpose(1, 2).contiguous()


class Anything(DecodingCache):
    def __init__(self, layers: int) -> None:
        self.layers = [Answering() for _ in range(layers)]

    def get_seq_length(self, layer: int = 0) -> int:
        return 0


def cut(name: str, device: str, dtype: str) -> Adapter:
    """A model of the real widths with two layers, and two in its tower."""
    ensure_torchvision()
    facts = shape(name)
    depth = "depth" if "depth" in facts["config"]["vision_config"] else "num_hidden_layers"
    two: dict[str, Any] = {"text_config": {"num_hidden_layers": 2}, "vision_config": {depth: 2}}
    adapter: Any = load("models", facts["family"])
    return adapter(*_shapes.build(name, device, dtype, **two), ModelSource(name, f"random:{name}", facts["family"]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", shapes())
def test_a_step_of_every_real_configuration_asks_the_device_for_nothing(name: str) -> None:
    """Tensors of the meta device have no values to ask for."""
    model = cut(name, "meta", "bfloat16")
    tokens = torch.zeros(3, 1, dtype=torch.long, device="meta")
    with model.seams():
        logits = model.step(tokens, tokens, Anything(2))
    assert logits.shape == (3, 1, model.model.config.get_text_config().vocab_size)
    with pytest.raises(RuntimeError, match="meta"):
        int(tokens[0, 0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="steps are captured on CUDA")
@pytest.mark.parametrize("name", shapes())
def test_a_captured_step_of_every_real_configuration_says_what_the_eager_one_says(name: str) -> None:
    model = cut(name, "cuda", "float32")
    try:
        with model.seams():
            starts = [start_of(model, form) for form in ("one", "text")]
            engine = Captured(model.step, model.device)
            said = engine.greedy(starts, 6, ())
            assert said == greedy(model.step, starts, 6, (), model.device)
            assert engine.captures == 1
    finally:
        model.close()
