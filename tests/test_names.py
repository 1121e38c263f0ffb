"""Public names, because `-k` matches parts of words: `-k dense` must not run something else too."""

from __future__ import annotations

import re
from itertools import permutations

import pytest

from effivlm import registry
from effivlm.models._sources import checkpoints


def public_names() -> dict[str, str]:
    """Every name that can stand in a case id, with its kind."""
    found: dict[str, str] = {}
    for kind, names in (
        ("method", registry.names("methods")),
        ("task", registry.names("tasks")),
        ("model", list(checkpoints())),
        (
            "preset",
            [preset for name in registry.names("methods") for preset in registry.declared("methods", name)["presets"]],
        ),
    ):
        found |= dict.fromkeys(names, kind)
    return found


def clashes(names: dict[str, str], own: frozenset[tuple[str, str]] = frozenset()) -> list[tuple[str, str]]:
    """Pairs of which `-k` with the first also selects the second. A benchmark and its stand-ins are wanted: `-k docvqa` means
    whichever the run uses. So are `own`, methods with presets that no other has."""
    return [
        (short, long)
        for short, long in permutations(names, 2)
        if short in long and long not in (f"{short}_micro", f"{short}_proxy") and (short, long) not in own
    ]


def own_presets() -> frozenset[tuple[str, str]]:
    having = {name: registry.declared("methods", name)["presets"] for name in registry.names("methods")}
    every = [preset for presets in having.values() for preset in presets]
    return frozenset(
        (name, preset) for name, presets in having.items() for preset in presets if every.count(preset) == 1
    )


def test_no_public_name_lies_inside_another() -> None:
    assert clashes(public_names(), own_presets()) == []


@pytest.mark.parametrize("name", public_names())
def test_a_public_name_is_lower_case_words_and_no_word_of_the_case_id(name: str) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    assert name not in ("keep", "test", "quality", "ttft", "decode", "bench")


def test_a_clash_would_be_seen() -> None:
    assert clashes({"mme": "task", "mme_micro": "task"}) == []
    assert clashes({"mme": "task", "mme_image": "task"}) == [("mme", "mme_image")]
    assert clashes({"kv": "method", "snapkv": "method"}) == [("kv", "snapkv")]
    awq = {"awq": "method", "autoawq": "preset"}
    assert clashes(awq) == [("awq", "autoawq")]
    assert clashes(awq, frozenset({("awq", "autoawq")})) == []
