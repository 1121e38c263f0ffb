"""Names of methods as they are asked for and stored: `fastv`, `snapkv@effivlm`, or a composition, `fastv:0.40+snapkv`.

In a composition every method works on what the one before it leaves. One with `:0.40` keeps that share in every case; the others
follow the budget of the case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from effivlm.records import SEAMS, Budget
from effivlm.registry import check, declared, inherited, load

JOIN, FIXED, PRESET = "+", ":", "@"


@dataclass(frozen=True, slots=True)
class Step:
    """One method of a case with its preset, and its own budget if it does not follow the case's ("")."""

    method: str
    preset: str
    keep: str = ""

    @property
    def text(self) -> str:
        """As it stands in case ids: preset paper goes without saying."""
        preset = "" if self.preset == "paper" else PRESET + self.preset
        return self.method + preset + (FIXED + self.keep if self.keep else "")

    def budget(self, case: Budget) -> Budget:
        return Budget.parse(self.keep) if self.keep else case


def stored(method: str, preset: str) -> tuple[Step, ...]:
    """The steps of a stored case. A composition stands in its method alone, and there a preset that is not named is `paper`."""
    if JOIN not in method:
        return (Step(method, preset),)
    return tuple(_step(text, "paper") for text in method.split(JOIN))


def asked(text: str) -> tuple[str, str]:
    """Method and preset of the cases that an option asks for.

    Raises:
        ValueError: a name, preset or budget does not exist, or the methods cannot be composed; says which and why.
    """
    steps = [_step(piece) for piece in text.split(JOIN)]
    for step in steps:
        presets = _presets(step.method)
        if step.preset not in presets:
            raise ValueError(
                f"unknown preset {step.preset!r} of method {step.method!r}. Choose from: {', '.join(presets)}"
            )
    if len(steps) == 1:
        if steps[0].keep:
            raise ValueError(f"{text!r}: {FIXED!r} fixes a budget in a composition only; use --vlm-budgets")
        return steps[0].method, steps[0].preset
    _fitting(text, steps)
    return JOIN.join(step.text for step in steps), "paper"


def _step(text: str, preset: str = "") -> Step:
    """Read one method; without a preset it is `preset`, or the method's default one."""
    words, fixed, keep = text.partition(FIXED)
    name, at, named = words.partition(PRESET)
    check("methods", name)
    if not at:
        named = preset or str(declared("methods", name).get("default_preset", _presets(name)[0]))
    try:
        return Step(name, named, Budget.parse(keep).label if fixed else "")
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _presets(method: str) -> list[str]:
    return list(declared("methods", method).get("presets", {})) or ["paper"]


def budgeted(method: str) -> bool:
    """Whether cases of a stored method vary with the budget."""
    return JOIN in method or bool(declared("methods", method).get("budgeted", True))


def _fitting(text: str, steps: Sequence[Step]) -> None:
    """ValueError unless every method compresses at a seam of its own, in the order of the run."""
    places: list[int] = []
    for step in steps:
        seams = _seams(step)
        if not seams or not set(seams) <= set(SEAMS):
            raise ValueError(f"{text!r}: {step.method} cannot be composed: it works at none of {', '.join(SEAMS)}")
        places += [SEAMS.index(seam) for seam in seams]
    for place in places:
        if places.count(place) > 1:
            raise ValueError(f"{text!r}: two methods work at the {SEAMS[place]} seam; compose one at most at each")
    if places != sorted(places):
        raise ValueError(f"{text!r}: compose in the order of the run: {', '.join(SEAMS)}")
    if all(step.keep for step in steps):
        raise ValueError(f"{text!r}: every budget is fixed; leave out one {FIXED} for --vlm-budgets to vary")


def _seams(step: Step) -> list[str]:
    """Where a method works, read off its file; one that does not say there, because its fields decide, is asked."""
    if not budgeted(step.method):
        return []
    if seam := inherited("methods", step.method, "seam"):
        return [str(seam)]
    from effivlm.compression.base import Method

    kind = cast(type[Method], load("methods", step.method))
    return [part.seam for part in kind(**kind.presets[step.preset]).seam_parts()]
