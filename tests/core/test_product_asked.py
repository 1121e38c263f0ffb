"""What a product may be asked for: a calibration set, targets, a method and a budget; and the command that makes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from products import tensors, told

from effivlm import __main__ as cli
from effivlm.methods.magnitude import Magnitude
from effivlm.methods.wanda import Wanda
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import Budget, Settings, Unsupported
from effivlm.run.group import open_model
from effivlm.weights.product import product

pytestmark = pytest.mark.usefixtures("own_products")


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    """A calibration set of one's own with one picture."""
    (tmp_path / "set").mkdir(exist_ok=True)
    Image.new("RGB", (56, 56), "red").save(tmp_path / "set" / "red.png")
    lines = [json.dumps({"metric": "exact_match", **row}) + "\n" for row in rows]
    (tmp_path / "set" / "questions.jsonl").write_text("".join(lines))
    return str(tmp_path / "set")


SEEN = {"image": "red.png", "question": "Which colour?", "answers": ["red"]}
UNSEEN = {"images": [], "question": "Which day?", "answers": ["today"]}


@pytest.mark.parametrize(
    ("rows", "values", "said"),
    [
        ([], {"samples": 1}, "holds no question"),
        (
            [UNSEEN, {**UNSEEN, "question": "Which year?"}],
            {"samples": 2},
            "holds text alone: no visual token would reach",
        ),
        ([SEEN], {"samples": 2}, "has 1 samples, fewer than the 2 asked for"),
        ([{**SEEN, "answers": [""]}], {"samples": 1}, "has no answer"),
        ([SEEN, UNSEEN], {"samples": 2, "tokens": "visual"}, "has no visual tokens"),
    ],
)
def test_a_calibration_set_that_tells_nothing_is_refused(
    twin: ModelSource, tmp_path: Path, rows: list[dict[str, Any]], values: dict[str, Any], said: str
) -> None:
    method = Wanda(keep=Budget.parse("2:4"), calibration=folder_of(tmp_path, rows), **values)
    with pytest.raises(ValueError, match=said):
        product(twin, method, Settings(), to=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_set_of_ones_own_is_calibrated_on_and_named_by_its_content(twin: ModelSource, tmp_path: Path) -> None:
    method = Wanda(keep=Budget.parse("2:4"), samples=1, calibration=folder_of(tmp_path, [SEEN]))
    first = product(twin, method, Settings())
    folder_of(tmp_path, [{**SEEN, "question": "What colour?"}])
    assert product(twin, method, Settings()) != first
    assert told(first)["drawn"] == {**told(first)["drawn"], "set": str(tmp_path / "set"), "samples": 1}


def test_tower_and_projector_are_compressed_where_they_are_asked_for(twin: ModelSource) -> None:
    everything = Magnitude(keep=Budget.parse("2:4"), targets="tower+projector+language")
    folder = product(twin, everything, Settings())
    zeros = {
        name: float((value == 0).float().mean())
        for name, value in tensors(folder).items()
        if value.dim() == 2 and "embed" not in name and "lm_head" not in name
    }
    assert any(name.startswith("visual.merger") for name in zeros)
    assert set(zeros.values()) == {0.5}
    opened = open_model(resolve(f"half={folder}"), Settings())
    assert len(told(folder)["layers"]) == len(zeros)
    opened.close()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"calibration": "nowhere"}, "calibration 'nowhere' is not one of auto, micro, sharegpt4v, and no folder"),
        ({"tokens": "visual", "targets": "language+wing"}, "targets 'wing' is not one of language, tower, projector"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused_by_name(twin: ModelSource, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        product(twin, Wanda(keep=Budget.parse("2:4"), **values), Settings())


def test_other_sources_are_refused(twin: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="random weights and no folder: there is no checkpoint to compress"):
        product(resolve("random:qwen2_vl_7b"), Magnitude(keep=Budget.parse("2:4")), Settings())
    with pytest.raises(ValueError, match="magnitude needs a budget such as sparsity"):
        product(twin, Magnitude(), Settings())


def test_the_command_makes_a_product_and_says_what_came_of_it(
    twin: ModelSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["compress", f"twin={twin.source}", "--method", "wanda@balanced", "--budget", "sparsity0.50"]
    asked += ["--samples", "2", "--seed", "3", "--calibration", "micro", "--to", str(tmp_path / "new")]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert "3/3 model.language_model.layers.2" in said
    assert "sparsity0.50 asked, 0.5000 zeros and 16.000 bits a weight in 21 linear layers" in said
    about = told(tmp_path / "new")
    assert about["calibration"] == {"set": "micro", "samples": 2, "seed": 3, "tokens": "balanced"}
    assert about["drawn"]["samples"] == 2
    assert about["method"] == "wanda"


@pytest.mark.parametrize(
    ("method", "budget", "said"),
    [
        ("wandb", "2:4", "unknown method of checkpoints 'wandb'. Did you mean 'wanda'?"),
        ("snapkv", "0.10", "unknown method of checkpoints 'snapkv'"),
        ("wanda@odd", "2:4", "unknown preset 'odd' of method 'wanda'. Choose from: paper, balanced"),
        ("wanda", "0.10", "budget '0.10' is none of wanda: it takes budgets such as sparsity0.20"),
        ("wanda", "w4g128", "budget 'w4g128' is none of wanda"),
    ],
)
def test_the_command_refuses_by_name(
    twin: ModelSource, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, budget: str, said: str
) -> None:
    where = ["--to", str(tmp_path / "new")]
    assert cli.main(["compress", f"twin={twin.source}", "--method", method, "--budget", budget, *where]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
