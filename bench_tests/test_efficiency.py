"""What compression saves (OE): time to first token and time per generated token, each case alone on its device."""

from __future__ import annotations

from typing import Any

import pytest

from effivlm.plugin.cases import CLOCK, QUIET, Stand
from effivlm.records import Cell

pytestmark = [pytest.mark.benchmark(timer=CLOCK.now), QUIET]


def test_ttft(cell: Cell, timing: Stand, benchmark: Any) -> None:
    """Seconds from the processed prompt to the first token."""
    outcome = timing.measure("ttft", benchmark)
    assert outcome.costs["ttft_s"].median > 0


def test_decode(cell: Cell, timing: Stand, benchmark: Any) -> None:
    """Milliseconds per generated token over the compressed cache."""
    outcome = timing.measure("decode", benchmark)
    assert outcome.costs["decode_ms_per_token"].median > 0
