"""Half a surrogate pair and values that cannot be stored, in a whole session: it ends as it should, and shows them harmlessly."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from toy_session import Toy

HALF = "\ud83d"
PLANT = """
from dataclasses import replace
import numpy as np
run_group = toy_world.sys.modules["effivlm.run.group"].run_group

def hostile(cells, model, settings, progress, note, *rest, **more):
    def cut(line):
        note({**line, "prompt": "what \\ud83d?", "references": ["a\\ud83d"]} if line["kind"] == "sample" else line)
    outcomes = run_group(cells, model, settings, progress, cut, *rest, **more)
    return [PLANTED for one in outcomes]

toy_world.sys.modules["effivlm.run.group"].run_group = hostile
"""
ANSWERS = "replace(one, answers=tuple(replace(answer, text='yes \\ud83d') for answer in one.answers))"
BAD = "replace(one, score={value}) if one.cell.method == 'fastv' else one"


@pytest.mark.parametrize("beside", [(), ("-n1",)])  # one worker runs whole groups, and sends them as several do
def test_half_a_surrogate_pair_goes_through_a_session(toy: Toy, beside: tuple[str, ...]) -> None:
    toy.add(PLANT.replace("PLANTED", ANSWERS))
    result = toy.run_apart("-k", "quality", "--junitxml=found.xml", *beside)
    assert result.ret == 0
    assert "INTERNALERROR" not in str(result.stdout)
    text = (toy.path / "out" / "outcomes.jsonl").read_bytes().decode("utf-8")
    assert HALF not in text
    records = toy.records()
    answers = [answer["text"] for one in records if one["kind"] == "outcome" for answer in one["answers"]]
    assert set(answers) == {f"yes {HALF}"}
    shown = [one for one in records if one["kind"] == "sample"]
    assert {(one["prompt"], *one["references"]) for one in shown} == {(f"what {HALF}?", f"a{HALF}")}
    json.loads((toy.path / "out" / "report.json").read_bytes().decode("utf-8"))
    assert "what" in (toy.path / "out" / "report.html").read_bytes().decode("utf-8")
    assert ElementTree.parse(toy.path / "found.xml").getroot().tag == "testsuites"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("float('nan')", "it cannot be stored: Out of range float values are not JSON compliant"),
        ("float('inf')", "it cannot be stored: Out of range float values are not JSON compliant"),
        ("np.float32(0.5)", "it cannot be stored: a value of type float32 cannot be stored"),
    ],
)
def test_an_outcome_that_cannot_be_stored_fails_alone(toy: Toy, value: str, reason: str) -> None:
    toy.add(PLANT.replace("PLANTED", BAD.format(value=value)))
    result = toy.run("-k", "quality")
    result.assert_outcomes(passed=3, failed=2, deselected=10)
    assert "INTERNALERROR" not in str(result.stdout)
    reasons = [one["reason"] for one in toy.records() if one["kind"] == "outcome" and one["status"] == "failed"]
    assert len(reasons) == 2
    assert all(one.startswith(reason) for one in reasons)
