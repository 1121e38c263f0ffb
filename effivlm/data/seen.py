"""Whether a set is still the one that was declared, or the one that this machine loaded before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from effivlm.data.places import data_home, write_json
from effivlm.data.source import Source, ids_hash


def check_ids(name: str, source: Source, ids: Sequence[str], origin: str) -> None:
    """Compare the samples of a set with what its source declares; what it does not declare is recorded at the first load and
    compared from then on.

    Raises:
        ValueError: ids that are doubled, or another number of samples or other samples than before; says what differs.
    """
    if len(set(ids)) != len(ids):
        twice = next(one for place, one in enumerate(ids) if one in set(ids[:place]))
        raise ValueError(f"task {name!r}: the set at {origin} holds the id {twice!r} twice")
    found = {"samples": len(ids), "ids_sha256": ids_hash(ids)}
    if source.ids_sha256:
        if source.ids_sha256 != found["ids_sha256"]:
            raise ValueError(f"task {name!r}: the set at {origin} {_differs(source.rows, len(ids))} than declared")
        return
    path = data_home() / "seen" / f"{name}.json"
    facts = {**found, "homes": list(source.homes), "revision": source.revision, "split": source.split}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        before = {}
    if {key: before.get(key) for key in facts} == facts:
        return
    if before and before.get("split") == source.split and before.get("revision") == source.revision:
        raise ValueError(
            f"task {name!r}: the set at {origin} {_differs(int(before['samples']), len(ids))} than the one loaded on"
            f" {before['loaded']} from {before['origin']}; if that is meant, delete {path}"
        )
    loaded = datetime.now(UTC).date().isoformat()
    try:
        write_json(path, {**facts, "origin": origin, "loaded": loaded})
    except OSError as error:
        raise ValueError(
            f"task {name!r}: what its set looks like cannot be recorded in {path} ({error.strerror}); name a folder that can be"
            " written with the variable EFFIVLM_DATA"
        ) from None


def check_rows(name: str, source: Source, rows: int, origin: str) -> None:
    """ValueError where a set has another number of rows than its source declares."""
    if source.rows and rows != source.rows:
        raise ValueError(
            f"task {name!r}: the set at {origin} has {rows} rows and {source.rows} are known: it is another split, a part, or it"
            " was changed by its owners"
        )


def _differs(before: int, now: int) -> str:
    return f"holds {now} samples where {before} were known, others" if before != now else "holds other samples"
