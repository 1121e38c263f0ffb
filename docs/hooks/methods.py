"""A page for each method: its docstring, where it works, presets and fields with their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from documented import Page, command, place, said, table
from fields import fields

from effivlm import registry
from effivlm.run import steps
from effivlm.session.matrix import DEFAULT_BUDGETS

KIND = "methods"
SECTIONS = {
    "none": "Without a budget",
    "": "Where the preset says",
    "image": "On the picture",
    "vision": "Before the decoder",
    "layer": "Inside the decoder",
    "cache": "In the cache",
    "weights": "In the checkpoint",
}


def pages() -> list[Page]:
    """The index first, then the methods in the order in which a prompt meets them."""
    found = [_page(name) for name in registry.names(KIND)]
    order = list(SECTIONS.values())
    found.sort(key=lambda page: (order.index(page.section), page.title))
    return [_index(found), *found]


def _page(name: str) -> Page:
    line, text = said(KIND, name)
    own = fields(name)
    parts = [
        f"# {name}",
        line,
        text,
        "## Run it",
        command(*_commands(name)),
        "## Facts",
        table(["", ""], _facts(name)),
        "## Presets",
        "A preset is a set of values for the fields below; " + _choosing(name),
        table(["preset", "differs from the defaults in"], _presets(name)),
        "## Fields",
        table(["field", "default"], [(f"`{field}`", f"`{default}`") for field, default in own.items()])
        if own
        else "It has none of its own.",
    ]
    return Page(f"{KIND}/{name}.md", name, SECTIONS[_seam(name)], "\n\n".join(parts) + "\n")


def _seam(name: str) -> str:
    return str(registry.inherited(KIND, name, "seam")) if steps.budgeted(name) else "none"


def _facts(name: str) -> list[tuple[str, str]]:
    budgets = ", ".join(f"`{one}`" for one in steps.settings(name) or DEFAULT_BUDGETS)
    facts = [("works at the [seam](../concepts.md#seams)", _seam(name) or "that its preset says")]
    if steps.budgeted(name):
        facts.append(
            ("a [budget](../concepts.md#budgets) counts", str(registry.inherited(KIND, name, "of") or "visual tokens"))
        )
        facts.append(("budgets when none is named", budgets))
    return [*facts, ("file", f"`{place(KIND, name)}`")]


def _commands(name: str) -> list[str]:
    if steps.of_weights(name):
        return [f"pytest bench_tests -k quality --vlm-methods dense,{name} --vlm-budgets {steps.settings(name)[-1]}"]
    return [f'pytest bench_tests -k "{name} and docvqa"']


def _declared(name: str) -> tuple[Mapping[str, Mapping[str, Any]], str]:
    """Presets by name, and which of them is taken when none is named."""
    presets = registry.declared(KIND, name)["presets"]
    return presets, str(registry.declared(KIND, name).get("default_preset", next(iter(presets))))


def _choosing(name: str) -> str:
    presets, default = _declared(name)
    other = next((preset for preset in presets if preset != default), "")
    chosen = f"`--vlm-methods {name}@{other}` picks another" if other else "it has no other"
    return f"`{default}` is taken when none is named, {chosen}."


def _presets(name: str) -> list[tuple[str, str]]:
    return [
        (f"`{preset}`", ", ".join(f"`{field}={given!r}`" for field, given in values.items()) or "nothing")
        for preset, values in _declared(name)[0].items()
    ]


def _index(found: list[Page]) -> Page:
    parts = [
        "# Methods",
        f"{len(found)} methods, by where in the model they work. `keep 1.0` is dense, bit for bit, for every one.",
    ]
    for section in dict.fromkeys(page.section for page in found):
        names = [page.title for page in found if page.section == section]
        rows = [(f"[`{name}`]({name}.md)", said(KIND, name)[0]) for name in names]
        parts += [f"## {section}", table(["method", "idea"], [*rows, *_open(section)])]
    return Page(f"{KIND}/index.md", "Methods", "", "\n\n".join(parts) + "\n")


def _open(section: str) -> list[tuple[str, str]]:
    """Methods that run what is named behind them: no page of their own, but what was measured of all that they run."""
    return [
        (f"[`{name}{registry.OPEN}NAME`](../measured/{name}.md)", said(KIND, name)[0])
        for name in registry.open_methods()
        if SECTIONS[_seam(name + registry.OPEN)] == section
    ]
