"""The watch over a GPU: what a driver says, what it does not say, and the remarks that follow; the driver is a fake."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from effivlm.timing import watch
from effivlm.timing.watch import BLIND, BY_INDEX, PARTITIONED, Seen, Watch

OWN, GIB = 7, 2**30
CUDA = torch.device("cuda", 1)


def process(pid: int, gib: float | None = 1.0) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, usedGpuMemory=None if gib is None else int(gib * GIB))


def fails(code: int) -> Callable[..., Any]:
    def call(*_: Any) -> Any:
        raise pynvml.NVMLError(code)

    return call


class Driver:
    """The part of pynvml that the watch knows, over readings that a test sets; it has one GPU, which is this process's own."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotFound = pynvml.NVMLError_NotFound
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError_FunctionNotFound = pynvml.NVMLError_FunctionNotFound
    NVML_CLOCK_SM = pynvml.NVML_CLOCK_SM

    def __init__(self) -> None:
        self.mj, self.mhz, self.busy, self.reasons, self.mig = 5_000, 1980, 99, 0, 0
        self.compute, self.graphics = [process(OWN)], []
        self.devices: dict[str, str] = {}

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        return self.mj

    def nvmlDeviceGetClockInfo(self, handle: str, clock: int) -> int:
        return {pynvml.NVML_CLOCK_SM: self.mhz}[clock]

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> SimpleNamespace:
        return SimpleNamespace(gpu=self.busy)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:
        return self.reasons

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return self.compute

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[SimpleNamespace]:
        return self.graphics

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:
        return [self.mig, 1 - self.mig]  # what is pending is the other way round

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid not in self.devices:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return self.devices[uuid]

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"number {index}"

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, part: str) -> str:
        return f"the whole of {part}"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    found = Driver()
    monkeypatch.setattr(watch, "_nvml", lambda: found)
    return found


def seen(driver: Driver, during: Callable[[Watch], None] = lambda _: None, seconds: float = 2.0) -> Seen:
    """What a measurement sees that draws 30 J, unless `during` sets the counter otherwise."""
    times = iter([10.0, 10.0 + seconds])
    with Watch(driver, "gpu", pid=OWN, clock=lambda: next(times)) as found:
        driver.mj += 30_000
        during(found)
    return found.seen


def remark(found: Seen) -> str:
    (only,) = found.remarks
    return only


def test_a_quiet_measurement_has_its_energy_in_joules_and_no_remark(driver: Driver) -> None:
    assert seen(driver) == Seen(energy_j=30.0, seconds=2.0, clock_mhz=(), remarks=())


@pytest.mark.parametrize(("seconds", "told"), [(0.5, 30.0), (0.49, None)])
def test_a_span_below_half_a_second_tells_no_energy(seconds: float, told: float | None, driver: Driver) -> None:
    found = seen(driver, seconds=seconds)
    assert found.energy_j == told
    assert [*found.remarks] == ([] if told else ["energy is not told: 0.49 s are too short a span, it takes 0.5 s"])


@pytest.mark.parametrize("moved", [0, -1])
def test_a_counter_that_does_not_move_on_tells_no_energy(moved: int, driver: Driver) -> None:
    found = seen(driver, lambda _: setattr(driver, "mj", 5_000 + moved))
    assert (found.energy_j, remark(found)) == (None, "energy is not told: its counter did not move on")


UNREADABLE = {
    "TotalEnergyConsumption": "energy",
    "ClockInfo": "the SM clock",
    "CurrentClocksEventReasons": "slowdown",
    "ComputeRunningProcesses": "the list of processes",
}


@pytest.mark.parametrize("code", ["NOT_SUPPORTED", "NO_PERMISSION", "UNKNOWN", "GPU_IS_LOST"])
@pytest.mark.parametrize(("function", "what"), UNREADABLE.items())
def test_what_cannot_be_read_is_remarked_once_and_the_rest_told(
    code: str, function: str, what: str, driver: Driver
) -> None:
    error = getattr(pynvml, f"NVML_ERROR_{code}")
    setattr(driver, f"nvmlDeviceGet{function}", fails(error))
    found = seen(driver, lambda running: (running.sample(), running.sample()))  # type: ignore[arg-type,return-value]
    assert remark(found) == f"{what} is not told: {pynvml.NVMLError(error)}"
    assert found.energy_j == (None if what == "energy" else 30.0)
    assert found.clock_mhz == (() if what == "the SM clock" else (1980, 1980))


@pytest.mark.parametrize("end", [False, True])
def test_energy_is_not_told_if_one_of_its_ends_could_not_be_read(end: bool, driver: Driver) -> None:
    ends = [fails(pynvml.NVML_ERROR_TIMEOUT), lambda _: 9_000]
    first, second = reversed(ends) if end else ends
    driver.nvmlDeviceGetTotalEnergyConsumption = first  # type: ignore[method-assign]
    found = seen(driver, lambda _: setattr(driver, "nvmlDeviceGetTotalEnergyConsumption", second))
    assert (found.energy_j, remark(found)) == (None, "energy is not told: Timeout")


def test_other_processes_are_counted_at_both_ends_with_what_they_hold(driver: Driver) -> None:
    driver.compute, driver.graphics, driver.busy = [process(OWN, 9.0), process(1, 2.0)], [process(1, 2.0)], 5

    def later(_: Watch) -> None:
        driver.compute, driver.graphics = [process(OWN, 9.0)], [process(2, 0.5), process(3, None)]

    assert remark(seen(driver, later)) == "3 other processes on the GPU, holding at least 2.5 GiB of its memory"


@pytest.mark.parametrize(("before", "after"), [(2.0, 3.0), (3.0, 2.0)])
def test_a_process_counts_with_the_most_it_held(before: float, after: float, driver: Driver) -> None:
    driver.compute, driver.busy = [process(OWN), process(1, before)], 0
    found = seen(driver, lambda _: setattr(driver, "compute", [process(OWN), process(1, after)]))
    assert remark(found) == "1 other process on the GPU, holding at least 3.0 GiB of its memory"


def test_without_our_id_in_the_list_all_but_one_are_others(driver: Driver) -> None:
    driver.busy, driver.compute = 0, [process(4711, 1.0)]
    assert seen(driver).remarks == ()
    driver.compute = [process(4711, 1.0), process(4712, 4.0)]
    assert remark(seen(driver)) == "1 other process on the GPU, holding at least 1.0 GiB of its memory"


def test_a_list_that_lacks_even_us_does_not_say_that_we_are_alone(driver: Driver) -> None:
    driver.compute = []
    assert remark(seen(driver)) == BLIND


def test_a_process_list_without_graphics_is_enough(driver: Driver) -> None:
    driver.compute, driver.busy = [process(OWN), process(1)], 0
    driver.nvmlDeviceGetGraphicsRunningProcesses = fails(pynvml.NVML_ERROR_NOT_SUPPORTED)  # type: ignore[method-assign]
    assert remark(seen(driver)) == "1 other process on the GPU, holding at least 1.0 GiB of its memory"


@pytest.mark.parametrize(("busy", "told"), [(5, ""), (6, "; it was 6 % busy before the start")])
def test_a_busy_start_is_told_beside_others(busy: int, told: str, driver: Driver) -> None:
    driver.busy, driver.compute = busy, [process(OWN), process(1)]
    found = seen(driver, lambda _: setattr(driver, "busy", 100))
    assert remark(found) == f"1 other process on the GPU, holding at least 1.0 GiB of its memory{told}"


@pytest.mark.parametrize(("others", "told"), [([], 0), ([process(1)], 1)])
def test_utilisation_is_missed_beside_others_alone(others: list[SimpleNamespace], told: int, driver: Driver) -> None:
    driver.compute = [process(OWN), *others]
    driver.nvmlDeviceGetUtilizationRates = fails(pynvml.NVML_ERROR_NOT_SUPPORTED)  # type: ignore[method-assign]
    assert seen(driver).remarks[told:] == ("utilisation is not told: Not Supported",) * told


@pytest.mark.parametrize("name", watch.SLOWDOWNS)
def test_each_slowdown_is_called_by_its_name(name: str, driver: Driver) -> None:
    driver.reasons = getattr(pynvml, f"nvmlClocksEventReason{name}") | pynvml.nvmlClocksEventReasonGpuIdle
    assert remark(seen(driver)) == f"the GPU was slowed down: {name}"


def test_idleness_and_set_clocks_are_no_slowdown(driver: Driver) -> None:
    driver.reasons = pynvml.nvmlClocksEventReasonGpuIdle | pynvml.nvmlClocksEventReasonApplicationsClocksSetting
    driver.reasons |= pynvml.nvmlClocksEventReasonDisplayClockSetting
    assert seen(driver).remarks == ()


def test_a_slowdown_between_rounds_is_told_though_it_was_over_at_the_end(driver: Driver) -> None:
    def rounds(running: Watch) -> None:
        driver.reasons = pynvml.nvmlClocksEventReasonHwSlowdown
        running.sample()
        driver.reasons = pynvml.nvmlClocksEventReasonSwPowerCap

    assert remark(seen(driver, rounds)) == "the GPU was slowed down: SwPowerCap, HwSlowdown"


@pytest.mark.parametrize("of", ["bindings", "driver"])
def test_older_bindings_and_drivers_are_asked_by_the_older_name(of: str, driver: Driver) -> None:
    missing = None if of == "bindings" else fails(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    driver.nvmlDeviceGetCurrentClocksEventReasons = missing  # type: ignore[assignment,method-assign]
    driver.nvmlDeviceGetCurrentClocksThrottleReasons = lambda _: 0x20  # type: ignore[attr-defined]
    assert remark(seen(driver)) == "the GPU was slowed down: SwThermalSlowdown"


@pytest.mark.parametrize(
    ("clocks", "told"),
    [
        ((1980, 1881), []),
        ((1980, 1400, 1900), ["clocks moved from 1980 to 1400 MHz between rounds"]),
        ((1700, 1600, 1980), ["clocks moved from 1600 to 1980 MHz between rounds"]),
        ((), []),
    ],
)
def test_clocks_that_move_by_more_than_a_twentieth_are_told(
    clocks: tuple[int, ...], told: list[str], driver: Driver
) -> None:
    driver.mhz = 345  # idle, at both ends

    def rounds(running: Watch) -> None:
        for driver.mhz in clocks:
            running.sample()
        driver.mhz = 345

    found = seen(driver, rounds)
    assert found.clock_mhz == clocks
    assert [*found.remarks] == told


def test_a_partitioned_gpu_is_remarked(driver: Driver) -> None:
    driver.mig = 1
    assert remark(seen(driver)) == PARTITIONED


@pytest.mark.parametrize(("error", "told"), [("NOT_SUPPORTED", []), ("TIMEOUT", ["partitioning is not told: Timeout"])])
def test_a_gpu_that_cannot_be_partitioned_is_whole(error: str, told: list[str], driver: Driver) -> None:
    driver.nvmlDeviceGetMigMode = fails(getattr(pynvml, f"NVML_ERROR_{error}"))  # type: ignore[method-assign]
    assert [*seen(driver).remarks] == told


def test_a_second_measurement_starts_afresh(driver: Driver) -> None:
    times = iter([0.0, 0.1, 5.0, 7.0])
    running = Watch(driver, "gpu", pid=OWN, clock=lambda: next(times))
    with running:
        driver.reasons = 0x04
        running.sample()
    driver.reasons = 0
    assert len(running.seen.remarks) == 2
    with running:
        driver.mj += 1_000
    assert running.seen == Seen(1.0, 2.0, (), ())


def test_an_error_in_the_body_passes_and_the_rest_is_still_seen(driver: Driver) -> None:
    running = Watch(driver, "gpu", pid=OWN)
    with pytest.raises(ZeroDivisionError), running:
        1 / 0  # noqa: B018
    assert running.seen.seconds > 0


def test_a_cpu_has_no_watch(driver: Driver) -> None:
    assert Watch.of(torch.device("cpu")) is None


@pytest.mark.parametrize("uuid", ["11-22", "GPU-11-22"])
def test_the_uuid_finds_the_device_whatever_number_it_has_here(
    uuid: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    devices = {CUDA: SimpleNamespace(uuid=uuid)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", devices.__getitem__)
    driver.devices = {"GPU-11-22": "number 3", "GPU-33-44": "number 1"}
    found = Watch.of(CUDA)
    assert found is not None
    assert (found.handle, found.known) == ("number 3", ())


def test_a_part_of_a_gpu_is_watched_as_the_whole(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="11-22"))
    driver.devices = {"MIG-11-22": "a part"}
    found = Watch.of(CUDA)
    assert found is not None
    assert found.handle == "the whole of a part"


@pytest.mark.parametrize(("device", "number"), [("cuda:1", 1), ("cuda", 4)])
def test_without_uuid_the_index_finds_it_with_a_remark(
    device: str, number: int, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 4)
    found = Watch.of(torch.device(device))
    assert found is not None
    found.pid = OWN
    with found:
        driver.mj += 1
    assert found.handle == f"number {number}"
    assert found.seen.remarks[0] == BY_INDEX


def test_a_device_that_nvml_does_not_know_is_not_guessed(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="11-22"))
    assert seen_by(Watch.of(CUDA)) == untold("NVML does not know cuda:1 (Not Found)")


def seen_by(found: Watch | None) -> Seen:
    """A quarter of a second, as this watch sees it."""
    assert found is not None
    found.clock = iter([1.0, 1.25]).__next__
    with found:
        found.sample()
    return found.seen


def untold(why: str) -> Seen:
    """Seconds alone, and one sentence."""
    return Seen(None, 0.25, (), (f"energy, clocks and other processes are not told: {why}",))


def test_without_bindings_or_driver_the_watch_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", fails(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    assert seen_by(Watch.of(CUDA)) == untold("NVML cannot be loaded (NVML Shared Library Not Found)")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    missing = untold("NVML cannot be loaded (import of pynvml halted; None in sys.modules)")
    assert seen_by(Watch.of(CUDA)) == missing


def test_the_driver_is_asked_only_by_names_that_the_bindings_have() -> None:
    asked = {name for name in vars(Driver) if name.startswith(("nvml", "NVML"))}
    assert len(asked) > 10
    assert {name for name in asked if not hasattr(pynvml, name)} == set()
    assert hasattr(pynvml, "nvmlDeviceGetCurrentClocksThrottleReasons")
