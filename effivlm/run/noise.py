"""The floor of loyalty: dense answered once more under a numeric change that no user would notice.

An answer that even such a change turns over says nothing about a method. The change is of the size that another kernel or
another card makes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from effivlm.decoding.caches import KeptLayer, PromptCache
from effivlm.decoding.eager import Start
from effivlm.run.finite import first_token, not_finite
from effivlm.run.tree import Tree

ROUNDED = (
    "visual features (of a prompt without any: its embeddings) and the prompt's keys and values"
    " rounded to bfloat16 and back"
)
KERNEL = "attention of the prefill through the math kernel instead of the default one"


def change_of(dtype: torch.dtype) -> str:
    """What is changed for a model of this precision, in words."""
    return ROUNDED if dtype == torch.float32 else KERNEL


def again(tree: Tree) -> Start:
    """The dense prompt of a tree's sample under the change; costs one prefill."""
    prompt, model, cache = tree.prompt((None, None)), tree.model, PromptCache()
    if model.dtype != torch.float32:
        with sdpa_kernel(SDPBackend.MATH):
            logits = model.prefill(prompt, cache)
        layers = [KeptLayer(key[0], value[0]) for key, value in zip(cache.keys, cache.values, strict=True)]
    else:
        touched = prompt.visual if prompt.visual.any() else torch.ones_like(prompt.visual)
        embeds = torch.where(touched[:, None], _rounded(prompt.embeds), prompt.embeds)
        logits = model.prefill(replace(prompt, embeds=embeds), cache)
        pairs = zip(cache.keys, cache.values, strict=True)
        layers = [KeptLayer(_rounded(key[0]), _rounded(value[0])) for key, value in pairs]
    ids = tree.prompt_ids(None)
    token = first_token(model.rules, logits, ids, ())
    if token < 0:
        raise not_finite((), prompt.embeds, cache)
    return Start(layers, token, prompt.next_position, ids)


def _rounded(values: Tensor) -> Tensor:
    return values.to(torch.bfloat16).to(values.dtype)
