"""Stored layers are read as the libraries that write them unpack them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from stored import GROUP, fp8, int8, packed, words
from torch import Tensor

from effivlm.decoding.weights import packed as in_words
from effivlm.decoding.weights import unpacked
from effivlm.models._formats import Scheme, stored
from effivlm.models._torchvision import ensure_torchvision


@pytest.fixture(autouse=True, scope="module")
def theirs() -> None:
    """The library that is compared with loads transformers, which needs torchvision to be there before."""
    ensure_torchvision()


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 7, 8])
@pytest.mark.parametrize("count", [1, 31, 32, 100])
def test_a_stream_of_bits_is_read_as_compressed_tensors_reads_it(bits: int, count: int) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    codes = torch.randint(0, 2**bits, (3, count), generator=torch.Generator().manual_seed(bits))
    theirs = pack_to_int32((codes - 2 ** (bits - 1)).to(torch.int8), bits)
    assert torch.equal(unpacked(theirs, bits, count).long(), codes)
    assert torch.equal(words(codes, bits), theirs)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_words_are_packed_as_they_are_read(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (5, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(in_words(codes, bits), words(codes.long(), bits))


def test_autoawq_holds_eight_outputs_of_a_word_out_of_order() -> None:
    """0x75316420 is what AutoAWQ's own packing makes of the values 0 to 7 in a row."""
    assert int(awq_words(torch.arange(8)[None])[0, 0]) == 0x75316420
    tensors = {
        "qweight": torch.full((16, 1), 0x75316420, dtype=torch.int32),
        "qzeros": torch.zeros(1, 1, dtype=torch.int32),
        "scales": torch.ones(1, 8, dtype=torch.float16),
    }
    found = stored(tensors, Scheme("awq", 4, 16)).dense(torch.float32)
    assert torch.equal(found, torch.arange(8.0)[:, None].expand(8, 16))


def awq_words(values: Tensor) -> Tensor:
    return words(values.reshape(len(values), -1, 8)[..., [0, 2, 4, 6, 1, 3, 5, 7]].flatten(1), 4)


def test_gptq_holds_eight_inputs_of_a_word_in_order_and_zeros_less_one() -> None:
    tensors = {
        "qweight": torch.full((2, 8), 0x76543210, dtype=torch.int32),
        "qzeros": torch.full((1, 1), 0x77777777, dtype=torch.int32),
        "scales": torch.full((1, 8), 0.5, dtype=torch.float16),
        "g_idx": torch.zeros(16, dtype=torch.int32),
    }
    expected = 0.5 * (torch.arange(8.0).repeat(2) - 8).expand(8, 16)
    assert torch.equal(stored(tensors, Scheme("gptq", 4, 16)).dense(torch.float32), expected)
    again = stored(tensors, Scheme("gptq", 4, 16, version="gptq_v2")).dense(torch.float32)
    assert torch.equal(again, expected + 0.5)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [GROUP, 0])
def test_what_is_packed_is_what_compressed_tensors_unpacks(bits: int, group: int, symmetric: bool) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weight = torch.randn(40, 96, generator=torch.Generator().manual_seed(bits))
    tensors, _ = packed(weight, bits, symmetric, group)
    args = {"num_bits": bits, "symmetric": symmetric, "strategy": "group" if group else "channel"}
    theirs = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args, group_size=group or None))
    expected = PackedQuantizationCompressor.decompress(dict(tensors), theirs)["weight"]
    assert torch.equal(stored(tensors, Scheme("packed", bits, group)).dense(expected.dtype), expected)


@pytest.mark.parametrize("bits", [4, 8])
def test_zeros_that_are_not_packed_are_the_same_zeros(bits: int) -> None:
    tensors, _ = packed(torch.randn(40, 96, generator=torch.Generator().manual_seed(0)), bits, symmetric=False)
    scheme = Scheme("packed", bits, GROUP)
    apart = unpacked(tensors["weight_zero_point"].T.contiguous(), bits, 40).T.short() - 2 ** (bits - 1)
    found = stored({**tensors, "weight_zero_point": apart.to(torch.int8)}, scheme).dense(torch.float32)
    assert torch.equal(found, stored(tensors, scheme).dense(torch.float32))


@pytest.mark.parametrize(("write", "kind"), [(int8, "int"), (fp8, "float")])
def test_eight_bits_are_what_compressed_tensors_makes_of_them(
    write: Callable[[Tensor], tuple[dict[str, Tensor], Tensor]], kind: str
) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    tensors, _ = write(torch.randn(40, 72, generator=torch.Generator().manual_seed(0)))
    args = QuantizationArgs(num_bits=8, type=kind, symmetric=True, strategy="channel")
    theirs = QuantizationScheme(targets=["Linear"], weights=args)
    expected = NaiveQuantizationCompressor.decompress(dict(tensors), theirs)["weight"]
    assert torch.equal(stored(tensors, Scheme("plain", 8)).dense(expected.dtype), expected)


@pytest.mark.parametrize("symmetric", [True, False])
def test_one_scale_and_zero_for_all_weights_are_read_as_compressed_tensors_reads_them(symmetric: bool) -> None:
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    tensors, _ = packed(torch.randn(24, 40, generator=torch.Generator().manual_seed(0)), 4, True, 0)
    tensors["weight_scale"] = torch.tensor([0.1])
    if not symmetric:
        tensors["weight_zero_point"] = torch.tensor([-3], dtype=torch.int8)
    args = QuantizationArgs(num_bits=4, symmetric=symmetric, strategy="tensor")
    theirs = QuantizationScheme(targets=["Linear"], weights=args)
    expected = PackedQuantizationCompressor.decompress(dict(tensors), theirs)["weight"]
    assert torch.equal(stored(tensors, Scheme("packed", 4)).dense(expected.dtype), expected)
