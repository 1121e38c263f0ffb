"""What enters the attention of decoder layers in a prefill, for those who go on from there with the layer's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from effivlm.seams.hooked import hooked


@dataclass(frozen=True, slots=True)
class Attended:
    """A decoder layer and what entered it in a prefill of one prompt: hidden states [N, d] of the entries that it sees.

    cosines and sines [N, D]: the angles that it turns their queries and keys by.
    """

    layer: nn.Module
    entering: Tensor
    cosines: Tensor
    sines: Tensor

    @property
    def hidden(self) -> Tensor:
        """Hidden states [N, d] after the layer's first norm, as its attention gets them."""
        found: Tensor = self.layer.input_layernorm(self.entering[None])[0]  # type: ignore[operator]
        return found


@contextmanager
def attending(layers: Sequence[nn.Module]) -> Iterator[dict[int, Attended]]:
    """Note what enters decoder layers, by their numbers: of pruned prompts what is left of them, where `pruning` began before.

    Layers are looked at from outside, because what happens inside of one may be compiled.
    """
    found: dict[int, Attended] = {}

    def enter(number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        cosines, sines = kwargs["position_embeddings"]
        found[number] = Attended(layer, args[0][0], cosines[0], sines[0])

    with hooked(
        layer.register_forward_pre_hook(partial(enter, number), with_kwargs=True) for number, layer in enumerate(layers)
    ):
        yield found
