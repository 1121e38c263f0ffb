"""SparseGPT and EcoFLaP beside what their authors' code makes (`make_weights_golden.py`)."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
import torch
from make_weights_golden import LAYERS, OUTPUT, SHARES, layer

from effivlm.compression.weights import Goal, Linear
from effivlm.weights.allocation import allocated
from effivlm.weights.engines import solved

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(OUTPUT.read_text(encoding="utf-8"))


def test_the_stored_cases_are_those_that_the_script_makes() -> None:
    assert [{**case, "weight": 0} for case in GOLDEN["sparsegpt"]] == [{**case, "weight": 0} for case in LAYERS]
    assert [{**case, "lost": 0} for case in GOLDEN["ecoflap"]] == [{**case, "lost": 0} for case in SHARES]


@pytest.mark.parametrize("case", GOLDEN["sparsegpt"], ids=lambda case: str(case["seed"]))
def test_sparsegpt_leaves_the_weights_of_the_authors_code(case: dict[str, Any]) -> None:
    weight, inputs = layer(case)
    zeros, of = case["pattern"] or (0, 0)
    goal = Goal.parse(f"{of - zeros}:{of}" if of else f"sparsity{case['share']}")
    one = Linear("layer", weight, goal, round(goal.zeros * weight.numel()), "float32", None, inputs.T @ inputs)
    new = solved("llmcompressor", "sparsegpt", one, damp=0.01, block=case["block"]).weight
    expected = torch.tensor(case["weight"])
    assert torch.equal(new == 0, expected == 0)
    torch.testing.assert_close(new, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("case", GOLDEN["ecoflap"], ids=lambda case: case["most"])
def test_ecoflap_shares_out_as_the_authors_code_where_that_keeps_its_total(case: dict[str, Any]) -> None:
    names = [str(number) for number in range(len(case["sizes"]))]
    lost = allocated(
        {name: [size] for name, size in zip(names, case["sizes"], strict=True)},
        dict(zip(names, case["scores"], strict=True)),
        Fraction(case["zeros"]),
        Fraction(case["most"]),
    )
    assert [sum(lost[name]) for name in names] == pytest.approx(case["lost"], abs=1)
    assert sum(map(sum, lost.values())) == sum(case["lost"])
