"""What the gate allows: a tolerance for each kind of measurement, and what happens to cells that come and go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

POLICIES = ("fail", "warn", "ok")


@dataclass(frozen=True, slots=True)
class Group:
    """A kind of measurement: what it is, its default tolerance, and for a ratio of costs which cost, by which part.

    `part` "": any timing part measures it.
    """

    text: str
    default: float
    cost: str = ""
    part: str = ""


GROUPS: Mapping[str, Group] = {
    "score": Group("drop of the score on [0, 1]", 0.01),
    "kept": Group("change of the kept fraction beyond rounding", 0.0),
    "ttft": Group("time to first token, after / before", 1.10, "ttft_s", "ttft"),
    "decode": Group("time per token, after / before", 1.05, "decode_ms_per_token", "decode"),
    "batch": Group("time per step of a batch, after / before", 1.05, "batch_decode_ms_per_step", "decode"),
    "memory": Group("peak memory, after / before", 1.05, "peak_memory_bytes"),
}


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One entry of the table; `of` limits it to a task, a model or a method, "" to none."""

    group: str
    value: float
    of: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Tolerances and policies. `missing` None: fail, but cells that a session did not select are not missing.

    `inconclusive`: what looks worse than allowed, and was measured too little to tell.
    """

    tolerances: tuple[Tolerance, ...] = ()
    missing: str | None = None
    new: str = "warn"
    device: str = "warn"
    inconclusive: str = "warn"
    defaults: Mapping[str, float] = field(default_factory=lambda: {name: one.default for name, one in GROUPS.items()})

    def __post_init__(self) -> None:
        for name, policy in self.policies.items():
            if policy not in POLICIES:
                raise ValueError(f"{name}: {policy!r} is not one of {', '.join(POLICIES)}")

    @property
    def policies(self) -> dict[str, str]:
        rest = {"new": self.new, "device": self.device, "inconclusive": self.inconclusive}
        return {"missing": self.missing or "fail", **rest}

    def allowed(self, group: str, cell: Mapping[str, Any]) -> float:
        """The tolerance of a cell: one for its task, model or method goes before a general one, the last named wins."""
        found = self.defaults[group]
        for names in ({""}, {str(cell[word]) for word in ("task", "model", "method")}):
            for one in self.tolerances:
                if one.group == group and one.of in names:
                    found = one.value
        return found

    def check_names(self, known: Iterable[str]) -> None:
        """ValueError where a tolerance is for something that neither side holds."""
        names = sorted(known)
        for one in self.tolerances:
            if one.of and one.of not in names:
                raise ValueError(
                    f"tolerance {one.of}.{one.group}: {one.of!r} is no task, model or method of these runs;"
                    f" there are: {', '.join(names)}"
                )


def tolerances(text: str) -> tuple[Tolerance, ...]:
    """Read a table such as "score=0.02,ttft=1.10,docvqa_micro.score=0.03"; ValueError names what cannot be read."""
    words = [word.strip() for word in text.split(",")] if text.strip() else []
    return tuple(_tolerance(word) for word in words)


def _tolerance(word: str) -> Tolerance:
    name, equals, number = (part.strip() for part in word.partition("="))
    of, dot, group = name.rpartition(".")
    if not equals or (dot and not of):
        raise ValueError(f"tolerance {word!r} is not GROUP=VALUE or NAME.GROUP=VALUE, e.g. score=0.02")
    if group not in GROUPS:
        raise ValueError(f"tolerance {word!r}: {group!r} is not one of {', '.join(GROUPS)}")
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"tolerance {word!r}: {number!r} is not a number") from None
    ratio = bool(GROUPS[group].cost)
    if not math.isfinite(value) or (value < 1 if ratio else not 0 <= value <= 1):
        raise ValueError(
            f"tolerance {word!r}: {number} is not {'a ratio of at least 1, e.g. 1.10' if ratio else 'in [0, 1]'}"
        )
    return Tolerance(group, value, of)
