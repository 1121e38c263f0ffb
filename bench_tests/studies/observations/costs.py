"""What efficiency runs measured of the same settings: times to the first token and of a step, against dense of the same run."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench_tests.studies.observations.tally import Setting
from effivlm.budget import Budget
from effivlm.metrics.discoveries import Z
from effivlm.metrics.statistics import ROUNDS, Floats
from effivlm.report.costs import SPEEDUPS

BATCH = "batch"


@dataclass(frozen=True)
class Timed:
    """One setting on one model and device: dense's time over its own, and the ends of its interval, by what was timed; its
    own times in seconds, the bytes of its cache, and how many prompts of it fit."""

    where: str
    setting: Setting
    speedups: Mapping[str, tuple[float, float, float]]
    ttft_s: float | None
    step_s: Mapping[str, float]
    kv_bytes: float
    peak_bytes: float | None
    fits: float | None


def read(path: Path) -> Mapping[str, Any]:
    """A report.json with timings. Raises OSError, or ValueError where it is something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or not {"run", "cells"} <= set(found):
        raise ValueError(f"{path} is no report.json of a run: it has no run and cells")
    if not any("ttft_s" in cell["costs"] for cell in found["cells"]):
        raise ValueError(f"{path} holds no timings")
    return found


def timed(reports: Sequence[Mapping[str, Any]]) -> list[Timed]:
    """Every timed cell."""
    found = []
    for report in reports:
        for cell in report["cells"]:
            costs = {name: one["median"] for name, one in cell["costs"].items()}
            preset = "" if cell["preset"] == "paper" else f"@{cell['preset']}"
            steps = {"decode": "decode_ms_per_token", BATCH: "batch_decode_ms_per_step"}
            found.append(
                Timed(
                    f"{cell['model']} on {report['run']['device']}",
                    (cell["method"] + preset, Budget.parse(cell["keep"]).label),
                    {
                        word: (one["value"], *(one["interval"] or (one["value"], one["value"])))
                        for word in SPEEDUPS
                        if (one := cell["speedups"].get(word))
                    },
                    costs.get("ttft_s"),
                    {word: costs[name] / 1e3 for word, name in steps.items() if name in costs},
                    costs.get("kv_bytes", 0.0),
                    costs.get("peak_memory_bytes"),
                    costs.get("largest_batch"),
                )
            )
    return found


def drawn(one: Timed, word: str, seed: int) -> Floats:
    """Logarithms of a speed-up, as it is and as its interval lets it be (1 + rounds)."""
    value, low, high = np.log(one.speedups[word])
    spread = (high - low) / 2 / Z
    rng = np.random.default_rng([seed, zlib.crc32(one.where.encode())])
    found: Floats = np.concatenate([[value], value + spread * rng.standard_normal(ROUNDS)])
    return found
