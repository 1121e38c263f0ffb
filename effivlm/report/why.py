"""What limits each timing of a cell, in a sentence: from the split of the time to first token, a step's bytes and the floors.

Nothing is measured here: a split and floors stand in every record of a timing. Where they do not, nothing is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from effivlm.report.costs import FLOORS, SPEEDUPS

ALIKE = 0.05
"""How far from 1 a speed-up is none: the same cell in a second session of the committed GPU runs differs by less."""
HOST = 2.0
"""Times its floor from which on a timing is not the device's.

Halfway, by ratio, between what the committed GPU runs show on both sides: the most that a timing takes which cannot wait for the
host (a whole prefill of thousands of tokens; a step that is one captured launch), and the least of those which must, as they
save less time of prefill than what they leave out needs on the device.
"""
WHOLE = 0.9
"""Share of dense's prefill from which on a prefill is the same: there, caches lie above it and pruning far below."""
MOST = 0.5
"""Share from which on a part is most of the whole."""
Costs = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Why:
    """Which limit it is, and the sentence that says so."""

    limit: str
    text: str


def why(costs: Costs, dense: Costs, faster: Mapping[str, float | None]) -> dict[str, dict[str, str]]:
    """By timing (ttft, decode, batch), its limit; `costs` and `dense` are medians by name, `faster` dense time / own time.

    `dense` holds those of the same engine and prompt; dense itself is faster than nothing.
    """
    found = {
        "ttft": _ttft(costs, dense, faster.get("ttft")),
        "decode": _step(costs, faster.get("decode"), "decode", 1),
        "batch": _step(costs, faster.get("batch"), "batch", round(costs.get("batch", 1))),
    }
    return {word: asdict(one) for word, one in found.items() if one is not None}


def _ttft(costs: Costs, dense: Costs, faster: float | None) -> Why | None:
    whole, floor, parts = costs.get("ttft_s"), costs.get("ttft_floor_s"), [costs.get(f"{one}_s") for one in PARTS]
    tower, method, prefill = (part or 0.0 for part in parts)
    if not whole or not floor or not any(parts):
        return None
    lead, share = _lead(faster, "to the first token"), f"the prefill is {prefill / whole:.0%} of it"
    if own := _own_work(method, prefill, whole, dense.get("prefill_s", prefill), faster):
        return Why("method", f"{lead}: {own}")
    if (
        tower > prefill
    ):  # first of the two: a tower that reaches less of the device is slow by itself, whatever it waits for
        return Why(
            "tower", f"{lead}: the vision tower is {tower / whole:.0%} of it, which nothing behind the tower shortens"
        )
    if whole > HOST * floor:
        return Why(
            "host", f"{lead}: it takes {whole / floor:.1f} times what its operations need on this device, so {LAUNCHES}"
        )
    if faster is not None and faster < 1 + ALIKE and prefill >= WHOLE * dense.get("prefill_s", prefill):
        return Why("prefill", f"{lead}: {share} and sees the whole prompt, as dense's does")
    return Why(
        "prefill",
        f"{lead}: {share}, and the whole takes {whole / floor:.1f} times what its operations need on this device",
    )


def _own_work(method: float, prefill: float, whole: float, dense: float, faster: float | None) -> str:
    """What a method's own work takes and saves where that is what limits it; "" where something else does.

    Beside a whole prefill, `dense` long, it is the limit where the cell is slower than dense by more than nothing.
    """
    saved, slow = dense - prefill, faster is not None and faster < 1 + ALIKE
    if prefill >= WHOLE * dense:
        slow = faster is not None and faster < 1 - ALIKE
    if method <= MOST * whole and not (slow and method > MOST * max(saved, ALIKE * whole)):
        return ""
    saves = f"saves {1e3 * saved:.1f} ms of prefill" if prefill < WHOLE * dense else "saves no prefill"
    return f"its own work takes {1e3 * method:.1f} ms and {saves}"


def _step(costs: Costs, faster: float | None, word: str, batch: int) -> Why | None:
    step, floor, rate = costs.get(SPEEDUPS[word]), costs.get(FLOORS[word]), costs.get("device_bytes_per_s")
    kept = costs.get("kv_bytes")
    if not step or not floor or not rate or kept is None:
        return None
    lead, cached = _lead(faster, f"at batch {batch}"), min(1.0, batch * kept / (1e-3 * floor * rate))
    held = f"weights are {1 - cached:.0%} of the bytes of a step" if cached < MOST else ""
    held = held or f"the cache is {cached:.0%} of the bytes of a step"
    if step > HOST * floor:
        return Why(
            "host",
            f"{lead}: a step takes {step / floor:.1f} times what its bytes need on this device, so {LAUNCHES} ({held})",
        )
    if batch > 1 and cached < MOST:
        return Why("batch", f"{lead}: {held}; the cache counts for more in a larger batch")
    return Why("bytes", f"{lead}: {held}")


def _lead(faster: float | None, where: str) -> str:
    if faster is None:
        return f"limited {where}"
    if abs(faster - 1) <= ALIKE:
        return f"no faster {where}"
    return f"{faster:.2f} times as fast {where}" if faster > 1 else f"slower {where}, {faster:.2f} times as fast"


PARTS = ("tower", "method", "prefill")
LAUNCHES = "launches and the host set the pace"


def of_cell(costs: Mapping[str, Any], dense: Costs, faster: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """As `why`, of what the document holds of a cell."""
    medians = {name: float(one["median"]) for name, one in costs.items()}
    return why(medians, dense, {word: one and one["value"] for word, one in faster.items()})
