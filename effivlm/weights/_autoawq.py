"""AutoAWQ 0.2.9's search for scales and clips, on decoder layers of the families with inputs of our own.

Its loader, its calibration and its loop over a model know none of the families in transformers 5; its quantizer works on any
decoder layer once it is told what its inputs were.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.models._torchvision import ensure_torchvision
from effivlm.seams.hooked import hooked
from effivlm.weights.libraries import missing

CLIPPED = 64  # clips are searched for so many rows at a time, without a remainder
UNCLIPPED = ("q_proj", "k_proj")
_TOKENS = 1 << 14  # that go through an MLP at once; all of a calibration set would take tens of gigabytes
_NAMES = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


@dataclass(frozen=True, slots=True)
class Seen:
    """What entered a decoder layer in one sample: hidden states [1, N, d], and the other arguments of its forward."""

    hidden: Tensor
    arguments: Mapping[str, Any]


@torch.no_grad()
def smooth(layer: nn.Module, seen: Sequence[Seen], *, bits: int, group: int, symmetric: bool, clip: bool) -> None:
    """Scale and clip a decoder layer's weights in place, as AutoAWQ does before it rounds them; nothing is rounded.

    `group` 0 means one scale a row.

    Raises:
        ValueError: autoawq is not installed, there is no sample, or the layer's form or sizes do not suit it.
    """
    if why := missing("autoawq"):
        raise ValueError(why)
    if not seen:
        raise ValueError("autoawq needs samples: the calibration set is empty")
    if not all(bool(one.hidden.isfinite().all()) for one in seen):
        raise ValueError("what enters the layer holds NaN or infinite values")
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    _check(layer, linears, group, clip)
    search = quantizer()(layer, seen, bits, group or -1, symmetric, clip)
    device = _device(layer)
    try:
        with redirect_stderr(io.StringIO()):  # a bar of progress for every layer
            search.quantize()
    except Exception as error:  # a plain one, without a word, is what it raises itself
        raise ValueError(f"autoawq cannot scale a {type(layer).__name__}: {error!r}") from error
    layer.to(device)  # it leaves them on the CPU
    if bad := [name for name, linear in linears.items() if not bool(linear.weight.isfinite().all())]:
        raise ValueError(f"autoawq made NaN or infinite weights of {', '.join(bad)}")


def rounded(weight: Tensor, *, bits: int, group: int, symmetric: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """A weight [out, in] on AutoAWQ's grid, with scales and zero points [out, groups] (None where symmetric)."""
    grid = object.__new__(quantizer())
    grid.w_bit, grid.group_size, grid.zero_point = bits, group or weight.shape[1], not symmetric
    found: tuple[Tensor, Tensor, Tensor | None] = grid.pseudo_quantize_tensor(weight.clone())
    return found


def _check(layer: nn.Module, linears: Mapping[str, nn.Linear], group: int, clip: bool) -> None:
    if lacks := [name for name in _NAMES if not hasattr(layer, name)]:
        raise ValueError(f"autoawq cannot scale a {type(layer).__name__}: it has no {', '.join(lacks)}")
    for name, linear in linears.items():
        if group and linear.in_features % group:
            raise ValueError(f"{name}: groups of {group} do not divide its {linear.in_features} inputs")
        if clip and not name.endswith(UNCLIPPED) and linear.out_features % CLIPPED:
            raise ValueError(
                f"{name}: autoawq clips {CLIPPED} rows at a time, and its {linear.out_features} leave a remainder"
            )


@cache
def quantizer() -> Any:
    """AutoAWQ's quantizer, fed with one decoder layer and samples of any length. Importing it takes seconds."""
    ensure_torchvision()
    # It warns that it is at its end, and sets a filter so that this is seen.
    with warnings.catch_warnings(record=True):
        from awq.quantize.quantizer import AwqQuantizer

    class OneLayer(AwqQuantizer):  # type: ignore[misc]
        def __init__(
            self, layer: nn.Module, seen: Sequence[Seen], bits: int, group: int, symmetric: bool, clip: bool
        ) -> None:
            self.layer, self.seen = layer, seen
            self.lengths = [one.hidden.shape[1] for one in seen]
            model = nn.ModuleList([layer])
            settings = {"apply_clip": clip, "duo_scaling": True, "export_compatible": True}
            super().__init__(_Told(), model, None, bits, group, not symmetric, "gemm", None, "", "", **settings)

        def init_quant(
            self, n_samples: int = 0, max_seq_len: int = 0
        ) -> tuple[list[nn.Module], dict[str, Any], Tensor]:
            """The one layer. The rest would be one batch for all; what each sample brings is looked up where it is needed."""
            return [self.layer], {"position_embeddings": ()}, torch.zeros(1)

        def _get_input_feat(self, layer: nn.Module, named_linears: Mapping[str, nn.Linear]) -> dict[str, Tensor]:
            """Inputs [tokens, in] of each linear over all samples, one after another."""
            found: dict[str, list[Tensor]] = {name: [] for name in named_linears}
            device = _device(layer)
            with _watching(named_linears, found):
                for one in self.seen:
                    layer(one.hidden.to(device), **_on(one.arguments, device))
            return {name: torch.cat(parts) for name, parts in found.items()}

        def _module_forward(self, x: Tensor, module: nn.Module, module_kwargs: Mapping[str, Any]) -> Tensor:
            """Outputs [tokens, out] of a part of the layer for inputs [tokens, in]; attention sees one sample at a time."""
            if module is not self.layer.self_attn:
                return torch.cat([module(part) for part in x.split(_TOKENS)])
            known = [_on(self._sanitize_kwargs(dict(one.arguments), module), x.device) for one in self.seen]
            parts = zip(x.split(self.lengths), known, strict=True)
            return torch.cat([module(part[None], **how)[0][0] for part, how in parts])

        def _compute_best_scale(
            self, x: Tensor, w_mean: Tensor, x_mean: Tensor, module2inspect: nn.Module, *rest: Any
        ) -> Any:
            """The search tries each scale on the weights themselves, and on a CPU what it puts back is no copy."""
            with _copied(module2inspect):
                return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest)

    return OneLayer


class _Told:
    """What the quantizer asks of a model class of AutoAWQ."""

    model_type = "effivlm"

    @staticmethod
    def move_embed(model: nn.Module, device: str) -> None:
        """Nothing: positions come with the samples."""

    @staticmethod
    def get_layers_for_scaling(
        module: Any, input_feat: Mapping[str, Tensor], module_kwargs: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Which linears share an input, what feeds it, and whose output tells whether a scale is good."""
        attention, mlp = module.self_attn, module.mlp
        groups = [
            (
                module.input_layernorm,
                [attention.q_proj, attention.k_proj, attention.v_proj],
                "self_attn.q_proj",
                attention,
            ),
            (attention.v_proj, [attention.o_proj], "self_attn.o_proj", None),
            (module.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj], "mlp.gate_proj", mlp),
            (mlp.up_proj, [mlp.down_proj], "mlp.down_proj", None),
        ]
        if attention.v_proj.weight.shape != attention.o_proj.weight.shape:
            del groups[1]  # several query heads share a value head, and with it a scale
        return [
            {
                "prev_op": feeds,
                "layers": layers,
                "inp": input_feat[name],
                "module2inspect": judge,
                "kwargs": dict(module_kwargs),
            }
            for feeds, layers, name, judge in groups
        ]


@contextmanager
def _watching(linears: Mapping[str, nn.Linear], found: Mapping[str, list[Tensor]]) -> Iterator[None]:
    """Collect the inputs of linears, each with a copy of its own: scales are divided out of them one by one."""

    def keep(name: str) -> Any:
        return lambda module, inputs: found[name].append(inputs[0].detach().flatten(0, 1).clone())

    with hooked(linear.register_forward_pre_hook(keep(name)) for name, linear in linears.items()):
        yield


@contextmanager
def _copied(module: nn.Module) -> Iterator[None]:
    """The state of a module is a copy as long as this lasts."""
    plain = module.state_dict
    module.state_dict = lambda: {name: tensor.clone() for name, tensor in plain().items()}  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        del module.state_dict


def _device(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device


def _on(value: Any, device: torch.device) -> Any:
    """Tensors of nested mappings and tuples on a device, all else as it is."""
    if isinstance(value, Mapping):
        return {name: _on(one, device) for name, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_on(one, device) for one in value)
    return value.to(device) if isinstance(value, Tensor) else value
