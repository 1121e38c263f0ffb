"""The code behind an outcome, as digests: what changed in it makes another outcome under the same name.

Of a class counts the file of its module, and every module that this one imports, directly or not, from its author's own
package or from this one. Libraries count by their versions. Functions that somebody put in the place of a class's own while
the process ran count too, by the file they come from.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any

from effivlm import __version__, registry

LIBRARY = sysconfig.get_paths()["stdlib"]
HOUSE = __name__.partition(".")[0]


def code_of(kinds: Sequence[type], family: str, runs: str) -> list[Any]:
    """Digests of the code behind an outcome: classes of methods and task, a model family, and the module that runs it."""
    model = [class_digest("models", family)] * (family in registry.names("models"))
    return [
        [module_digest(kind.__module__) for kind in kinds],
        [replaced(kind) for kind in kinds],
        model,
        module_digest(runs),
    ]


@cache
def versions() -> tuple[str, ...]:
    """Versions of this package and of the libraries that compute."""
    return (__version__, *(version(name) for name in ("torch", "transformers")))


def libraries_of(kinds: Sequence[type]) -> list[str]:
    """Versions of the libraries that methods run, as far as their classes name one."""
    return [f"{name} {version(name)}" for kind in kinds if (name := getattr(kind, "library", ""))]


def class_digest(kind: str, name: str) -> str:
    """The code of a method, task or model family by its registered name; its module is not imported for that."""
    return module_digest(registry.entries(kind)[registry.check(kind, name)].module)


@cache
def module_digest(name: str) -> str:
    """The code of a module and of all it imports from its own package and this one, 20 hexadecimal digits.

    Read once a process: code that runs does not change with its file.
    """
    packages = {HOUSE, name.partition(".")[0]}
    waiting, files = [name], dict[str, Path]()
    while waiting:
        module = waiting.pop()
        if module in files or module.partition(".")[0] not in packages or (file := _file(module)) is None:
            continue
        files[module] = file
        waiting += _imported(module, file)
    whole = hashlib.sha256()
    for module, file in sorted(files.items()):
        whole.update(f"{module} {_bytes_digest(file)}\n".encode())
    return whole.hexdigest()[:20]


def replaced(kind: type) -> list[str]:
    """Functions of a class and of its bases that come from other files than their class: each with the digest of its file."""
    found = []
    for base in kind.__mro__:
        home = getattr(sys.modules.get(base.__module__), "__file__", None)
        for name, value in vars(base).items() if home else ():
            for function in _functions(value):
                place = function.__code__.co_filename
                if place != home and not _pythons(place):
                    found.append(f"{base.__qualname__}.{name} {_bytes_digest(Path(place))}")
    return sorted(found)


def _pythons(place: str) -> bool:
    """Whether Python itself wrote a function: in its library, or for a dataclass, whose code stands in "<string>"."""
    return place.startswith("<") or (place.startswith(LIBRARY) and "-packages" not in place)


def _functions(value: Any) -> Iterator[FunctionType]:
    """The function behind an attribute, and those that it wraps."""
    if isinstance(value, property):
        value = value.fget
    value = getattr(value, "__func__", value)
    while isinstance(value, FunctionType):
        yield value
        value = getattr(value, "__wrapped__", None)


def _file(module: str) -> Path | None:
    """The source of a module; None where the name is none, or has no source."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _imported(module: str, file: Path) -> tuple[str, ...]:
    """Names that may be modules which a file imports anywhere in it, and the packages around it."""
    return _read(module, file, file.stat().st_mtime_ns)


@cache
def _read(module: str, file: Path, changed_ns: int) -> tuple[str, ...]:
    """As `_imported`, once for each state of a file: methods have most modules in common."""
    return tuple(_names(module, file))


def _names(module: str, file: Path) -> Iterator[str]:
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    parts = module.split(".")
    yield from (".".join(parts[:depth]) for depth in range(1, len(parts)))
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@cache
def _bytes_digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return f"unread {file}"  # code that was typed in, or whose file is gone
