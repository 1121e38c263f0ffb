"""Channels that stand out, planted into a micro model: large models have them, and methods of weights are made for them.

A few gains of each norm are raised by a power of two and the weights behind them lowered by it, and so are rows of `up_proj` and
the columns of `down_proj`: the model computes what it did, and its activations are no longer alike.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

SHARE = 0.03
FACTORS = (8.0, 16.0, 32.0)
NORMS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


def planted(source: Path, target: Path, seed: int = 0) -> Path:
    """Write the checkpoint `source` with planted channels into the new folder `target`."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("SHA256SUMS", "*.safetensors"))
    (file,) = source.glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    rng = torch.Generator().manual_seed(seed)
    for stem in sorted({name.partition(".mlp.")[0] for name in tensors if ".mlp.up_proj.weight" in name}):
        for norm, behind in NORMS.items():
            raise_channels(tensors, f"{stem}.{norm}", [f"{stem}.{name}" for name in behind], rng)
        raise_channels(tensors, f"{stem}.mlp.up_proj", [f"{stem}.mlp.down_proj"], rng)
    save_file(tensors, target / file.name, {"format": "pt"})
    return target


def raise_channels(tensors: dict[str, Tensor], source: str, behind: list[str], rng: torch.Generator) -> None:
    """Raise some outputs of `source`, and lower the weights of the layers behind them."""
    width = len(tensors[f"{source}.weight"])
    chosen = torch.randperm(width, generator=rng)[: max(1, round(SHARE * width))]
    factors = torch.tensor(FACTORS)[torch.randint(len(FACTORS), (len(chosen),), generator=rng)]
    scale = torch.ones(width)
    scale[chosen] = factors
    for last in ("weight", "bias"):
        if (name := f"{source}.{last}") in tensors:
            value: Any = tensors[name]
            tensors[name] = (value.float() * scale.view(-1, *[1] * (value.dim() - 1))).to(value.dtype)
    for layer in behind:
        value = tensors[f"{layer}.weight"]
        tensors[f"{layer}.weight"] = (value.float() / scale).to(value.dtype)


if __name__ == "__main__":
    import sys

    print(json.dumps({"made": str(planted(Path(sys.argv[1]), Path(sys.argv[2])))}))
