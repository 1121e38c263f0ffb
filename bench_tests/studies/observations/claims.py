"""All claims, in the order of the page."""

from __future__ import annotations

from bench_tests.studies.observations import (
    cache_claims,
    choice_claims,
    family_claims,
    first_claims,
    sink_claims,
    weight_claims,
)
from bench_tests.studies.observations.effects import Claim

_UNORDERED = (
    *first_claims.CLAIMS,
    *family_claims.CLAIMS,
    *choice_claims.CLAIMS,
    *weight_claims.CLAIMS,
    *cache_claims.CLAIMS,
    *sink_claims.CLAIMS,
)
CLAIMS: tuple[Claim, ...] = tuple(sorted(_UNORDERED, key=lambda claim: (not claim.name[0].isdigit(), claim.name[0])))
"""Observations by their numbers, then insights; claims of one group stay in order."""
