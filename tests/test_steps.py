"""Names of compositions: what the option accepts and refuses, how cases are called, and that -k selects them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from toy_session import ROOT, Toy

from effivlm import registry
from effivlm.records import Cell, dump
from effivlm.run.steps import Step, asked, stored, weights_step
from effivlm.session import matrix
from effivlm.session.matrix import Asked


@pytest.mark.parametrize(
    ("text", "method", "read"),
    [
        ("fastv+snapkv", "fastv+snapkv", (Step("fastv", "paper"), Step("snapkv", "paper"))),
        ("fastv:0.4+snapkv", "fastv:0.40+snapkv", (Step("fastv", "paper", "0.40"), Step("snapkv", "paper"))),
        (
            "fastv@effivlm:0.125+snapkv@effivlm",
            "fastv@effivlm:0.125+snapkv@effivlm",
            (Step("fastv", "effivlm", "0.125"), Step("snapkv", "effivlm")),
        ),
        (
            "random_visual+fastv@paper+snapkv:1",
            "random_visual+fastv+snapkv:1.00",
            (Step("random_visual", "paper"), Step("fastv", "paper"), Step("snapkv", "paper", "1.00")),
        ),
        (
            "downsample+snapkv",
            "downsample@pooled+snapkv",
            (Step("downsample", "pooled"), Step("snapkv", "paper")),
        ),
        ("wanda:2:4+fastv", "wanda:2:4+fastv", (Step("wanda", "paper", "2:4"), Step("fastv", "paper"))),
        (
            "awq+snapkv",
            "awq:w4g128+snapkv",
            (Step("awq", "paper", "w4g128"), Step("snapkv", "paper")),
        ),
        (
            "gptq@balanced:w4g0128+fastv:64tok+snapkv@effivlm",
            "gptq@balanced:w4g128+fastv:64tok+snapkv@effivlm",
            (Step("gptq", "balanced", "w4g128"), Step("fastv", "paper", "64tok"), Step("snapkv", "effivlm")),
        ),
        (
            "downsample@paper+random_visual",
            "downsample+random_visual",
            (Step("downsample", "paper"), Step("random_visual", "paper")),
        ),
    ],
)
def test_a_composition_is_stored_in_a_form_that_reads_back(text: str, method: str, read: tuple[Step, ...]) -> None:
    assert asked(text) == (method, "paper")
    assert stored(method, "paper") == read
    one = Cell("m", method, "paper", "0.10", "t")
    assert one.id == f"m-{method}-keep0.10-t"
    assert Cell.from_json(json.loads(dump(one.to_json()))) == one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fastv+snapkw", "unknown method 'snapkw'. Did you mean 'snapkv'?"),
        ("fastv+", "unknown method ''"),
        ("fastv@mine+snapkv", "unknown preset 'mine' of method 'fastv'. Choose from: paper, effivlm"),
        ("fastv+pyramiddrop", "'fastv+pyramiddrop': two methods work at the layer seam"),
        ("fastv+snapkv+fastv", "two methods work at the layer seam"),
        ("snapkv+random_kv", "'snapkv+random_kv': two methods work at the cache seam"),
        ("downsample@pooled+random_visual", "two methods work at the vision seam"),
        (
            "dense+snapkv",
            "'dense+snapkv': dense cannot be composed: it works at none of weights, image, vision, layer, cache",
        ),
        ("snapkv+fastv", "compose in the order of the run: weights, image, vision, layer, cache"),
        ("fastv:1.5+snapkv", "'fastv:1.5': budget 1.5 is not a fraction that stays: it must lie in (0, 1]"),
        ("fastv:0+snapkv", "'fastv:0': budget 0 is not a fraction that stays"),
        ("fastv:half+snapkv", "'fastv:half': budget 'half' is not a number"),
        ("fastv:+snapkv", "'fastv:': budget '' is not a number"),
        ("fastv:0.4+snapkv:0.1", "every budget is fixed; leave out one : for --vlm-budgets to vary"),
        ("wanda+gptq+fastv", "'wanda+gptq+fastv': two methods work at the weights seam"),
        ("fastv+wanda", "compose in the order of the run: weights, image, vision, layer, cache"),
        ("wanda:2:4+fastv:0.4", "every budget is fixed; leave out one : for --vlm-budgets to vary"),
        ("wanda:0.4+fastv", "0.40 is no budget of wanda: it takes sparsity0.20, sparsity0.50, 2:4"),
        ("gptq:fp8+fastv", "fp8 is no budget of gptq: it takes w4g128"),
        ("fp8:w4g128+fastv", "w4g128 is no budget of fp8: it takes fp8"),
        ("fastv:2:4+snapkv", "2:4 is no budget of fastv: it takes a fraction such as 0.10, or a number such as 64tok"),
        ("wanda:2:+fastv", "'wanda:2:': budget '2:' is not a number"),
        ("fastv:0.4", "'fastv:0.4': ':' fixes a budget in a composition only; use --vlm-budgets"),
    ],
)
def test_what_cannot_be_composed_is_one_sentence_before_a_model_is_looked_for(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        matrix.build(Asked(methods=(text,), models=("no_such_model",)))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_compositions_multiply_out_with_the_budgets_beside_single_methods() -> None:
    methods = ("dense", "snapkv", "fastv:0.4+snapkv", "fastv+snapkv")
    plan = matrix.build(Asked(methods=methods, budgets=("0.1", "0.2"), models=("micro_qwen2_vl",)))
    names = [one.id.removeprefix("micro_qwen2_vl-").removesuffix("-docvqa_micro") for one in plan.cells]
    several = ("snapkv", "fastv:0.40+snapkv", "fastv+snapkv")
    assert names == ["dense-keep1.00", *(f"{name}-keep{keep}" for name in several for keep in ("0.10", "0.20"))]
    assert [plan.cell_of(f"bench_tests/test_quality.py::test_quality[{one.id}]") for one in plan.cells] == [*plan.cells]


def ids(methods: tuple[str, ...], budgets: tuple[str, ...] = ()) -> list[str]:
    plan = matrix.build(Asked(methods=methods, budgets=budgets, models=("micro_qwen2_vl",)))
    return [one.id.removeprefix("micro_qwen2_vl-").removesuffix("-docvqa_micro") for one in plan.cells]


def test_every_budget_goes_to_the_methods_that_take_its_kind_and_the_others_run_at_their_own() -> None:
    methods = ("dense", "fastv", "wanda", "gptq", "fp8", "gptq+fastv")
    assert ids(methods, ("0.1", "64tok", "2:4", "w3g128")) == [
        *("dense-keep1.00", "fastv-keep0.10", "fastv-keep64tok", "wanda-2:4", "gptq-w3g128", "fp8-fp8"),
        *("gptq:w4g128+fastv-keep0.10", "gptq:w4g128+fastv-keep64tok"),
    ]
    declared = ["wanda-sparsity0.20", "wanda-sparsity0.50", "wanda-2:4"]
    assert ids(("wanda", "snapkv"), ("0.1",)) == [*declared, "snapkv-keep0.10"]
    assert ids(("wanda", "snapkv"), ("2:4",)) == [
        "wanda-2:4",
        *(f"snapkv-keep{keep}" for keep in matrix.DEFAULT_BUDGETS),
    ]
    assert ids(("wanda",)) == declared


@pytest.mark.parametrize(
    ("methods", "budgets", "message"),
    [
        (("fastv",), ("2:4",), "--vlm-budgets: none of the methods takes 2:4; fastv takes a fraction such as 0.10"),
        (("wanda",), ("0.1", "2:4"), "--vlm-budgets: none of the methods takes 0.10; wanda takes sparsity0.20"),
        (("gptq", "wanda"), ("fp8", "int8", "2:4"), "--vlm-budgets: none of the methods takes fp8, int8; gptq takes w4g128"),
        (("wanda:2:4+fastv",), ("2:4",), "--vlm-budgets: none of the methods takes 2:4; wanda:2:4+fastv takes a fraction"),
    ],
)  # fmt: skip
def test_a_budget_that_no_selected_method_takes_is_refused(
    methods: tuple[str, ...], budgets: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        matrix.build(Asked(methods=methods, budgets=budgets, models=("no_such_model",)))
    assert message in str(error.value)


def test_nothing_is_compressed_unless_its_method_is_named() -> None:
    plan = matrix.build(Asked())
    changed = {cell.method for cell in plan.cells if weights_step(cell.method, cell.preset, cell.keep)}
    assert changed == set()
    assert "wanda" in registry.names("methods")
    suite = matrix.build(Asked(methods=("weights",)))
    labels = {(cell.method, cell.keep) for cell in suite.cells}
    assert {("wanda", "2:4"), ("gptq", "w4g128"), ("fp8", "fp8"), ("dense", "1.00")} <= labels


def test_the_step_that_changes_the_checkpoint_is_told_with_its_budget() -> None:
    assert weights_step("wanda", "balanced", "2:4") == Step("wanda", "balanced", "2:4")
    assert weights_step("awq:w4g128+snapkv", "paper", "0.10") == Step("awq", "paper", "w4g128")
    assert weights_step("fastv+snapkv", "paper", "0.10") is None


def test_checking_a_composition_imports_nothing_heavy() -> None:
    code = (
        "import sys; from effivlm.run.steps import asked; asked('random_visual+fastv@effivlm:0.4+snapkv');"
        "asked('gptq+fastv');"
        "print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "set()"


SELECTED = {
    "-k fastv:0.40+snapkv": ["fastv:0.40+snapkv"],
    "-k fastv+snapkv": ["fastv+snapkv"],
    "-k +snapkv": ["fastv+snapkv", "fastv:0.40+snapkv"],
    "-k snapkv and not fastv": ["snapkv"],
    "-k fastv": ["fastv", "fastv+snapkv", "fastv:0.40+snapkv"],
    "-k toy_a-fastv:0.40+snapkv-keep0.10-docvqa_micro": ["fastv:0.40+snapkv"],
}


@pytest.mark.parametrize(("words", "methods"), SELECTED.items(), ids=SELECTED)
def test_cases_of_compositions_are_selected_by_their_names(toy: Toy, words: str, methods: list[str]) -> None:
    option, expression = words.split(" ", 1)
    methods_asked = "--vlm-methods=dense,fastv,snapkv,fastv+snapkv,fastv:0.4+snapkv"
    result = toy.run(methods_asked, option, f"quality and keep0.10 and ({expression})")
    assert result.ret == 0
    measured = sorted(method for (method, part, _) in toy.outcomes() if method != "dense")
    assert measured == methods
    named = [one["id"] for one in toy.report()["cells"] if one["method"] in methods]
    assert sorted(named) == sorted(f"toy_a-{method}-keep0.10-docvqa_micro" for method in methods)


def test_a_composition_is_found_again_by_a_resumed_run(toy: Toy) -> None:
    result = toy.run("--vlm-methods=fastv:0.4+snapkv")
    result.assert_outcomes(passed=6)
    again = toy.run("--vlm-methods=fastv:0.40+snapkv", "--vlm-resume=out")
    assert again.ret == 0
    assert len([line for line in toy.log("group") if "fastv" in line]) == 1, "nothing is measured twice"


def test_a_wrong_composition_ends_the_session_with_one_sentence(toy: Toy) -> None:
    result = toy.run("--vlm-methods=snapkv+fastv")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: 'snapkv+fastv': compose in the order of the run: weights, image, vision, layer, cache"]
    )
    assert toy.log("open") == []


CHANGED = {
    "wanda and docvqa": [
        *("wanda-2:4", "wanda-sparsity0.60"),
        *(f"wanda:2:4+fastv-keep{keep}" for keep in ("0.10", "64tok")),
    ],
    "w4g128 or (64tok and not wanda)": ["fastv-keep64tok", "gptq-w4g128"],
}


@pytest.mark.parametrize(("words", "cases"), CHANGED.items(), ids=list(CHANGED))
def test_cases_of_the_checkpoint_are_selected_by_method_setting_and_task(words: str, cases: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "bench_tests", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += ["--vlm-methods=dense,fastv,wanda,gptq,wanda:2:4+fastv", "--vlm-models=micro_qwen2_vl"]
    command += ["--vlm-budgets=0.10,64tok,2:4,sparsity0.6,w4g128", "-k", f"quality and ({words})"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    found = [line.split("[")[1].removesuffix("]") for line in result.stdout.splitlines() if "test_quality[" in line]
    assert sorted(found) == sorted(f"micro_qwen2_vl-{case}-docvqa_micro" for case in cases)


def test_a_budget_nobody_takes_ends_the_session_with_one_sentence(toy: Toy) -> None:
    result = toy.run("--vlm-methods=fastv", "--vlm-budgets=2:4")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --vlm-budgets: none of the methods takes 2:4; fastv takes a fraction*"])
    assert toy.log("open") == []
