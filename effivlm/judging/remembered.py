"""Replies on disk: what a judge was asked once it is not asked again, in this run or another."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from effivlm.judging.judge import Judge, Query, Reply


@dataclass(frozen=True, slots=True)
class Remembered:
    """A judge whose replies stay in `folder`, one file a reply, named by the hash of judge, query and repeat.

    A failure is not kept, so that the next run asks again. A file that cannot be read is asked anew and replaced. Files are
    whole or not there: each is written beside its place and moved into it.
    """

    judge: Judge
    folder: Path

    @property
    def name(self) -> str:
        return self.judge.name

    def reply(self, query: Query, repeat: int = 0) -> Reply:
        """The kept reply, else the judge's. Raises Unanswered."""
        path = self._path(query, repeat)
        kept = _read(path)
        if kept is not None:
            return kept
        reply = self.judge.reply(query, repeat)
        _write(path, {"judge": self.name, "query_sha256": query.sha256(), "repeat": repeat, **asdict(reply)})
        return reply

    def forget(self, query: Query, repeat: int = 0) -> None:
        """Take back a reply that says nothing, so that the next run asks again."""
        self._path(query, repeat).unlink(missing_ok=True)

    def _path(self, query: Query, repeat: int) -> Path:
        key = hashlib.sha256(json.dumps([self.name, query.sha256(), repeat]).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"


def _read(path: Path) -> Reply | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(kept, dict) or not isinstance(kept.get("text"), str) or not isinstance(kept.get("model"), str):
        return None
    return Reply(kept["text"], kept["model"])


def _write(path: Path, kept: dict[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
