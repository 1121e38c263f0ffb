"""Whether a timing can be trusted, told from its remarks: the one place that knows which remarks say that it cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

BESIDE_WORKERS = "measured beside other xdist workers"
COMPANY = "on the GPU, holding at least"
"""In the remark that names other processes on the device."""
IMPOSSIBLE = "first token before dense's, whose work it does whole"
UNTRUSTED = (BESIDE_WORKERS, COMPANY, IMPOSSIBLE)
"""What a remark holds that makes a timing untrusted: it is shown as such, and left out of means and of the gate."""
UNSETTLED = "is not settled"
"""In the remark on rounds that ended before their median was settled: such a timing counts, and is marked."""
TIMED = ("ttft", "decode", "batch")
BATCHED = "decoding at batch"
"""How a remark on a batch names it; remarks on the others begin with their word."""
CACHE = "prompt entries"
"""What a method that works after a whole prefill keeps a share of."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Why a timing is untrusted, and why its median is not settled; nothing where all is well."""

    untrusted: tuple[str, ...] = ()
    unsettled: tuple[str, ...] = ()


def trust(remarks: Iterable[str], word: str) -> Trust:
    """What the remarks of an outcome say of one of its timings ("ttft", "decode" or "batch")."""
    known = list(dict.fromkeys(remarks))
    return Trust(
        tuple(remark for remark in known if any(sign in remark for sign in UNTRUSTED)),
        tuple(remark for remark in known if UNSETTLED in remark and _is_of(remark, word)),
    )


def sign(reason: str) -> str:
    """What kind of reason this is, without its numbers."""
    return next((one for one in UNTRUSTED if one in reason), reason)


def _is_of(remark: str, word: str) -> bool:
    return remark.startswith(BATCHED if word == "batch" else f"{word} ")


def impossible(achieved: Mapping[str, Any] | None, speedup: Mapping[str, Any] | None) -> str:
    """A remark where a cache method's TTFT lies below dense's by more than the interval; "" anywhere else.

    It prefills the whole prompt before it drops anything, so it can be as fast as dense and no faster: what looks faster
    was measured on a machine that changed meanwhile. A composition may drop tokens earlier.
    """
    if not achieved or achieved["of"] != CACHE or achieved.get("parts") or not speedup or not speedup["interval"]:
        return ""
    if speedup["interval"][0] <= 1:
        return ""
    return (
        f"{IMPOSSIBLE} (x {speedup['value']:.2f}): the machine changed meanwhile, so doubt the TTFT of all cells here"
    )


def own_doubts(cell: Mapping[str, Any], word: str) -> list[str]:
    """Why a time of a cell of a document is untrusted; a document of before this was stored is judged by its remarks."""
    if "trust" not in cell:
        return list(trust(cell.get("remarks", ()), word).untrusted)
    found: Mapping[str, Any] = cell["trust"].get(word, {})
    return list(found.get("untrusted", ()))


def doubts(cell: Mapping[str, Any], word: str) -> list[str]:
    """Why a speed-up of a cell of a document is untrusted: by its own time, or by dense's."""
    against = cell.get("trust", {}).get(word, {}).get("against", ())
    return list(dict.fromkeys([*own_doubts(cell, word), *against]))


def loose(cell: Mapping[str, Any], word: str) -> list[str]:
    """Why a time of a cell of a document is not settled."""
    if "trust" not in cell:
        return list(trust(cell.get("remarks", ()), word).unsettled)
    found: Mapping[str, Any] = cell["trust"].get(word, {})
    return list(found.get("unsettled", ()))
