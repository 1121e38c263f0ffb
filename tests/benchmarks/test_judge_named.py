"""The judge that a run names: what is refused before it starts, which judge is meant, and what it decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from judge_server import SECRET, SPEC
from toy_session import ROOT

from effivlm import registry
from effivlm.judging.endpoint import KEY_VARIABLE
from effivlm.judging.local import Local
from effivlm.judging.rubrics import RUBRICS
from effivlm.models._hub import Snapshot
from effivlm.session import judges, matrix
from effivlm.session.judges import judge_of
from effivlm.session.matrix import Asked

pytest.importorskip("openai", reason="the client of the extra 'judge' is not installed")


def test_a_run_without_a_judge_is_refused_with_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"mmvet, imagedc: a judge .*give --vlm-judge SPEC, take mmvet_proxy .*--vlm-judge none"
    ):
        matrix.build(Asked(tasks=("mmvet", "gqa", "imagedc")))
    assert matrix.build(Asked(tasks=("mmvet",), judge="none")).settings.judge == "none"
    assert matrix.build(Asked(tasks=("gqa",))).settings.judge == ""
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with pytest.raises(
        ValueError, match=f"--vlm-judge: judge '{SPEC}' needs a key in the environment variable {KEY_VARIABLE}"
    ):
        matrix.build(Asked(tasks=("mmvet",), judge=SPEC))
    with monkeypatch.context() as patched:
        patched.setattr(judges, "rubric_named", lambda name, settings: "poem")
        with pytest.raises(ValueError, match="--vlm-tasks: gqa names the rubric 'poem'; there are mmvet, wilder"):
            matrix.build(Asked(tasks=("gqa",)))
    with pytest.raises(ValueError, match="--vlm-second-judge: there is no first one"):
        matrix.build(Asked(second_judge=SPEC))
    with pytest.raises(ValueError, match="--vlm-judge-repeats: '0' is not a whole number of at least 1"):
        matrix.build(Asked(judge_repeats="0"))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        *[(word, "is none of openai:MODEL and local:MODEL") for word in ("gpt-4o", "openai:", "local:", "lokal:x/y")],
        (
            "local:/no/such/folder",
            "unknown model '/no/such/folder'.* Choose from: .*qwen2_vl_7b.*; or give a folder that exists",
        ),
        ("local:qwen2_vl", "unknown model 'qwen2_vl'. Did you mean '.*qwen2_vl"),
        ("local:some/model", "some/model is no folder here, not whole in the hub cache, and HF_HUB_OFFLINE is set"),
        ("local:some/model@main", "some/model is no folder here, not whole in the hub cache"),
        ("local:internvl2_5_38b", "make a native checkpoint of it"),
        (f"local:{ROOT}", "holds no config.json, so it is no transformers checkpoint"),
    ],
)
def test_a_specification_that_names_no_judge_is_refused(
    spec: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=reason):
        judge_of(spec)


def test_a_local_judge_is_a_checkpoint_folder_or_repository_on_the_device_of_the_run(
    twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "snapshot", lambda name, wanted: Snapshot("some/model", "1" * 40, twin))
    judges._pinned.cache_clear()
    named, folder, repository = (
        judge_of(f"local:{word}", "cuda:1") for word in ("micro_qwen2_vl", twin, "some/model@v2")
    )
    for one in (named, folder, repository):
        assert isinstance(one, Local)
        assert one.device == "cuda:1"
    assert named.name.startswith("local:micro_qwen2_vl#")
    assert folder.name.startswith(f"local:{twin.name}#")
    assert repository.name == f"local:some/model@{'1' * 40}", "a branch is pinned to the commit that it has now"
    judges._pinned.cache_clear()


def test_a_local_judge_is_known_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = judge_of(f"local:{tmp_path}")
    (tmp_path / "config.json").write_text('{"a": 1}')
    after = judge_of(f"local:{tmp_path}")
    assert isinstance(before, Local)
    assert before.name.startswith(f"local:{tmp_path.name}#")
    assert before.name != after.name
    assert judge_of(f"local:some/model@{'0' * 40}").name == f"local:some/model@{'0' * 40}"


def test_a_judge_decides_the_fingerprint_of_what_it_marks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    plans = [matrix.build(Asked(tasks=("mmvet", "gqa"), judge=judge)) for judge in ("none", SPEC, "openai:other")]
    names = {task: {judges.judged_name("x", task, plan.settings) for plan in plans} for task in ("mmvet", "gqa")}
    assert (len(names["mmvet"]), names["gqa"]) == (3, {"x"})


@pytest.mark.parametrize(
    "name", [name for name in registry.names("tasks") if registry.inherited("tasks", name, "scoring") == "judge"]
)
def test_a_task_that_a_judge_scores_names_a_rubric(name: str) -> None:
    assert registry.inherited("tasks", name, "rubric") in RUBRICS
    assert registry.load("tasks", name).rubric == registry.inherited("tasks", name, "rubric")
