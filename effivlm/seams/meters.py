"""Numbers about a run, with their units in their names."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

Result = TypeVar("Result")
OUT_OF_MEMORY = (torch.OutOfMemoryError, MemoryError)


def synchronise(*devices: torch.device) -> None:
    """Wait until the devices have done all they were given."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def timed_s(work: Callable[[], Result], device: torch.device, *others: torch.device) -> tuple[float, Result]:
    """Seconds that `work` takes until the device, and others that work for it, are idle again, and its result; on CUDA between
    two events on the stream of the first."""
    synchronise(device, *others)
    if device.type != "cuda":
        start = time.perf_counter()
        result = work()
        return time.perf_counter() - start, result
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(torch.cuda.current_stream(device))
    result = work()
    synchronise(*others)
    after.record(torch.cuda.current_stream(device))
    after.synchronize()
    return before.elapsed_time(after) / 1e3, result


class Laps:
    """Seconds from the making of this object to each `mark`, which does not wait for the device; on CUDA by events."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._times: list[float] = []
        self._events: list[torch.cuda.Event] = []
        synchronise(device)
        self.mark()

    def mark(self) -> None:
        if self.device.type == "cuda":
            self._events.append(torch.cuda.Event(enable_timing=True))
            self._events[-1].record(torch.cuda.current_stream(self.device))
        else:
            self._times.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """One number for each mark; waits for the device."""
        synchronise(self.device)
        passed = [self._events[0].elapsed_time(event) / 1e3 for event in self._events[1:]]
        return passed or [moment - self._times[0] for moment in self._times[1:]]


class Within(Protocol):
    """Does a named part of some work; what measures parts and what does not have this form in common."""

    def __call__(self, part: str, work: Callable[[], Result]) -> Result: ...


def untimed(part: str, work: Callable[[], Result]) -> Result:
    """Do the part and measure nothing."""
    return work()


class Spans:
    """Seconds of named parts of some work, waiting for all devices at both ends of each; what a part does within another counts
    for itself alone."""

    def __init__(self, *devices: torch.device) -> None:
        self.devices = devices
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def __call__(self, part: str, work: Callable[[], Result]) -> Result:
        self._inner.append(0.0)
        seconds, result = timed_s(work, *self.devices)
        own = seconds - self._inner.pop()
        self._inner[-1] += seconds
        self.seconds[part] = self.seconds.get(part, 0.0) + own
        return result


def peak_memory_bytes(work: Callable[[], Result], *devices: torch.device) -> tuple[int, Result]:
    """Highest memory allocated on CUDA devices while `work` runs, summed over them (0 on a CPU, where nobody counts), and its
    result."""
    cards = [device for device in devices if device.type == "cuda"]
    for card in cards:
        torch.cuda.reset_peak_memory_stats(card)
    result = work()
    synchronise(*cards)
    return sum(torch.cuda.max_memory_allocated(card) for card in cards), result


def reclaim(device: torch.device) -> None:
    """Give back what nothing needs any more: an error's frames hold on to tensors until they are looked for."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Memory of a CUDA device that this process could still use."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused
