"""What written pages take from elsewhere at a build: pictures, code, figures of committed reports, tables of the code.

A marker stands in two braces, one word and what it is about:

| marker | becomes |
|---|---|
| `picture NAME` | docs/pictures/NAME.svg, in the page itself so that it follows its colours |
| `code PATH` | the file, as a block of code |
| `quote FILE / LINE` | of a page in reports/baselines, what follows the line that begins so, up to the next heading |
| `figure FILE PATH FORMAT` | one number of a JSON file in reports/baselines, by its keys; `.1f/1e9`: in billions |
| `table NAME` | what the code says of itself: `tables.TABLES` |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import tables

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports" / "baselines"
MARKER = re.compile(r"\{\{ (picture|code|quote|figure|table) (.+?) \}\}")
LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}


def expanded(text: str) -> str:
    """A written page with everything that it takes from elsewhere.

    Raises:
        ValueError: something that it names does not exist; says what.
    """
    return MARKER.sub(lambda found: KINDS[found[1]](found[2]), text)


def _picture(name: str) -> str:
    lines = _read(ROOT / "docs" / "pictures" / f"{name}.svg").splitlines()
    return "\n".join(['<figure class="picture">', *(line for line in lines if line.strip()), "</figure>"])


def _code(path: str) -> str:
    file = ROOT / path
    return f"```{LANGUAGES[file.suffix]}\n{_read(file)}```"


def _quote(asked: str) -> str:
    name, _, begin = asked.partition(" / ")
    lines = iter(_read(REPORTS / name).splitlines())
    if not any(line.startswith(begin) for line in lines):
        raise ValueError(f"reports/baselines/{name} has no line that begins with {begin!r}")
    found: list[str] = []
    for line in lines:
        if line.startswith(("#", "**")):
            break
        found.append(line)
    return "\n".join(found).strip()


def _figure(asked: str) -> str:
    name, path, form = asked.split()
    value: Any = _document(name)
    for key in path.split("."):
        known = [str(place) for place in range(len(value))] if isinstance(value, list) else list(value)
        if key not in known:
            raise ValueError(f"reports/baselines/{name} has no {path!r}: {key!r} is not among {', '.join(known)}")
        value = value[int(key)] if isinstance(value, list) else value[key]
    digits, _, unit = form.partition("/")
    return format(value / float(unit or 1), digits)


def _table(name: str) -> str:
    if name not in tables.TABLES:
        raise ValueError(f"there is no table {name!r}, only {', '.join(tables.TABLES)}")
    return tables.TABLES[name]()


@cache
def _document(name: str) -> Any:
    return json.loads(_read(REPORTS / name))


def _read(path: Path) -> str:
    if not path.is_file():
        raise ValueError(f"{path.relative_to(ROOT)} is taken by a page and does not exist")
    return path.read_text(encoding="utf-8")


KINDS: dict[str, Callable[[str], str]] = {
    "picture": _picture,
    "code": _code,
    "quote": _quote,
    "figure": _figure,
    "table": _table,
}
