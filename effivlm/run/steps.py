"""Names of methods as they are asked for and stored: `fastv`, `snapkv@effivlm`, or a composition, `fastv:0.40+snapkv`.

In a composition every method works on what the one before it leaves. One with `:0.40` keeps that share in every case; the others
follow the budget of the case. A method of the checkpoint comes first, and always has a budget of its own: `wanda:2:4+fastv`, or
the first of those that it declares, which is written out. An open method stands before what it runs,
`kvpress:SnapKVPress(window_size=16)`; what is in parentheses is its alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from effivlm.budget import TOKEN_KINDS
from effivlm.records import SEAMS, Budget
from effivlm.registry import WEIGHTS, check, declared, inherited, load, open_methods
from effivlm.spelling import FIXED, JOIN, PRESET, joined, read


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
    several = joined(method)
    return tuple(_step(text, "paper") for text in several) if len(several) > 1 else (Step(method, preset),)


def asked(text: str) -> tuple[str, str]:
    """Method and preset of the cases that an option asks for.

    Raises:
        ValueError: a name, preset or budget does not exist, or the methods cannot be composed; says which and why.
    """
    steps = [_step(piece) for piece in joined(text)]
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
    steps = [step if step.keep or not of_weights(step.method) else _by_default(step) for step in steps]
    for step in steps:
        if step.keep and budgeted(step.method) and not takes(step.method, Budget.parse(step.keep)):
            raise ValueError(f"{text!r}: {step.keep} is no budget of {step.method}: it takes {wanted(step.method)}")
    _fitting(text, steps)
    return JOIN.join(step.text for step in steps), "paper"


def _step(text: str, preset: str = "") -> Step:
    """Read one method; without a preset it is `preset`, or the method's default one."""
    name, named, keep, fixed = read(text, open_methods())
    name = check("methods", name)
    if PRESET not in text:
        named = preset or str(declared("methods", name).get("default_preset", _presets(name)[0]))
    try:
        return Step(name, named, Budget.parse(keep).label if fixed else "")
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None


def _presets(method: str) -> list[str]:
    return list(declared("methods", method).get("presets", {})) or ["paper"]


def budgeted(method: str) -> bool:
    """Whether cases of a stored method vary with the budget."""
    return len(joined(method)) > 1 or bool(declared("methods", method).get("budgeted", True))


def of_weights(method: str) -> bool:
    """Whether a single method changes the checkpoint itself."""
    return bool(inherited("methods", method, "seam") == WEIGHTS)


def weights_step(method: str, preset: str, keep: str) -> Step | None:
    """The step of a stored case that changes the checkpoint, with its own budget; None where the model stays as it is."""
    first = stored(method, preset)[0]
    if not of_weights(first.method):
        return None
    return first if first.keep else replace(first, keep=keep)


def checkpoint_of(method: str, preset: str, keep: str) -> str:
    """What makes the checkpoint that answers a stored case, as `wanda:2:4`; "" where the model stays as it is."""
    step = weights_step(method, preset, keep)
    return step.text if step else ""


def takes(method: str, budget: Budget) -> bool:
    """Whether a stored method, or all methods of a composition that follow the case, can be given a budget."""
    following = [step.method for step in stored(method, "paper") if not step.keep]
    return all(budget.kind in _kinds(name) and budget.form in ("", *_forms(name)) for name in following)


def settings(method: str) -> tuple[str, ...]:
    """The budgets that a single method declares to run at where none of its kinds is named; none: those of everybody."""
    return () if len(joined(method)) > 1 else tuple(inherited("methods", method, "settings") or ())


def wanted(method: str) -> str:
    """Examples of the budgets of a stored method, in words."""
    return ", ".join(settings(method)) or "a fraction such as 0.10, or a number such as 64tok"


def _kinds(method: str) -> Sequence[str]:
    return inherited("methods", method, "kinds") or TOKEN_KINDS


def _forms(method: str) -> Sequence[str]:
    return inherited("methods", method, "forms") or ()


def _by_default(step: Step) -> Step:
    found = settings(step.method)
    if not found:
        raise ValueError(f"{step.method} declares no budget to run at: name one, {step.method}{FIXED}BUDGET")
    return replace(step, keep=Budget.parse(found[0]).label)


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
