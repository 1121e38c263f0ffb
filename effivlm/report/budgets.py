"""Budgets as a document holds them, `keep`: a number, or the label of another kind; how they are shown, sorted and told apart."""

from __future__ import annotations

from functools import cache

from effivlm.records import Budget

Keep = float | str
ENTRIES = "prompt entries"
"""What cache methods count, in each layer by itself."""


@cache
def budget_of(keep: Keep) -> Budget:
    return Budget.parse(keep)


def text(keep: Keep) -> str:
    """As a table shows it: 0.1, 64tok, sparsity0.50, 2:4, w4g128."""
    return keep if isinstance(keep, str) else f"{keep:.3g}"


def rank(keep: Keep) -> tuple[int, float]:
    """What sorts budgets: kinds apart, the largest of a kind first."""
    kind, size = budget_of(keep).rank
    return kind, -size


def size(keep: Keep) -> float:
    """The place on an axis of its section, smaller being cheaper: the fraction that stays, tokens, or bits a weight."""
    budget = budget_of(keep)
    if budget.kind == "tokens":
        return float(budget.numbers[0])
    return 16 * float(budget) if budget.kind == "bits" else float(budget)


def section(keep: Keep, of: str) -> str:
    """What a budget is a budget of: those of two sections are in no mean, on no axis and in no front together.

    "visual tokens" and "prompt entries" of fractions, the same "by number", "weights" (zeros), "weight bits"; "" where not known.
    """
    return f"{of} by number" if of and budget_of(keep).kind == "tokens" else of


def printed(keep: Keep, of: str) -> str:
    """As papers head a block of rows: 20 % of prompt entries, 64 visual tokens, 50 % sparsity, 2:4, W4 g128, FP8."""
    budget = budget_of(keep)
    if budget.kind == "tokens":
        each = " a layer" if of == ENTRIES else ""
        return f"{budget.numbers[0]:,} {of or 'tokens'}{each}"
    if budget.kind == "sparsity":
        return f"{100 * (1 - float(budget)):.3g} % sparsity"
    if budget.kind == "bits":
        return budget.label.upper().replace("G", " g")
    return text(keep) if budget.kind == "n:m" else f"{100 * float(budget):.3g} %{f' of {of}' if of else ''}"


def heading(section: str) -> str:
    """What stands over the rows of a section."""
    return f"setting, of {section}" if section.startswith("weight") else f"keep, of {section}"
