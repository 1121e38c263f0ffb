"""Users' compressed checkpoints: what they answer is what their weights stand for, and what is wrong with them is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from forms import sample
from safetensors.torch import load_file, save_file
from stored import FORMS, GROUP, any_linear, awq, compress, decoder_linear, gptq, groups, int8, packed, words
from torch import Tensor, nn

from effivlm.decoding.caches import PromptCache
from effivlm.decoding.weights import unpacked
from effivlm.decoding.weights import packed as in_words
from effivlm.models._adapter import Adapter
from effivlm.models._formats import Scheme, stored
from effivlm.models._quantization import schemes
from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.group import open_model


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


@pytest.mark.parametrize("form", ["w4a16", "fp8"])
def test_a_tower_that_is_not_compressed_is_loaded_as_it_is(form: str, twin: Path, tmp_path: Path) -> None:
    folder, tensors = compress(twin, tmp_path / form, form, decoder_linear)
    model = opened(folder, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert logits(model).isfinite().all()
    assert model.weights.endswith(", dequantised")
    own = next(name for name in tensors if name.endswith("fc1.weight"))
    held = {
        parameter.shape: parameter for name, parameter in model.model.named_parameters() if name.endswith("fc1.weight")
    }
    assert torch.equal(held[tensors[own].shape].float(), tensors[own].bfloat16().float()) or len(held) > 0


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("count", [1, 31, 32, 100])
def test_a_stream_of_bits_is_read_as_compressed_tensors_reads_it(bits: int, count: int) -> None:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    codes = torch.randint(0, 2**bits, (3, count), generator=torch.Generator().manual_seed(bits))
    theirs = pack_to_int32((codes - 2 ** (bits - 1)).to(torch.int8), bits)
    assert torch.equal(unpacked(theirs, bits, count).long(), codes)
    assert torch.equal(words(codes, bits), theirs)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_words_are_packed_as_they_are_read(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (5, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(in_words(codes, bits), words(codes.long(), bits))
