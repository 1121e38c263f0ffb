"""Write which cache entries kvpress keeps, for inputs that a seed gives again: `python make_kvpress_golden.py FOLDER`.

kvpress pins an older transformers than this suite, so this runs in an environment of its own, with
`pip install torch==2.13.0 kvpress==0.5.5`; tests read the files. Its presses are called on queries, keys and values as they
stand: the module they look at projects nothing. Nothing is rotated either, but for expected attention, where queries are those
before rotary embedding and positions to come have real angles. Presses keep int(N * (1 - ratio)) entries in floats, so the ratio
is set half an entry off; where they differ from the papers by more than that, the comments below say how they are mapped.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

DIM = 8
LENGTHS = (33, 57, 101)
HEADS = ((4, 2), (6, 3), (5, 1))
KEEPS = ("0.4", "0.15")
BASES = (10_000.0, 1_000_000.0)  # of rotary embedding: those of Llama 2 and Qwen2
ALPHA = 0.5


class Inputs(NamedTuple):
    """queries [H_q, N, D], keys and values [H_kv, N, D]; `digest` names their bytes."""

    queries: Tensor
    keys: Tensor
    values: Tensor
    digest: str


def inputs(seed: int, length: int, heads: int, kv_heads: int) -> Inputs:
    rng = torch.Generator().manual_seed(seed)
    made = [torch.randn(count, length, DIM, generator=rng) * 1.5 for count in (heads, kv_heads, kv_heads)]
    digest = hashlib.sha256(b"".join(one.numpy().tobytes() for one in made)).hexdigest()[:8]
    return Inputs(made[0], made[1], made[2], digest)


def mask(kept: list[int], length: int) -> str:
    """Kept entries of one head in hexadecimal, entry 0 in the lowest bit."""
    return f"{sum(1 << place for place in kept):0{math.ceil(length / 4)}x}"


def entries(text: str) -> list[int]:
    """The entries of a `mask`, ascending."""
    bits = int(text, 16)
    return [place for place in range(bits.bit_length()) if bits >> place & 1]


def budget(keep: str, length: int) -> int:
    return max(1, math.floor(Fraction(keep) * length + Fraction(1, 2)))


def tables(positions: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, DIM] of rotary embedding at positions [N]; not turned at all where the base is 0."""
    turns = positions[:, None] * (base ** (-torch.arange(0, DIM, 2) / DIM) if base else torch.zeros(DIM // 2))
    return turns.cos().repeat(1, 2), turns.sin().repeat(1, 2)


class _Plain(nn.Module):
    """What a press asks of an attention module; `base` is that of its rotary embedding, 0 for none."""

    class Config:
        _attn_implementation = "sdpa"

        def __init__(self, heads: int, kv_heads: int) -> None:
            self.num_attention_heads, self.num_key_value_heads = heads, kv_heads

    def __init__(self, heads: int, kv_heads: int, base: float) -> None:
        super().__init__()
        self.base = base
        self.config, self.head_dim, self.q_proj = self.Config(heads, kv_heads), DIM, nn.Identity()
        self.masked_key_indices: Any = None

    def rotary_emb(self, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cosines, sines = tables(positions[0], self.base)
        return cosines[None], sines[None]


def _attentions(given: Inputs) -> Tensor:
    """All of the attention [1, H_q, N, N]."""
    group = len(given.queries) // len(given.keys)
    logits = given.queries @ given.keys.repeat_interleave(group, 0).transpose(1, 2) / math.sqrt(DIM)
    later = torch.ones_like(logits, dtype=torch.bool).triu(1)
    return logits.masked_fill(later, -torch.inf).softmax(-1)[None]


def _asked(given: Inputs, base: float = 0) -> tuple[Any, ...]:
    """The arguments of a press's `score` and `compress`: module, hidden states, keys, values, attentions, the rest."""
    length = given.keys.shape[1]
    module = _Plain(len(given.queries), len(given.keys), base)
    positions = module.rotary_emb(given.queries, torch.arange(length)[None])
    hidden = given.queries.transpose(0, 1).reshape(1, length, -1)
    return module, hidden, given.keys[None], given.values[None], None, {"position_embeddings": positions}


def _compressed(press: Any, given: Inputs, base: float = 0) -> list[list[int]]:
    """Entries that a press keeps, found again by their keys."""
    keys, _ = press.compress(*_asked(given, base))
    same = (keys[0][:, :, None] == given.keys[:, None]).all(-1)
    return [sorted(row.nonzero()[:, 1].tolist()) for row in same]


def _kept_by_all_heads(press: Any, given: Inputs) -> list[list[int]]:
    """Entries that Ada-KV leaves to each head: it notes those it drops."""
    arguments = _asked(given)
    press.compress(*arguments)
    _, heads, places = arguments[0].masked_key_indices
    there = torch.ones(given.keys.shape[:2], dtype=torch.bool)
    there[heads, places] = False
    return [row.nonzero()[:, 0].tolist() for row in there]


def _heavy(press: Any, given: Inputs, count: int, window: int) -> list[list[int]]:
    """H2O from its mean attention: times the rows that see an entry, beside a window that always stays."""
    module, hidden, keys, values, _, rest = _asked(given)
    length = keys.shape[2]
    sums = press.score(module, hidden, keys, values, _attentions(given), rest)[0] * torch.arange(length, 0, -1)
    heavy = sums[:, : length - window].topk(count - window).indices
    return [sorted([*row.tolist(), *range(length - window, length)]) for row in heavy]


Case = tuple[dict[str, Any], Callable[[Inputs], list[list[int]]]]


def _cases(name: str, length: int, count: int) -> Iterator[Case]:
    """Fields of our method and what kvpress keeps under the same ones."""
    import kvpress

    ratio = 1 - (count + 0.5) / length
    if name == "streaming_llm":
        for sinks in sorted({4, count - max(1, count // 10)}):
            press = kvpress.StreamingLLMPress(ratio, n_sink=sinks)
            if sinks < count:
                yield {"sinks": sinks}, lambda given, press=press: _compressed(press, given)
    if name == "snapkv":
        for window, kernel in ((max(1, count // 10), 5), (count // 2, 3)):
            press = kvpress.SnapKVPress(ratio, window_size=window, kernel_size=kernel)
            fields = {"window": window, "kernel": kernel, "pool": "avg"}
            yield fields, lambda given, press=press: _compressed(press, given)
    if name == "h2o":
        for window in (max(1, count // 10), count // 2):
            fields = {"window": window, "window_share": 0.0}
            press = kvpress.ObservedAttentionPress(ratio)
            yield fields, lambda given, press=press, window=window: _heavy(press, given, count, window)
    if name == "tova":  # kvpress always keeps the last entry
        yield {"window": 1}, lambda given: _compressed(kvpress.TOVAPress(ratio), given)
    if name == "expected_attention":  # its positions to come are counted from the number of entries
        for fields in ({}, {"covariance": False, "epsilon": 0.02}, {"value_norm": False}, {"horizon": 7}):
            press = kvpress.ExpectedAttentionPress(
                ratio,
                n_future_positions=fields.get("horizon", 512),
                use_covariance=fields.get("covariance", True),
                use_vnorm=fields.get("value_norm", True),
                epsilon=fields.get("epsilon", 0.0),
            )
            for base in BASES:
                case = lambda given, press=press, base=base: _compressed(press, given, base)  # noqa: E731
                yield {**fields, "base": base}, case
    if name == "adakv":  # its safeguard counts the window, ours is beside it
        window = count // 3
        press = kvpress.AdaKVPress(kvpress.SnapKVPress(ratio, window_size=window, kernel_size=5), ALPHA)
        alpha = (max(0, int(count * ALPHA) - window) + 0.5) / (count - window)
        fields = {"window": window, "kernel": 5, "pool": "avg", "floor": "lower_bound", "alpha": alpha}
        yield fields, lambda given: _kept_by_all_heads(press, given)


def main(folder: Path) -> None:
    for name in ("streaming_llm", "snapkv", "h2o", "tova", "expected_attention", "adakv"):
        lines = []
        for seed, (length, (heads, kv_heads), keep) in enumerate(
            (length, pair, keep) for length in LENGTHS for pair in HEADS for keep in KEEPS
        ):
            given, count = inputs(seed, length, heads, kv_heads), budget(keep, length)
            for fields, keep_them in _cases(name, length, count):
                kept = [mask(row, length) for row in keep_them(given)]
                shape = {"seed": seed, "length": length, "heads": [heads, kv_heads], "keep": keep}
                lines.append(json.dumps({**shape, "inputs": given.digest, "fields": fields, "kept": kept}))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
