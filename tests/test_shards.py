"""`--vlm-shard` in sessions: which samples and timings are a shard's, what it leaves, and what does not go with it."""

from __future__ import annotations

import pytest
from toy_session import Toy

TASKS = "--vlm-tasks=docvqa_micro,count_micro"


def numbers(toy: Toy, task: str) -> list[int]:
    return [int(line.split()[2]) for line in toy.log("asked") if line.split()[1] == task]


def test_a_shard_answers_every_nth_sample_of_every_task_and_waits_for_the_others(toy: Toy) -> None:
    result = toy.run("-k", "quality", TASKS, "--vlm-limit=7", "--vlm-shard=2/3")
    result.assert_outcomes(skipped=10, deselected=20)
    assert result.ret == 0
    assert (numbers(toy, "docvqa_micro"), numbers(toy, "count_micro")) == ([1, 4], [1, 4])
    outcomes = [one for one in toy.records() if one["kind"] == "outcome"]
    assert {one["reason"].partition(":")[0] for one in outcomes} == {"shard 2/3"}
    assert toy.records()[-1]["status"] == "finished"
    assert toy.records()[0]["settings"]["shard"] == "2/3"
    assert [path.name.partition("-")[0] for path in (toy.path / "out").glob("*-*")] == ["journal"]


def test_a_shard_of_more_shards_than_samples_answers_nothing_and_waits_for_the_others(toy: Toy) -> None:
    for place in (1, 2, 3):
        result = toy.run("-k", "quality", "--vlm-limit=2", f"--vlm-shard={place}/3", run=f"out{place}")
        result.assert_outcomes(skipped=5, deselected=10)
        assert result.ret == 0
        result.stdout.fnmatch_lines(["*python -m effivlm report A B ... --out*", "*FOLDER"])
        result.stdout.fnmatch_lines(
            [f"effivlm: *, 2 samples a cell, {(1, 1, 0)[place - 1]} of them in shard {place}/3"]
        )
    assert numbers(toy, "docvqa_micro") == [0, 1]
    outcomes = [one for one in toy.records("out3") if one["kind"] == "outcome"]
    assert {(one["status"], one["reason"].partition(":")[0]) for one in outcomes} == {("unsupported", "shard 3/3")}


def test_the_timings_of_a_group_belong_to_one_shard(toy: Toy) -> None:
    timed = {}
    for place in (1, 2):
        toy.forget()
        result = toy.run("-k", "ttft", TASKS, f"--vlm-shard={place}/2", run=f"out{place}")
        result.assert_outcomes(passed=5, skipped=5, deselected=20)
        timed[place] = {line.rpartition("-")[2] for line in toy.log("ttft")}
        assert toy.records(f"out{place}")[-1]["passed_over"] == 5
    assert timed == {1: {"docvqa_micro"}, 2: {"count_micro"}}


def test_a_shard_gone_on_with_as_another_one_keeps_what_is_answered_and_asks_the_rest(toy: Toy) -> None:
    toy.run("-k", "quality", "--vlm-limit=6", "--vlm-shard=1/3")
    toy.forget()
    result = toy.run("-k", "quality", "--vlm-limit=6", "--vlm-shard=1/3", "--vlm-resume=out")
    result.stdout.fnmatch_lines(["effivlm: resuming: 5 of 5 outcomes of * stand and are not run again"])
    result.stdout.fnmatch_lines(["effivlm: about *, less for what stands already"])
    assert toy.log("asked") == []
    result = toy.run("-k", "quality", "--vlm-limit=6", "--vlm-shard=2/3", "--vlm-resume=out")
    result.stdout.fnmatch_lines(["effivlm: resuming: 5 outcomes do not count any more: shard 1/3, now 2/3"])
    assert numbers(toy, "docvqa_micro") == [1, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vlm-shard=4/3"], "--vlm-shard: '4/3' is no shard I/N*"),
        (["--vlm-shard=1/2", "--vlm-update-baseline=base.json"], "*a shard has no scores to compare*"),
    ],
)
def test_what_does_not_go_with_a_shard_is_refused(toy: Toy, arguments: list[str], message: str) -> None:
    result = toy.run(*arguments)
    assert result.ret == 4
    result.stderr.fnmatch_lines([f"ERROR: {message}"])
    assert not (toy.path / "out").exists()
