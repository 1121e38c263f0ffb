"""Docstrings as Markdown, and tables; what pages of methods and of tasks share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fields import docstring

from effivlm import registry

ARXIV = re.compile(r"arXiv\s+(\d{4}\.\d{4,5})")
NAME = re.compile(r"`(\w+)`")
CODE = re.compile(r"(`[^`\n]*`)")
LIST = re.compile(r"([^\n])\n- ")


@dataclass(frozen=True, slots=True)
class Page:
    """One generated page: `path` below the folder of the documentation, `section` of the navigation that it stands in."""

    path: str
    title: str
    section: str
    text: str


def said(kind: str, name: str) -> tuple[str, str]:
    """What a name is, in a line, and at length: the docstrings of its file and of its class in Markdown.

    Papers and other names of its kind are links, a list is a list.

    Raises:
        ValueError: one of the two is missing.
    """
    line, text = docstring(kind, name)
    if not line or not text:
        raise ValueError(
            f"{place(kind, name)}: the file or its class has no docstring, so nothing can be said about it"
        )
    whole = LIST.sub(r"\1\n\n- ", plain(text), count=1)
    return linked(plain(line.split("\n\n")[0]), kind), linked(whole, kind)


def linked(text: str, kind: str) -> str:
    """Papers by their arXiv id, and names of `kind` as pages beside this one."""
    known = set(registry.names(kind))
    named = NAME.sub(lambda found: f"[{found[0]}]({found[1]}.md)" if found[1] in known else found[0], text)
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", named)


def plain(text: str) -> str:
    """What is no code keeps its signs: stars, underscores and brackets of formulas mean nothing here."""
    pieces = CODE.split(text)
    return "".join(
        piece if CODE.fullmatch(piece) else re.sub(r"([*_\[\]])", r"\\\1", piece).replace("<", "&lt;")
        for piece in pieces
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; a cell is one line, and a bar in it is no border."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in lines
    )


def place(kind: str, name: str) -> str:
    """The file that a name comes from, as the tree of the package has it."""
    return registry.entries(kind)[name].module.replace(".", "/") + ".py"


def command(*words: str) -> str:
    return "\n".join(["```sh", *words, "```"])
