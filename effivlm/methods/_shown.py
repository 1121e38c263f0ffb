"""What a press of kvpress asks of an attention module, from what a layer showed in a prefill."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from effivlm.compression.base import LayerView


class Shown:
    """The attention of one decoder layer as presses know it. They ask for its projections, angles, number and sizes.

    A stand-in serves all families: kvpress knows by class which modules have a norm of heads behind their projections, and
    the rotary embedding of models with several axes of positions does not take plain ones.
    """

    def __init__(self, view: LayerView, depth: int) -> None:
        if view.attended is None:
            raise ValueError(f"layer {view.layer} was not looked at, so a press knows nothing of what entered it")
        self.view = view
        attention: Any = cast(Any, view.attended.layer).self_attn
        heads, _, self.head_dim = view.keys.shape
        own = attention.config
        self.config = SimpleNamespace(
            num_attention_heads=own.num_attention_heads,
            num_key_value_heads=heads,
            num_hidden_layers=depth,
            hidden_size=view.attended.entering.shape[-1],
            head_dim=self.head_dim,
            _attn_implementation="sdpa",
        )
        self.num_key_value_groups = own.num_attention_heads // heads
        self.layer_idx = view.layer
        self.attention, self.o_proj = attention, attention.o_proj
        self.masked_key_indices: tuple[Tensor, Tensor, Tensor] | None = None

    def q_proj(self, hidden: Tensor) -> Tensor:
        """Queries [1, N, H_q D] before rotary embedding."""
        return self._normed(self.attention.q_proj(hidden), "q_norm")

    def k_proj(self, hidden: Tensor) -> Tensor:
        """Keys [1, N, H_kv D] before rotary embedding."""
        return self._normed(self.attention.k_proj(hidden), "k_norm")

    def _normed(self, states: Tensor, name: str) -> Tensor:
        norm = getattr(self.attention, name, None)
        if norm is None:
            return states
        found: Tensor = norm(states.unflatten(-1, (-1, self.head_dim))).flatten(-2)
        return found

    def rotary_emb(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [1, n, D] of the n positions behind the prompt; which ones a press counts does not matter."""
        if self.view.following is None:
            raise ValueError(f"layer {self.view.layer} was looked at without its rotary embedding")
        angles = self.view.following(positions.shape[-1])
        return angles.cosines.to(like.dtype)[None], angles.sines.to(like.dtype)[None]

    def asked(self, attention: bool) -> tuple[Any, ...]:
        """The arguments of `score` and `compress`: module, hidden states, keys, values, attentions, and the rest.

        `attention`: what every key got from all rows stands for the tensor of attentions.
        """
        assert self.view.attended is not None
        seen, hidden = self.view.attended, self.view.attended.hidden[None]
        rest = {"hidden_states": hidden, "position_embeddings": (seen.cosines[None], seen.sines[None])}
        received = self.view.received if attention else None
        attentions = None if received is None else Summed(received)
        return self, hidden, self.view.keys[None], self.view.values[None], attentions, rest


class Summed:
    """Attention [1, H_q, N, N] of which only the sum over rows is known: received [H_q, N]."""

    def __init__(self, received: Tensor) -> None:
        self.received, self.device, self.dtype = received, received.device, received.dtype

    def sum(self, dim: int) -> Tensor:
        if dim != 2:
            raise ValueError(f"attentions are summed over rows (dimension 2) here, and dimension {dim} was asked for")
        return self.received[None].clone()


def again(entries: Tensor, kept: Tensor) -> Tensor | None:
    """Places [H, K] of `kept` [H, K, D] among `entries` [H, N, D], found by their bits; None where one is not there, or twice."""
    names, wanted = (_codes(one) for one in (entries, kept))
    ordered, places = names.sort(-1)
    at = torch.searchsorted(ordered, wanted).clamp(max=names.shape[-1] - 1)
    found = places.gather(-1, at)
    apart = found.sort(-1).values
    if not torch.equal(ordered.gather(-1, at), wanted) or bool((apart[:, 1:] == apart[:, :-1]).any()):
        return None
    return found


def _codes(rows: Tensor) -> Tensor:
    """A number [H, N] for every row [H, N, D], the same for the same bits."""
    bits = rows.contiguous().view({2: torch.int16, 4: torch.int32}[rows.element_size()]).long()
    odd = torch.randint(2**62, (bits.shape[-1],), generator=torch.Generator().manual_seed(0)) * 2 + 1
    return (bits * odd.to(bits.device)).sum(-1)
