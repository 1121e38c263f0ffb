"""A claim's effect, and what may be said of it beside all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench_tests.studies.observations.tally import Missing
from effivlm.metrics.discoveries import RATE, adjusted, detectable, difference_p, spreads
from effivlm.metrics.statistics import LEAST, NO_WIDTH, Floats, Interval, ends, interval

if TYPE_CHECKING:
    from bench_tests.studies.observations.evidence import Evidence

HOLDS, NOT, OPEN = "holds", "does not hold", "cannot tell"
MARGIN = 0.01
"""What a difference of scores in [0, 1] must reach to matter: the margin of the project's certificates."""


@dataclass(frozen=True)
class Effect:
    """A figure with its value in each resample; over `units` groups of samples, of which `unlike` tell the two sides apart."""

    value: float
    draws: Floats
    units: int
    unlike: int
    over: str

    @property
    def interval(self) -> Interval | None:
        return interval(self.draws) if self.units >= LEAST else None

    @property
    def spread(self) -> float | None:
        return spreads(self.draws[:, None])[0] if self.units >= LEAST else None

    @property
    def detectable(self) -> float | None:
        """The smallest figure that so many units often tell from 0; where no two resamples differ, one for which `p` is small."""
        if self.spread is not None and self.spread <= NO_WIDTH:
            return float(1 - RATE ** (1 / self.units))
        return detectable(self.spread, self.units)

    def p(self, of: float) -> float | None:
        """That it is another figure than `of`, two-sided; None under `LEAST` units.

        Where no two resamples differ, the chance that so many units all look alike although a share as large as the difference
        of them does not.
        """
        apart, spread = abs(self.value - of), self.spread
        if spread is not None and spread <= NO_WIDTH and apart > NO_WIDTH:
            return float((1 - min(1.0, apart)) ** self.units)
        return difference_p(self.value - of, spread, self.units, self.units if of else self.unlike)


@dataclass(frozen=True)
class Claim:
    """A claim and how it is measured.

    It holds where the effect lies above `null` for sure, and does not where it lies below `bound` for sure, which is no less than
    `null`; where both are sure, it does not, unless it is a claim of no difference (`null` < 0). `caveat` says
    what micro models cannot say of large ones; `paper` what the paper's own numbers give.
    """

    name: str
    group: str
    text: str
    measured: str
    effect: Callable[[Evidence], Effect]
    caveat: str
    paper: Callable[[], float | None] = lambda: None
    null: float = 0.0
    bound: float = MARGIN
    unit: str = "points"

    def __post_init__(self) -> None:
        if self.bound < self.null:
            raise ValueError(f"{self.name}: bound {self.bound:g} is less than null {self.null:g}")


@dataclass
class Row:
    """A claim with what came of it; without an effect where what it needs was not run, and `reason` says what."""

    claim: Claim
    effect: Effect | None = None
    reason: str = ""
    q: float | None = None
    q_against: float | None = None
    verdict: str = OPEN

    def to_json(self) -> dict[str, Any]:
        found = self.effect
        claim = {
            name: getattr(self.claim, name)
            for name in ("name", "group", "text", "measured", "caveat", "unit", "null", "bound")
        }
        return {
            **claim,
            "paper": self.claim.paper(),
            "effect": None if found is None else found.value,
            "interval": None if found is None else ends(found.interval),
            "units": found.units if found else 0,
            "over": found.over if found else "",
            "q": self.q,
            "q_against": self.q_against,
            "verdict": self.verdict,
            "reason": self.reason,
            "detectable": found.detectable if found else None,
        }


def settle(rows: Sequence[Row]) -> None:
    """Give every row its verdict: the rates of false ones are held over all rows, for both kinds of verdict apart."""
    for word, of in (("q", "null"), ("q_against", "bound")):
        found = adjusted([one.effect.p(getattr(one.claim, of)) if one.effect else None for one in rows])
        for row, q in zip(rows, found, strict=True):
            setattr(row, word, q)
    for row in rows:
        row.verdict = _verdict(row)


def _verdict(row: Row) -> str:
    if row.effect is None:
        return OPEN
    above = row.q is not None and row.q <= RATE and row.effect.value > row.claim.null
    below = row.q_against is not None and row.q_against <= RATE and row.effect.value < row.claim.bound
    if above and below:  # surely there, and surely too small to matter
        return HOLDS if row.claim.null < 0 else NOT
    return HOLDS if above else NOT if below else OPEN


def rows_of(claims: Sequence[Claim], evidence: Evidence) -> list[Row]:
    """Every claim with its verdict."""
    rows = []
    for claim in claims:
        try:
            rows.append(Row(claim, claim.effect(evidence)))
        except Missing as missing:
            rows.append(Row(claim, reason=str(missing)))
    settle(rows)
    return rows
