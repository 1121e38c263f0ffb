"""The seams' mechanism: the only place that swaps an attention function, and what prunes a prompt between decoder layers.

Transformers routes every attention through a named function. `seams(model)` puts one wrapper around scaled dot-product
attention there; it computes what the stock function computes, lets watchers look at queries, keys and values after rotary
embedding, and lets a cache answer for itself while many compressed caches are decoded in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from effivlm.seams.answering import AnsweringLayer
from effivlm.seams.hooked import hooked
from effivlm.seams.windows import packed

ATTENTION = "effivlm"
Watcher = Callable[[Tensor, Tensor, Tensor], None]
"""Looks at query [B, H_q, N, D], key and value [B, H_kv, N, D] of one attention call, after rotary embedding."""


class Beside(Protocol):
    """Prompts side by side in one pass of the decoder whose layers' attentions these are."""

    attentions: Mapping[nn.Module, int]

    def attend(self, attend: Callable[..., tuple[Tensor, None]], module: nn.Module, heads: Sequence[Tensor]) -> Tensor:
        """Attention [1, N, H, D] inside each of them."""


@dataclass(frozen=True, slots=True)
class LseWatcher:
    """Looks at the same after the call, and at the log-sum-exp [B, H_q, N] of its rows in float32 where the kernel gives one.

    The call is causal over a whole prompt.
    """

    look: Callable[[Tensor, Tensor, Tensor, Tensor | None], None]


_WATCHERS: ContextVar[Mapping[nn.Module, Watcher | LseWatcher] | None] = ContextVar("effivlm_watchers", default=None)
LEFT: ContextVar[Mapping[int, Tensor] | None] = ContextVar("effivlm_left", default=None)
"""Where tokens are pruned: the positions of what entered the decoder that stay, by the layer from which on."""
BESIDE: ContextVar[Beside | None] = ContextVar("effivlm_beside", default=None)
"""Inside `lanes.side_by_side`: who keeps the attention of several prompts apart."""


@contextmanager
def seams(model: Any) -> Iterator[None]:
    """Route all attention of a transformers model through the wrapper, and put everything back on exit, also after an error.

    Inside, callers pass whole unpadded prompts (batch 1) or a `ForkedCache`: transformers builds no mask for this name.

    Raises:
        ValueError: the model was loaded with another attention than sdpa, so that dense would not be what is measured.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, _attention)
    before = {"": model.config._attn_implementation} | {
        name: sub._attn_implementation
        for name in model.config.sub_configs
        if (sub := getattr(model.config, name)) is not None
    }
    if other := sorted({value for value in before.values() if value not in ("sdpa", ATTENTION)}):
        raise ValueError(f"attention {', '.join(other)} is in use; load the model with attn_implementation='sdpa'")
    model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def watching(watchers: Mapping[nn.Module, Watcher | LseWatcher]) -> Iterator[None]:
    """Let each watcher see the attention calls of its module; only inside `seams`.

    Raises:
        RuntimeError: on a clean exit, when a watched module never called the wrapped attention.
    """
    seen: set[nn.Module] = set()

    def noting(module: nn.Module, watcher: Watcher | LseWatcher) -> Watcher | LseWatcher:
        def note(*shown: Any) -> None:
            seen.add(module)
            (watcher.look if isinstance(watcher, LseWatcher) else watcher)(*shown)

        return LseWatcher(note) if isinstance(watcher, LseWatcher) else note

    token = _WATCHERS.set({module: noting(module, watcher) for module, watcher in watchers.items()})
    try:
        yield
    finally:
        _WATCHERS.reset(token)
    if missing := len(watchers) - len(seen):
        raise RuntimeError(
            f"{missing} of {len(watchers)} watched attention modules were never reached: wrong model for the seam?"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]  # caches and watchers are Python: compiled layers end here, and go on
def _attention(
    module: nn.Module,
    query: Tensor,
    key: Any,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if isinstance(key, AnsweringLayer):
        return key.attend(query, scaling), None
    if pack := packed(module):
        one = partial(_attention, module, attention_mask=attention_mask, scaling=scaling, **kwargs)
        return pack.attend(one, (query, key, value), apart=module in (_WATCHERS.get() or {})), None
    watchers = _WATCHERS.get()
    watcher = watchers.get(module) if watchers else None
    beside = None if watcher else BESIDE.get()
    if beside and module in beside.attentions:
        one = partial(_stock, module, attention_mask=attention_mask, scaling=scaling, **kwargs)
        return beside.attend(one, module, (query, key, value)), None
    if not isinstance(watcher, LseWatcher):
        if watcher:
            watcher(query, key, value)
        return _stock(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    lse: Tensor | None
    found = _with_lse(query, key, value, scaling) if query.is_cuda and query.shape[2] > 1 else None
    if found:
        output, lse = found
    else:
        output, lse = _stock(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    watcher.look(query, key, value, lse)
    return output, None


def _stock(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *given: Any, **kwargs: Any
) -> tuple[Tensor, None]:
    """What transformers' own sdpa function computes."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    return sdpa_attention_forward(module, query, key, value, *given, **kwargs)[0], None


def _with_lse(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> tuple[Tensor, Tensor] | None:
    """Causal attention [B, N, H_q, D] by the kernel that sdpa would take, and its rows' log-sum-exp [B, H_q, N].

    None where that kernel gives none. Another kernel's answer differs in the last bits, and then what a model says would
    depend on who looks at it.
    """
    taken = torch._fused_sdp_choice(query, key, value, None, 0.0, True, scale=scaling, enable_gqa=True)
    if taken == SDPBackend.FLASH_ATTENTION.value:
        flash = torch.ops.aten._scaled_dot_product_flash_attention
        output, lse, *_ = flash(query, key, value, 0.0, True, False, scale=scaling)
    elif taken == SDPBackend.CUDNN_ATTENTION.value:
        cudnn = torch.ops.aten._scaled_dot_product_cudnn_attention
        output, lse, *_ = cudnn(query, key, value, None, True, 0.0, True, False, scale=scaling)
    else:
        return None
    return output.transpose(1, 2).contiguous(), lse.reshape(query.shape[:3])


@dataclass(frozen=True, slots=True)
class Tower:
    """What the layer of the vision tower that feeds the projector showed of one image, brought to its n visual tokens.

    received [n]: attention that a token gets, mean over heads: from the class token where there is one, else mean over all
    tokens of its tile or frame; single [n]: the same of one head over the whole width; keys [n, H, D]. Markers hold zeros.
    """

    received: Tensor
    single: Tensor
    keys: Tensor

    def to(self, device: torch.device) -> Tower:
        return Tower(self.received.to(device), self.single.to(device), self.keys.to(device))


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

    token = _WATCHERS.set({attention: stop})
    try:
        attention(hidden_states=layer.input_layernorm(hidden), **alone)  # type: ignore[operator]
    except _SeenError as stopped:
        return stopped.seen
    finally:
        _WATCHERS.reset(token)
    raise RuntimeError("a decoder layer's attention never reached the wrapper")


def by_position(kwargs: Mapping[str, Any], kept: Tensor) -> dict[str, Any]:
    """What a decoder layer gets by position, cut to the kept ones: rotary tables [B, N, D] and, where there are, ids [B, N]."""
    if kwargs.get("attention_mask") is not None:
        raise RuntimeError("a mask reached a pruned layer; prompts are prefilled one at a time, without padding")
    tables = (table.index_select(1, kept.to(table.device)) for table in kwargs["position_embeddings"])
    found: dict[str, Any] = {"position_embeddings": tuple(tables)}
    if (ids := kwargs.get("position_ids")) is not None:
        found["position_ids"] = ids.index_select(-1, kept.to(ids.device))
    return found
