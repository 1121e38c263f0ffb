"""How records are stored: as one JSON line each, of the types that are read back, and under a short name for everything that
determines an outcome."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair: text that was cut in the middle of a character holds it, and it has no UTF-8 form."""


def dump(record: Mapping[str, Any]) -> str:
    """One JSON line with a UTF-8 form: halves of surrogate pairs stand escaped, and read back equal.

    Raises:
        ValueError: NaN or infinity, which are refused rather than written.
        TypeError: a value of no JSON type.
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_listed)
    return HALF_PAIR.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _listed(value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"a value of type {type(value).__name__} cannot be stored: {repr(value)[:60]}") from None


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A short stable name for everything that determines an outcome."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


OUTCOME_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(
        ("fingerprint", "status", "part", "reason", "metric", "answer_type", "scoring", "profile", "samples_from"), str
    ),
    **dict.fromkeys(("n", "broken", "group"), int),
    **dict.fromkeys(("answers", "remarks"), list | tuple),
    "score": int | float | None,
    "scale": int | float,
    **dict.fromkeys(("costs", "parts"), Mapping),
    **dict.fromkeys(("judged", "product"), Mapping | None),
}
ANSWER_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("id", "prompt_sha256", "text", "extracted", "error"), str),
    "score": int | float | None,
    "tokens": list | tuple,
    "invalid": bool | None,
    "part": str,
    "pictures": str,
    "kl": Mapping | None,
}


def check_types(of: str, data: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """ValueError where a field that is there has another type than `types` says, or a score does not lie in [0, 1]."""
    for name, kind in types.items():
        if name in data and not isinstance(data[name], kind):
            raise ValueError(f"{of} has {name} {str(data[name])[:40]!r}, which is of the wrong type")
    score = data.get("score")
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"{of} has the score {score!r}, which does not lie in [0, 1]")
