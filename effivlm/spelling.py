"""How names of methods are put together: `fastv@effivlm:0.40+snapkv`, `kvpress:SnapKVPress(window_size=16)+...`."""

from __future__ import annotations

from effivlm.registry import OPEN, open_methods

JOIN, FIXED, PRESET = "+", ":", "@"
"""Between methods, before a method's own budget, before its preset."""


def apart(text: str, mark: str) -> list[str]:
    """`text` cut at every `mark` outside of parentheses; at every one where parentheses do not close."""
    pieces, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == mark and not depth:
            pieces.append("")
        else:
            pieces[-1] += char
    return pieces if not depth else text.split(mark)


def composed(method: str) -> bool:
    """Whether a stored method is several."""
    return JOIN in method and len(apart(method, JOIN)) > 1


def budgeted(text: str) -> tuple[str, bool, str]:
    """A method with its preset, whether a budget of its own is behind it, and that: behind the second colon of an open method,
    which has one already."""
    head, *more = apart(text, FIXED)
    if more and head in open_methods():
        head += OPEN + more.pop(0)
    return head, bool(more), FIXED.join(more)
