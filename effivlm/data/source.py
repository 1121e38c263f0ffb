"""What a benchmark says about its data: where it lives, which columns it has, how many rows, under which licence."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WORDS = ("text", "int", "float", "bool", "image", "video", "any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One published set.

    `homes` are hub ids, the present one first, older names behind it. `columns` maps the columns that are used to their types:
    a word of `WORDS`, "text|int" for either, "[text]" for a list, "?" behind it where rows may lack a value; other columns may
    exist. `rows` is the number of rows of all `configs` together and `ids_sha256` the hash of the sorted sample ids
    (`ids_hash`); 0 and "" where they are not known, then the first load records them. `files` are patterns of the files that
    rows point to (videos). `gigabytes` is the published size of what is fetched, 0 where only the hub can tell.

    Raises:
        ValueError: no home, or a type that is none.
    """

    homes: tuple[str, ...]
    split: str
    columns: Mapping[str, str]
    licence: str
    configs: tuple[str, ...] = ("default",)
    revision: str = "main"
    rows: int = 0
    ids_sha256: str = ""
    gigabytes: float = 0.0
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.homes:
            raise ValueError("a source has at least one home on the hub")
        for column, kind in self.columns.items():
            for word in kind.rstrip("?").strip("[]").split("|"):
                if word not in WORDS:
                    raise ValueError(f"column {column!r}: type {kind!r} is not made of {', '.join(WORDS)}")

    @property
    def home(self) -> str:
        return self.homes[0]

    @property
    def required(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def pictures(self) -> tuple[str, ...]:
        """Columns that hold pictures, alone or in lists."""
        return tuple(name for name, kind in self.columns.items() if "image" in kind)

    def places(self, task: str) -> tuple[str, ...]:
        """Names that a folder of this set may have in a mirror: the task's, then the repositories'."""
        return tuple(dict.fromkeys((task, *(home.partition("/")[2] for home in self.homes))))


def ids_hash(ids: Iterable[str]) -> str:
    """A hash that says whether two loads of a set hold the same samples, in whatever order."""
    return hashlib.sha256("\n".join(sorted(ids)).encode("utf-8", "surrogatepass")).hexdigest()


def suits(kind: str, found: str) -> bool:
    """Whether a column of type `found` may stand where `kind` is declared; a column of nulls alone suits what may be null, and a
    text may be a picture's path."""
    plain = kind.removesuffix("?")
    if found == "null":
        return kind.endswith("?")
    if plain.startswith("["):
        return found.startswith("[") and suits(plain.strip("[]"), found.strip("[]"))
    return "any" in plain or found in plain.split("|") or (found, plain) in (("int", "float"), ("text", "image"))
