"""Places that a run writes to: tried before anything runs, claimed once, and held by one session at a time."""

from __future__ import annotations

import errno
import json
import math
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # no POSIX: the process that the file names decides alone
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
TRIAL_BYTES = 1 << 20
ENDED = ("Z", "X")  # states of a process in /proc
NAMES = 1000  # folders of one second
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""What a file system answers that knows no locks."""


def trial(path: Path, size: int = TRIAL_BYTES) -> None:
    """Write `size` bytes to a file `path` that is not there yet, and take away what that made, folders included.

    Raises OSError where a folder around it, its name or its size is refused.
    """
    made = [folder for folder in path.absolute().parents if not folder.exists()]  # the innermost first
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(b"\0" * size)
            file.flush()
            os.fsync(file.fileno())
    finally:
        with suppress(OSError):  # what could not be made cannot be taken away either
            path.unlink()
        with suppress(OSError):
            for folder in made:
                folder.rmdir()


def claim(runs: Path, stamp: str) -> Path:
    """Make a new folder in `runs`, named by `stamp`, or with a number behind it where another session was first."""
    runs.mkdir(parents=True, exist_ok=True)
    for name in (stamp, *(f"{stamp}-{number}" for number in range(2, NAMES))):
        with suppress(FileExistsError):
            (runs / name).mkdir()
            return runs / name
    raise OSError(errno.EEXIST, f"{NAMES} folders of one second are there already", str(runs / stamp))


@dataclass
class Lock:
    """Held on a folder by one session at a time; the file in it says by whom.

    The kernel gives the lock back when its process ends, however it ends, so a killed session leaves a file and holds
    nothing. Where the file system knows no locks, or another host wrote the file, its words decide; those of another host for
    `silence_s` after it last touched the file.
    """

    folder: Path
    file: str = LOCK
    silence_s: float = math.inf
    note: str = ""
    _file: IO[str] | None = field(default=None, repr=False)

    def hold(self) -> None:
        """Take the lock; `note` says whose it was where a session left one behind.

        Raises:
            ValueError: another session holds it; names process, host and start.
            OSError: the file cannot be written.
        """
        path = self.folder / self.file
        while self._file is None:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8", errors="replace")
            try:
                self._file = file if self._took(file, path) else None
            finally:
                if self._file is None:
                    file.close()

    def release(self) -> None:
        """Let go; a second call does nothing."""
        file, self._file = self._file, None
        if file:
            with suppress(
                OSError
            ):  # the folder may be gone, or its disk full: the lock ends with the file all the same
                (self.folder / self.file).unlink(missing_ok=True)
            with suppress(OSError):
                file.close()

    def touch(self) -> None:
        """Show other hosts that the holder is at work."""
        with suppress(OSError):  # it may be out of reach for a while, and is held all the same
            os.utime(self.folder / self.file)

    def _took(self, file: IO[str], path: Path) -> bool:
        """Whether the lock is ours now; False where the file was taken away meanwhile, so that another try is due."""
        known = _locked(file)
        holder = _holder(file.read())
        elsewhere = bool(holder) and holder["host"] != socket.gethostname()
        quiet = elsewhere and time.time() - os.fstat(file.fileno()).st_mtime > self.silence_s
        alive = holder and not quiet and (elsewhere or (known is None and _runs(holder)))
        if known is False or alive:
            raise ValueError(f"{self.folder} is in use by {_words(holder)}: {_advice(path, elsewhere)}")
        if not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino:
            return False
        if holder:
            self.note = f"{self.folder} was held by {_words(holder)}, which is gone; this session took it over"
        file.seek(0)
        file.truncate()
        file.write(json.dumps(_ourselves()) + "\n")
        file.flush()
        return True


def _locked(file: IO[str]) -> bool | None:
    """Whether the kernel gave the lock; None where it knows none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True


def _ourselves() -> dict[str, Any]:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "born": _born(os.getpid())}


def _holder(text: str) -> dict[str, Any]:
    """Who wrote the file; empty where nobody did, or was cut short while writing."""
    try:
        found = json.loads(text)
        return {**found, "pid": int(found["pid"]), "host": str(found["host"])}
    except (KeyError, TypeError, ValueError):
        return {}


def _words(holder: dict[str, Any]) -> str:
    if not holder:
        return "another session"
    return f"process {holder['pid']} on {holder['host']} since {holder.get('started')}"


def _advice(path: Path, elsewhere: bool) -> str:
    wait = "wait for it, or name another folder"
    return f"{wait}; if that process is gone, delete {path}" if elsewhere else wait


def _runs(holder: dict[str, Any]) -> bool:
    """Whether the process of this host that wrote the file still runs, and is no later one with its number."""
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return False
    except (OverflowError, PermissionError):
        pass  # somebody else's process is a process
    return bool(_born(holder["pid"]) == holder.get("born"))


def _born(pid: int) -> str:
    """When a process began, in ticks of its machine; "" where that cannot be told, or it has ended and nobody took notice."""
    try:
        state, *words = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return "" if state in ENDED else words[18]
    except (OSError, IndexError, ValueError):
        return ""
