"""A session from options to outcomes, in the toy world."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from toy_session import Toy

from effivlm.plugin import progress

QUALITY = ("-k", "quality")


def test_a_run_measures_every_cell_once_and_leaves_its_report(toy: Toy) -> None:
    result = toy.run(*QUALITY)
    result.assert_outcomes(passed=5, deselected=10)
    assert result.ret == 0
    assert toy.outcomes() == {
        ("dense", "quality", 1.0): "ok",
        ("fastv", "quality", 0.1): "ok",
        ("fastv", "quality", 0.4): "ok",
        ("snapkv", "quality", 0.1): "ok",
        ("snapkv", "quality", 0.4): "ok",
    }
    assert len(toy.log("group")) == 1
    names = {path.name for path in (toy.path / "out").iterdir()}
    assert names == {".gitignore", "outcomes.jsonl", "report.html", "report.json"}
    assert toy.report()["run"]["status"] == "finished"
    result.stdout.fnmatch_lines(["report.html: *out/report.html", "report.json: *out/report.json"])


def test_the_first_line_names_the_run_and_the_last_its_end(toy: Toy) -> None:
    toy.run(*QUALITY, "--vlm-seed=7")
    first, *between, last = toy.records()
    assert (first["kind"], first["schema"]) == ("run", 1)
    settings = {"limit": 2, "seed": 7, "device": "cpu", "dtype": "float32", "share": True, "engine": "auto"} | {
        "batch": 1,
        "prompt": 0,
        "data": "",
        "judge": "",
        "folders": {},
    }
    assert settings.items() <= first["settings"].items()
    assert "--vlm-seed=7" in first["command"]
    assert set(first) >= {"versions", "device", "driver", "commit", "started"}
    assert {one["kind"] for one in between} == {"outcome", "sample"}
    assert (last["kind"], last["status"], last["exit_code"]) == ("end", "finished", 0)


def test_a_failed_cell_fails_its_own_case_and_an_unsupported_one_is_skipped(toy: Toy) -> None:
    toy.wish(failing=["toy_a-fastv-keep0.10-docvqa_micro"], unsupported=["snapkv"])
    result = toy.run(*QUALITY, "-rs")
    result.assert_outcomes(passed=2, failed=1, skipped=2, deselected=10)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*every sample broke*"])
    result.stdout.fnmatch_lines(["*SKIPPED*snapkv cannot do this*"])
    assert toy.outcomes()["snapkv", "quality", 0.1] == "unsupported"
    assert len(toy.report()["skipped"]) == 2
    assert [one["reason"] for one in toy.report()["failed"]] == ["every sample broke"]


def test_an_error_of_the_group_is_told_once_and_fails_every_case(toy: Toy) -> None:
    toy.wish(boom="docvqa_micro")
    result = toy.run(*QUALITY)
    result.assert_outcomes(failed=5, deselected=10)
    assert len(toy.log("group")) == 1
    assert str(result.stdout).count("Traceback (most recent call last)") == 1
    assert set(toy.outcomes().values()) == {"failed"}


def test_a_damaged_model_is_opened_once_and_named(toy: Toy) -> None:
    toy.wish(corrupt=["toy_a"])
    result = toy.run(*QUALITY, "--vlm-tasks=docvqa_micro,count_micro")
    assert result.ret == 1
    assert toy.log("open") == ["toy_a cpu"]
    result.stdout.fnmatch_lines(["*model 'toy_a': its weights are damaged*"])


def test_without_sharing_every_cell_runs_alone(toy: Toy) -> None:
    toy.run(*QUALITY, "--vlm-no-share")
    assert [len(line.split()) for line in toy.log("group")] == [1, 1, 1, 1, 1]


def test_divergences_of_all_methods_are_asked_for_by_name(toy: Toy) -> None:
    for run, options in (("reports/without", ()), ("reports/with", ("--vlm-kl",))):
        assert toy.run(*QUALITY, *options, run=run).ret == 0
        report = json.loads((toy.path / run / "report.json").read_text())
        assert report["run"]["settings"]["kl"] is bool(options)


def test_a_selection_runs_alone_and_its_dense_reference_is_recorded(toy: Toy) -> None:
    result = toy.run("-k", "quality and fastv and keep0.10")
    result.assert_outcomes(passed=1, deselected=14)
    assert toy.log("group") == ["toy_a-fastv-keep0.10-docvqa_micro"]
    assert toy.outcomes() == {("fastv", "quality", 0.1): "ok", ("dense", "quality", 1.0): "ok"}


def test_models_and_tasks_run_in_groups_and_one_model_closes_before_the_next_opens(toy: Toy) -> None:
    toy.run(*QUALITY, "--vlm-models=toy_a,toy_b", "--vlm-tasks=docvqa_micro", "--vlm-tasks=count_micro")
    groups = [line.split()[0] for line in toy.log("group")]
    assert groups == [
        f"{model}-dense-keep1.00-{task}" for model in ("toy_a", "toy_b") for task in ("docvqa_micro", "count_micro")
    ]
    words = [line.split()[:2] for line in (toy.path / "toy_log.txt").read_text().splitlines()]
    assert [word for word in words if word[0] != "group"] == [
        ["open", "toy_a"], ["close", "toy_a"], ["open", "toy_b"], ["close", "toy_b"]
    ]  # fmt: skip


def test_quality_comes_before_timings_within_a_group(toy: Toy) -> None:
    result = toy.run("--collect-only", "-q", "--vlm-tasks=docvqa_micro,count_micro")
    parts = [line.split("::")[1].split("[")[0] for line in result.outlines if "::" in line]
    half = ["test_quality"] * 5 + ["test_ttft", "test_decode"] * 5
    assert parts == half + half


def test_a_run_in_which_nothing_was_measured_fails(toy: Toy) -> None:
    toy.wish(unsupported=["dense", "fastv", "snapkv"])
    result = toy.run(*QUALITY)
    result.assert_outcomes(skipped=5, deselected=10)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*nothing was measured*"])


def test_a_test_that_breaks_before_it_measures_is_recorded_as_failed(toy: Toy) -> None:
    toy.add("import pytest\n\n@pytest.fixture\ndef outcome(cell):\n    raise KeyError('my own mistake')\n")
    toy.run("-k", "quality and dense")
    assert toy.outcomes() == {("dense", "quality", 1.0): "failed"}
    assert "my own mistake" in toy.records()[1]["reason"]


def test_a_report_that_cannot_be_made_changes_no_exit_code(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: object) -> None:
        raise RuntimeError("no page today")

    monkeypatch.setattr("effivlm.report.write.write", broken)
    result = toy.run(*QUALITY)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["note: the report could not be written (RuntimeError: no page today)", "outcomes.jsonl: *"]
    )


def test_a_user_may_drop_and_add_cells(toy: Toy) -> None:
    toy.add(
        "from effivlm.records import Cell\n\n"
        "def pytest_vlm_cells(config, cells):\n"
        "    cells[:] = [cell for cell in cells if cell.method != 'snapkv']\n"
        "    cells.append(Cell('toy_a', 'fastv', 'paper', '0.015', 'docvqa_micro'))\n"
    )
    toy.run(*QUALITY)
    assert sorted(toy.outcomes()) == [
        ("dense", "quality", 1.0),
        *(("fastv", "quality", keep) for keep in (0.015, 0.1, 0.4)),
    ]


def test_a_user_may_add_facts_to_the_header(toy: Toy) -> None:
    toy.add("def pytest_vlm_header(config, header):\n    header['ticket'] = 41\n")
    toy.run(*QUALITY)
    assert toy.records()[0]["ticket"] == 41


def test_a_user_may_follow_outcomes_as_they_are_written(toy: Toy) -> None:
    toy.add(
        "from pathlib import Path\n\n"
        "def pytest_vlm_outcome(config, outcome):\n"
        "    saved = outcome.fingerprint in Path('out/outcomes.jsonl').read_text()\n"
        "    toy_world.note('followed', outcome.cell.method, outcome.cell.keep, outcome.score, saved)\n"
    )
    toy.run("-k", "quality and fastv")
    assert toy.log("followed") == ["dense 1.00 0.5 True", "fastv 0.10 0.5 True", "fastv 0.40 0.5 True"]


def test_progress_is_a_bar_on_a_terminal_and_sparse_lines_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = {True: [], False: []}  # type: ignore[var-annotated]
    for isatty, lines in shown.items():
        reporter = SimpleNamespace(
            isatty=isatty,
            verbosity=0,
            rewrite=lambda text, erase, lines=lines: lines.append(text),
            write_line=lines.append,
            ensure_newline=lambda: None,
        )
        plugins = SimpleNamespace(get_plugin={"terminalreporter": reporter}.get)
        show = progress.Progress(SimpleNamespace(pluginmanager=plugins), "toy")
        for done in range(11):
            show(done, 10)
    assert shown[True][:3] == [
        "toy: opening the model",
        "toy [###...........................] 1/10",
        "toy [######........................] 2/10, 80 s left",
    ], "what opening took is in no estimate"
    assert shown[True][-1] == ""
    assert len(shown[True]) == 12
    assert shown[False][0] == "toy: opening the model", "a log says at once that something happens"
    assert [line.split(",")[0] for line in shown[False][1:]] == [f"toy: {done} of 10 samples" for done in (3, 6, 9)]


def test_a_group_shows_that_it_begins_before_its_model_opens(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int, bool]] = []
    monkeypatch.setattr(
        progress.Progress, "__call__", lambda _, done, total: seen.append((done, total, bool(toy.log("open"))))
    )
    toy.run("-k", "quality and fastv")
    assert seen[0] == (0, 2, False)


def test_a_worker_shows_no_progress() -> None:
    reporter = SimpleNamespace(
        isatty=True, verbosity=0, rewrite=lambda *_, **__: pytest.fail("a worker wrote to a terminal")
    )
    plugins = SimpleNamespace(get_plugin={"terminalreporter": reporter}.get)
    show = progress.Progress(SimpleNamespace(pluginmanager=plugins, workerinput={}), "toy")
    show(10, 10)
    assert show._reporter is None


@pytest.mark.parametrize("beside", [(), ("-n2",)])
def test_what_cells_kept_of_a_sample_is_stored_once_for_each_cell(toy: Toy, beside: tuple[str, ...]) -> None:
    toy.wish(kept=True)
    (toy.run_apart if beside else toy.run)(*QUALITY, *beside).assert_outcomes(passed=5)
    kept = [one for one in toy.records() if one["kind"] == "kept"]
    assert sorted((one["cell"]["method"], one["cell"]["keep"]) for one in kept) == [
        ("dense", 1.0),
        ("fastv", 0.1),
        ("fastv", 0.4),
        ("snapkv", 0.1),
        ("snapkv", 0.4),
    ]
    assert {one["sample"] for one in kept} == {"docvqa_micro-0"}
    assert [one["kind"] for one in toy.records()].count("sample") == 2


def test_a_resumed_run_adds_what_was_kept_by_the_cells_it_runs(toy: Toy) -> None:
    toy.wish(kept=True)
    toy.run("-k", "quality and fastv")
    toy.run(*QUALITY, "--vlm-resume=out")
    cells = [(one["cell"]["method"], one["cell"]["keep"]) for one in toy.records() if one["kind"] == "kept"]
    assert cells == [("fastv", 0.1), ("fastv", 0.4), ("snapkv", 0.1), ("snapkv", 0.4)]


def test_the_questions_of_a_task_are_stored_once_beside_its_answers(toy: Toy) -> None:
    toy.run("-k", "quality", "--vlm-models=toy_a,toy_b").assert_outcomes(passed=10)
    stored = [(one["task"], one["id"]) for one in toy.records() if one["kind"] == "sample"]
    assert stored == [("docvqa_micro", "docvqa_micro-0"), ("docvqa_micro", "docvqa_micro-1")]


def test_what_a_processor_makes_numpy_complain_of_is_not_said_at_every_picture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import warnings
        from effivlm.plugin.cases import QUIET

        pytestmark = QUIET

        def test_both():
            for text in ("__array_wrap__ must accept context", "something else"):
                warnings.warn_explicit(text, DeprecationWarning, "fromnumeric.py", 45, "numpy._core.fromnumeric")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, warnings=1)
    assert "something else" in result.stdout.str()
