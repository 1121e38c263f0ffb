"""The floor of loyalty: dense answered once more under a numeric change that no user would notice.

An answer that even such a change turns over says nothing about a method. The change is of the size that another kernel or
another card makes. Where it is another kernel it costs a prefill, so of many samples a seeded share is asked again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cache

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from effivlm.decoding.caches import KeptLayer, PromptCache
from effivlm.decoding.eager import Start, forced
from effivlm.models._adapter import Adapter
from effivlm.run.finite import first_token, not_finite
from effivlm.run.tree import Tree
from effivlm.seams.lengths import any_length

SAMPLES = 100
"""Asked again at most: the 95 % interval of a share of so many is never wider than 0.1 to each side, 0.03 where 98 % agree."""
ROUNDED = "the prompt's keys and values rounded to bfloat16 and back, and its last position computed again over them"
SHORTENED = (
    "the prompt's keys and values without the last bit of bfloat16, and its last position computed again over them"
)
KERNEL = "attention of the prefill by the {} kernel instead of the {} one"
NAMES = {SDPBackend.FLASH_ATTENTION: "flash", SDPBackend.CUDNN_ATTENTION: "cuDNN"}


def asked_again(samples: int, seed: int) -> AbstractSet[int]:
    """Numbers of the samples whose dense answer is made twice: all of few, the same seeded hundred of many in every run."""
    if samples <= SAMPLES:
        return frozenset(range(samples))
    return frozenset(random.Random(f"noise floor {seed}").sample(range(samples), SAMPLES))


def change_of(model: Adapter) -> str:
    """What is changed for a model of this precision on its device, in words."""
    if other := _other(model):
        return KERNEL.format(*(NAMES[kernel] for kernel in other))
    return SHORTENED if model.dtype == torch.bfloat16 else ROUNDED


def again(tree: Tree) -> Start:
    """The dense prompt of a tree's sample under the change: a prefill by a kernel that makes no square matrix, or one step."""
    prompt, model, cache = tree.prompt((None, None)), tree.model, PromptCache()
    if other := _other(model):
        with sdpa_kernel(other[0]):
            logits = model.prefill(prompt, cache)
        layers = [KeptLayer(key[0], value[0]) for key, value in zip(cache.keys, cache.values, strict=True)]
    else:
        cache = tree.prefilled((None, None, None)).cache
        pairs = zip(cache.keys, cache.values, strict=True)
        layers = [KeptLayer(_rounded(key[0]), _rounded(value[0])) for key, value in pairs]
        logits = _last_over(layers, tree)
    ids = tree.prompt_ids(None)
    token = first_token(model.rules, logits, ids, ())
    if token < 0:
        raise not_finite((), prompt.embeds, cache)
    return Start(layers, token, prompt.next_position, ids)


def _last_over(layers: Sequence[KeptLayer], tree: Tree) -> Tensor:
    """Logits [vocab] of the prompt's last token, which is text, over the entries before it that `layers` hold."""
    model, prompt = tree.model, tree.prompt((None, None))
    if prompt.marks[-1]:
        raise ValueError("the prompt ends in a visual token, so its last position cannot be computed again")
    before = [KeptLayer(layer.keys[:, :-1], layer.values[:, :-1]) for layer in layers]
    start = Start(before, 0, prompt.next_position - 1)
    last = int(tree.whole_inputs["input_ids"][0, -1])
    return forced(model.step, start, [last], model.device)[0]


def _other(model: Adapter) -> tuple[SDPBackend, SDPBackend] | None:
    """A fast attention kernel that the model's prefill does not take, and the one that it takes; None where there are no two.

    In float32 there is only one: the others make a square matrix.
    """
    if model.device.type != "cuda" or model.dtype == torch.float32:
        return None
    text = model.model.config.get_text_config()
    heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return _kernels(model.device, model.dtype, heads, kv_heads, width)


@cache
def _kernels(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, width: int
) -> tuple[SDPBackend, SDPBackend] | None:
    query, key = (torch.zeros(1, count, 128, width, device=device, dtype=dtype) for count in (heads, kv_heads))
    with any_length(device):  # as in the run
        taken = torch._fused_sdp_choice(query, key, key, None, 0.0, True, enable_gqa=True)
    first = next((kernel for kernel in NAMES if kernel.value == taken), None)
    if first is None:
        return None
    (second,) = NAMES.keys() - {first}
    try:
        with sdpa_kernel(second):
            scaled_dot_product_attention(query, key, key, is_causal=True, enable_gqa=True)
    except RuntimeError:  # "no available kernel": this card or this width has one fast kernel
        return None
    return second, first


def _rounded(values: Tensor) -> Tensor:
    """To the next number of bfloat16, or what already is one without its last bit."""
    if values.dtype == torch.bfloat16:
        return (values.view(torch.int16) & ~1).view(torch.bfloat16)
    return values.to(torch.bfloat16).to(values.dtype)
