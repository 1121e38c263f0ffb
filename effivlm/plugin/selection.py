"""What a session's `-k`, `-m` and arguments select, asked of cases that the session does not have. No pytest in here.

A case that stood in a baseline may be gone, with its method or its task; whether the session would have run it is told by its
id in the place of another case's id of the same part. The grammar is pytest's documented one: names, `and`, `or`, `not` and
brackets; a mark's arguments, as in `slow(n=3)`, are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKEN = re.compile(r"\s*([()]|[^\s()]+)")
ANY = {"nodeid": ("test_{part}[", "]"), "names": (), "marks": ()}
"""A template of a part of which no test was collected."""


@dataclass(frozen=True, slots=True)
class Selection:
    """`templates`: by part, of collected tests {"nodeid": (before the case's id, behind it), "names", "marks"}, where names
    are those of everything around a test that `-k` matches. `paths`: arguments as (path, rest behind ::).
    """

    keyword: str
    marks: str
    paths: Sequence[tuple[Path, str]]
    root: Path
    templates: Mapping[str, Sequence[Mapping[str, Any]]]

    def takes(self, case: str, part: str) -> bool:
        """Whether this session would have run a case of that id and part."""
        return any(self._takes(case, part, one) for one in self.templates.get(part) or [ANY])

    def _takes(self, case: str, part: str, template: Mapping[str, Any]) -> bool:
        before, behind = (word.replace("{part}", part) for word in template["nodeid"])
        nodeid = f"{before}{case}{behind}"
        names = [name.lower() for name in (*template["names"], *template["marks"], nodeid.rpartition("::")[2])]

        def named(word: str) -> bool:
            return any(word.lower() in name for name in names)

        asked = not self.keyword or holds(self.keyword, named)
        marked = not self.marks or holds(self.marks, lambda word: word in template["marks"])
        return asked and marked and (not self.paths or any(self._under(nodeid, *one) for one in self.paths))

    def _under(self, nodeid: str, path: Path, rest: str) -> bool:
        file, _, inner = nodeid.partition("::")
        where = (self.root / file).resolve() if inner else None
        if where is None:  # no such test was collected, so nothing tells its file
            return path.is_dir()
        inside = where == path or path in where.parents
        return inside and (not rest or inner == rest or inner.startswith((f"{rest}::", f"{rest}[")))


def holds(expression: str, matches: Callable[[str], bool]) -> bool:
    """Whether an expression of `-k` or `-m` holds, given which names match.

    Raises:
        ValueError: it is none; pytest itself refuses such a one before.
    """
    tokens = TOKEN.findall(expression)
    found, rest = _either(tokens, matches)
    if rest:
        raise ValueError(f"{expression!r} cannot be read from {rest[0]!r} on")
    return found


Read = tuple[bool, list[str]]
Matches = Callable[[str], bool]


def _either(tokens: list[str], matches: Matches) -> Read:
    found, tokens = _both(tokens, matches)
    while tokens[:1] == ["or"]:
        other, tokens = _both(tokens[1:], matches)
        found = found or other
    return found, tokens


def _both(tokens: list[str], matches: Matches) -> Read:
    found, tokens = _one(tokens, matches)
    while tokens[:1] == ["and"]:
        other, tokens = _one(tokens[1:], matches)
        found = found and other
    return found, tokens


def _one(tokens: list[str], matches: Matches) -> Read:
    if not tokens or tokens[0] in ("and", "or", ")"):
        raise ValueError("a name is missing in an expression")
    if tokens[0] == "not":
        found, rest = _one(tokens[1:], matches)
        return not found, rest
    if tokens[0] == "(":
        found, rest = _either(tokens[1:], matches)
        if rest[:1] != [")"]:
            raise ValueError("a bracket is not closed in an expression")
        return found, rest[1:]
    rest = tokens[1:]
    if rest[:1] == ["("]:  # a mark's arguments
        rest = rest[rest.index(")") + 1 :]
    return matches(tokens[0]), rest
