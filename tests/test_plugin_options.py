"""What the options accept, what they refuse and how, and that they stay out of everybody else's way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_session import ROOT, Toy

from effivlm.records import Cell
from effivlm.session import matrix
from effivlm.session.matrix import Asked

REFUSED = {
    "unknown method": (
        ["--vlm-methods=fastvv"],
        "unknown method 'fastvv'. Did you mean 'fastv'? Choose from: dense, fastv, snapkv",
    ),
    "unknown preset": (
        ["--vlm-methods=snapkv@mine"],
        "unknown preset 'mine' of method 'snapkv'. Choose from: paper, effivlm",
    ),
    "unknown task": (["--vlm-tasks=docvqa"], "unknown task 'docvqa'. Did you mean 'docvqa_micro'?"),
    "unknown model": (["--vlm-models=toy_c"], "unknown model 'toy_c'. Did you mean 'toy_b'?"),
    "missing folder": (["--vlm-models=./nowhere"], "folder nowhere does not exist"),
    "unknown family": (["--vlm-models=./other"], "is of type 'bert'; supported: toy"),
    "budget 0": (["--vlm-budgets=0"], "--vlm-budgets: budget 0 is not a fraction that stays: it must lie in (0, 1]"),
    "budget 1.5": (["--vlm-budgets=0.1,1.5"], "--vlm-budgets: budget 1.5 is not a fraction that stays"),
    "budget ten": (["--vlm-budgets=ten"], "--vlm-budgets: budget 'ten' is not a number"),
    "negative limit": (["--vlm-limit=-5"], "--vlm-limit: '-5' is not a whole number of at least 1"),
    "limit 2.5": (["--vlm-limit=2.5"], "--vlm-limit: '2.5' is not a whole number"),
    "empty name": (["--vlm-methods=fastv,"], "--vlm-methods: 'fastv,' holds an empty name"),
    "device": (["--vlm-device=tpu"], "--vlm-device: 'tpu' is not one of auto, cpu, cuda, cuda:N"),
    "no gpu": (["--vlm-device=cuda"], "--vlm-device: 'cuda' was asked for, but torch sees no GPU here"),
    "dtype": (["--vlm-dtype=float8"], "--vlm-dtype: 'float8' is not one of auto, float32, bfloat16, float16"),
    "kernels": (["--vlm-kernels=fast"], "--vlm-kernels: 'fast' is not one of auto, none"),
    "pixels": (["--vlm-pixels=many"], "--vlm-pixels: 'many' is not a whole number of at least 0"),
    "tiles": (["--vlm-tiles=-1"], "--vlm-tiles: '-1' is not a whole number of at least 0"),
    "processor": (["--vlm-processor=opencv"], "--vlm-processor: 'opencv' is not one of pil, torchvision"),
    "two models of one name": (["--vlm-models=toy_a,elsewhere/toy_a"], "would both be called 'toy_a'"),
    "nothing to resume": (["--vlm-resume=nowhere"], "nowhere holds no outcomes.jsonl"),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_value_is_refused_by_name_before_anything_happens(toy: Toy, arguments: list[str], message: str) -> None:
    toy.checkpoint("other", model_type="bert")
    (toy.path / "elsewhere").mkdir()
    toy.checkpoint("elsewhere/toy_a")
    before = _made(toy.path)
    result = toy.run(*arguments)
    assert result.ret == 4
    errors = [line for line in result.errlines if line.startswith("ERROR")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in str(result.stdout) + str(result.stderr)
    assert toy.log("open") == []
    assert _made(toy.path) == before


def test_a_hub_id_without_network_is_refused_by_name(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = toy.run_apart("--vlm-models=somebody/some-model")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: model 'some_model': somebody/some-model is no folder here*HF_HUB_OFFLINE is set*"]
    )


def test_how_samples_are_shown_and_which_models_answer_is_recorded(toy: Toy) -> None:
    toy.run(
        "-k",
        "quality and dense",
        "--vlm-system=Be brief.",
        "--vlm-pixels=900",
        "--vlm-tiles=6",
        "--vlm-processor=torchvision",
    )
    header = toy.records()[0]
    asked = {"system": "Be brief.", "pixels": 900, "tiles": 6, "processor": "torchvision"}
    assert {name: header["settings"][name] for name in asked} == asked
    assert header["models"] == {"toy_a": {"source": "toy_a", "family": "toy_family"}}
    toy.run("-k", "quality and dense", run="plain")
    plain = toy.records("plain")[0]["settings"]
    assert (plain["system"], plain["pixels"], plain["tiles"], plain["processor"]) == (None, 0, 0, "pil")


def test_a_folder_that_is_a_file_is_refused(toy: Toy) -> None:
    (toy.path / "taken").write_text("")
    result = toy.run(run="taken/out")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: run folder * cannot be written:*"])
    assert toy.log("open") == []


def test_a_full_disk_is_noticed_before_a_model_loads(toy: Toy) -> None:
    toy.add(
        "import resource, signal\n\n"
        "def pytest_collection_finish():\n"
        "    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    )
    result = toy.run_apart()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: run folder * cannot be written: *File too large*"])
    assert toy.log("open") == []


def test_a_folder_with_a_run_is_not_written_over(toy: Toy) -> None:
    toy.run("-k", "quality and dense")
    before = toy.records()
    result = toy.run("-k", "quality and fastv")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: --vlm-run: * holds a run already; go on with --vlm-resume*"])
    assert toy.records() == before


@pytest.mark.parametrize("arguments", [["-p", "effivlm.plugin.bench"], []], ids=["by -p", "by conftest"])
def test_a_plugin_loaded_twice_is_refused_with_the_place(toy: Toy, arguments: list[str]) -> None:
    if not arguments:
        with (toy.path / "conftest.py").open("a") as file:
            file.write('\npytest_plugins.append("effivlm.plugin.bench")\n')
    result = toy.run_apart(*arguments)
    assert result.ret == 4
    output = str(result.stdout) + str(result.stderr)
    assert "effivlm is loaded twice: by its installation (entry point pytest11) and by " in output
    assert "Traceback" not in output


def test_the_plugin_may_be_named_where_entry_points_are_off(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    result = toy.run_apart("-p", "effivlm.plugin.bench", "-k", "quality and dense")
    result.assert_outcomes(passed=1, deselected=14)


def test_presets_models_and_budgets_multiply_out_and_dense_stands_once() -> None:
    plan = matrix.build(
        Asked(methods=("dense", "snapkv", "snapkv@effivlm"), budgets=("0.1", "0.10", "1"), models=_twins())
    )
    assert [cell.id.removesuffix("-docvqa_micro") for cell in plan.cells] == [
        f"{model}-{rest}"
        for model in ("one", "two")
        for rest in (
            "dense-keep1.00",
            *(f"{name}-keep{keep}" for name in ("snapkv", "snapkv@effivlm") for keep in ("0.10", "1.00")),
        )
    ]


def _twins() -> tuple[str, ...]:
    return ("one", "two")


@pytest.fixture(autouse=True)
def _light_models(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Tests of the matrix alone need no checkpoint."""
    if "toy" not in request.fixturenames:
        from effivlm.models._sources import ModelSource

        monkeypatch.setattr(matrix, "resolve", lambda name: ModelSource(name, f"/{name}", "family"))


def test_an_empty_selection_says_what_was_asked_and_what_exists(toy: Toy) -> None:
    result = toy.run("-k", "fastw and docvqa")
    assert result.ret == 5
    result.stdout.fnmatch_lines(
        ["no case is left of 15: -k 'fastw and docvqa'*", "  methods: dense, fastv, snapkv", "  tasks: docvqa_micro"]
    )
    assert not (toy.path / "out").exists()


def test_collecting_alone_makes_no_folder(toy: Toy) -> None:
    result = toy.run("--collect-only", "-q")
    assert result.ret == 0
    assert not (toy.path / "out").exists()
    assert toy.log("open") == []


def test_the_default_folder_is_new_every_time_and_ignored_by_git(toy: Toy) -> None:
    for _ in range(2):
        arguments = [one for one in toy.arguments("-k", "quality and dense") if one not in ("--vlm-run", "out")]
        toy.pytester.runpytest_inprocess(*arguments)
    runs = list((toy.path / "reports").iterdir())
    assert len(runs) == 2
    assert [(run / ".gitignore").read_text() for run in runs] == ["*\n", "*\n"]


def test_the_size_of_a_run_is_announced_and_its_time_comes_from_the_last_one(toy: Toy) -> None:
    first = toy.run(run="reports/a")
    first.stdout.fnmatch_lines(
        ["effivlm: 5 cells in 15 cases (5 quality, 10 timing): 1 model, 3 methods, 1 task, 2 samples a cell",
         "effivlm: no estimate of the time: toy_a never ran here"]
    )  # fmt: skip
    second = toy.run(run="reports/b")
    second.stdout.fnmatch_lines(["effivlm: about * s (by an earlier run recorded here)"])
    third = toy.run("-k", "quality and dense", run="reports/c")
    third.stdout.fnmatch_lines(["effivlm: 1 cell in 1 case (1 quality, 0 timing): 1 model, 1 method, 1 task, *"])


def test_a_first_estimate_owns_up_to_being_a_guess(tmp_path: Path) -> None:
    cells = matrix.build(Asked(models=("micro_llava_onevision",))).cells
    from effivlm.plugin.summary import estimate

    said = estimate([(cell, "quality") for cell in cells], matrix.DEFAULT_LIMIT, tmp_path)
    assert said.endswith("(a guess for two CPU cores; no earlier run stands here)")


@pytest.mark.parametrize(
    ("methods", "parts", "low", "high"),
    [
        ("fastv", ("quality", "ttft", "decode"), 90, 120),  # 135 were measured, before a sixth less CPU was used
        ("random_kv,streaming_llm,h2o,snapkv,pyramidkv,vl_cache", ("quality",), 130, 180),  # 149 were, of 20 samples 30
        ("dense", ("quality",), 40, 60),
    ],
)
def test_a_first_estimate_counts_dense_and_who_shares_its_prefill(
    methods: str, parts: tuple[str, ...], low: float, high: float, tmp_path: Path
) -> None:
    from effivlm.plugin.summary import estimate

    cells = matrix.build(Asked(models=("micro_llava_onevision",), methods=tuple(methods.split(",")))).cells
    said = estimate([(cell, part) for cell in cells for part in parts], 100, tmp_path)
    number, unit = said.split()[1:3]
    assert low <= float(number) * {"s": 1, "min": 60}[unit] <= high


def test_an_estimate_from_a_run_of_methods_that_share_all_is_no_less_for_one_that_shares_little(tmp_path: Path) -> None:
    from effivlm.plugin.summary import estimate, rates

    def cells(methods: str) -> list[Cell]:
        return list(matrix.build(Asked(models=("micro_llava_onevision",), methods=tuple(methods.split(",")))).cells)

    cached, own = cells("random_kv,streaming_llm,h2o,snapkv,pyramidkv,vl_cache"), cells("fastv")
    group = own[0].group
    cached = [cell for cell in cached if cell.group == group]
    own = [cell for cell in own if cell.group == group]
    ran = {(cell, "quality"): 306.0 if number == 0 else 0.0 for number, cell in enumerate(cached)}
    end = {"kind": "end", "status": "finished", "samples": 100, "rates": rates(ran, 100)}
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "outcomes.jsonl").write_text(json.dumps(end) + "\n")
    same = estimate([(cell, "quality") for cell in cached], 100, tmp_path)
    assert same == "about 5 min (by an earlier run recorded here)"
    number, unit = estimate([(cell, "quality") for cell in own], 100, tmp_path).split()[1:3]
    dense_alone = 300 * 0.45 / (0.45 + 0.035 * 30)
    assert dense_alone < float(number) * {"s": 1, "min": 60}[unit] < 306


def _made(folder: Path) -> set[str]:
    """What lies in a folder, without what pytest and its other plugins put there."""
    return {
        path.name
        for path in folder.iterdir()
        if not path.name.startswith(("__pycache__", "runpytest", ".benchmarks", "std"))
    }


FOREIGN = """
import pytest

@pytest.fixture
def cell():
    return "a cell of their own"

def test_their_fixture(cell):
    assert cell == "a cell of their own"

@pytest.mark.parametrize("cell, size", [("b1", 3)])
def test_their_parameter(cell, size):
    assert cell == "b1"
"""


@pytest.mark.parametrize("arguments", [[], ["-n1"]], ids=["serial", "xdist"])
def test_a_project_with_cells_of_its_own_is_left_alone(pytester: pytest.Pytester, arguments: list[str]) -> None:
    pytester.makepyfile(FOREIGN)
    before = _made(pytester.path)
    plain = ["--vlm-methods=nonsense", "-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    result = pytester.runpytest_subprocess(*plain, *arguments)
    result.assert_outcomes(passed=2)
    assert result.ret == 0
    assert "effivlm:" not in str(result.stdout) + str(result.stderr)
    assert _made(pytester.path) == before


def test_a_session_without_cells_does_not_even_look_at_the_options(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Asked] = []
    monkeypatch.setattr(matrix, "build", looked.append)
    pytester.makepyfile(
        "import pytest\n\n@pytest.mark.parametrize('word', ['a-dense-keep1.00-b', 'c'])\ndef test_it(word):\n    pass\n"
    )
    pytester.runpytest_inprocess("-p", "no:hypothesispytest").assert_outcomes(passed=2)
    assert looked == []


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = "import sys, effivlm.plugin.bench; print({'torch', 'transformers', 'numpy', 'xdist'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "set()"


def test_rates_leave_out_what_does_not_grow_with_the_samples() -> None:
    from effivlm.plugin.summary import DENSE_GUESS, GROUP_SECONDS, PACE, SHARED_GUESS, rates

    first, second = (cell for cell in matrix.build(Asked(methods=("snapkv",), budgets=("0.1", "0.2"))).cells)
    spent = {(first, "quality"): GROUP_SECONDS + 30.0, (second, "quality"): 10.0, (first, "ttft"): 3.0}
    pace = 40 / (10 * (DENSE_GUESS + 2 * SHARED_GUESS))
    assert rates(spent, limit=10) == {f"{first.model} {first.task}": {PACE: pytest.approx(pace), "ttft": 3.0}}
