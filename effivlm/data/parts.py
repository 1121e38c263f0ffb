"""The rows of one config: JSON lines held in memory, parquet through `datasets`, or a stream of parquet."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Row = Mapping[str, Any]


class Part(Protocol):
    """The rows of one config, and the types of their columns."""

    columns: Mapping[str, str]

    def index(self, columns: Sequence[str]) -> list[Row]: ...
    def choose(self, places: Sequence[int]) -> None: ...
    def __getitem__(self, place: int) -> Row: ...


class Listed:
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


def listed(paths: Sequence[Path]) -> Part:
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
    return Listed(rows)


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


class Table:
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


def table(files: list[str], shown: str) -> Part:
    import datasets

    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        return Table(datasets.load_dataset("parquet", data_files={"rows": files}, split="rows"))
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise ValueError(f"the table at {shown} cannot be read: {' '.join(str(cause).split())[:300]}") from None


class Stream:
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
