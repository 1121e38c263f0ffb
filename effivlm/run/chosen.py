"""What a method chose, looked at before it counts as kept: entries that are there, each once, in ascending order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from effivlm.compression.base import Part
from effivlm.compression.choose import Doubts
from effivlm.decoding.caches import KeptLayer
from effivlm.run.faults import Ill

DISORDER = "the entries that stay of a layer are not ascending, or one of them stays twice"


def refuse_disorder(part: Part, kept: Tensor, among: int) -> None:
    """Refuse token numbers [k] that are not ascending ones of `among`. Asks the device, so not where cells are timed.

    Raises:
        Ill: says what they are.
    """
    if torch.is_inference_mode_enabled():
        return
    name = f"select() of {type(part).__name__}"
    if kept.dim() != 1 or kept.dtype not in (torch.int64, torch.int32):
        raise Ill(
            f"{name} gave {list(kept.shape)} of {kept.dtype} as the tokens that stay; whole numbers [k] are wanted"
        )
    numbers = kept.tolist()
    if numbers and not 0 <= min(numbers) <= max(numbers) < among:
        raise Ill(f"{name} gave token numbers from {min(numbers)} to {max(numbers)}, where there are 0 to {among - 1}")
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        raise Ill(f"{name} gave token numbers that are not ascending, or one of them twice")


def disorder(cache: Sequence[KeptLayer]) -> Doubts:
    """Flags for layers whose entries, as far as they are noted, are not ascending; none where cells are timed."""
    if torch.is_inference_mode_enabled():
        return []
    found: dict[torch.device, list[KeptLayer]] = {}
    for layer in cache:
        if layer.indices is not None:
            found.setdefault(layer.indices.device, []).append(layer)
    return [(_disordered(layers), DISORDER) for layers in found.values()]


def _disordered(layers: Sequence[KeptLayer]) -> Tensor:
    """Whether, in any head of the layers, an entry does not lie behind the one before it; padding is not looked at.

    Heads stand one behind the other, for a few large kernels, and every entry knows its place in its own head.

    Raises:
        Ill: entries are not told by head.
    """
    rows, facts, passed = list[Tensor](), list[tuple[int, int, int]](), 0
    for layer in layers:
        told, ends = _by_head(layer)
        rows.append(told.flatten())
        for each in ends:
            facts.append((told.shape[1], passed, each))
            passed += told.shape[1]
    entries = torch.cat(rows)
    size, *own = torch.tensor(facts, dtype=torch.long).to(entries.device, non_blocking=True).unbind(1)
    head = torch.repeat_interleave(size, output_size=passed)
    start, end = (one[head] for one in own)
    place = torch.arange(passed, device=entries.device) - start
    counts = (place > 0) & (place < end)
    return ((entries[1:] <= entries[:-1]) & counts[1:]).any()


def _by_head(layer: KeptLayer) -> tuple[Tensor, Sequence[int]]:
    """The entries [H, K] that are noted of a layer, and how many of each head's are none of its padding."""
    assert layer.indices is not None
    if layer.indices.dim() != 2:
        raise Ill(
            f"the entries that stay of a layer are told as {list(layer.indices.shape)}; [heads, entries] is wanted"
        )
    ends = layer.lengths or (layer.indices.shape[1],)
    heads = max(len(layer.indices), len(ends))
    if {len(layer.indices), len(ends)} - {1, heads}:
        raise Ill(
            f"the entries that stay of a layer are told of {len(layer.indices)} heads, and lengths of {len(ends)}"
        )
    return layer.indices.expand(heads, -1), ends if len(ends) == heads else [*ends] * heads
