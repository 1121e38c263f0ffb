"""Blocks of a group's samples, which the workers of a session take from each other through files in the run folder.

A block is claimed by a lock, which the kernel gives back when its holder ends, however it ends: the block of a worker that was
killed is free at once, and what it answered stands in its journal. Where blocks end changes no answer.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from effivlm.records import fingerprint
from effivlm.session.places import Lock

PATTERN = "blocks-*"
DONE = ".done"
MOST = 16  # samples of a block
EACH = 8  # blocks that a worker has to do at least, if there are so many samples: the last one waits for less than one
SILENCE_S = 600.0  # after which a worker of another host, of which the kernel tells nothing, counts as gone


def parts(numbers: range, workers: int) -> list[range]:
    """Blocks of a group's samples for so many workers, in order."""
    size = max(1, min(MOST, len(numbers) // (EACH * max(1, workers))))
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def place(folder: Path, session: str) -> Path:
    """Where the workers of a session leave word for each other."""
    return folder / f"blocks-{session}"


@dataclass(frozen=True)
class Blocks:
    """The blocks of one group in the session of that name. `key` names the group; every worker divides it alike."""

    folder: Path
    session: str
    key: Sequence[str]

    @property
    def _place(self) -> Path:
        return place(self.folder, self.session) / fingerprint({"group": list(self.key)})

    @property
    def over(self) -> bool:
        """Whether the group's outcomes are made, or will never be."""
        return (self._place / "over").exists()

    def end(self) -> None:
        self._place.mkdir(parents=True, exist_ok=True)
        (self._place / "over").touch()

    @property
    def made(self) -> bool:
        """Whether the checkpoint that answers these samples was opened by somebody."""
        return (self._place / "made").exists()

    @contextmanager
    def making(self) -> Iterator[bool]:
        """Whether this process is the one to make the checkpoint; it is made when the context ends without an error."""
        self._place.mkdir(parents=True, exist_ok=True)
        lock = Lock(self._place, "making.lock", SILENCE_S)
        if not _ours(lock):
            yield False
            return
        try:
            yield True
            (self._place / "made").touch()
        finally:
            lock.release()

    def finished(self) -> set[int]:
        """Numbers of the blocks that are done: one look at the folder, which may be far away."""
        with suppress(FileNotFoundError):
            return {int(name.removesuffix(DONE)) for name in os.listdir(self._place) if name.endswith(DONE)}
        return set()

    def done(self, number: int) -> bool:
        return (self._place / f"{number}{DONE}").exists()

    @contextmanager
    def claim(self, blocks: Sequence[range]) -> Iterator[Claim | None]:
        """The first block that nobody has, None where there is none; it is done when the context ends without an error."""
        self._place.mkdir(parents=True, exist_ok=True)
        finished = self.finished()
        for number, block in enumerate(blocks):
            lock = Lock(self._place, f"{number}.lock", SILENCE_S)
            if number in finished or not _ours(lock):
                continue
            try:
                if self.done(number):  # between the two looks
                    continue
                begun = self._place / f"{number}.begun"
                claim = Claim(block, lock, begun.exists())
                begun.touch()
                yield claim
                (self._place / f"{number}{DONE}").touch()
                return
            finally:
                lock.release()
        yield None


@dataclass(frozen=True)
class Claim:
    """A block that is this process's; `begun` where another one had it, and may have answered some of it."""

    numbers: range
    lock: Lock
    begun: bool

    def beat(self) -> None:
        """Show others that somebody is at work."""
        self.lock.touch()


def _ours(lock: Lock) -> bool:
    try:
        lock.hold()
    except ValueError:  # another worker has it
        return False
    return True


def clear(folder: Path) -> None:
    """Take away what workers of a finished run told each other."""
    for path in folder.glob(PATTERN):
        shutil.rmtree(path, ignore_errors=True)
