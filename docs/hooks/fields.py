"""The fields of a method's class and of its bases, read from their files: building pages needs no torch."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path

from effivlm import registry

COMMON = ("keep", "seed")  # every method has them: the case sets both


def fields(name: str) -> dict[str, str]:
    """Defaults of a method's fields by name, those of bases first, each as it stands in code; without what a case sets."""
    entry = registry.entries("methods")[name]
    classes = [node.name for node in _tree(entry.module).body if isinstance(node, ast.ClassDef)]
    public = [one for one in classes if not one.startswith("_")]
    found = _of(entry.module, entry.attribute or public[0])
    return {field: default for field, default in found.items() if field not in COMMON}


def docstring(kind: str, name: str) -> tuple[str, str]:
    """The docstring of the file behind a name, and that of its class; the name of an open method is what stands before `:`."""
    known = {**registry.entries(kind), **(registry.open_methods() if kind == "methods" else {})}
    entry = known[name]
    tree = _tree(entry.module)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    found = next(node for node in classes if entry.attribute in ("", node.name))
    return ast.get_docstring(tree) or "", ast.get_docstring(found) or ""


@cache
def _tree(module: str) -> ast.Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"no file {module} can be found")
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _of(module: str, name: str) -> dict[str, str]:
    """Fields with a default of a class of a module, or of one that it imports; none of what lies outside the package."""
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    inside = (node.module or "").startswith("effivlm")
                    return _of(node.module or "", alias.name) if inside else {}
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    found: dict[str, str] = {}
    for node in nodes:
        for base in reversed(node.bases):
            if isinstance(base, ast.Name):
                found |= _of(module, base.id)
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and _settable(item):
                found[item.target.id] = ast.unparse(item.value) if item.value else ""
    return {field: default for field, default in found.items() if default}


def _settable(item: ast.AnnAssign) -> bool:
    """Whether an annotated name is a field that can be given: no class attribute, and not `field(init=False)`."""
    words = ast.unparse(item.annotation), ast.unparse(item.value) if item.value else ""
    return not words[0].startswith("ClassVar") and "init=False" not in words[1]
