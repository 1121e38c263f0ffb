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
    return [(_disordered(layer), DISORDER) for layer in cache if layer.indices is not None]


def _disordered(layer: KeptLayer) -> Tensor:
    """Whether an entry does not lie behind the one before it, in any head; padding is not looked at."""
    assert layer.indices is not None
    wrong = layer.indices[:, 1:] <= layer.indices[:, :-1]
    if layer.lengths:
        ends = torch.tensor(layer.lengths).to(wrong.device, non_blocking=True)
        wrong = wrong & (torch.arange(1, wrong.shape[1] + 1, device=wrong.device) < ends[:, None])
    return wrong.any()
