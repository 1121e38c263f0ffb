"""How much a device holds: copies of one compressed prompt, tried and not computed, and the caches of a batch."""

from __future__ import annotations

from collections.abc import Callable

import torch

from effivlm.decoding.eager import Start, Step
from effivlm.decoding.replay import Replay
from effivlm.seams.meters import free_bytes, reclaim, synchronise

CPU_BYTES = 4 << 30
"""What the caches of one batch may take where nobody says how much memory is free."""


def largest_batch(fits: Callable[[int], bool], guess: int = 1, most: int = 4096) -> int:
    """The largest batch that fits, tried and not computed; 0 if not even one.

    Within 2 % of the first batch that did not fit, or `most`. The nearer the guess, the fewer are tried.
    """
    good, bad = 0, most + 1
    batch, step = max(1, min(guess, most)), 1
    while good < batch < bad:
        if fits(batch):
            good, batch = batch, min(most, batch + step * max(1, batch // 50))
        else:
            bad, batch = batch, max(1, batch - step * max(1, batch // 50))
        step *= 2
    while bad - good > max(1, good // 50):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(middle) else (good, middle)
    return good


def batch_fits(step: Step, start: Start, steps: int, device: torch.device, batch: int) -> bool:
    """Whether a CUDA device holds copies of one compressed prompt and takes a step with them."""
    try:
        Replay(step, [start] * batch, steps, device, capture=False).take(1)
        synchronise(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        reclaim(device)
    return True


def batch_bytes(device: torch.device) -> int:
    """What the compressed prompts of a sample and the caches that decode them may take together: half of what is free, the other
    half being the prefills'."""
    return free_bytes(device) // 2 if device.type == "cuda" else CPU_BYTES
