"""The rows of a set, wherever it lies: a local mirror, the hub through `datasets`, or a stream of it."""

from __future__ import annotations

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from effivlm.data import hub
from effivlm.data.places import STREAM, data_home, manifest
from effivlm.data.source import Source, suits

Row = Mapping[str, Any]
CONFIG = "_config"
"""The key under which a row says which config of its set it comes from."""
UNFINISHED = "fetching.json"
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})")


class Rows(ABC):
    """Rows of one set in published order: few columns of all of them, or all columns of one.

    `origin` says in words where they come from, `folder` is what relative paths in them start at (None where there is none).
    """

    origin: str
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
        return _from_folder(name, source, Path(data).expanduser(), asked=True)
    home = data_home()
    if any((home / place).is_dir() for place in source.places(name)):
        return _from_folder(name, source, home, asked=False)
    return _from_hub(name, source, stream=False)


def place_of(name: str, source: Source, root: Path) -> Path | None:
    """The folder of a set in a mirror."""
    return next((root / place for place in source.places(name) if (root / place).is_dir()), None)


def _from_folder(name: str, source: Source, root: Path, asked: bool) -> Rows:
    folder = place_of(name, source, root)
    if folder is None:
        places = ", ".join(source.places(name))
        raise ValueError(f"task {name!r}: --vlm-data {root} holds no folder of it; it may be called {places}")
    if (folder / UNFINISHED).exists():
        raise ValueError(f"task {name!r}: {folder} is half fetched: `python -m effivlm fetch {name}` goes on with it")
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    parts: list[_Part] = []
    for config in source.configs:
        found = hub.tables(source, config, files)
        if not found:
            wanted = f"{'data' if config == 'default' else config}/{source.split}-*.parquet or {source.split}.jsonl"
            raise ValueError(f"task {name!r}: {folder} holds no table of split {source.split!r} (wanted: {wanted})")
        _complete(name, folder, found)
        paths = [folder / one for one in found]
        by_line = paths[0].suffix in (".json", ".jsonl")
        parts.append(_listed(paths) if by_line else _table(list(map(str, paths)), str(folder)))
    commit = manifest(folder).get("commit", "")
    origin = f"{folder}{f' ({commit[:12]})' if commit else ''}"
    return _checked(name, source, parts, origin, folder)


def _from_hub(name: str, source: Source, stream: bool) -> Rows:
    if source.files:
        size = f" ({source.gigabytes:g} GB)" if source.gigabytes else ""
        raise ValueError(
            f"task {name!r}: its rows point to files that are not in the table: bring the set first with"
            f" `python -m effivlm fetch {name}`{size}, or name a folder with --vlm-data DIR"
        )
    listing = hub.listing(name, source)
    parts: list[_Part] = []
    for config in source.configs:
        found = hub.tables(source, config, list(listing.files))
        if not found:
            raise ValueError(
                f"task {name!r}: {listing.home} has no table of config {config!r} and split {source.split!r} at {listing.commit}"
            )
        urls = [f"hf://datasets/{listing.home}@{listing.commit}/{one}" for one in found]
        parts.append(_Stream(urls) if stream else _table(urls, listing.home))
    return _checked(name, source, parts, f"{listing.home}@{listing.commit[:12]}", None)


def _complete(name: str, folder: Path, files: Sequence[str]) -> None:
    """Refuse a table of which a numbered part is missing."""
    numbers = [match.groups() for one in files if (match := _SHARD.search(one))]
    if numbers and len({number for number, _ in numbers}) != int(numbers[0][1]):
        have, total = len({number for number, _ in numbers}), int(numbers[0][1])
        raise ValueError(f"task {name!r}: {folder} holds {have} of {total} parts of its table: fetch the set again")


def _checked(name: str, source: Source, parts: Sequence[_Part], origin: str, folder: Path | None) -> Rows:
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
    return _Joined(parts, source.configs, origin, folder)


class _Part(Protocol):
    """The rows of one config, and the types of their columns."""

    columns: Mapping[str, str]

    def index(self, columns: Sequence[str]) -> list[Row]: ...
    def choose(self, places: Sequence[int]) -> None: ...
    def __getitem__(self, place: int) -> Row: ...


class _Joined(Rows):
    """The configs of a set, one behind the other."""

    def __init__(self, parts: Sequence[_Part], configs: Sequence[str], origin: str, folder: Path | None) -> None:
        self.parts, self.configs = parts, configs
        self.origin, self.folder = origin, folder
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


class _Listed:
    """Rows of JSON lines, held in memory: they have paths instead of pictures."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        names = list(dict.fromkeys(name for row in rows for name in row))
        self.columns: Mapping[str, str] = {name: _kind_of_values([row.get(name) for row in rows]) for name in names}

    def index(self, columns: Sequence[str]) -> list[Row]:
        return [{column: row.get(column) for column in columns} for row in self.rows]

    def choose(self, places: Sequence[int]) -> None:
        """Everything is here already."""

    def __getitem__(self, place: int) -> Row:
        return self.rows[place]


def _listed(paths: Sequence[Path]) -> _Part:
    rows: list[dict[str, Any]] = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        try:
            # Not splitlines(): a question may hold U+2028, which stands unescaped inside a line.
            found = (
                json.loads(text) if path.suffix == ".json" else [json.loads(x) for x in text.split("\n") if x.strip()]
            )
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not readable JSON ({error})") from None
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise ValueError(f"{path} must hold one JSON object for each row")
        rows += found
    return _Listed(rows)


def _kind_of_values(values: Sequence[Any]) -> str:
    """The type of a column of JSON values, as `Source.columns` writes it; a path may stand for a picture."""
    kinds = {_kind_of_value(value) for value in values if value is not None}
    kinds -= {"[]"} if len(kinds) > 1 else set()
    if kinds == {"int", "float"}:
        return "float"
    return kinds.pop() if len(kinds) == 1 else "any" if kinds else "null"


def _kind_of_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{_kind_of_values(value)}]" if value else "[]"
    words = {str: "text", bool: "bool", int: "int", float: "float"}
    return words.get(type(value), "any")


class _Table:
    """Parquet through `datasets`: an Arrow file on disk, so that any row is read at once and none is decoded."""

    def __init__(self, dataset: Any) -> None:
        self.columns: Mapping[str, str] = {name: kind_of_feature(feature) for name, feature in dataset.features.items()}
        self._raw = dataset.with_format("arrow")

    def index(self, columns: Sequence[str]) -> list[Row]:
        if not columns:
            return [{} for _ in range(len(self._raw))]
        chosen = self._raw.select_columns(list(columns))
        return [row for batch in chosen.iter(batch_size=4096) for row in batch.to_pylist()]

    def choose(self, places: Sequence[int]) -> None:
        """Any row is read at once."""

    def __getitem__(self, place: int) -> Row:
        return self._raw[place].to_pylist()[0]  # type: ignore[no-any-return]


def _table(files: list[str], shown: str) -> _Part:
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        return _Table(datasets.load_dataset("parquet", data_files={"rows": files}, split="rows"))
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise ValueError(f"the table at {shown} cannot be read: {' '.join(str(cause).split())[:300]}") from None


class _Stream:
    """Parquet read over the network; rows that a run asks are kept in memory, encoded, and nothing on disk."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.columns: Mapping[str, str] = {
            name: kind_of_feature(feature) for name, feature in self._opened().features.items()
        }
        self._wanted: dict[int, Row | None] = {}
        self._rest: Iterator[tuple[int, Row]] = iter(())

    def _opened(self, columns: Sequence[str] | None = None) -> Any:
        import datasets

        only = {} if columns is None else {"columns": list(columns)}
        return datasets.load_dataset("parquet", data_files={"rows": self.urls}, split="rows", streaming=True, **only)

    def index(self, columns: Sequence[str]) -> list[Row]:
        first = list(columns) or [next(name for name, kind in self.columns.items() if "image" not in kind)]
        batches = self._opened(first).with_format("arrow").iter(batch_size=4096)
        return [{name: row[name] for name in columns} for batch in batches for row in batch.to_pylist()]

    def choose(self, places: Sequence[int]) -> None:
        self._wanted = dict.fromkeys(places)
        batches = self._opened().with_format("arrow").iter(batch_size=1)
        self._rest = enumerate(batch.to_pylist()[0] for batch in batches)

    def __getitem__(self, place: int) -> Row:
        while self._wanted.get(place) is None:
            number, row = next(self._rest)
            if number in self._wanted:
                self._wanted[number] = row
        found = self._wanted[place]
        assert found is not None
        return found


def kind_of_feature(feature: Any) -> str:
    """The type of a column of `datasets`, as `Source.columns` writes it."""
    name = type(feature).__name__
    if name in ("Image", "Video"):
        return name.lower()
    if isinstance(feature, list):
        return f"[{kind_of_feature(feature[0])}]"
    if name in ("List", "LargeList", "Sequence"):
        return f"[{kind_of_feature(feature.feature)}]"
    if isinstance(feature, Mapping):
        return "image" if set(feature) == {"bytes", "path"} else "any"
    dtype = str(getattr(feature, "dtype", "any"))
    for word, starts in (
        ("text", ("string", "large_string")),
        ("int", ("int", "uint")),
        ("float", ("float", "double")),
    ):
        if dtype.startswith(starts):
            return word
    return dtype if dtype in ("bool", "null") else "any"
