"""What the driver says of a GPU around a measurement: energy, clocks, and why a number taken there may not be trusted."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar

import torch

from effivlm.report.trust import COMPANY

Result = TypeVar("Result")
Ask = Callable[[Any, Any], Result]  # of NVML and the handle of a device
Processes = dict[int, int]  # bytes held on the GPU, by process id

SHORTEST_S = 0.5  # the energy counter moves in steps of up to 0.1 s
BUSY_PERCENT = 5
SPREAD = 0.05  # of the highest clock
# Reasons that hold a working clock down, bits 2 to 7 of NVML's; idleness and a clock that somebody set are none.
SLOWDOWNS = ("SwPowerCap", "HwSlowdown", "SyncBoost", "SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown")

BY_INDEX = "the GPU was found by its index: energy, clocks and processes may be those of another one"
PARTITIONED = "the GPU is partitioned (MIG): energy, clocks and processes are those of all its parts"
BLIND = "the list of processes is not told: it lacks even this process"


class Untold(Exception):
    """NVML, or the device in it, cannot be reached; the message says why."""


@dataclass(frozen=True)
class Seen:
    """One measurement as the driver saw it: joules of the whole GPU, seconds from entry to exit, sampled SM clocks in MHz.

    `energy_j` is None where it is not told; then a remark says why.
    """

    energy_j: float | None
    seconds: float
    clock_mhz: tuple[int, ...]
    remarks: tuple[str, ...]


@dataclass
class Watch:
    """What NVML says of one CUDA device while the body of a `with` runs; `seen` holds it afterwards, also after an error.

    The body itself waits for what it gives to the device. What cannot be read is absent and remarked; NVML's errors never
    leave the watch.
    """

    nvml: Any  # None where it cannot be reached
    handle: Any = None
    known: tuple[str, ...] = ()  # remarks that hold for every measurement
    pid: int = field(default_factory=os.getpid)
    clock: Callable[[], float] = perf_counter
    seen: Seen = field(init=False)
    _samples: list[int] = field(init=False, default_factory=list)
    _slowed: int = field(init=False, default=0)
    _untold: dict[str, str] = field(init=False, default_factory=dict)

    @classmethod
    def of(cls, device: torch.device) -> Watch | None:
        """The watch of a CUDA device; None for any other, of which NVML knows nothing."""
        if device.type != "cuda":
            return None
        try:
            nvml = _nvml()
            return cls(nvml, *_found(nvml, device))
        except Untold as why:
            return cls(None, known=(f"energy, clocks and other processes are not told: {why}",))

    def __enter__(self) -> Watch:
        self._samples, self._slowed, self._untold = [], 0, {}
        self._partitioned = self._read("partitioning", _partitioned, False)
        self._before = self._read("the list of processes", _processes, None)
        self._busy = 0
        if _others(self._before or {}, self.pid):  # alone, a busy device is our own warm-up
            self._busy = self._read("utilisation", lambda nvml, at: nvml.nvmlDeviceGetUtilizationRates(at).gpu, 0)
        self._counter = self._read("energy", _millijoules, None)
        self._start = self.clock()
        return self

    def sample(self) -> None:
        """Read clock and slowdown; called between rounds, when the device has just worked: an idle one clocks down."""
        mhz = self._read("the SM clock", lambda nvml, at: nvml.nvmlDeviceGetClockInfo(at, nvml.NVML_CLOCK_SM), None)
        if mhz is not None:
            self._samples.append(mhz)
        self._slowed |= self._read("slowdown", _slowdowns, 0)

    def __exit__(self, *_: object) -> None:
        seconds, counter = self.clock() - self._start, self._read("energy", _millijoules, None)
        self._slowed |= self._read("slowdown", _slowdowns, 0)
        energy = self._joules(counter, seconds)
        company = self._company(self._read("the list of processes", _processes, None))
        partition = [PARTITIONED] if self._partitioned else []
        remarks = [*self.known, *partition, *company, *self._clocks(), *self._untold.values()]
        self.seen = Seen(energy, seconds, tuple(self._samples), tuple(remarks))

    def _read(self, what: str, ask: Ask[Result], default: Result) -> Result:
        """The answer of NVML; the default, and a note of what is not told, where there is none."""
        if self.nvml is None:
            return default
        try:
            return ask(self.nvml, self.handle)
        except self.nvml.NVMLError as error:
            self._untold[what] = f"{what} is not told: {error}"
            return default

    def _joules(self, counter: int | None, seconds: float) -> float | None:
        if counter is None or self._counter is None:
            return None
        if seconds < SHORTEST_S:
            why = f"{seconds:.2g} s are too short a span, it takes {SHORTEST_S} s"
        elif counter <= self._counter:
            why = "its counter did not move on"  # the driver was loaded anew, or nothing counts
        else:
            return (counter - self._counter) / 1e3
        self._untold["energy"] = f"energy is not told: {why}"
        return None

    def _company(self, after: Processes | None) -> list[str]:
        """Who else was on the GPU at entry or at exit."""
        if after is not None and not after:
            return [BLIND]
        held = dict(self._before or {})
        for pid, size in (after or {}).items():
            held[pid] = max(size, held.get(pid, 0))
        others = _others(held, self.pid)
        if not others:
            return []
        count = "1 other process" if len(others) == 1 else f"{len(others)} other processes"
        busy = f"; it was {self._busy} % busy before the start" if self._busy > BUSY_PERCENT else ""
        return [f"{count} {COMPANY} {sum(others.values()) / 2**30:.1f} GiB of its memory{busy}"]

    def _clocks(self) -> list[str]:
        names = [name for bit, name in enumerate(SLOWDOWNS, start=2) if self._slowed >> bit & 1]
        remarks = [f"the GPU was slowed down: {', '.join(names)}"] if names else []
        low, high = min(self._samples, default=0), max(self._samples, default=0)
        if high - low > SPREAD * high:
            first, last = sorted((low, high), key=self._samples.index)
            remarks.append(f"clocks moved from {first} to {last} MHz between rounds")
        return remarks


def _others(held: Processes, own: int) -> Processes:
    """Those of other processes. A container may list ids of its host: without our own, one of them is ours, and taking that
    to be the largest keeps what the others hold a lower bound."""
    ours = own if own in held else max(held, key=held.__getitem__, default=own)
    return {pid: size for pid, size in held.items() if pid != ours}


def _processes(nvml: Any, handle: Any) -> Processes:
    """Who is on the device; a process whose memory is not told (on Windows) counts with 0 bytes."""
    listed = [*nvml.nvmlDeviceGetComputeRunningProcesses(handle)]
    with suppress(nvml.NVMLError_NotSupported):  # a device without graphics
        listed += nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)
    return {process.pid: process.usedGpuMemory or 0 for process in listed}


def _millijoules(nvml: Any, handle: Any) -> int:
    return int(nvml.nvmlDeviceGetTotalEnergyConsumption(handle))


def _partitioned(nvml: Any, handle: Any) -> bool:
    with suppress(nvml.NVMLError_NotSupported):  # that a GPU cannot be partitioned is an answer
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    return False


def _slowdowns(nvml: Any, handle: Any) -> int:
    """Bits of what holds the clock down now; older bindings and older drivers know the question by its older name."""
    newer = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    if newer is not None:
        with suppress(nvml.NVMLError_FunctionNotFound):
            return int(newer(handle))
    return int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))


def _nvml() -> Any:
    """NVML, initialised and left so until the process ends, as handles are; Untold where it cannot be loaded."""
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError as error:
        raise Untold(f"NVML cannot be loaded ({error})") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise Untold(f"NVML cannot be loaded ({error})") from error
    return pynvml


def _found(nvml: Any, device: torch.device) -> tuple[Any, tuple[str, ...]]:
    """The handle of a device, and a remark if it may be wrong. The UUID holds whatever devices this process is shown."""
    uuid = str(getattr(torch.cuda.get_device_properties(device), "uuid", "")).removeprefix("GPU-").removeprefix("MIG-")
    try:
        if not uuid:
            index = torch.cuda.current_device() if device.index is None else device.index
            return nvml.nvmlDeviceGetHandleByIndex(index), (BY_INDEX,)
        with suppress(nvml.NVMLError_NotFound):
            return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"), ()
        part = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
        return nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part), ()
    except nvml.NVMLError as error:
        raise Untold(f"NVML does not know {device} ({error})") from error
