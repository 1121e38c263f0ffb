"""What a method chose, looked at before it counts as kept: entries that are there, each once, in ascending order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

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

    Layers stand side by side, for a few large kernels, and every column knows its place in its own layer.
    """
    chosen = [layer.indices for layer in layers if layer.indices is not None]
    rows, sizes = torch.cat(chosen, 1), [one.shape[1] for one in chosen]
    lengths = [layer.lengths or (size,) * len(rows) for layer, size in zip(layers, sizes, strict=True)]
    facts = [
        (size, start, *own) for size, start, own in zip(sizes, accumulate(sizes, initial=0), lengths, strict=False)
    ]
    size, *told = torch.tensor(facts).to(rows.device, non_blocking=True).unbind(1)
    layer = torch.repeat_interleave(size, output_size=rows.shape[1])
    start, *ends = (one[layer] for one in told)
    place = torch.arange(len(layer), device=rows.device) - start
    counts = (place > 0) & (place < torch.stack(ends))
    return ((rows[:, 1:] <= rows[:, :-1]) & counts[:, 1:]).any()
