"""JSON read as strictly as it is written: numbers are numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def strict(text: str | bytes) -> Any:
    """Read JSON that holds numbers alone: NaN, infinity and what overflows to it raise ValueError, as all that is no JSON."""
    try:
        return json.loads(text, parse_constant=_not_json, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Line numbers and objects of a file of JSON lines; None stands for a line that is no JSON object, as a kill may leave it."""
    with path.open("rb") as lines:  # bytes end a line at a newline alone: a text may hold U+2028 and the like
        for place, line in enumerate(lines, start=1):
            if line.strip():
                yield place, _object(line)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        record = strict(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _not_json(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large for a number")
    return value
