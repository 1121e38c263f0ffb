"""Names of methods, models and tasks: file stems plus entry points, found without importing anything heavy.

What a file declares about itself as literal class attributes (`budgeted = False`, `presets = {...}`) is read from its syntax
tree, so that collecting thousands of cases imports neither torch nor transformers; `load` imports the one file that is used.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

BASES = {
    "methods": ("effivlm.compression.base", "Method"),
    "models": ("effivlm.models._adapter", "Adapter"),
    "tasks": ("effivlm.tasks._base", "Task"),
}
KINDS = tuple(BASES)
WEIGHTS = "weights"
"""The seam of methods that change the checkpoint."""
OPEN = ":"
"""Between the name of an open method and what it runs: `kvpress:SnapKVPress`."""


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


@cache
def open_methods() -> Mapping[str, Entry]:
    """Methods that run something of a library, whose name stands behind theirs: files `_NAME.py` whose class is `spelled_by` a
    module. They are not among `names`, for without that name there is nothing to run."""
    found = {}
    for path in sorted((Path(__file__).parent / "methods").glob("_[a-z]*.py")):
        entry = Entry(path.stem[1:], f"effivlm.methods.{path.stem}")
        nodes = ast.parse(path.read_text(encoding="utf-8")).body
        if any("spelled_by" in _literals(node) for node in nodes if isinstance(node, ast.ClassDef)):
            found[entry.name] = entry
    return found


def opened(name: str) -> tuple[Entry, str] | None:
    """The open method behind the name of a method, and what it runs; None for any other name."""
    head, colon, what = name.partition(OPEN)
    return (open_methods()[head], what) if colon and head in open_methods() else None


def filled(name: str) -> dict[str, str]:
    """The field of an open method's class that says what it runs; none for any other."""
    found = opened(name)
    return {"what": found[1]} if found else {}


def check(kind: str, name: str) -> str:
    """The one spelling of `name` if it exists, else ValueError with the nearest and all choices: a typo never runs something
    else. What an open method runs is looked up without importing its library.
    """
    if kind == "methods" and name in open_methods():
        raise ValueError(f"method {name!r} runs what is named behind it: {name}{OPEN}NAME")
    if kind == "methods" and (found := opened(name)):
        entry, what = found
        spelled: str = importlib.import_module(declared(kind, name)["spelled_by"]).spelled(what)
        return f"{entry.name}{OPEN}{spelled}"
    known = names(kind)
    if name not in known:
        raise ValueError(unknown(kind[:-1], name, known))
    return name


def _entry(kind: str, name: str) -> Entry:
    """Where a name comes from; ValueError as `check`, but for what an open method runs, which is not looked at."""
    if kind == "methods" and (found := opened(name)):
        return found[0]
    return entries(kind)[check(kind, name)]


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
    entry = _entry(kind, name)
    with _naming(kind, name):
        return _literals(_class(_tree(entry.module), entry))


def documented(kind: str, name: str) -> str:
    """First line of the class's docstring, or else of its module's, read without running the file.

    Raises ValueError as `declared`.
    """
    entry = _entry(kind, name)
    with _naming(kind, name):
        tree = _tree(entry.module)
        text = ast.get_docstring(_class(tree, entry)) or ast.get_docstring(tree) or ""
    return text.split("\n")[0]


def unusable(kind: str) -> dict[str, str]:
    """Names whose files cannot even be read, each with the reason; somebody's plug-in must not take the others along."""
    found = {}
    for name in names(kind):
        try:
            declared(kind, name)
        except ValueError as error:
            found[name] = str(error)
    return found


@contextmanager
def _naming(kind: str, name: str) -> Iterator[None]:
    """Whatever is wrong with the file behind a name becomes a ValueError that says which name it is."""
    try:
        yield
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
        raise ValueError(f"{kind[:-1]} {name!r} ({_entry(kind, name).module}) cannot be used: {said}") from error


def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise ValueError(f"no file {module} can be found")
    return ast.parse(Path(spec.origin or "").read_text(encoding="utf-8"))


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


@cache
def inherited(kind: str, name: str, attribute: str) -> Any:
    """A literal class attribute of the class behind `name` or of the nearest base class that declares it; "" where none does.

    Read without running a file; base classes are followed through `from ... import` statements.
    """
    entry = _entry(kind, name)
    return _found(entry.module, entry, attribute)


def _found(module: str, entry: Entry | None, attribute: str, name: str = "") -> Any:
    """As `inherited`, for the class `name` of a module (that of `entry`, where it is given), which may only pass it on."""
    try:
        tree, classes, origins = _outline(module)
    except ValueError:
        return ""  # not written in Python, so nothing is declared there
    node = _class(tree, entry) if entry else classes.get(name)
    if node is None:
        where, original = origins.get(name, ("", ""))
        return _found(where, None, attribute, original) if where else ""
    if attribute in (facts := _literals(node)):
        return facts[attribute]
    for base in (one.id for one in node.bases if isinstance(one, ast.Name)):
        where, original = (module, base) if base in classes else origins.get(base, ("", ""))
        if where and (value := _found(where, None, attribute, original)):
            return value
    return ""


def token_methods() -> list[str]:
    """Usable methods that work on what a sample becomes inside the model; the others change the checkpoint itself."""
    broken = unusable("methods")
    return [name for name in names("methods") if name not in broken and inherited("methods", name, "seam") != WEIGHTS]


@cache
def _outline(module: str) -> tuple[ast.Module, Mapping[str, ast.ClassDef], Mapping[str, tuple[str, str]]]:
    """A module's tree, its classes, and where the names come from that it imports. ValueError as `_tree`."""
    tree = _tree(module)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    origins = {
        alias.asname or alias.name: (item.module or "", alias.name)
        for item in ast.walk(tree)
        if isinstance(item, ast.ImportFrom)
        for alias in item.names
    }
    return tree, classes, origins


def load(kind: str, name: str) -> type:
    """Import the file behind `name` and return its class.

    Raises:
        ValueError: the file fails at import, or holds no class that can be made into what `kind` says; names it and says why.
    """
    entry = _entry(kind, name)
    with _naming(kind, name):
        module = importlib.import_module(entry.module)
        return _fitting(kind, getattr(module, entry.attribute or _class(_tree(entry.module), entry).name, None))


def _fitting(kind: str, found: Any) -> type:
    """`found`, if it is a class of its kind of which objects can be made."""
    where, name = BASES[kind]
    base = getattr(importlib.import_module(where), name)
    if not isinstance(found, type) or not issubclass(found, base):
        raise ValueError(f"it must be a subclass of {name}, and {found!r} is none")
    # not inspect.isabstract: a base without ABC among its own bases counts too
    lacking = [word for word in dir(found) if getattr(getattr(found, word, None), "__isabstractmethod__", False)]
    if lacking:
        raise ValueError(f"{found.__name__} does not define {', '.join(lacking)}")
    return found


def _class(tree: ast.Module, entry: Entry) -> ast.ClassDef:
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    if entry.attribute:
        classes = [node for node in classes if node.name == entry.attribute]
    if len(classes) != 1:
        found = ", ".join(node.name for node in classes) or "none"
        wanted = entry.attribute or "one public class alone"
        raise ValueError(f"it must hold {wanted}; found: {found}")
    return classes[0]
