"""Several prompts in one pass of a decoder, one behind the other, and one prompt pruned in several ways.

A short prompt costs what it takes to launch a decoder's kernels, whatever its length; side by side, many cost that once. A lane
is one way through the decoder: a prompt, and what leaves it on entry to which layers. Lanes of one prompt are one stretch of the
pass until the first of them prunes. Attention runs inside each stretch; all else works on entries one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.seams.hooked import hooked
from effivlm.seams.hooks import BESIDE, Watcher
from effivlm.seams.pruning import LEFT, Entering, Stay, by_position, check_layers, chosen

Attend = Callable[..., tuple[Tensor, None]]


@dataclass(frozen=True, slots=True)
class Lane:
    """One way of prompt number `prompt`: choices by the layer on entry to which they are made, and who looks at a layer's
    attention."""

    prompt: int
    stages: Mapping[int, Callable[[Entering], Stay]] = field(default_factory=dict)
    looks: Mapping[int, Watcher] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Entries that lanes share: their places in all prompts [n], and how many they are."""

    lanes: tuple[int, ...]
    rows: Tensor
    length: int


class Pass:
    """One pass of several lanes. After it: where each lane's entries lie in what every layer cached, and which are left."""

    def __init__(
        self, layers: Sequence[Any], lengths: Sequence[int], lanes: Sequence[Lane], device: torch.device
    ) -> None:
        self.lanes = lanes
        self.attentions: Mapping[nn.Module, int] = {layer.self_attn: number for number, layer in enumerate(layers)}
        self.offsets = [0, *accumulate(lengths)]
        self.left: dict[int, Tensor] = {}
        self.stays: list[dict[int, Tensor]] = [{} for _ in lanes]
        self._layouts: dict[int, tuple[_Stretch, ...]] = {}
        self._positions: dict[str, Any] = {}
        self._stretches = tuple(
            _Stretch(
                tuple(number for number, lane in enumerate(lanes) if lane.prompt == prompt),
                torch.arange(self.offsets[prompt], self.offsets[prompt + 1], device=device),
                length,
            )
            for prompt, length in enumerate(lengths)
        )

    @property
    def ends(self) -> list[int]:
        """Where the last entry of each lane stands in what leaves the decoder, in the order of lanes."""
        found: dict[int, int] = {}
        for stretch, end in zip(self._stretches, accumulate(one.length for one in self._stretches), strict=True):
            found |= dict.fromkeys(stretch.lanes, end - 1)
        return [found[number] for number in range(len(self.lanes))]

    def parts(self, lane: int, cached: Sequence[Tensor]) -> list[Tensor]:
        """The entries [1, H, n, D] of a lane in what layers cached [1, H, N, D]."""
        found = []
        for number, whole in enumerate(cached):
            start = 0
            for stretch in self._layouts[number]:
                if lane in stretch.lanes:
                    found.append(whole[:, :, start : start + stretch.length])
                start += stretch.length
        return found

    def enter(self, number: int, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a layer gets: of the lanes that prune on entry to it, what stays."""
        hidden = args[0]
        if any(number in lane.stages for lane in self.lanes):
            hidden = self._forked(number, layer, hidden, kwargs)
            self.left[number] = torch.cat([stretch.rows for stretch in self._stretches])
            self._positions = by_position(kwargs, self.left[number])
        return (hidden, *args[1:]), {**kwargs, **self._positions}

    def _forked(self, number: int, layer: Any, hidden: Tensor, kwargs: dict[str, Any]) -> Tensor:
        pieces, stretches = [], []
        for stretch, piece in zip(
            self._stretches, hidden.split([one.length for one in self._stretches], 1), strict=True
        ):
            going = [lane for lane in stretch.lanes if number in self.lanes[lane].stages]
            if staying := tuple(lane for lane in stretch.lanes if lane not in going):
                stretches.append(_Stretch(staying, stretch.rows, stretch.length))
                pieces.append(piece)
            cut = {**kwargs, **by_position(kwargs, stretch.rows)} if going else {}
            for lane in going:
                part, stay = chosen(self.lanes[lane].stages[number], number, layer, piece, cut)
                rows = stretch.rows[stay]
                self.stays[lane][number] = rows - self.offsets[self.lanes[lane].prompt]
                stretches.append(_Stretch((lane,), rows, len(rows)))
                pieces.append(part)
        self._stretches = tuple(stretches)
        return torch.cat(pieces, 1)

    def attend(self, attend: Attend, module: nn.Module, heads: Sequence[Tensor]) -> Tensor:
        """Attention [1, N, H, D] of query, key and value [1, H, N, D] inside each stretch."""
        number = self.attentions[module]
        self._layouts[number] = self._stretches
        found = []
        for stretch, piece in zip(
            self._stretches, zip(*(part.split(self._lengths, 2) for part in heads), strict=True), strict=True
        ):
            for lane in stretch.lanes:
                if look := self.lanes[lane].looks.get(number):
                    look(*piece)
            found.append(attend(*piece)[0])
        return torch.cat(found, 1)

    @property
    def _lengths(self) -> list[int]:
        return [stretch.length for stretch in self._stretches]


@contextmanager
def side_by_side(
    layers: Sequence[nn.Module], lengths: Sequence[int], lanes: Sequence[Lane], device: torch.device
) -> Iterator[Pass]:
    """Inside, one forward of a decoder over prompts of `lengths` [1, sum, d] takes all lanes; only inside `seams`.

    Raises:
        ValueError: a stage is not a layer of the model, or a prompt has no lane.
        RuntimeError: on a clean exit, when the forward never reached one of the layers.
    """
    if {lane.prompt for lane in lanes} != set(range(len(lengths))):
        raise ValueError(f"{len(lengths)} prompts, but lanes of {sorted({lane.prompt for lane in lanes})}")
    check_layers({at for lane in lanes for at in lane.stages}, len(layers))
    passing = Pass(layers, lengths, lanes, device)
    handles = (
        layer.register_forward_pre_hook(partial(passing.enter, number), with_kwargs=True)
        for number, layer in enumerate(layers)
    )
    tokens = BESIDE.set(passing), LEFT.set(passing.left)
    try:
        with hooked(handles):
            yield passing
    finally:
        BESIDE.reset(tokens[0])
        LEFT.reset(tokens[1])
    if missing := len(layers) - len(passing._layouts):
        raise RuntimeError(f"{missing} decoder layers never reached the wrapper, so their prompts were not kept apart")
