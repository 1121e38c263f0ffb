"""Calibration samples as the decoder meets them: prompt and answer as embeddings, and how much each token weighs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effivlm.models._adapter import Adapter
from effivlm.records import Sample
from effivlm.seams.hooked import hooked
from effivlm.seams.pruning import adding
from effivlm.seams.rotary import prefilling


@dataclass(frozen=True, slots=True)
class Text:
    """One sample before the first decoder layer.

    embeds [1, N, d] and positions [.., 1, N] of prompt, answer and end; weights [N] of its tokens; answer [A], the ids that its
    last A + 1 positions but one are to predict; deep [L, N, d], what is added behind the first layers (None: nothing).
    """

    embeds: Tensor
    positions: Tensor
    weights: Tensor
    answer: Tensor
    deep: Tensor | None

    @property
    def length(self) -> int:
        return self.embeds.shape[1]


def texts(adapter: Adapter, samples: Sequence[Sample], tokens: str) -> list[Text]:
    """Samples through the tower, once, their tokens weighted as `tokens` says.

    Raises:
        ValueError: no token of a sample would count.
    """
    with adapter.seams():
        made = [_text(adapter, sample, tokens) for sample in samples]
    # what is made in inference mode cannot be differentiated through later
    return [Text(*(part.clone() if part is not None else None for part in parts)) for parts in made]  # type: ignore[arg-type]


def _text(adapter: Adapter, sample: Sample, tokens: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    inputs = adapter.prepare(sample)
    prompt = adapter.prompt(inputs, adapter.encode(inputs))
    ids = adapter.processor.tokenizer(sample.references[0], add_special_tokens=False)["input_ids"]
    answer = torch.tensor([*ids, *sorted(adapter.eos)[:1]], device=adapter.device)
    after = torch.arange(prompt.next_position, prompt.next_position + len(answer), device=adapter.device)
    embeds = torch.cat([prompt.embeds, adapter.model.get_input_embeddings()(answer[None]).to(prompt.embeds)], 1)
    following = adapter.step_positions(after[None]).to(prompt.positions)
    positions = torch.cat([prompt.positions, following.expand(*prompt.positions.shape[:-1], -1)], -1)
    visual = torch.cat([prompt.visual, prompt.visual.new_zeros(len(answer))])
    weights = token_weights(visual, tokens)
    if not bool(weights.any()):
        raise ValueError(f"calibration sample {sample.id!r} has no {tokens} tokens")
    deep = prompt.deep
    if deep is not None:
        deep = torch.cat([deep, deep.new_zeros(len(deep), len(answer), deep.shape[2])], 1)
    return embeds, positions, weights, answer, deep


def token_weights(visual: Tensor, tokens: str) -> Tensor:
    """Weights [N] of tokens of which `visual` [N] marks some: all alike; or balanced, where visual ones together weigh as much
    as the others; or those of one kind alone."""
    if tokens == "text":
        return (~visual).float()
    if tokens == "visual":
        return visual.float()
    weights = torch.ones(len(visual), device=visual.device)
    if tokens == "balanced" and bool(visual.any()):
        weights[visual] = (~visual).sum() / visual.sum()
    return weights


@contextmanager
def beside(adapter: Adapter, text: Text) -> Iterator[None]:
    """Inside, decoder layers compute for this sample: its rotary angles, and what is added behind them."""
    with prefilling(adapter.growing, text.length), adding(adapter.layers, text.deep):
        yield


def entering(adapter: Adapter, text: Text) -> tuple[Tensor, list[dict[str, Any]]]:
    """What enters the first decoder layer [1, N, d], and the other arguments of every layer."""
    first: list[Tensor] = []
    others: list[dict[str, Any]] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(kwargs)
        hidden = args[0] if args else given.pop("hidden_states")
        if not first:
            first.append(hidden)
        others.append({**given, "past_key_values": None, "use_cache": False})

    handles = (layer.register_forward_pre_hook(look, with_kwargs=True) for layer in adapter.layers)
    with hooked(handles), beside(adapter, text):
        adapter.text(inputs_embeds=text.embeds, position_ids=text.positions, use_cache=False)
    return first[0], others


def through(layer: Any, hidden: Tensor, others: dict[str, Any]) -> Tensor:
    """What leaves one decoder layer."""
    found = layer(hidden, **others)
    left: Tensor = found[0] if isinstance(found, tuple) else found
    return left
