"""All claims, in the order of the page."""

from __future__ import annotations

from bench_tests.studies.observations import cache_claims, first_claims

CLAIMS = (*first_claims.CLAIMS, *cache_claims.CLAIMS)
