"""What observers of a prefill need to know of the model's rotary embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from effivlm.compression.base import CachePart
from effivlm.models._adapter import Adapter, Prompt
from effivlm.seams.angles import Angles, Moments, moments


@dataclass
class Turned:
    """What observers need to know of rotary embedding, of one prompt; the model is asked once."""

    model: Adapter
    prompt: Prompt
    observers: Sequence[CachePart]
    ahead: dict[int, Angles] = field(default_factory=dict)
    behind: dict[torch.device, Angles] = field(default_factory=dict)

    @property
    def wanted(self) -> bool:
        return any(part.moments_from(self.prompt.length) is not None for part in self.observers)

    def moments(self, queries: Tensor, there: Tensor | None) -> dict[int, Moments]:
        """Of queries [H_q, N, D] of the entries `there` (None: all), by the rows from which on observers ask for them."""
        starts = {start for part in self.observers if (start := part.moments_from(queries.shape[1])) is not None}
        if not starts:
            return {}
        if queries.device not in self.behind:
            whole = self.model.angles(self.prompt.positions, self.prompt.embeds.dtype)
            self.behind[queries.device] = whole.to(queries.device)
        whole = self.behind[queries.device]
        angles = whole if there is None else whole.of(there)
        return {
            start: moments(queries[:, start:], Angles(angles.cosines[start:], angles.sines[start:])) for start in starts
        }

    def following(self, count: int, device: torch.device) -> Angles:
        """The angles of the `count` positions after the prompt."""
        if count not in self.ahead:
            self.ahead[count] = self.model.following(self.prompt, count)
        return self.ahead[count].to(device)
