"""Compressed checkpoints of twins, written by code of our own from the formats' descriptions, for tests of what reads them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GROUP = 16
AWQ_PLACES = (0, 2, 4, 6, 1, 3, 5, 7)
"""Which of eight outputs in a row each four bits of a word of AutoAWQ's hold, lowest first."""
Rounded = tuple[Tensor, Tensor, Tensor]
"""Codes [N, K] from 0 on, scales and zeros [N, K / group]."""


def rounded(weight: Tensor, bits: int, group: int, symmetric: bool) -> Rounded:
    """Weights rounded to the nearest of 2^bits codes."""
    grouped = weight.float().reshape(len(weight), -1, group)
    top = 2**bits - 1
    if symmetric:
        scale = grouped.abs().amax(2) / (top // 2)
        zero = torch.full_like(scale, 2.0 ** (bits - 1))
    else:
        low, high = grouped.amin(2).clamp(max=0), grouped.amax(2).clamp(min=0)
        scale = (high - low) / top
        zero = (-low / scale).round()
    codes = (grouped / scale[..., None] + zero[..., None]).round().clamp(0, top)
    return codes.reshape(weight.shape).long(), scale, zero.long()


def whole(codes: Tensor, scale: Tensor, zero: Tensor, group: int) -> Tensor:
    """The weights that codes stand for, in float32."""
    spread = [part.float().repeat_interleave(group, 1) for part in (scale, zero)]
    return (codes.float() - spread[1]) * spread[0]


def words(codes: Tensor, bits: int) -> Tensor:
    """Codes [R, C] as a stream of bits along C in int32, made bit by bit."""
    rows, count = codes.shape
    stream = torch.zeros(rows, -(-count * bits // 32) * 32, dtype=torch.long)
    for bit in range(bits):
        stream[:, torch.arange(count) * bits + bit] = codes >> bit & 1
    found = (stream.reshape(rows, -1, 32) << torch.arange(32)).sum(2)
    return torch.where(found >= 2**31, found - 2**32, found).int()


def awq(weight: Tensor, bits: int = 4) -> tuple[dict[str, Tensor], Tensor]:
    """AutoAWQ's tensors, version gemm, and what they stand for."""
    codes, scale, zero = rounded(weight, bits, GROUP, symmetric=False)

    def shuffled(values: Tensor) -> Tensor:
        return words(values.reshape(len(values), -1, 8)[..., list(AWQ_PLACES)].flatten(1), 4)

    found = {"qweight": shuffled(codes.T), "qzeros": shuffled(zero.T), "scales": scale.T.half().contiguous()}
    return found, whole(codes, scale.half(), zero, GROUP)


def gptq(
    weight: Tensor, bits: int = 4, symmetric: bool = True, shuffled: bool = False, second: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    """GPTQ's tensors, in the first version unless `second`; `shuffled`: groups of inputs that do not follow each other."""
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(0)) if shuffled else None
    sorted_ = weight if order is None else weight[:, order]
    codes, scale, zero = rounded(sorted_, bits, GROUP, symmetric)
    dense, groups = whole(codes, scale.half(), zero, GROUP), torch.arange(weight.shape[1]) // GROUP
    if order is not None:
        back = order.argsort()
        codes, dense, groups = codes[:, back], dense[:, back], groups[back]
    found = {
        "qweight": words(codes, bits).T.contiguous(),
        "qzeros": words((zero.T - (0 if second else 1)) & (2**bits - 1), bits),
        "scales": scale.T.half().contiguous(),
        "g_idx": groups.int(),
    }
    return found, dense


def packed(
    weight: Tensor, bits: int = 4, symmetric: bool = True, group: int = GROUP
) -> tuple[dict[str, Tensor], Tensor]:
    """compressed-tensors' tensors, pack-quantized; a group of 0 inputs is a channel."""
    width = group or weight.shape[1]
    codes, scale, zero = rounded(weight, bits, width, symmetric)
    found = {
        "weight_packed": words(codes, bits),
        "weight_shape": torch.tensor(weight.shape),
        "weight_scale": scale.bfloat16(),
    }
    if not symmetric:
        found["weight_zero_point"] = words(zero.T, bits).T.contiguous()
    return found, whole(codes, scale.bfloat16(), zero, width)


def int8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """compressed-tensors' tensors, int-quantized, with a scale for every output."""
    scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16()
    codes = (weight / scale.float()).round().clamp(-128, 127).to(torch.int8)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale.float()


def fp8(weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """compressed-tensors' tensors, float-quantized, with a scale for every output."""
    scale = (weight.abs().amax(1, keepdim=True) / 448).bfloat16()
    codes = (weight / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale": scale}, codes.float() * scale.float()


def fp8_block(weight: Tensor, side: int = 24) -> tuple[dict[str, Tensor], Tensor]:
    """e4m3 in blocks whose sides need not divide those of the weights."""
    rows, columns = (-(-size // side) for size in weight.shape)
    wide = torch.zeros(rows * side, columns * side)
    wide[: weight.shape[0], : weight.shape[1]] = weight
    scale = wide.reshape(rows, side, columns, side).abs().amax((1, 3)) / 448
    spread = scale.repeat_interleave(side, 0).repeat_interleave(side, 1)[: weight.shape[0], : weight.shape[1]]
    codes = (weight / spread).to(torch.float8_e4m3fn)
    return {"weight": codes, "weight_scale_inv": scale}, codes.float() * spread


def groups(form: str, weights: dict[str, Any], activations: dict[str, Any] | None = None) -> dict[str, Any]:
    """A configuration of compressed-tensors with one group."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "format": form}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def _grouped(bits: int, symmetric: bool) -> dict[str, Any]:
    return {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": GROUP}


_ROWS = {"strategy": "token", "dynamic": True, "symmetric": True, "num_bits": 8}
_CHANNEL = {"num_bits": 8, "symmetric": True, "strategy": "channel"}
FORMS: dict[str, tuple[Callable[[Tensor], tuple[dict[str, Tensor], Tensor]], dict[str, Any], str]] = {
    "w4a16": (packed, groups("pack-quantized", _grouped(4, True)), "w4a16 g16"),
    "w4a16_zeros": (
        lambda weight: packed(weight, symmetric=False),
        groups("pack-quantized", _grouped(4, False)),
        "w4a16 g16",
    ),
    "w3a16": (lambda weight: packed(weight, 3), groups("pack-quantized", _grouped(3, True)), "w3a16 g16"),
    "w8a8": (int8, groups("int-quantized", {**_CHANNEL, "type": "int"}, {**_ROWS, "type": "int"}), "w8a8 int8"),
    "fp8": (fp8, groups("float-quantized", {**_CHANNEL, "type": "float"}, {**_ROWS, "type": "float"}), "w8a8 fp8"),
    "awq": (
        awq,
        {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True},
        "w4a16 g16",
    ),
    "gptq": (
        gptq,
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True},
        "w4a16 g16",
    ),
    "gptq_order": (
        lambda weight: gptq(weight, symmetric=False, shuffled=True),
        {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": True, "sym": False},
        "w4a16 g16",
    ),
    "gptq_v2": (
        lambda weight: gptq(weight, 2, symmetric=False, second=True),
        {"quant_method": "gptq", "bits": 2, "group_size": GROUP, "checkpoint_format": "gptq_v2"},
        "w2a16 g16",
    ),
    "fp8_block": (
        fp8_block,
        {"quant_method": "fp8", "weight_block_size": [24, 24], "activation_scheme": "dynamic"},
        "w8a8 fp8 block 24x24",
    ),
}
"""By name: what writes a layer, what the configuration says, and what records say."""


def compress(twin: Path, folder: Path, form: str, takes: Callable[[str], bool]) -> tuple[Path, dict[str, Tensor]]:
    """The checkpoint of a twin in one of `FORMS`, layers that `takes` names compressed; and the same as plain tensors."""
    write, config, _ = FORMS[form]
    shutil.copytree(twin, folder)
    tensors = load_file(folder / "model.safetensors")
    dense: dict[str, Tensor] = {}
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place, _, last = name.rpartition(".")
        if last == "weight" and tensor.ndim == 2 and takes(place):
            parts, dense[name] = write(tensor)
            kept |= {f"{place}.{part}": value for part, value in parts.items()}
        else:
            kept[name] = dense[name] = tensor
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    stated = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**stated, "quantization_config": config}))
    return folder, dense


def decoder_linear(place: str) -> bool:
    """Whether a name is that of a linear layer of a twin's decoder."""
    return place.endswith("_proj") and not place.startswith(("vision_tower", "visual", "multi_modal"))


def any_linear(place: str) -> bool:
    """The same in the decoder, the tower and the projector."""
    return decoder_linear(place) or place.endswith(("k_proj", "v_proj", "fc1", "fc2", "attn.qkv", "linear_1"))
