"""Presses of kvpress by their spelling, `AdaKVPress(press=SnapKVPress(window_size=16))`: what exists and what fits.

Read off the library's files, which imports neither it nor torch: cases are collected before either is needed. Spellings are
looked at as syntax, never run.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from effivlm.methods._refused import refusal
from effivlm.registry import unknown
from effivlm.weights.libraries import missing

LIBRARY = "kvpress"
SUFFIX = "Press"
BUDGET = "compression_ratio"
WORD = re.compile(r"[A-Za-z0-9_.]*")  # of a text among arguments: nothing that means something in a case id
PLAIN: Mapping[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
Spelled = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Argument:
    """One that a press takes: its annotation ("" without one), and whether it must be given."""

    name: str
    kind: str
    needed: bool


@dataclass(frozen=True)
class Named:
    """A press with its arguments as they were given, among them other presses; `text` is their one spelling."""

    name: str
    arguments: Mapping[str, Spelled | Named]

    @property
    def text(self) -> str:
        given = (
            f"{name}={value.text if isinstance(value, Named) else repr(value)}"
            for name, value in self.arguments.items()
        )
        inner = ",".join(given)
        return f"{self.name}({inner})" if inner else self.name

    def names(self) -> Iterator[str]:
        """This press and those inside of it."""
        yield self.name
        for value in self.arguments.values():
            if isinstance(value, Named):
                yield from value.names()


def spelled(text: str) -> str:
    """The one spelling of a press that can run.

    Raises:
        ValueError: kvpress is not installed, or the press, an argument or a value does not exist there, or cannot run here.
    """
    return named(text).text


@cache
def named(text: str) -> Named:
    """Read a press, as `spelled`."""
    if why := missing(LIBRARY):
        raise ValueError(f"{LIBRARY}:{text}: {why}")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(_malformed(text)) from None
    return _press(node, text)


def presses() -> list[str]:
    """Names of all presses that the library offers, also of those that cannot run here."""
    return sorted(name for name in _exported() if name.endswith(SUFFIX))


def able() -> list[str]:
    """Names of the presses that run here."""
    return [name for name in presses() if not refusal(name)]


@cache
def arguments(name: str) -> Mapping[str, Argument]:
    """What a press takes beside the budget, in the library's order."""
    taken = (one for one in _arguments(*_exported()[name]) if one.name != BUDGET and not one.name.startswith("_"))
    return {one.name: one for one in taken}


def _malformed(text: str) -> str:
    return f"{LIBRARY}:{text} is no press: NAME or NAME(argument=value), e.g. {LIBRARY}:SnapKVPress(window_size=16)"


def _press(node: ast.expr, text: str) -> Named:
    call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
    if not isinstance(call.func, ast.Name):
        raise ValueError(_malformed(text))
    name = call.func.id
    if name not in presses():
        raise ValueError(unknown("press", name, able()))
    if why := refusal(name):
        raise ValueError(f"{LIBRARY}:{name} cannot run: {why}")
    taken, given = arguments(name), dict[str, Spelled | Named]()
    for keyword in call.keywords:
        if keyword.arg == BUDGET:
            raise ValueError(f"{name}: {BUDGET} is what --vlm-budgets says, and no argument here")
        if keyword.arg is None or keyword.arg not in taken:
            allowed = ", ".join(taken) or "none"
            raise ValueError(f"{name} has no argument {keyword.arg or '**'!r}. Choose from: {allowed}")
        given[keyword.arg] = _value(keyword.value, name, taken[keyword.arg], text)
    if call.args:
        raise ValueError(f"{name}: arguments are named: {', '.join(f'{one}=...' for one in taken) or 'it has none'}")
    if lacking := [one.name for one in taken.values() if one.needed and one.name not in given]:
        raise ValueError(f"{name} needs {', '.join(f'{one}=...' for one in lacking)}")
    return Named(name, {one: given[one] for one in taken if one in given})


def _value(node: ast.expr, name: str, argument: Argument, text: str) -> Spelled | Named:
    """The value of an argument, if it is one of its kind."""
    where, wanted = f"{name}: {argument.name} {ast.unparse(node)}", argument.kind
    if _is_press(wanted):
        if not isinstance(node, ast.Name | ast.Call):
            raise ValueError(f"{where} is no press, such as KnormPress")
        return _press(node, text)
    try:
        value = ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{where} is no number, True, False, None or text in quotes") from None
    if not isinstance(value, Spelled) or (isinstance(value, str) and not WORD.fullmatch(value)):
        raise ValueError(f"{where} is no number, True, False, None or plain word in quotes")
    if wanted.startswith("Literal[") and value not in (choices := ast.literal_eval(wanted.removeprefix("Literal"))):
        raise ValueError(f"{where} is not one of {', '.join(map(repr, choices))}")
    if not _fits(value, wanted):
        raise ValueError(f"{where} must be of kind {wanted}")
    return value


def _fits(value: Spelled, wanted: str) -> bool:
    inner = wanted.removeprefix("Optional[").removesuffix("]") if wanted.startswith("Optional[") else wanted
    if inner not in PLAIN:
        return True  # the library's own constructor looks at it
    if value is None:
        return inner != wanted
    return isinstance(value, PLAIN[inner]) and (isinstance(value, bool) == (inner == "bool"))


@cache
def _exported() -> Mapping[str, tuple[Path, str]]:
    """By name that the package offers, the file and the class behind it."""
    spec = importlib.util.find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        raise ValueError(missing(LIBRARY) or f"{LIBRARY} has no files")
    return _imports(Path(spec.origin))


@cache
def _imports(file: Path) -> Mapping[str, tuple[Path, str]]:
    """What a file of the package imports from others of it, and the classes that it holds itself."""
    root, found = _root(file), dict[str, tuple[Path, str]]()
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{LIBRARY}."):
            origin = root.joinpath(*(node.module or "").split(".")[1:]).with_suffix(".py")
            found |= {alias.asname or alias.name: (origin, alias.name) for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            found[node.name] = (file, node.name)
    return found


def _root(file: Path) -> Path:
    return next(folder for folder in file.parents if folder.name == LIBRARY)


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _arguments(file: Path, name: str) -> list[Argument]:
    """What the constructor of a class takes: of `__init__` where it has one, else of a dataclass and its bases."""
    node = next(one for one in _tree(file).body if isinstance(one, ast.ClassDef) and one.name == name)
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return list(_of_function(one.args))
    found: dict[str, Argument] = {}
    for base in (one.id for one in node.bases if isinstance(one, ast.Name)):
        if base in _imports(file):
            found |= {one.name: one for one in _arguments(*_imports(file)[base])}
    for item in node.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name, kind = item.target.id, ast.unparse(item.annotation)
            found[name] = Argument(name, kind, _needed(item.value, kind))
            if _inner(item.value):
                del found[name]
    return list(found.values())


def _of_function(given: ast.arguments) -> Iterator[Argument]:
    taken: Sequence[ast.arg] = given.args[1:]
    needed = len(taken) - len(given.defaults)
    for number, one in enumerate(taken):
        yield Argument(one.arg, ast.unparse(one.annotation) if one.annotation else "", number < needed)


def _is_press(kind: str) -> bool:
    """Whether an annotation says that a press is wanted."""
    return kind in ("BasePress", "ScorerPress")


def _inner(value: ast.expr | None) -> bool:
    """Whether a field is none that the constructor takes: `field(init=False)`."""
    return any(word.arg == "init" and not ast.literal_eval(word.value) for word in _field(value))


def _needed(value: ast.expr | None, kind: str) -> bool:
    """Whether a field must be given: it has no value, or None where a press is meant."""
    none = isinstance(value, ast.Constant) and value.value is None
    return value is None or (none and _is_press(kind))


def _field(value: ast.expr | None) -> Sequence[ast.keyword]:
    called = isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "field"
    return value.keywords if called and isinstance(value, ast.Call) else ()
