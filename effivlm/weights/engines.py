"""Whose code computes: an engine is a module `engine_NAME` beside this one, with a function for each rule that it knows."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import cast

from effivlm.compression.weights import Linear, Solved


def solved(engine: str, rule: str, linear: Linear, **how: object) -> Solved:
    """What `rule` ("wanda") of an engine makes of a linear layer; `how` are the rule's own settings. Raises as `rule_of`."""
    return cast(Solved, rule_of(engine, rule)(linear, **how))


def rule_of(engine: str, rule: str) -> Callable[..., object]:
    """A function of an engine.

    Raises:
        ValueError: there is no such engine, it does not know the rule, or what it needs is not installed.
    """
    place = f"{__package__}.engine_{engine}"
    if importlib.util.find_spec(place) is None:
        raise ValueError(f"engine {engine!r} is unknown: there is no module {place}")
    found = getattr(importlib.import_module(place), rule, None)
    if found is None:
        raise ValueError(f"engine {engine!r} has no rule {rule!r}")
    return cast(Callable[..., object], found)
