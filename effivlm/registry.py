"""Names of methods, models and tasks: file stems plus entry points, found without importing anything heavy.

What a file declares about itself as literal class attributes (`budgeted = False`, `presets = {...}`) is read from its syntax
tree, so that collecting thousands of cases imports neither torch nor transformers; `load` imports the one file that is used.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

KINDS = ("methods", "models", "tasks")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a name comes from: a module, and the class in it ("" = the one class named in the file)."""

    name: str
    module: str
    attribute: str = ""


@cache
def entries(kind: str) -> Mapping[str, Entry]:
    """All names of `kind` ("methods", "models" or "tasks"), sorted.

    Raises ValueError when two sources claim one name.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(KINDS)}")
    folder = Path(__file__).parent / kind
    found = {
        path.stem: Entry(path.stem, f"effivlm.{kind}.{path.stem}")
        for path in folder.glob("*.py")
        if not path.stem.startswith("_")
    }
    for point in entry_points(group=f"effivlm.{kind}"):
        if point.name in found:
            raise ValueError(
                f"{kind[:-1]} {point.name!r} is claimed twice: {found[point.name].module} and {point.value}"
            )
        found[point.name] = Entry(point.name, point.module, point.attr)
    return dict(sorted(found.items()))


def names(kind: str) -> list[str]:
    return list(entries(kind))


def check(kind: str, name: str) -> str:
    """Return `name` if it exists, else ValueError with the nearest and all choices: a typo never runs something else."""
    known = names(kind)
    if name not in known:
        raise ValueError(unknown(kind[:-1], name, known))
    return name


def unknown(what: str, name: str, known: list[str]) -> str:
    """The message for a name that does not exist."""
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Choose from: {', '.join(known) or 'none is installed'}"


@cache
def declared(kind: str, name: str) -> Mapping[str, Any]:
    """Literal class attributes of the class behind `name`, read without running its file.

    Only literals of the class body itself count; what is computed or inherited is absent.
    """
    entry = entries(kind)[check(kind, name)]
    spec = importlib.util.find_spec(entry.module)
    if spec is None or spec.origin is None:
        raise ValueError(f"{kind[:-1]} {name!r} points to {entry.module}, which cannot be found")
    return _literals(_class(ast.parse(Path(spec.origin).read_text(encoding="utf-8")), entry))


def _literals(node: ast.ClassDef) -> dict[str, Any]:
    """Class attributes whose value is written out."""
    facts: dict[str, Any] = {}
    for item in node.body:
        target = (
            item.target
            if isinstance(item, ast.AnnAssign)
            else item.targets[0]
            if isinstance(item, ast.Assign)
            else None
        )
        value = getattr(item, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            try:
                facts[target.id] = ast.literal_eval(value)
            except ValueError:
                continue  # computed, so not declared
    return facts


def inherited(kind: str, name: str, attribute: str) -> Any:
    """A literal class attribute of the class behind `name` or of the nearest base class that declares it; "" where none does.

    Read without running a file; base classes are followed through `from ... import` statements.
    """
    entry = entries(kind)[check(kind, name)]
    return _found(entry.module, entry, attribute)


def _found(module: str, entry: Entry | None, attribute: str, name: str = "") -> Any:
    spec = importlib.util.find_spec(module)
    if spec is None or not (spec.origin or "").endswith(".py"):
        return ""
    tree = ast.parse(Path(spec.origin or "").read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    node = _class(tree, entry) if entry else classes.get(name)
    if node is None:
        return ""
    if attribute in (facts := _literals(node)):
        return facts[attribute]
    origins = {
        alias.asname or alias.name: (item.module or "", alias.name)
        for item in tree.body
        if isinstance(item, ast.ImportFrom)
        for alias in item.names
    }
    for base in (one.id for one in node.bases if isinstance(one, ast.Name)):
        where, original = (module, base) if base in classes else origins.get(base, ("", ""))
        if where and (value := _found(where, None, attribute, original)):
            return value
    return ""


def load(kind: str, name: str) -> type:
    """Import the file behind `name` and return its class."""
    entry = entries(kind)[check(kind, name)]
    module = importlib.import_module(entry.module)
    if entry.attribute:
        return getattr(module, entry.attribute)  # type: ignore[no-any-return]
    tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
    return getattr(module, _class(tree, entry).name)  # type: ignore[no-any-return]


def _class(tree: ast.Module, entry: Entry) -> ast.ClassDef:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if entry.attribute:
        classes = [node for node in classes if node.name == entry.attribute]
    if len(classes) != 1:
        found = ", ".join(node.name for node in classes) or "none"
        raise ValueError(f"{entry.module} must hold exactly one public class for {entry.name!r}; found: {found}")
    return classes[0]
