"""What dense expects is stored beside its answers, asked again where a later session needs it, and no bit of it is another."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_changed
from test_changed import ALONE, BESIDE, DENSE, HALF, LIMIT, SNAPKV
from test_changed_together import asked, begun, outcomes, process
from torch import Tensor

from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Outcome, Settings
from effivlm.run.assembling import still_answered
from effivlm.run.diverging import Diverging
from effivlm.run.finite import in_step
from effivlm.run.gave import Asked
from effivlm.run.group import Group, run_group
from effivlm.run.journal import asked_of, line_of
from effivlm.run.leaf import Leaf
from effivlm.session.groups import Groups
from effivlm.session.journal import take_in
from effivlm.session.matrix import Plan

whole, toy, found = test_changed.whole, test_changed.toy, test_changed.found
Found = dict[Cell, Outcome]
OWN = (DENSE, SNAPKV)


def told(whole: Adapter, expects: bool) -> dict[int, Asked]:
    """All that a group of the model as it is gave, by sample number."""
    group = Group(OWN, whole, Settings(limit=LIMIT), expects)
    return {number: given for number, given, _ in group.through(range(LIMIT), {}, group.answers())}


def test_a_line_of_a_journal_brings_back_what_dense_expected(whole: Adapter) -> None:
    names = dict.fromkeys(OWN, "name")
    for number, given in told(whole, expects=True).items():
        assert given.expected is not None
        line = json.loads(json.dumps(line_of(number, given, names)))
        assert asked_of(line, names) == given
        assert asked_of(line, {SNAPKV: "name"}).expected is None, "it is dense's"
        (dense,) = (one for one in line["cells"] if one["cell"]["method"] == "dense")
        dense["expected"]["ids"] = dense["expected"]["ids"][16:]
        with pytest.raises(ValueError, match="do not fit"):
            asked_of(line, names)
    assert {given.expected for given in told(whole, expects=False).values()} == {None}


def test_a_sample_without_what_is_wanted_of_dense_is_not_answered(whole: Adapter) -> None:
    settings, family = Settings(limit=LIMIT), whole.source.family
    with_it, without = told(whole, expects=True), told(whole, expects=False)
    mixed = {**with_it, 2: without[2]}
    assert still_answered(OWN, settings, family, mixed) == set(range(LIMIT))
    assert still_answered(OWN, settings, family, mixed, expects=True) == set(range(LIMIT)) - {2}
    known = {0: without[0].of(OWN)}
    take_in(known, 0, with_it[0].of([SNAPKV]))
    assert known[0].expected is None
    take_in(known, 0, with_it[0])
    assert known[0].expected == with_it[0].expected


def test_a_session_that_needs_more_of_dense_asks_it_again_and_gives_what_one_session_gives(
    whole: Adapter, found: Found, products: Path, tmp_path: Path
) -> None:
    settings = Settings(limit=LIMIT)
    begun(whole, tmp_path, settings).release()
    first = Groups(Plan(settings, {"twin": whole.source}, (SNAPKV,)), settings, tmp_path, {"quality": (SNAPKV,)})
    killed(first, whole, after=3)
    assert asked(tmp_path) == Counter({(number, cell.id): 1 for number in range(3) for cell in OWN})
    begun(whole, tmp_path, settings).release()
    second = process(whole, tmp_path, settings, workers=1)
    assert second.journal.session == 2
    assert outcomes(second, lambda: whole) == found
    second.forget_model()
    assert asked(tmp_path)[0, DENSE.id] == 2
    begun(whole, tmp_path, settings).release()
    third = process(whole, tmp_path, settings, workers=1)
    assert outcomes(third, lambda: whole) == found
    third.forget_model()
    assert asked(tmp_path)[0, DENSE.id] == 2, "it is known since"


def killed(groups: Groups, whole: Adapter, after: int) -> None:
    """A process that ends amid the samples of its group."""
    write = groups.journal.write

    def stop(number: int, given: Any, names: Mapping[Cell, str]) -> None:
        if number == after:
            raise KeyboardInterrupt
        write(number, given, names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups.journal, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            groups.quality(SNAPKV, lambda: whole, lambda done, of: None)


@pytest.mark.parametrize("where", ["dense", "magnitude"])
def test_a_divergence_that_cannot_be_computed_costs_no_answer_and_is_told(
    whole: Adapter, found: Found, products: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    logits, calls = Diverging._logits, Counter[bool]()

    def broken(self: Diverging, leaf: Leaf, tokens: Sequence[int]) -> Tensor:
        here = self.storing == (where == "dense")
        calls[here] += 1
        made = logits(self, leaf, tokens)
        if here and calls[here] == 2:
            raise in_step(1)
        return made

    monkeypatch.setattr(Diverging, "_logits", broken)
    made = {one.cell: one for one in run_group([HALF], whole, Settings(limit=LIMIT))}
    kls = [one.kl for one in made[HALF].answers]
    assert [one is None for one in kls] == [False, True, False, False]
    assert [replace(one, kl=None) for one in made[HALF].answers] == [
        replace(one, kl=None) for one in found[HALF].answers
    ]
    said = "the divergence from dense could not be computed for 1 of 4 samples; the first: "
    why = {
        "dense": "ValueError: dense's own expectations are not known",
        "magnitude": "NotFiniteError: NaN or infinity",
    }
    (remark,) = (one for one in made[HALF].remarks if "divergence" in one)
    assert remark.startswith(said + why[where])
    assert any("divergence" in one for one in made[DENSE].remarks) == (where == "dense")


@pytest.mark.parametrize("workers", [1, 2])
def test_the_option_gives_the_same_from_one_process_and_from_blocks_and_measures_again_what_had_none(
    whole: Adapter, found: Found, products: Path, tmp_path: Path, workers: int
) -> None:
    settings = Settings(limit=LIMIT, kl=True)
    alone = {one.cell: one for one in run_group([SNAPKV, ALONE, BESIDE, HALF], whole, settings)}
    assert all(one.kl for one in alone[SNAPKV].answers)
    groups = process(whole, tmp_path, settings, workers)
    assert outcomes(groups, lambda: whole) == alone
    groups.forget_model()
    for cell in (DENSE, ALONE, BESIDE, HALF):
        assert alone[cell] == found[cell]
    without = tuple(replace(one, kl=None) for one in alone[SNAPKV].answers)
    assert without == found[SNAPKV].answers
    assert alone[SNAPKV].fingerprint != found[SNAPKV].fingerprint
