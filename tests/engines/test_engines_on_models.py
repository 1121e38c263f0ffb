"""The engines on the micro models: first blocks with what enters them, and a whole product in AutoAWQ's format."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from torch import Tensor

from effivlm.compression.weights import Goal, Linear
from effivlm.methods.awq import Awq
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.run.group import open_model
from effivlm.weights import awq_format, calibration
from effivlm.weights._autoawq import quantizer
from effivlm.weights.blocks import Stage, Walk, outline
from effivlm.weights.engines import rule_of, solved
from effivlm.weights.product import PRODUCT, product
from effivlm.weights.seen import Seen, gathered
from effivlm.weights.smoothing import Block
from effivlm.weights.texts import texts

MODELS = ("micro_llava_onevision", "micro_qwen2_vl", "micro_internvl2_5")
SAMPLES = 4


@dataclass(frozen=True)
class First:
    """The first decoder layer of a model, what its linears saw, and what leaves it."""

    stage: Stage
    seen: dict[str, Seen]
    outputs: list[Tensor]

    def linears(self, goal: str) -> Iterator[Linear]:
        asked = Goal.parse(goal)
        for name, one in self.stage.linears.items():
            zeros = round(asked.zeros * one.weight.numel())
            seen = self.seen[name]
            yield Linear(name, one.weight.detach().float(), asked, zeros, "float16", seen.norms, seen.hessian)

    def error(self) -> float:
        """How far its outputs are from those it had, squared, over all tokens."""
        runs = (self.stage.run(number) for number in range(self.stage.samples))
        return sum(float((now - then).square().sum()) for now, then in zip(runs, self.outputs, strict=True))  # type: ignore[operator]


@pytest.fixture(scope="module", params=MODELS)
def first(request: pytest.FixtureRequest) -> Iterator[First]:
    torch.set_num_threads(1)
    source = resolve(request.param)
    model = open_model(source, Settings())
    shown = calibration.drawn("micro", source, SAMPLES, 0, videos=False).samples
    walk = Walk(model, shown, lambda: texts(model, shown, "all"))
    name, layer = next(iter(outline(model, "language").items()))
    with torch.no_grad():
        stage = next(walk.stages({name: layer}))
        seen = gathered(stage.linears, "hessian", stage.samples, stage.run, stage.weights)
        yield First(stage, seen, [stage.run(number) for number in range(stage.samples)])  # type: ignore[misc]
    model.close()


@pytest.mark.sparseml
@pytest.mark.parametrize("goal", ["sparsity0.50", "2:4"])
def test_sparseml_prunes_a_models_layer_as_the_default_engine_does(first: First, goal: str) -> None:
    equal, total = 0, 0
    for one in first.linears(goal):
        wanda = [solved(engine, "wanda", one).weight for engine in ("llmcompressor", "sparseml")]
        assert torch.equal(*wanda), one.name
        default, other = (
            solved(engine, "sparsegpt", one, damp=0.01, block=128).weight for engine in ("llmcompressor", "sparseml")
        )
        equal += int(((default == 0) == (other == 0)).sum())
        total += one.weight.numel()
        same = (default == 0) == (other == 0)
        assert float((default - other)[same].norm()) <= 1e-3 * float(default.norm()), one.name
    assert equal / total >= 0.9999


@pytest.mark.autoawq
def test_autoawq_loses_less_of_a_models_layer_than_rounding_and_about_what_the_default_engine_does(
    first: First,
) -> None:
    stage, goal = first.stage, "w4g128"
    asked = Goal.parse(goal)
    state = copy.deepcopy(stage.module.state_dict())
    errors: dict[str, float] = {}
    for label, engine, scaled in (
        ("rtn", "llmcompressor", False),
        ("awq", "llmcompressor", True),
        ("autoawq", "autoawq", True),
    ):
        with torch.no_grad():
            if scaled:
                block = Block(stage.module, stage.linears, first.seen, "float16", set(), stage.samples, stage.run)
                rule_of(engine, "smooth")(block, asked, 20, False)
            for one in first.linears(goal):
                stage.linears[one.name].weight.copy_(solved(engine, "rtn", one, symmetric=False).weight)
            errors[label] = first.error()
            stage.module.load_state_dict(state)
    assert errors["autoawq"] < 0.8 * errors["rtn"]
    assert 0.5 < errors["autoawq"] / errors["awq"] < 2, errors


@pytest.mark.autoawq
@pytest.mark.parametrize("family", twins.FAMILIES)
def test_a_product_of_autoawq_is_in_its_format_and_opens_with_the_weights_that_its_own_code_reads(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantizer()  # makes it importable
    from awq.utils.packing_utils import dequantize_gemm

    plain = twins.text
    monkeypatch.setattr(twins, "text", lambda *sizes: {**plain(*sizes), "intermediate_size": 128})
    monkeypatch.setenv("EFFIVLM_PRODUCTS", str(tmp_path / "products"))
    twin = twins.build(family, tmp_path / "twin", layers=1, kv_heads=4, dtype=torch.bfloat16)
    method = Awq(keep=Budget.parse("w4g32"), samples=2, calibration="micro", engine="autoawq")
    folder = product(resolve(f"twin={twin}"), method, Settings())
    stated = json.loads((folder / "config.json").read_text())["quantization_config"]
    told = json.loads((folder / PRODUCT).read_text())
    assert (stated["quant_method"], stated["bits"], stated["group_size"]) == ("awq", 4, 32)
    assert told["versions"]["autoawq"] == "0.2.9"
    assert told["achieved"]["bits_per_weight"] == 4 + (16 + 4) / 32
    opened = open_model(resolve(f"made={folder}"), Settings())
    assert opened.weights.startswith("w4a16 g32")
    weights = dict(opened.model.named_parameters())
    assert len(written(folder)) == len(told["layers"]) == 7
    for name, tensors in written(folder).items():
        theirs = dequantize_gemm(tensors["qweight"], tensors["qzeros"], tensors["scales"].float(), 4, 32).T
        (ours,) = (one for full, one in weights.items() if full.endswith(f"{name}.weight") and "vis" not in full)
        torch.testing.assert_close(ours.float(), theirs, rtol=1e-6, atol=1e-7)
    opened.close()


def written(folder: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of every packed layer by the layer's name from `layers` on."""
    from safetensors.torch import load_file

    found: dict[str, dict[str, Tensor]] = {}
    for path in folder.glob("*.safetensors"):
        for full, tensor in load_file(path).items():
            name, _, last = full.rpartition(".")
            if last in ("qweight", "qzeros", "scales"):
                found.setdefault(name[name.index("layers.") :], {})[last] = tensor
    return found


@pytest.mark.autoawq
def test_what_autoawq_packs_is_what_is_written() -> None:
    quantizer()
    from awq.modules.linear import WQLinear_GEMM

    torch.manual_seed(0)
    linear = torch.nn.Linear(96, 64, bias=False).requires_grad_(False)
    made = solved("autoawq", "rtn", Linear("one", linear.weight, Goal.parse("w4g32"), 0, "float32"), symmetric=False)
    assert made.codes is not None
    assert made.grid is not None
    assert made.grid.zero is not None
    ours = awq_format.tensors_of(made.codes, made.grid)
    linear.weight.copy_(made.weight)
    scales, zeros = made.grid.scale.float().T.contiguous(), (made.grid.zero.float() + 8).T.contiguous()
    theirs: Any = WQLinear_GEMM.from_linear(linear, 4, 32, scales=scales, zeros=zeros)
    for name, tensor in ours.items():
        assert torch.equal(tensor, getattr(theirs, name)), name


@pytest.mark.autoawq
def test_budgets_that_its_format_has_no_place_for_are_written_in_the_other_one() -> None:
    forms = {
        label: Awq(keep=Budget.parse(label), engine="autoawq").packing
        for label in ("w4g128", "w4g32", "w3g128", "w4", "w8")
    }
    assert [label for label, form in forms.items() if form == "autoawq"] == ["w4g128", "w4g32"]
    assert Awq(keep=Budget.parse("w4g128"), engine="autoawq", symmetric=True).packing == "compressed-tensors"
    assert Awq(keep=Budget.parse("w4g128")).packing == "compressed-tensors"
    for wrong in ({"points": 10}, {"tokens": "balanced"}):
        with pytest.raises(ValueError, match="tries 20 points over all tokens"):
            Awq(keep=Budget.parse("w4g128"), engine="autoawq", **wrong)
