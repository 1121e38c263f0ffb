"""Which checkpoint a folder holds, by all bytes of its files, read once per state of each file.

Every byte counts: layers that changed at the same size and under the same header give another identity, and so does a change
that sets the time of the file back. What was read is kept in the user's cache by path, size, times and inode, so that a
checkpoint of 77 GB is read once, by several threads, and by no process after that. Not seen: a file whose bytes changed
while size, inode and both times (of the content and of the inode) did not, which takes a broken clock or a device written
past its file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

SUFFIXES = (".json", ".safetensors", ".txt", ".model", ".tiktoken", ".jinja")
"""Files of a checkpoint that decide its answers; a licence or a picture beside them does not."""
BLOCK = 1 << 24
THREADS = min(8, os.cpu_count() or 1)
LARGE = 1 << 23  # bytes of a file that is worth a line in the cache; a smaller one is read faster than looked up
KEPT = 4096  # files in the cache, the last read ones
SETTLED_NS = 2_000_000_000  # a file changed later than this may change again within one tick of its clock
State = tuple[int, ...]
_read: dict[State, str] = {}


def folder_digest(folder: Path) -> str:
    """One name for the bytes of all files of a checkpoint, 64 hexadecimal digits; OSError where one cannot be read."""
    files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())
    files += sorted(folder.glob("additional_chat_templates/*.jinja"))
    lines = [f"{path.relative_to(folder)} {file_digest(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def unread_bytes(folder: Path) -> int:
    """How much of a folder `folder_digest` would have to read because no cache knows it."""
    known, total = _cached(), 0
    for path in folder.iterdir():
        if path.suffix in SUFFIXES and path.is_file() and _known(path, _state(path), known) is None:
            total += path.stat().st_size
    return total


def file_digest(path: Path) -> str:
    """SHA-256 over the SHA-256 of a file's blocks, 16 MiB each; a file that changes meanwhile raises OSError."""
    before, began = _state(path), time.time_ns()
    unknown = before not in _read and before[0] >= LARGE
    if (found := _known(path, before, _cached() if unknown else {})) is not None:
        return found
    digest = _digest(path, before[0])
    if _state(path) != before:
        raise OSError(f"{path} changed while it was read")
    if began - max(before[1:3]) > SETTLED_NS:
        _read[before] = digest
        if before[0] >= LARGE:
            _remember(path.resolve(), before, digest)
    return digest


def _known(path: Path, state: State, cached: Mapping[str, Any]) -> str | None:
    if found := _read.get(state):
        return found
    entry = cached.get(str(path.resolve())) if cached else None  # snapshots of the hub are links, many to one file
    if isinstance(entry, list) and tuple(entry[:-1]) == state and isinstance(entry[-1], str):
        return entry[-1]
    return None


def _state(path: Path) -> State:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino, facts.st_dev


def _digest(path: Path, size: int) -> str:
    with path.open("rb", buffering=0) as file:
        handle = file.fileno()

        def block(start: int) -> bytes:
            return hashlib.sha256(b"".join(_pieces(handle, start, min(BLOCK, size - start)))).digest()

        starts = range(0, size, BLOCK)
        if len(starts) < 2:
            blocks = [block(start) for start in starts]
        else:
            with ThreadPoolExecutor(THREADS) as pool:
                blocks = list(pool.map(block, starts))
    return hashlib.sha256(size.to_bytes(8, "big") + b"".join(blocks)).hexdigest()


def _pieces(handle: int, start: int, length: int) -> Iterator[bytes]:
    """The bytes of a block; a system may hand out fewer than it was asked for at once."""
    while length:
        piece = os.pread(handle, length, start)
        if not piece:
            raise OSError("a file became shorter while it was read")
        yield piece
        start, length = start + len(piece), length - len(piece)


def _cache_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "effivlm" / "digests.json"


def _cached() -> Mapping[str, Any]:
    """What is known of large files; nothing where the cache is not there or damaged, which costs time alone."""
    try:
        found = json.loads(_cache_file().read_text(encoding="utf-8", errors="surrogateescape"))
    except (OSError, RuntimeError, ValueError):  # RuntimeError: nobody's home
        return {}
    return found if isinstance(found, dict) else {}


def _remember(path: Path, state: State, digest: str) -> None:
    """Put a file into the cache. Where that cannot be written it is read again next time."""
    with suppress(OSError, RuntimeError):
        file = _cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        others = {name: entry for name, entry in _cached().items() if name != str(path)}
        kept = dict([*others.items(), (str(path), [*state, digest])][-KEPT:])
        handle, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as new:
                json.dump(kept, new)
            os.replace(temporary, file)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
