"""Makes `tests/data/pruning_originals.json`: what the authors' code of seven methods keeps of seeded tensors.

    python tests/core/make_pruning_golden.py FOLDER

FOLDER holds one file of each, fetched from its repository; none of it is part of this one.

    cake.py       antgroup/cakekv, cake/utils.py and behind it cake/model/modify_qwen2.py
    cdpruner.py   Theia-4869/CDPruner, llava/model/llava_arch.py
    evs.py        vllm-project/vllm, vllm/multimodal/evs.py
    fast_vid.py   LunarShen/FastVID, modeling_qwen2.py of its LLaVA-OneVision
    holov.py      obananas/HoloV, qwen-model-HoloV/utils.py
    mixkv.py      xuyang-liu16/MixKV, mixkv/mixkv_utils.py
    vidcom2.py    xuyang-liu16/VidCom2, token_compressor/vidcom2/vidcom2.py
"""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

OUTPUT = Path(__file__).parent.parent / "data" / "pruning_originals.json"
Case = dict[str, Any]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def video(seed: int, frames: int, size: int, width: int, offset: float = 0) -> tuple[Tensor, Tensor]:
    """Features [T, n, d] and attention [T, n]; with an offset all are alike, without one a frame is like the one before."""
    rng = generator(seed)
    tokens = torch.randn(frames, size, width, generator=rng)
    attention = torch.rand(frames, size, generator=rng) / size
    if offset:
        return tokens + offset * torch.randn(1, 1, width, generator=rng), attention
    tokens[1:] = tokens[1:] / 2 + tokens[:-1]
    return tokens, attention


def image(seed: int, size: int, width: int) -> tuple[Tensor, Tensor]:
    rng = generator(seed)
    return torch.randn(size, width, generator=rng), torch.rand(size, generator=rng) / size


def tiles(seed: int, count: int, size: int, width: int, words: int) -> tuple[Tensor, Tensor]:
    rng = generator(seed)
    return torch.randn(count, size, width, generator=rng), torch.randn(words, width, generator=rng)


def keys_and_values(seed: int, heads: int, kv_heads: int, length: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = generator(seed)
    draw: Callable[[int], Tensor] = lambda count: torch.randn(count, length, width, generator=rng) * 2  # noqa: E731
    return draw(heads), draw(kv_heads) + 1, draw(kv_heads)


def cases(*shapes: tuple[int, ...]) -> Iterable[tuple[int, tuple[int, ...]]]:
    return enumerate(shapes)


def cake(source: str) -> list[Case]:
    """What a layer's attention does between its cache and its own output, and how budgets are made of that.

    Kept are the entries of all layers and KV heads one after another, windows included.
    """
    names: dict[str, Any] = {"torch": torch, "F": functional, "nn": nn, "math": math, "np": np}
    utils = source[source.index("def calculate_entropy") :]
    exec(utils[: utils.index("\nimport math")], names)
    body = source[source.index("    if self.config.prefill[self.layer_idx]:") :]
    block = textwrap.dedent(body[: body.index("        past_key_value.update_score")])
    found = []
    for seed, (layers, heads, kv_heads, length, width, window, budget) in cases(
        (3, 4, 2, 60, 8, 8, 20), (5, 6, 3, 75, 6, 4, 31), (2, 2, 1, 41, 10, 5, 33), (4, 8, 2, 90, 4, 32, 40)
    ):
        preferences, scores = [], []
        for layer in range(layers):
            queries, keys, _ = keys_and_values(10 * seed + layer, heads, kv_heads, length, width)
            config = SimpleNamespace(prefill=[True], window_size=[window], tau1=1.0, tau2=1.0, gamma=200.0)
            own = SimpleNamespace(config=config, layer_idx=0, head_dim=width, num_key_value_heads=kv_heads)
            own.num_key_value_groups = heads // kv_heads
            tensors = {"query_states": queries[None] * (2 + layer) / 8, "bsz": 1, "q_len": length}
            names |= tensors | {"self": own, "key_states": keys.repeat_interleave(heads // kv_heads, 0)[None]}
            exec(block, names)
            preferences.append(float(names["pref_score"]))
            scores.append(names["hh_score"][0])
        total = (budget - window) * layers
        ideal = [one / sum(preferences) * total for one in preferences]
        counts = names["adjust_budgets"](ideal, total, length - window, layers)
        recent = list(range(length - window, length))
        kept = [
            sorted(row.topk(count).indices.tolist()) + recent
            for rows, count in zip(scores, counts, strict=True)
            for row in rows
        ]
        one = case(seed, (layers, heads, kv_heads, length, width), [place for row in kept for place in row])
        facts = {"window": window, "counts": [count + window for count in counts]}
        found.append(one | facts | {"budget": budget, "preferences": [float(f"{p:.6g}") for p in preferences]})
    return found


def evs(source: str) -> list[Case]:
    names: dict[str, Any] = {}
    exec(source, names)
    found = []
    for seed, (frames, rows, columns, width, percent) in cases((4, 3, 5, 6, 50), (7, 2, 3, 9, 70), (3, 5, 5, 16, 25)):
        tokens, _ = video(seed, frames, rows * columns, width)
        mask = names["compute_retention_mask"](tokens.flatten(0, 1), (frames, rows, columns), 1, percent / 100)
        found.append(case(seed, tokens.shape, mask.nonzero()[:, 0].tolist()))
    return found


def vidcom2(source: str) -> list[Case]:
    names: dict[str, Any] = {}
    exec(source, names)
    found = []
    for seed, (*shape, percent) in cases((4, 15, 8, 25), (6, 9, 12, 50), (5, 11, 7, 20), (1, 30, 10, 30)):
        tokens, _ = video(seed, *shape)
        flat, size = tokens.flatten(0, 1), shape[1]
        whole, frame = names["compute_gaussian_scores"](names["select_low_var_channels"](flat), size)
        scales = names["compute_scales"](-whole.mean(-1), percent / 100)
        chosen = names["select_outlier_indices"](whole + frame, scales, size)
        kept = [int(token) + number * size for number, rows in enumerate(chosen) for token in rows]
        found.append(case(seed, tokens.shape, kept))
    return found


def holov(source: str) -> list[Case]:
    names: dict[str, Any] = {}
    exec(source, names)
    found = []
    for seed, (*shape, budget) in cases((50, 7, 13), (81, 12, 20), (37, 5, 9), (100, 6, 40)):
        tokens, attention = image(seed, *shape)
        _, kept = names["HoloV"](tokens[None], attention, 16, budget)
        found.append(case(seed, tokens.shape, sorted(kept.tolist())))
    return found


def cdpruner(source: str) -> list[Case]:
    """The cosines are those of negated features: the authors negate CLIP's, which is not in play."""
    names: dict[str, Any] = {"torch": torch}
    start = source.index("    def encode_images")
    exec(textwrap.dedent(source[start : source.index("    # [CDPruner] Prune visual tokens")]), names)
    found = []
    for seed, (*shape, words, each) in cases(
        (1, 40, 24, 5, 12), (2, 25, 32, 3, 7), (3, 17, 20, 1, 9), (1, 61, 48, 8, 20)
    ):
        tokens, text = tiles(seed, *shape, words)
        model = SimpleNamespace(mm_projector=lambda features: features)
        model.get_vision_tower = lambda seen=(tokens, -tokens, text): lambda images, texts: seen
        own = SimpleNamespace(get_model=lambda model=model: model, visual_token_num=each)
        _, mask = names["encode_images"](own, None)
        found.append(case(seed, tokens.shape, mask.flatten().nonzero()[:, 0].tolist(), words=words))
    return found


def fast_vid(source: str) -> list[Case]:
    """What stands in the decoder's forward between the marker and its layers; frames are told apart by mean features."""
    lines = source.split("\n")
    start = next(number for number, line in enumerate(lines) if "####### FastVID #######" in line) + 1
    end = next(n for n, line in enumerate(lines) if n > start and line.strip().startswith("for decoder_layer in"))
    block, found = textwrap.dedent("\n".join(lines[start:end])), []
    for seed, (*shape, percent) in cases((12, 20, 6, 25), (9, 30, 8, 20), (16, 20, 5, 30), (10, 25, 7, 20)):
        tokens, attention = video(seed, *shape, offset=3)
        count = tokens.shape[0] * tokens.shape[1]
        own = SimpleNamespace(video_token_len=count, frame_num=len(tokens), video_start_idx=0)
        own.frame_attn_weights, own.frame_global_features = attention, tokens.mean(1)
        own.fastvid_retention_ratio, own.fastvid_DySeg_c, own.fastvid_DySeg_tau = percent / 100, 8, 0.9
        own.fastvid_STPrune_d, own.fastvid_DTM_p, own.fastvid_DTM_beta = 0.4, 4, 0.6
        names = {"torch": torch, "F": functional, "self": own, "seq_length": count, "causal_mask": None}
        names |= {"hidden_states": tokens.reshape(1, count, -1), "position_embeddings": (torch.zeros(1, count, 2),) * 2}
        torch.manual_seed(0)
        exec(block, names)
        sums = [round(float(value), 5) for value in names["hidden_states"][0].double().sum(-1)]
        found.append(case(seed, tokens.shape, names["keep_indexs"].tolist(), sums=sums))
    return found


def mixkv(source: str) -> list[Case]:
    """The weights of heads are those of the prompt at hand, which the authors' code computes and then takes from a file."""
    names: dict[str, Any] = {"torch": torch, "F": functional, "nn": nn, "math": math}
    repeat = source[source.index("def repeat_kv") :]
    exec(repeat[: repeat.index("\n", repeat.index("return hidden_states.reshape"))], names)
    body = source[source.index("class SnapKVCluster") : source.index("class AdaKVCluster")]
    exec(body.replace("@torch.compile", "").replace("self.key_score=load_similarity_score()", ""), names)
    found = []
    for seed, (heads, kv_heads, length, width, window, budget) in cases(
        (4, 2, 60, 8, 8, 20), (6, 3, 75, 6, 4, 30), (2, 1, 41, 10, 5, 12), (8, 2, 90, 4, 16, 40)
    ):
        queries, keys, values = keys_and_values(seed, heads, kv_heads, length, width)
        groups, kind = heads // kv_heads, "headwisemixkv"
        own = names["SnapKVCluster"](window, budget, layer_idx=0, num_key_value_groups=groups, select_method=kind)
        own.key_score = own.calcul_similarity_score(keys[None])[1][0].T
        rows, _ = own.update_kv(keys[None], queries[None], values[None])
        places = [
            [int((head == row).all(1).nonzero()[0, 0]) for row in kept]
            for head, kept in zip(keys, rows[0], strict=True)
        ]
        one = case(seed, (heads, kv_heads, length, width), [sorted(places) for places in places], window=window)
        found.append(one | {"budget": budget})
    return found


def case(seed: int, shape: Iterable[int], kept: list[Any], **more: Any) -> Case:
    return {"seed": seed, "shape": list(shape), "budget": len(kept), "kept": kept, **more}


def main(folder: Path) -> None:
    methods = {make.__name__: make for make in (cake, cdpruner, evs, fast_vid, holov, mixkv, vidcom2)}
    made = {name: make((folder / f"{name}.py").read_text()) for name, make in methods.items()}
    rows = {name: ",\n".join(json.dumps(one) for one in found) for name, found in made.items()}
    OUTPUT.write_text("{\n" + ",\n".join(f'"{name}": [\n{text}\n]' for name, text in rows.items()) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
