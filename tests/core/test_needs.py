"""What a model needs of a device is known before it is loaded: bytes of weights, and of cache a token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import twins
from forms import sample

from effivlm.decoding.caches import PromptCache
from effivlm.models._adapter import Adapter, _check_room
from effivlm.models._memory import Needs, needs
from effivlm.models._sources import ModelSource, resolve, shape, shapes


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_needs_are_those_that_are_measured_on_the_loaded_model(model: Adapter, dtype: str) -> None:
    found, factor = needs(model.source, dtype), 4 if dtype == "float32" else 2
    assert found.weights == pytest.approx(
        factor * model.weight_bytes() / 4, rel=0.3
    )  # a header weighs much in so small a file
    inputs, cache = model.prepare(sample("one")), PromptCache()
    with model.seams():
        model.prefill(model.prompt(inputs, model.encode(inputs)), cache)
    entries = sum(key.numel() + value.numel() for key, value in zip(cache.keys, cache.values, strict=True))
    assert found.cache_per_token * inputs["input_ids"].shape[1] == factor * entries


@pytest.mark.parametrize("name", shapes())
def test_needs_of_a_shape_are_the_published_ones(name: str) -> None:
    facts, found = shape(name), needs(resolve(f"random:{name}"), "bfloat16")
    assert found == Needs(2 * facts["parameters"], facts["kv_bytes_per_token"])
    assert found.of(10) == 2 * facts["parameters"] + 10 * facts["kv_bytes_per_token"]


def test_needs_of_what_is_not_fetched_yet_stand_in_its_index(tmp_path: Path) -> None:
    text = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 64}
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float32", "text_config": text}))
    source = ModelSource("mine", str(tmp_path), "qwen2_vl")
    assert needs(source, "bfloat16") == Needs(0, 2 * 3 * 2 * 16 * 2)
    index = {"metadata": {"total_size": 1000}, "weight_map": {"a": "model-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert needs(source, "bfloat16").weights == 500
    del text["hidden_size"]
    (tmp_path / "config.json").write_text(json.dumps({"text_config": text}))
    with pytest.raises(ValueError, match="lacks 'hidden_size'"):
        needs(source, "bfloat16")


def test_weights_larger_than_all_gpus_are_refused_before_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 50 * 10**9))
    large = resolve("random:internvl2_5_38b")
    with pytest.raises(
        ValueError, match=r"its weights are 76\.8 GB in bfloat16, and 1 GPU\(s\) with 50\.0 GB are here"
    ):
        _check_room(large, "cuda:0", "bfloat16")
    _check_room(large, "cpu", "float32")
    _check_room(resolve("random:qwen2_vl_7b"), "cuda:0", "bfloat16")


def test_a_folder_may_fill_all_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolve(f"mine={twins.build('qwen2_vl', tmp_path / 'twin', layers=1)}")
    wanted = needs(source, "float32").weights
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, wanted // 2 + 1))
    _check_room(source, "cuda:0", "float32")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, wanted // 2 - 1))
    with pytest.raises(ValueError, match=r"2 GPU\(s\)"):
        _check_room(source, "cuda:0", "float32")
