"""An independent computation of what a compressed cache must give: one full forward with masks, no cache at all.

Nothing here uses the package's caches or hooks. The attention is written out (scores, mask, softmax, sum).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.models._adapter import Adapter, Prompt


def logits(model: Adapter, prompt: Prompt, tokens: Sequence[int], visible: Sequence[Tensor]) -> Tensor:
    """Logits [len(tokens), vocab] after each forced token.

    visible[layer] [H_kv, N + T, N + T] says which key each row may see; the causal order is added here.
    """
    from transformers import AttentionInterface

    layers = {block.self_attn: number for number, block in enumerate(model.layers)}

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, scaling: float, **_: Any
    ) -> tuple[Tensor, None]:
        groups = query.shape[1] // key.shape[1]
        keys, values = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        allowed = visible[layers[module]].repeat_interleave(groups, 0).tril()
        weights = (query @ keys.transpose(2, 3) * scaling).masked_fill(~allowed, float("-inf")).softmax(-1)
        return (weights @ values).transpose(1, 2), None

    AttentionInterface.register("oracle", attention)
    before = {"": "sdpa", "text_config": "sdpa", "vision_config": "sdpa"}
    model.model.set_attn_implementation({**before, "text_config": "oracle"})
    try:
        with torch.inference_mode():
            new = model.model.get_input_embeddings()(torch.tensor([list(tokens)]))
            ahead = torch.arange(len(tokens))[None] + prompt.next_position
            positions = torch.cat([prompt.positions, model.step_positions(ahead)], -1)
            deep: dict[str, Any] = {}
            if prompt.deep is not None:  # the model's own way, which takes whole prompts alone
                mask = torch.cat([prompt.visual, torch.zeros(len(tokens), dtype=torch.bool)])[None]
                deep = {"visual_pos_masks": mask, "deepstack_visual_embeds": [*prompt.deep[:, prompt.visual]]}
            hidden = model.text(
                inputs_embeds=torch.cat([prompt.embeds, new], 1), position_ids=positions, use_cache=False, **deep
            ).last_hidden_state
            return model.head(hidden[0, prompt.length :])
    finally:
        model.model.set_attn_implementation(before)


def everything(model: Adapter, length: int) -> list[Tensor]:
    heads = model.model.config.text_config.num_key_value_heads
    return [torch.ones(heads, length, length, dtype=torch.bool) for _ in model.layers]
