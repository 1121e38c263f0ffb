"""The rows of a set, wherever it lies: a local mirror, the hub through `datasets`, or a stream of it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from effivlm.data import hub
from effivlm.data.parts import Part, Stream, listed, table
from effivlm.data.parts import Row as Row
from effivlm.data.places import STREAM, data_home, manifest
from effivlm.data.source import Source, suits

CONFIG = "_config"
"""The key under which a row says which config of its set it comes from."""
UNFINISHED = "fetching.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


class Rows(ABC):
    """Rows of one set in published order: few columns of all of them, or all columns of one.

    `origin` says in words where they come from, `version` is the repository and its whole commit ("" where a folder does not
    tell), `folder` is what relative paths in them start at (None where there is none).
    """

    origin: str
    version: str
    folder: Path | None

    @abstractmethod
    def index(self, columns: Sequence[str]) -> list[Row]:
        """All rows with these columns only; pictures are never among them."""

    @abstractmethod
    def choose(self, places: Sequence[int]) -> None:
        """Say which rows will be read, before the first one is."""

    @abstractmethod
    def __getitem__(self, place: int) -> Row:
        """One row with its encoded pictures."""


def open_rows(name: str, source: Source, data: str = "") -> Rows:
    """The rows of task `name`.

    `data` is the folder of a mirror, "stream" to keep nothing, or "": what was fetched, else the hub through `datasets`.

    Raises:
        ValueError: the set is not there, is half there, or lacks a column; one sentence that says what to do.
    """
    if data == STREAM:
        return _from_hub(name, source, stream=True)
    if data:
        return _from_folder(name, source, Path(data).expanduser())
    home = data_home()
    if any((home / place).is_dir() for place in source.places(name)):
        return _from_folder(name, source, home)
    return _from_hub(name, source, stream=False)


def place_of(name: str, source: Source, root: Path) -> Path | None:
    """The folder of a set in a mirror."""
    return next((root / place for place in source.places(name) if (root / place).is_dir()), None)


def _from_folder(name: str, source: Source, root: Path) -> Rows:
    folder = place_of(name, source, root)
    if folder is None:
        places = ", ".join(source.places(name))
        raise ValueError(f"task {name!r}: --vlm-data {root} holds no folder of it; it may be called {places}")
    if (folder / UNFINISHED).exists():
        raise ValueError(f"task {name!r}: {folder} is half fetched: `python -m effivlm fetch {name}` goes on with it")
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    parts: list[Part] = []
    for config in source.configs:
        found = hub.tables(source, config, files)
        if not found:
            wanted = f"{'data' if config == 'default' else config}/{source.split}-*.parquet or {source.split}.jsonl"
            raise ValueError(f"task {name!r}: {folder} holds no table of split {source.split!r} (wanted: {wanted})")
        _complete(name, folder, found)
        paths = [folder / one for one in found]
        by_line = paths[0].suffix in (".json", ".jsonl")
        parts.append(listed(paths) if by_line else table(list(map(str, paths)), str(folder)))
    known = manifest(folder)
    origin = f"{folder} ({known['commit'][:12]})" if known else str(folder)
    version = f"{known['home']}@{known['commit']}" if known else ""
    return _checked(name, source, parts, origin, version, folder)


def _from_hub(name: str, source: Source, stream: bool) -> Rows:
    if source.files:
        size = f" ({source.gigabytes:g} GB)" if source.gigabytes else ""
        raise ValueError(
            f"task {name!r}: its rows point to files that are not in the table: bring the set first with"
            f" `python -m effivlm fetch {name}`{size}, or name a folder with --vlm-data DIR"
        )
    listing = hub.listing(name, source)
    parts: list[Part] = []
    for config in source.configs:
        found = hub.tables(source, config, list(listing.files))
        if not found:
            raise ValueError(
                f"task {name!r}: {listing.home} has no table of config {config!r} and split {source.split!r} at {listing.commit}"
            )
        urls = [f"hf://datasets/{listing.home}@{listing.commit}/{one}" for one in found]
        parts.append(Stream(urls) if stream else table(urls, listing.home))
    version = f"{listing.home}@{listing.commit}"
    return _checked(name, source, parts, f"{listing.home}@{listing.commit[:12]}", version, None)


def _complete(name: str, folder: Path, files: Sequence[str]) -> None:
    """Refuse a table of which a numbered part is missing."""
    numbers = [match.groups() for one in files if (match := _SHARD.search(one))]
    if numbers and len({number for number, _ in numbers}) != int(numbers[0][1]):
        have, total = len({number for number, _ in numbers}), int(numbers[0][1])
        raise ValueError(f"task {name!r}: {folder} holds {have} of {total} parts of its table: fetch the set again")


def _checked(name: str, source: Source, parts: Sequence[Part], origin: str, version: str, folder: Path | None) -> Rows:
    for part in parts:
        missing = [column for column in source.required if column not in part.columns]
        if missing:
            raise ValueError(
                f"task {name!r}: the set at {origin} has no column {', '.join(map(repr, missing))}; it has"
                f" {', '.join(sorted(part.columns))}"
            )
        for column, kind in source.columns.items():
            if not suits(kind, part.columns[column]):
                raise ValueError(
                    f"task {name!r}: column {column!r} of the set at {origin} is {part.columns[column]}, and {kind} is wanted"
                )
    return _Joined(parts, source.configs, origin, version, folder)


class _Joined(Rows):
    """The configs of a set, one behind the other."""

    def __init__(
        self, parts: Sequence[Part], configs: Sequence[str], origin: str, version: str, folder: Path | None
    ) -> None:
        self.parts, self.configs = parts, configs
        self.origin, self.version, self.folder = origin, version, folder
        self._starts: list[int] = []
        self._reading = Lock()

    def index(self, columns: Sequence[str]) -> list[Row]:
        rows: list[Row] = []
        self._starts.clear()
        for part, config in zip(self.parts, self.configs, strict=True):
            self._starts.append(len(rows))
            rows += [{**row, CONFIG: config} for row in part.index(columns)]
        return rows

    def choose(self, places: Sequence[int]) -> None:
        for number, part in enumerate(self.parts):
            part.choose([inner for place in places for owner, inner in [self._inner(place)] if owner == number])

    def __getitem__(self, place: int) -> Row:
        number, inner = self._inner(place)
        with self._reading:  # samples are made in several threads
            return {**self.parts[number][inner], CONFIG: self.configs[number]}

    def _inner(self, place: int) -> tuple[int, int]:
        number = max(number for number, start in enumerate(self._starts) if start <= place)
        return number, place - self._starts[number]
