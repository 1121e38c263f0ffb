"""Under which conditions a cell was measured: what must be alike for two measurements to be comparable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Conditions:
    """Device and driver (of timings), precision and samples (of all); "" and None where a run did not record it."""

    device: str = ""
    driver: str = ""
    dtype: str = ""
    limit: int | None = None
    seed: int | None = None
    task_version: int | None = None

    @property
    def machine(self) -> str:
        """Device and driver in words."""
        driver = f", driver {self.driver}" if self.driver else ""
        return f"{self.device or 'a device that was not recorded'}{driver}"


Machines: TypeAlias = Mapping[tuple[str, str], Mapping[str, Any]]


def machines(run: Mapping[str, Any]) -> Machines:
    """Whose machine measured what, by (cell id, part); empty for the document of a single run."""
    return {
        (cell, part): machine
        for machine in run.get("machines", ())
        for part, cells in machine["cells"].items()
        for cell in cells
    }


def conditions(run: Mapping[str, Any], known: Machines, cell: Mapping[str, Any]) -> dict[str, Conditions]:
    """Conditions by part of one cell of a document whose facts are `run`: its own machine's in a merged document."""
    found = {}
    for part in cell["fingerprints"]:
        facts = known.get((cell["id"], part), run)
        settings = facts.get("settings") or {}
        version = (facts.get("task_versions") or {}).get(cell["task"])
        found[part] = Conditions(
            *device_of(facts), str(settings.get("dtype", "")), settings.get("limit"), settings.get("seed"), version
        )
    return found


WORDS = ("limit", "seed", "dtype", "engine", "device", "kernels", "batch", "prompt", "shard")
TIMED, ANSWERED = ("batch", "prompt"), ("shard",)
"""What a header tells of the conditions of its session's measurements, and which of it matters to timings or answers alone."""


def differing(before: Mapping[str, Any], now: Mapping[str, Any], part: str) -> list[str]:
    """In words, what the headers of two sessions of one run have different that decides a measurement of `part`.

    What one of them does not tell counts as the same. Timings need one device, answers one kind of it.
    """
    found = []
    for word in WORDS:
        one, other = _told(before, word, part), _told(now, word, part)
        if None not in (one, other) and one != other:
            found.append(f"{word} {_shown(one)}, now {_shown(other)}")
    return found


def _shown(value: Any) -> str:
    return "none" if value == "" else str(value)


def _told(header: Mapping[str, Any], word: str, part: str) -> Any:
    settings = header.get("settings")
    value = settings.get(word) if isinstance(settings, Mapping) else None
    if value is None or word in (TIMED if part == "quality" else ANSWERED):
        return None
    if word != "device":
        return value
    return " ".join(filter(None, device_of(header))) if part != "quality" else str(value).split(":")[0]


def device_of(run: Mapping[str, Any]) -> tuple[str, str]:
    """Name and driver of the device that a run computed on; the processor where a machine with GPUs ran on its CPU.

    Of a merged document, all of them.
    """
    if run.get("machines"):
        return str(run.get("device") or ""), str(run.get("driver") or "")
    asked = str((run.get("settings") or {}).get("device", ""))
    if asked.startswith("cpu") and run.get("processor"):
        return str(run["processor"]), ""
    gpus = run.get("gpus") or ()
    number = asked.partition(":")[2]
    if number.isdigit() and int(number) < len(gpus):
        gpu = gpus[int(number)]
        return str(gpu.get("name", "")), str(gpu.get("driver", ""))
    device = run.get("device")
    if isinstance(device, Mapping):
        return str(device.get("name", "")), str(device.get("driver", ""))
    return str(device or ""), str(run.get("driver") or "")
