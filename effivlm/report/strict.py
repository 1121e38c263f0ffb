"""JSON read as strictly as it is written: numbers are numbers."""

from __future__ import annotations

import json
import math
from typing import Any


def strict(text: str | bytes) -> Any:
    """Read JSON that holds numbers alone: NaN, infinity and what overflows to it raise ValueError, as all that is no JSON."""
    try:
        return json.loads(text, parse_constant=_not_json, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _not_json(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value
