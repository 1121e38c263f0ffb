"""Entries of a prompt that leave it between decoder layers, and what is added to those that stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from effivlm.seams.hooked import hooked
from effivlm.seams.hooks import watching

LEFT: ContextVar[Mapping[int, Tensor] | None] = ContextVar("effivlm_left", default=None)
"""Where tokens are pruned: the positions of what entered the decoder that stay, by the layer from which on."""


@dataclass(frozen=True, slots=True)
class Entering:
    """What stands before a decoder layer in a prefill of one prompt: hidden states [N, d] of the entries still there.

    angles: cosines and sines [N, D] of their rotary embedding. `ahead()` is what the layer's attention would see of them: query
    [1, H_q, N, D], key and value [1, H_kv, N, D].
    """

    layer: int
    hidden: Tensor
    angles: tuple[Tensor, Tensor]
    ahead: Callable[[], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Stay:
    """Which of the entries before a layer stay: their numbers, ascending [K], and the hidden states of those in `changed`.

    `changed` [M] counts among the K that stay; `hidden` is [M, d].
    """

    kept: Tensor
    changed: Tensor | None = None
    hidden: Tensor | None = None


def check_layers(stages: Iterable[int], depth: int) -> None:
    """ValueError where a stage is not a layer of a decoder of that depth."""
    for at in stages:
        if not 0 <= at < depth:
            raise ValueError(f"layer {at} does not exist: the decoder has layers 0 to {depth - 1}")


def chosen(
    choose: Callable[[Entering], Stay], number: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """What stays of hidden states [1, N, d] on entry to a decoder layer [1, K, d], and the numbers of those entries [K].

    kwargs: what the layer would get with all N.
    """
    cosines, sines = kwargs["position_embeddings"]
    ahead = partial(shown_ahead, layer, hidden, kwargs)
    stay = choose(Entering(number, hidden[0], (cosines[0], sines[0]), ahead))
    left = hidden.index_select(1, stay.kept.to(hidden.device))
    if stay.changed is not None and stay.hidden is not None:
        left[0, stay.changed.to(left.device)] = stay.hidden.to(left)
    return left, stay.kept


@contextmanager
def pruning(
    layers: Sequence[nn.Module], stages: Mapping[int, Callable[[Entering], Stay]]
) -> Iterator[dict[int, Tensor]]:
    """Drop prompt positions on entry to the decoder layers in `stages` of one prefill; later layers see only what stays.

    Each choice is made once, when hidden states reach its layer, and counts among the entries that are still there.
    Positions keep their original rotary angles. Yields a dict that holds, after the forward, the positions of the whole
    prompt that stay from each stage on, ascending.

    Raises:
        ValueError: a stage is not a layer of the model.
        RuntimeError: on a clean exit, when the forward never reached one of the stages.
    """
    check_layers(stages, len(layers))
    kept: dict[int, Tensor] = {}

    def enter(number: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        hidden, there = args[0], kept[max(kept)] if kept else None
        if number in stages:
            cut = kwargs if there is None else {**kwargs, **by_position(kwargs, there)}
            hidden, stay = chosen(stages[number], number, layer, hidden, cut)
            kept[number] = stay if there is None else there[stay.to(there.device)]
        return (hidden, *args[1:]), {**kwargs, **by_position(kwargs, kept[max(kept)])}

    handles = (
        layers[number].register_forward_pre_hook(partial(enter, number), with_kwargs=True)
        for number in range(min(stages), len(layers))
    )
    token = LEFT.set(kept)
    try:
        with hooked(handles):
            yield kept
    finally:
        LEFT.reset(token)
    if missing := sorted(set(stages) - set(kept)):
        raise RuntimeError(f"decoder layer {missing[0]} was never reached, so nothing was pruned")


@contextmanager
def adding(layers: Sequence[nn.Module], deep: Tensor | None) -> Iterator[None]:
    """In one prefill, add deep[l] of deep [L, N, d] to what leaves decoder layer l; of a pruned prompt, of what is left of it."""

    def leave(number: int, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        added, left = whole[number].to(output), LEFT.get()
        return output + (added.index_select(0, left[max(left)].to(added.device)) if left else added)

    whole: Sequence[Tensor] = () if deep is None else tuple(deep)
    with hooked(layer.register_forward_hook(partial(leave, at)) for at, layer in enumerate(layers[: len(whole)])):
        yield


class _SeenError(Exception):
    """Carries what an attention was about to compute out of its module."""

    def __init__(self, seen: tuple[Tensor, Tensor, Tensor]) -> None:
        super().__init__("attention was looked at, not computed")
        self.seen = seen


def shown_ahead(layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value after rotary embedding that a decoder layer makes of hidden states; no attention is computed."""
    attention: Any = layer.self_attn
    alone = {**kwargs, "past_key_values": None, "use_cache": False}

    def stop(query: Tensor, key: Tensor, value: Tensor) -> None:
        raise _SeenError((query, key, value))

    try:
        with watching({attention: stop}):
            attention(hidden_states=layer.input_layernorm(hidden), **alone)  # type: ignore[operator]
    except _SeenError as stopped:
        return stopped.seen
    raise RuntimeError("a decoder layer's attention went on after it was looked at")


def by_position(kwargs: Mapping[str, Any], kept: Tensor) -> dict[str, Any]:
    """What a decoder layer gets by position, cut to the kept ones: rotary tables [B, N, D] and, where there are, ids [B, N]."""
    if kwargs.get("attention_mask") is not None:
        raise RuntimeError("a mask reached a pruned layer; prompts are prefilled one at a time, without padding")
    tables = (table.index_select(1, kept.to(table.device)) for table in kwargs["position_embeddings"])
    found: dict[str, Any] = {"position_embeddings": tuple(tables)}
    if (ids := kwargs.get("position_ids")) is not None:
        found["position_ids"] = ids.index_select(-1, kept.to(ids.device))
    return found
