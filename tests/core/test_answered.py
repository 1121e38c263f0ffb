"""Batches of padded prompts, with which studies ask many checkpoints, say what a run says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from effivlm_micro.architectures import FAMILIES

from effivlm.decoding.generation import Rules
from effivlm.models._sources import resolve
from effivlm.records import Cell, Settings
from effivlm.run.group import open_model, run_group

STUDIES = Path(__file__).parents[2] / "bench_tests" / "studies"


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(STUDIES))
    import answered

    return answered


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_batches_of_unequal_prompts_say_what_a_run_says(name: str, answered: Any) -> None:
    model = open_model(resolve(name), Settings())
    for task in ("textvqa_micro", "video_micro"):
        (outcome,) = run_group([Cell(model.source.name, "dense", "paper", "1.00", task)], model, Settings(limit=5))
        shown = answered.prompts(model, task, 5)
        assert len({len(one) for one in shown.embeds}) > 1 or task == "video_micro"
        for rows in (1, 3):
            said = answered.answers(model, shown, rows)
            assert [(one.id, one.text, one.score) for one in said] == [
                (one.id, one.text, one.score) for one in outcome.answers
            ]
        assert answered.score(model, shown) == outcome.score


def test_a_model_that_does_not_choose_plainly_is_refused(answered: Any) -> None:
    model = open_model(resolve("micro_qwen2_vl"), Settings())
    model.rules = replace(Rules(), penalty=1.2)
    with pytest.raises(ValueError, match="cannot be answered in padded batches"):
        answered.prompts(model, "gqa_micro", 2)
