"""Budgets that are a number of tokens: that many stay of every sample, all of one that has no more, and the count is told."""

from __future__ import annotations

import pytest

from effivlm import registry
from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Outcome, Settings
from effivlm.run.group import run_group
from effivlm.run.steps import asked, budgeted

SAMPLES = 4
PRESET = {name: registry.declared("methods", name).get("default_preset", "paper") for name in registry.names("methods")}
NAMES = [
    *(
        name
        for name in registry.names("methods")
        if budgeted(name) and not registry.inherited("methods", name, "kinds")
    ),
    *("fastv+snapkv", "random_visual:12tok+fastv:6tok+random_kv", "fastv:9tok+snapkv", "visionzip:12tok+snapkv"),
]


def run(model: Adapter, keep: str, names: list[str] = NAMES, share: bool = True) -> dict[str, Outcome]:
    asked_for = [Cell("twin", *asked(name), keep, "toy") for name in names]
    return {one.cell.id: one for one in run_group(asked_for, model, Settings(limit=SAMPLES, share=share))}


@pytest.mark.usefixtures("toy_task")
def test_so_many_tokens_stay_of_every_sample_as_were_asked(model: Adapter) -> None:
    found = run(model, "10tok")
    ran = {name: one for name, one in found.items() if one.status == "ok" and one.cell.method != "dense"}
    assert {one.status for one in found.values()} <= {"ok", "unsupported"}, "none is off by more than rounding"
    assert len(ran) > 0.8 * len(NAMES)
    for name, one in ran.items():
        kept = one.achieved
        assert kept is not None
        assert (kept.asked, bool(kept.parts)) == ("10tok", "+" in name)
        units = len(kept.per_layer) if kept.of == "prompt entries" else 1
        wanted = [min(10 * units, answer.of) for answer in one.answers]
        if not kept.parts:
            assert [answer.kept for answer in one.answers] == pytest.approx(wanted, abs=units), name
            seen = [answer.kept / units for answer in one.answers if answer.of]
            assert kept.counted == pytest.approx(sum(seen) / len(seen)), name
            assert kept.asked_keep == pytest.approx(sum(wanted) / kept.total), name
        for part in kept.parts:
            assert part.counted is not None
            assert 1 <= part.counted <= int(part.asked.removesuffix("tok")) + 1, (name, part)


@pytest.mark.usefixtures("toy_task")
def test_a_sample_with_fewer_tokens_keeps_all_and_is_answered_as_dense_does(model: Adapter) -> None:
    dense, *others = run(model, "1000000tok", [name for name in NAMES if ":" not in name]).values()
    assert len(others) > 20
    for one in others:
        assert one.status == "ok", (one.cell.id, one.reason)
        assert [answer.tokens for answer in one.answers] == [answer.tokens for answer in dense.answers], one.cell.id
        assert one.achieved is not None
        assert one.achieved.keep == one.achieved.asked_keep == 1


@pytest.mark.usefixtures("toy_task")
def test_sharing_changes_no_answer_where_some_samples_are_short_and_some_are_not(model: Adapter) -> None:
    names = ["fastv+snapkv", "visionzip:12tok+snapkv", "fastv", "random_kv"]
    together, alone = (run(model, "18tok", names, share) for share in (True, False))
    assert together == alone
    kept = [together[Cell("twin", name, "paper", "18tok", "toy").id].achieved for name in names[2:]]
    assert all(one is not None and one.asked_keep < 1 for one in kept)
