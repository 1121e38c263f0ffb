"""Projections of one input as columns of one matrix product: a product of few rows costs what its weights cost to read, and two
small ones cost more than one of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from effivlm.decoding.quantised import FEW, QuantizedLinear

TOGETHER = {"self_attn": ("q_proj", "k_proj", "v_proj"), "mlp": ("gate_proj", "up_proj")}
"""Modules of a decoder layer, and their projections of one input, in the order in which they are asked for."""


class Joint(nn.Module):
    """The weights [sum of outputs, inputs] of several projections, and their product while it is being handed out."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.cat([part.weight.data for part in parts]), requires_grad=False)
        biases = [part.bias.data for part in parts if part.bias is not None]
        self.bias = nn.Parameter(torch.cat(biases), requires_grad=False) if biases else None
        self.out_features = len(self.weight)
        self.made: Tensor | None = None

    def forward(self, entered: Tensor) -> Tensor:
        return linear(entered, self.weight, self.bias)


class Columns(nn.Module):
    """One of the projections: the first that is asked computes the product of all, the last lets go of it.

    With `copied`, what is handed out of a product of many rows is a copy, as a cache may keep it and would hold on to all.
    """

    def __init__(self, joint: Joint | QuantizedLinear, start: int, end: int, copied: bool = False) -> None:
        super().__init__()
        self.joint, self.start, self.end, self.copied = joint, start, end, copied
        self.first, self.last = start == 0, end == joint.out_features

    def forward(self, entered: Tensor) -> Tensor:
        joint = self.joint
        if self.first:
            joint.made = joint(entered)
        made = joint.made
        if made is None:
            raise RuntimeError("joined projections were asked out of order")
        if self.last:
            joint.made = None
        found = made[..., self.start : self.end]
        return found.clone() if self.copied and entered.shape[-2] > FEW else found


@contextmanager
def joined(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Inside, every decoder layer computes its projections of one input in one product; afterwards it is as it was.

    The weights move into one tensor, of which the layer's own become views, so that they take no more memory, then and later.
    Layers whose projections are no plain linear ones are left alone.
    """
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for layer in layers:
            for place, names in TOGETHER.items():
                owner: Any = getattr(layer, place, None)
                parts = [getattr(owner, name, None) for name in names]
                if not _plain(parts):
                    continue
                joint, start = _joint(owner, place, parts), 0
                for name, part in zip(names, parts, strict=True):
                    end = start + part.out_features
                    setattr(owner, name, Columns(joint, start, end))
                    swapped.append((owner, name, part))
                    start = end
        yield
    finally:
        for owner, name, own in swapped:
            setattr(owner, name, own)


def _plain(parts: Sequence[Any]) -> TypeGuard[Sequence[nn.Linear]]:
    """Whether these are linear layers of one input, type and place, all with a bias or none, and nothing done around them.

    A forward of a layer's own (fake quantisation, an adapter, a device to move to) or a hook would be passed by.
    """
    if not all(type(part) is nn.Linear and "forward" not in vars(part) for part in parts):
        return False
    if any(part._forward_hooks or part._forward_pre_hooks for part in parts):
        return False
    sorts = {(part.in_features, part.weight.dtype, part.weight.device, part.bias is None) for part in parts}
    return len(sorts) == 1


def _joint(owner: nn.Module, place: str, parts: Sequence[nn.Linear]) -> Joint:
    """The joint weights of these projections, made once and kept beside them, outside the module's own parameters."""
    kept: dict[str, Joint] = owner.__dict__.setdefault("_effivlm_joint", {})
    known = kept.get(place)
    if known is None or known.weight.data_ptr() != parts[0].weight.data_ptr():
        known = kept[place] = Joint(parts)
        start = 0
        for part in parts:
            end = start + part.out_features
            part.weight.data = known.weight.data[start:end]
            if known.bias is not None and part.bias is not None:
                part.bias.data = known.bias.data[start:end]
            start = end
    return known
