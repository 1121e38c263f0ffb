"""The seams' mechanism: the only place that swaps an attention function.

Transformers routes every attention through a named function. `seams(model)` puts one wrapper around scaled dot-product
attention there; it computes what the stock function computes, lets watchers look at queries, keys and values after rotary
embedding, and lets a cache answer for itself while many compressed caches are decoded in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from effivlm.seams.answering import AnsweringLayer
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
