"""Users' compressed checkpoints: what they answer is what their weights stand for, and what is wrong with them is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from forms import sample
from safetensors.torch import load_file, save_file
from stored import FORMS, GROUP, any_linear, compress, decoder_linear, groups
from torch import Tensor, nn

from effivlm.decoding.caches import PromptCache
from effivlm.decoding.quantised import Fp8Linear
from effivlm.models import _compressed
from effivlm.models._adapter import Adapter
from effivlm.models._memory import needs
from effivlm.models._sources import resolve
from effivlm.records import Cell, Settings
from effivlm.run.group import cell_fingerprint, open_model, run_group

ASKED = {"dense": "1.00", "snapkv": "0.40", "visionzip": "0.40"}


@pytest.fixture(scope="module", params=twins.FAMILIES)
def twin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return twins.build(request.param, tmp_path_factory.mktemp(request.param), layers=2)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twins.build("qwen2_vl", tmp_path_factory.mktemp("one"), layers=2)


def opened(folder: Path, **settings: Any) -> Adapter:
    return open_model(resolve(f"twin={folder}"), Settings(**settings))


def logits(model: Adapter) -> Tensor:
    inputs = model.prepare(sample("one"))
    with model.seams():
        return model.prefill(model.prompt(inputs, model.encode(inputs)), PromptCache())


def plain(folder: Path, twin: Path, tensors: Mapping[str, Tensor]) -> Path:
    """The twin with these tensors in the place of its own."""
    folder.mkdir()
    for file in twin.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(dict(tensors), folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_a_compressed_checkpoint_answers_as_the_weights_that_it_stands_for(
    form: str, twin: Path, tmp_path: Path
) -> None:
    folder, tensors = compress(twin, tmp_path / form, form, any_linear)
    model, same = opened(folder), opened(plain(tmp_path / "plain", twin, tensors))
    torch.testing.assert_close(logits(model), logits(same), rtol=1e-5, atol=1e-5)
    assert model.weights == f"{FORMS[form][2]}, dequantised"
    assert {type(part) for part in model.layers[0].modules() if hasattr(part, "in_features")} == {nn.Linear}
    assert model.weight_bytes() == same.weight_bytes()
    assert model.eos == same.eos
    assert (model.dtype, model.spread) == (torch.float32, False)


@pytest.mark.usefixtures("toy_task")
@pytest.mark.parametrize("form", ["w4a16", "fp8", "awq", "gptq"])
def test_no_sample_of_a_compressed_checkpoint_breaks_and_records_say_what_it_is(
    form: str, one: Path, tmp_path: Path
) -> None:
    folder, _ = compress(one, tmp_path / form, form, decoder_linear)
    cells = [Cell("twin", method, "paper", keep, "toy") for method, keep in ASKED.items()]
    found = run_group(cells, opened(folder, dtype="bfloat16"), Settings(limit=3, dtype="bfloat16"))
    assert [(outcome.status, outcome.broken, outcome.n) for outcome in found] == [("ok", 0, 3)] * len(cells)
    assert {outcome.weights for outcome in found} == {f"{FORMS[form][2]}, dequantised"}


@pytest.mark.parametrize("form", ["w4a16", "fp8"])
def test_a_tower_that_is_not_compressed_is_loaded_as_it_is(form: str, twin: Path, tmp_path: Path) -> None:
    folder, tensors = compress(twin, tmp_path / form, form, decoder_linear)
    model = opened(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert logits(model).isfinite().all()
    assert model.weights.endswith(", dequantised")
    own = [tensor for name, tensor in tensors.items() if name.endswith("fc1.weight")]
    held = [parameter for name, parameter in model.model.named_parameters() if name.endswith("fc1.weight")]
    assert len(held) == len(own) > 0
    assert all(torch.equal(one, other.bfloat16()) for one, other in zip(held, own, strict=True))


def changed(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def said(folder: Path, **entries: Any) -> None:
    """Other entries in the configuration's word on compression."""
    stated = json.loads((folder / "config.json").read_text())
    stated["quantization_config"] |= entries
    (folder / "config.json").write_text(json.dumps(stated))


LAYER = "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("form", "tensor", "change", "message"),
    [
        ("w4a16", "weight_scale", None, f"layer {LAYER}: it has no weight_scale"),
        ("w4a16", "weight_packed", None, f"layer {LAYER} has no weight_packed"),
        ("w4a16", "weight_shape", None, f"layer {LAYER} has no weight_shape"),
        ("w4a16_zeros", "weight_zero_point", None, f"layer {LAYER}: it has no weight_zero_point"),
        ("gptq_order", "g_idx", None, f"layer {LAYER}: it has no g_idx"),
        ("w8a8", "weight_scale", None, f"layer {LAYER} is stored as I8 without a scale"),
        ("fp8", "weight_scale", None, f"layer {LAYER} is stored as F8_E4M3 without a scale"),
        ("fp8_block", "weight_scale_inv", None, f"layer {LAYER} is stored as F8_E4M3 without a scale"),
        (
            "w4a16",
            "weight_scale",
            lambda tensor: tensor[:, 1:],
            "weight_scale is 96 x 3 where its other tensors want 96 x 4",
        ),
        ("w4a16", "weight_packed", lambda tensor: tensor[:, 1:], "has 7 words a row for 64 inputs of 4 bits"),
        ("w4a16", "weight_packed", lambda tensor: tensor[1:], "not int32 of 96 rows"),
        ("awq", "qzeros", lambda tensor: tensor[1:], "qzeros is 3 x 12 where its other tensors want 4 x 12"),
        ("gptq", "scales", None, f"layer {LAYER}: it has no scales"),
        ("gptq_order", "g_idx", lambda tensor: tensor + 4, "groups of inputs are 64 numbers up to 7 for 64 inputs"),
        (
            "fp8",
            "weight",
            lambda tensor: tensor.view(torch.uint8),
            "its weight is torch.uint8, not int8 or float8_e4m3fn",
        ),
        ("fp8_block", "weight_scale_inv", lambda tensor: tensor[1:], "weight_scale_inv is 3 x 3"),
    ],
)
def test_a_damaged_layer_is_named_with_what_is_wrong(
    form: str, tensor: str, change: Callable[[Tensor], Tensor] | None, message: str, one: Path, tmp_path: Path
) -> None:
    folder, _ = compress(one, tmp_path / form, form, decoder_linear)
    name = f"{LAYER}.{tensor}"

    def broken(tensors: dict[str, Tensor]) -> None:
        old = tensors.pop(name)
        if change:
            tensors[name] = change(old).contiguous()

    changed(folder, broken)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        opened(folder)


@pytest.mark.parametrize(
    ("form", "entries", "message"),
    [
        (
            "awq",
            {"quant_method": "bitsandbytes"},
            "'bitsandbytes' is not read here; these are: compressed-tensors, awq",
        ),
        ("awq", {"version": "gemv"}, "version 'gemv' is not read here"),
        ("gptq", {"bits": 5}, "GPTQ of 5 bits"),
        (
            "w4a16",
            {"format": "marlin-24", "config_groups": {"g": {"weights": {"num_bits": 4}}}},
            "'marlin-24' is not read",
        ),
        ("w4a16", {"kv_cache_scheme": {"num_bits": 8}}, "kv_cache_scheme"),
        ("w4a16", {"sparsity_config": {"format": "sparse-24-bitmask"}}, "'sparse-24-bitmask' is not read here"),
        ("w4a16", {"config_groups": {}}, "is compressed .* of which its quantization_config says nothing"),
        ("w4a16", {"config_groups": {"g": 3}}, "group 'g' is no object"),
        ("fp8_block", {"weight_block_size": [0, 1]}, "no two sizes"),
        ("w4a16", {"quant_method": "gptq"}, "has no qweight"),
    ],
)
def test_a_way_to_compress_that_is_not_read_is_refused_with_those_that_are(
    form: str, entries: dict[str, Any], message: str, one: Path, tmp_path: Path
) -> None:
    folder, _ = compress(one, tmp_path / form, form, decoder_linear)
    said(folder, **entries)
    with pytest.raises(ValueError, match=message):
        opened(folder)


def test_a_configuration_that_promises_compressed_layers_without_any_is_refused(one: Path, tmp_path: Path) -> None:
    folder, _ = compress(one, tmp_path / "none", "awq", lambda place: False)
    with pytest.raises(ValueError, match="says that layers are compressed, but none of them is"):
        opened(folder)


def test_a_file_cut_short_and_layers_of_another_model_are_refused(one: Path, tmp_path: Path) -> None:
    folder, _ = compress(one, tmp_path / "cut", "w4a16", decoder_linear)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        opened(folder)
    other = twins.build("qwen2_vl", tmp_path / "other", layers=3)
    theirs, _ = compress(other, tmp_path / "theirs", "w4a16", decoder_linear)
    (folder / "model.safetensors").write_bytes((theirs / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not fit its architecture"):
        opened(folder)


def test_weights_that_were_rounded_and_stored_as_they_are_are_loaded_so(one: Path, tmp_path: Path) -> None:
    folder, _ = compress(one, tmp_path / "dense", "w4a16", lambda place: False)
    said(folder, format="dense", config_groups={"g": {"weights": {"num_bits": 4}, "format": "dense"}})
    changed(folder, lambda tensors: tensors.update({f"{LAYER}.weight_scale": torch.ones(96, 4)}))
    model = opened(folder)
    torch.testing.assert_close(logits(model), logits(opened(one)), rtol=1e-5, atol=1e-5)
    assert model.weights == "trained"


def test_several_groups_of_layers_are_read_each_by_its_own(one: Path, tmp_path: Path) -> None:
    folder, tensors = compress(one, tmp_path / "two", "w4a16", lambda place: place.endswith(("up_proj", "gate_proj")))
    _, eight = compress(one, tmp_path / "eight", "w8a8", lambda place: place.endswith("o_proj"))
    stored_ = load_file(tmp_path / "eight" / "model.safetensors")
    changed(folder, lambda found: found.update({name: value for name, value in stored_.items() if "o_proj" in name}))
    four = groups("pack-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP})
    rest = groups("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"})["config_groups"]["group_0"]
    both = {"a": rest, "b": {**four["config_groups"]["group_0"], "targets": ["re:.*(up|gate)_proj"]}}
    said(folder, config_groups=both)
    tensors |= {name: value for name, value in eight.items() if "o_proj" in name}
    model, same = opened(folder), opened(plain(tmp_path / "plain", one, tensors))
    torch.testing.assert_close(logits(model), logits(same), rtol=1e-5, atol=1e-5)
    assert set(model.weights.removesuffix(", dequantised").split(" + ")) == {"w8a16 int8", "w4a16 g16"}


def test_two_checkpoints_whose_codes_alone_differ_have_two_identities(one: Path, tmp_path: Path) -> None:
    folder, _ = compress(one, tmp_path / "one", "w4a16", decoder_linear)
    first = resolve(f"twin={folder}").identity
    changed(folder, lambda tensors: tensors[f"{LAYER}.weight_packed"].add_(1))
    assert resolve(f"twin={folder}").identity != first


def test_the_name_of_an_outcome_tells_how_compressed_weights_are_read(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = compress(one, tmp_path / "w4a16", "w4a16", decoder_linear)
    cell = Cell("twin", "dense", "paper", "1.00", "docvqa_micro")

    def names(source: Path) -> list[str]:
        return [
            cell_fingerprint(cell, resolve(f"twin={source}"), Settings(kernels=which)) for which in ("auto", "none")
        ]

    plain_, read = names(one), names(folder)
    assert len(set(plain_)) == 1
    assert len(set(read)) == 2
    monkeypatch.setattr(_compressed.int4, "installed", lambda: True)
    monkeypatch.setattr(_compressed, "version", lambda package: "0.1.20")
    assert names(one) == plain_
    assert names(folder)[0] not in read
    assert names(folder)[1] == read[1]


def test_needs_of_a_compressed_checkpoint_are_those_of_what_is_loaded(
    one: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = compress(one, tmp_path / "w4a16", "w4a16", any_linear)
    source = resolve(f"twin={folder}")
    model = opened(folder)
    assert needs(source, "float32").weights == model.weight_bytes()
    assert needs(source, "bfloat16").weights == model.weight_bytes() // 2
    monkeypatch.setattr(_compressed, "able", lambda scheme, *where: True)
    assert needs(source, "bfloat16", "cuda:0").weights < 0.9 * model.weight_bytes() // 2


def test_layers_behind_a_kernel_answer_nearly_as_dequantised_ones_and_take_the_bytes_of_their_codes(
    twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = compress(twin, tmp_path / "fp8", "fp8", any_linear)
    whole = opened(folder, dtype="bfloat16", kernels="none")
    monkeypatch.setattr(_compressed, "able", lambda scheme, *where: scheme.dynamic)
    model = opened(folder, dtype="bfloat16")
    found, expected = logits(model).float(), logits(whole).float()
    assert float(torch.nn.functional.cosine_similarity(found, expected, 0)) > 0.99
    assert whole.weights == "w8a8 fp8, dequantised"
    assert model.weights == "w8a8 fp8, torch._scaled_mm and dequantised"  # the tower's are
    attention: Any = model.layers[0].self_attn
    assert isinstance(attention.o_proj, Fp8Linear)
    assert attention.q_proj.joint is attention.v_proj.joint
    linears = [part for layer in whole.layers for part in layer.modules() if isinstance(part, nn.Linear)]
    saved = sum(part.weight.numel() - 4 * part.out_features for part in linears)
    assert whole.weight_bytes() - model.weight_bytes() == saved
