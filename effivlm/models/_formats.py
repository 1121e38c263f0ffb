"""How compressed checkpoints store a linear layer, and its weights from that: compressed-tensors, AutoAWQ, GPTQ, FP8 blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.decoding.weights import WORD, Packed, packed, unpacked

E4M3 = torch.float8_e4m3fn
AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word of AutoAWQ's the values of eight outputs in a row stand."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Scheme:
    """What a configuration says of layers: `kind` of storage, bits of weights and activations (16: as they are), inputs of a
    group that share a scale (0: all of them), and outputs and inputs of a block.

    `version` tells apart what stores the same things in two ways; `dynamic`: activations are brought to e4m3 row by row;
    `demanded`: last names of tensors without which another grid would be read than was meant.
    """

    kind: str
    bits: int
    group: int = 0
    block: tuple[int, int] = (0, 0)
    activations: int = 16
    dynamic: bool = False
    floating: bool = False
    version: str = ""
    demanded: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """As records say it: `w4a16 g128`, `w8a8 fp8`."""
        number = "" if self.bits < 8 else " fp8" if self.floating else " int8"
        spread = (
            f" g{self.group}" if self.group else f" block {self.block[0]}x{self.block[1]}" if any(self.block) else ""
        )
        return f"w{self.bits}a{self.activations}{number}{spread}"


@dataclass(frozen=True, slots=True)
class Stored:
    """Values [N, K] (codes from 0 on, signed integers or e4m3), each less the zero and times the scale of its block.

    `scale` and `zero` [R, C] stand for `block` outputs and inputs each; `of` [K] is the column of every input where those do not
    follow each other.
    """

    values: Tensor
    scale: Tensor
    zero: Tensor | float
    block: tuple[int, int]
    of: Tensor | None = None

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The weights [N, K], rounded once."""
        values = self.values.float()
        if isinstance(self.zero, Tensor):
            values = values - self._spread(self.zero)
        elif self.zero:
            values = values - self.zero
        return (values * self._spread(self.scale)).to(dtype)

    def _spread(self, parts: Tensor) -> Tensor:
        outputs, inputs = self.values.shape
        wide = parts.float()
        if len(wide) > 1 and self.block[0] > 1:
            wide = wide.repeat_interleave(self.block[0], 0)[:outputs]
        if self.of is not None:
            return wide[:, self.of]
        return wide if wide.shape[1] == 1 else wide.repeat_interleave(self.block[1], 1)[:, :inputs]

    def packed(self) -> Packed | None:
        """As a kernel may read it: 4 bits in groups, or e4m3 with a scale for every output; None for anything else."""
        outputs, inputs = self.values.shape
        if self.values.dtype == E4M3 and self.scale.shape[1] == 1 and not isinstance(self.zero, Tensor):
            return Packed(self.values, self.scale.float().expand(outputs, 1).contiguous())
        grouped = self.of is None and self.block[0] == 1 and inputs % 8 == 0 and outputs % 8 == 0
        if self.values.dtype != torch.uint8 or not grouped or bool((self.values > 15).any()):
            return None
        zero = self.zero.to(torch.uint8) if isinstance(self.zero, Tensor) else None
        if zero is not None and bool((zero == 8).all()):
            zero = None
        return Packed(packed(self.values, 4), self.scale, zero, self.block[1])


def stored(tensors: Tensors, scheme: Scheme) -> Stored:
    """The weights of one layer from its tensors by their last names.

    Raises:
        ValueError: a tensor is missing, or sizes do not fit each other; says which.
    """
    for name in scheme.demanded:
        _take(tensors, name)
    return {"packed": _packed, "plain": _plain, "awq": _awq, "gptq": _gptq}[scheme.kind](tensors, scheme)


def _take(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"it has no {name}, only {', '.join(sorted(tensors))}")
    return tensors[name]


def _fits(name: str, tensor: Tensor, *shape: int) -> Tensor:
    if tuple(tensor.shape) != shape:
        raise ValueError(f"its {name} is {_by(tensor.shape)} where its other tensors want {_by(shape)}")
    return tensor


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _packed(tensors: Tensors, scheme: Scheme) -> Stored:
    """compressed-tensors `pack-quantized`: a stream of bits along the inputs; older versions leave bits over in every word."""
    words, bits = _take(tensors, "weight_packed"), scheme.bits
    outputs, inputs = (int(size) for size in _take(tensors, "weight_shape").tolist())
    each = WORD // bits
    if words.dtype != torch.int32 or len(words) != outputs:
        raise ValueError(f"its weight_packed is {words.dtype} {_by(words.shape)}, not int32 of {outputs} rows")
    if words.shape[1] == math.ceil(inputs * bits / WORD):
        values = unpacked(words, bits, inputs)
    elif words.shape[1] == math.ceil(inputs / each):
        values = unpacked(words[..., None], bits, each).flatten(1)[:, :inputs]
    else:
        raise ValueError(f"its weight_packed has {words.shape[1]} words a row for {inputs} inputs of {bits} bits")
    group = scheme.group or inputs
    scale = _scale(tensors, outputs, math.ceil(inputs / group), scheme)
    zero: Tensor | float = float(1 << (bits - 1))
    if (kept := tensors.get("weight_zero_point")) is not None:
        streamed = kept.dtype == torch.int32
        kept = unpacked(kept.T.contiguous(), bits, outputs).T if streamed else kept.short() + (1 << (bits - 1))
        single = kept.numel() == scale.numel() == 1
        zero = _fits("weight_zero_point", kept.reshape(1, 1) if single else kept, *scale.shape).contiguous()
    return Stored(values, scale, zero, (1, group), _order(tensors.get("weight_g_idx"), inputs, group))


def _plain(tensors: Tensors, scheme: Scheme) -> Stored:
    """Eight bits a value: signed integers or e4m3, with a scale for all, for every output, group or block."""
    values = _take(tensors, "weight")
    if values.dtype not in (torch.int8, E4M3):
        raise ValueError(f"its weight is {values.dtype}, not int8 or float8_e4m3fn")
    outputs, inputs = values.shape
    height, width = scheme.block if any(scheme.block) else (1, scheme.group or inputs)
    scale = _scale(tensors, math.ceil(outputs / height), math.ceil(inputs / width), scheme)
    zero: Tensor | float = 0.0
    if (kept := tensors.get("weight_zero_point")) is not None and bool((kept.float() != 0).any()):
        zero = kept.reshape(scale.shape)
    return Stored(values, scale, zero, (height, width), _order(tensors.get("weight_g_idx"), inputs, width))


def _scale(tensors: Tensors, rows: int, columns: int, scheme: Scheme) -> Tensor:
    name = scheme.version or "weight_scale"
    scale = _take(tensors, name)
    if scale.numel() == 1:
        return scale.reshape(1, 1)
    return _fits(name, scale[:, None] if scale.ndim == 1 else scale, rows, columns)


def _awq(tensors: Tensors, scheme: Scheme) -> Stored:
    """AutoAWQ `gemm`: words along the outputs, eight values of a word out of order."""
    words = _take(tensors, "qweight")
    inputs, outputs = words.shape[0], 8 * words.shape[1]
    group = scheme.group or inputs
    groups = math.ceil(inputs / group)
    scale = _fits("scales", _take(tensors, "scales"), groups, outputs)
    zeros = _fits("qzeros", _take(tensors, "qzeros"), groups, outputs // 8)
    values, zero = (_ordered(unpacked(part, 4, outputs)) for part in (words, zeros))
    return Stored(values.T.contiguous(), scale.T.contiguous(), zero.T.contiguous(), (1, group))


def _ordered(values: Tensor) -> Tensor:
    eights: Tensor = values.unflatten(1, (-1, 8))
    return eights[..., list(AWQ_ORDER)].flatten(1)


def _gptq(tensors: Tensors, scheme: Scheme) -> Stored:
    """GPTQ: a stream of bits along the inputs, another of zeros along the outputs; the first version stores zeros less one."""
    words, bits = _take(tensors, "qweight"), scheme.bits
    inputs, outputs = words.shape[0] * WORD // bits, words.shape[1]
    group = scheme.group or inputs
    groups = math.ceil(inputs / group)
    scale = _fits("scales", _take(tensors, "scales"), groups, outputs)
    zeros = _fits("qzeros", _take(tensors, "qzeros"), groups, outputs * bits // WORD)
    zero = unpacked(zeros, bits, outputs)
    if scheme.version != "gptq_v2":
        zero = (zero + 1) & ((1 << bits) - 1)
    values = unpacked(words.T.contiguous(), bits, inputs)
    order = _order(tensors.get("g_idx"), inputs, group)
    return Stored(values, scale.T.contiguous(), zero.T.contiguous(), (1, group), order)


def _order(groups: Tensor | None, inputs: int, group: int) -> Tensor | None:
    """The group of every input, where they do not follow each other; an order that was never set holds -1."""
    if groups is None or bool((groups < 0).all()):
        return None
    if len(groups) != inputs or not 0 <= int(groups.min()) <= int(groups.max()) < math.ceil(inputs / group):
        raise ValueError(
            f"its groups of inputs are {len(groups)} numbers up to {int(groups.max())} for {inputs} inputs"
        )
    following = torch.arange(inputs, device=groups.device) // group
    return None if torch.equal(groups.long(), following) else groups.long()
