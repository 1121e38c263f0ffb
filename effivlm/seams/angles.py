"""Rotary embedding from outside: what queries were before it, and where those to come will be turned. Everything in float32."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

PARTS = 8
"""Into how many parts the rows are cut whose covariance is summed."""


@dataclass(frozen=True, slots=True)
class Angles:
    """Cosines and sines [N, D] that a model turns queries and keys at N positions by: the halves of a vector against each other.

    They need not lie on a circle: a mean of several does not.
    """

    cosines: Tensor
    sines: Tensor

    def turned(self, states: Tensor) -> Tensor:
        """States [.., N, D] after rotary embedding."""
        return states.float() * self.cosines.float() + _crossed(states.float()) * self.sines.float()

    def back(self, states: Tensor) -> Tensor:
        """What states [.., N, D] were before it."""
        cosines, sines = self.cosines.float(), self.sines.float()
        length, half = cosines.square() + sines.square(), states.shape[-1] // 2
        cosines, sines = cosines / length, sines / length
        turned = states * cosines  # in float32 whatever the states are; the halves are added to it in place
        turned[..., :half].addcmul_(states[..., half:], sines[..., :half])
        turned[..., half:].addcmul_(states[..., :half], sines[..., half:], value=-1)
        return turned

    def mean(self) -> Angles:
        """The mean of all N rotations, as one [1, D]."""
        return Angles(self.cosines.float().mean(0, keepdim=True), self.sines.float().mean(0, keepdim=True))

    def of(self, places: Tensor) -> Angles:
        """Those of the entries at `places` [K]."""
        there = places.to(self.cosines.device)
        return Angles(self.cosines[there], self.sines[there])

    def to(self, device: torch.device) -> Angles:
        return Angles(self.cosines.to(device), self.sines.to(device))


@dataclass(frozen=True, slots=True)
class Moments:
    """Of some rows of a layer's queries before rotary embedding: mean [H_q, D] and covariance [H_q, D, D], in float32."""

    mean: Tensor
    covariance: Tensor


def moments(queries: Tensor, angles: Angles) -> Moments:
    """Of queries [H_q, N, D] that were turned by `angles`."""
    states = angles.back(queries)
    mean, count = states.mean(1), states.shape[1]
    states -= mean[:, None]
    parts = pad(states, (0, 0, 0, -count % PARTS)).unflatten(1, (PARTS, -1))  # one sum a head would leave a GPU idle
    return Moments(mean, (parts.mT @ parts).sum(1) / count)


def _crossed(states: Tensor) -> Tensor:
    """The halves of the last dimension exchanged, the first one negative."""
    first, second = states.chunk(2, -1)
    return torch.cat([-second, first], -1)
