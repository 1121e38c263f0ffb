"""What the processor makes ahead of its samples: the same tensors, once, and what goes wrong is told when the sample is asked."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from forms import FORMS, sample
from toy_task import Toy, cells

from effivlm.models import _ahead
from effivlm.models._adapter import Adapter
from effivlm.models._ahead import Processed
from effivlm.records import Sample, Settings
from effivlm.run.group import run_group


def anything(text: str) -> None:
    """Every text fits."""


def counted(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the samples that the processor really saw."""
    seen: list[str] = []
    given = type(model).given

    def noting(self: Adapter, one: Sample) -> Any:
        seen.append(one.id)
        return given(self, one)

    monkeypatch.setattr(type(model), "given", noting)
    return seen


@pytest.mark.parametrize("form", FORMS)
def test_what_was_made_ahead_is_what_is_made_now_and_serves_once(
    model: Adapter, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = sample(form)
    plain, seen = model.prepare(one), counted(model, monkeypatch)
    model.process(one, anything)
    ahead = model.prepare(one)
    assert seen == [one.id]
    assert ahead.keys() == plain.keys()
    assert all(torch.equal(ahead[name], plain[name]) for name in plain if isinstance(plain[name], torch.Tensor))
    model.prepare(one)
    assert seen == [one.id] * 2


def test_another_sample_of_the_same_name_is_not_served(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    one, seen = sample("two"), counted(model, monkeypatch)
    for other in (replace(one, prompt="Else?"), replace(one, images=one.images[::-1])):
        model.process(one, anything)
        model.prepare(other)
        assert seen == [one.id] * 2
        seen.clear()


def test_what_goes_wrong_ahead_is_raised_by_the_sample_that_is_asked(model: Adapter) -> None:
    one = sample("one")

    def too_long(text: str) -> None:
        raise ValueError(f"{text} is too long")

    model.process(one, too_long)
    with pytest.raises(ValueError, match="is too long"):
        model.prepare(one)
    assert model.prepare(one)["input_ids"].shape[1] > 1


def test_few_wait_at_once(model: Adapter) -> None:
    for number in range(_ahead.MOST + 3):
        model.process(replace(sample("text"), id=f"text-{number}"), anything)
    assert [*model.ahead.waiting] == [f"text-{number}" for number in range(3, _ahead.MOST + 3)]
    model.ahead.waiting.clear()


def test_answers_are_those_of_samples_that_are_processed_when_they_are_asked(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cells(methods=["dense", "fastv", "downsample"], keeps=("0.30",))
    expected = run_group(asked, model, Settings(limit=9))
    samples, seen = toy_task.samples(9, 0), counted(model, monkeypatch)
    ready = Processed(samples, partial(model.process, fit=anything))
    monkeypatch.setattr(toy_task, "samples", lambda limit, seed: ready)
    found = run_group(asked, model, Settings(limit=9))
    assert [one.answers for one in found] == [one.answers for one in expected]
    assert seen.count(samples[0].id) == 1
