"""What the vision tower's attention shows: how much attention every patch gets, and the keys of the patches.

Patches are described by maps [patches, 2 + width]: attention received over heads, attention of one head over the whole
width, and the keys of all heads side by side. A family file brings maps to visual tokens with its own features' operator.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from effivlm.seams.columns import received_by_all
from effivlm.seams.hooks import Tower, watching


def feeding(tower: nn.Module, feature_layer: int | list[int]) -> nn.Module:
    """The attention module of the layer whose output feeds the projector (of several, the last one named).

    `feature_layer` counts hidden states as transformers does: 0 is what enters the first layer, -1 what leaves the last.

    Raises:
        ValueError: no layer makes that hidden state.
    """
    at = feature_layer[-1] if isinstance(feature_layer, list) else feature_layer
    found = [module for module in tower.modules() if hasattr(module, "qkv") or hasattr(module, "q_proj")]
    if at == 0 or not -len(found) <= at <= len(found):
        raise ValueError(f"hidden state {at} is not the output of any of the tower's {len(found)} attention layers")
    return found[at if at < 0 else at - 1]


@contextmanager
def capturing(module: nn.Module, on: bool, class_token: bool = False) -> Iterator[list[Tensor]]:
    """Collect maps [P, 2 + width] of every tile or frame that an attention layer sees, in order; none unless `on`.

    With a class token, first in its tile, attention is what that token gives to the others; else the mean over all rows.
    """
    shown: list[Tensor] = []

    def look(query: Tensor, key: Tensor, value: Tensor) -> None:
        shown.extend(_shown(*tile, class_token) for tile in zip(query, key, strict=True))

    with watching({module: look} if on else {}):
        yield shown


def brought(tokens: Tensor, feature: Tensor, heads: int) -> Tower:
    """Maps [n, 2 + width] that were brought to the visual tokens of one image, beside its features.

    Raises:
        ValueError: they are not as many as the features.
    """
    if len(tokens) != len(feature):
        raise ValueError(f"the tower's maps were brought to {len(tokens)} tokens where the image has {len(feature)}")
    tokens = tokens.to(feature.device)
    return Tower(tokens[:, 0].contiguous(), tokens[:, 1].contiguous(), tokens[:, 2:].unflatten(1, (heads, -1)))


def _shown(query: Tensor, key: Tensor, class_token: bool) -> Tensor:
    """The map of one tile from queries and keys [H, P, D]; the class token itself is left out."""
    rows, first = (query[:, :1], 1) if class_token else (query, 0)
    wide = key.transpose(0, 1).flatten(1)
    scores = [received_by_all(rows, key), received_by_all(rows.transpose(0, 1).flatten(1)[None], wide[None])]
    return torch.cat([torch.stack(scores, 1), wide.float()], 1)[first:]
