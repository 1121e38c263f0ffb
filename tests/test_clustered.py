"""What `run --on` refuses before a cluster is asked, and the arithmetic of jobs; the cluster itself is in test_cluster.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy_session import ROOT

from effivlm.cluster.driver import Job, Suite, Work, without
from effivlm.cluster.pool import Hand, Lost, Pool, needed
from effivlm.cluster.progress import Progress
from effivlm.commands import clustered
from effivlm.records import Answer, Cell, Settings
from effivlm.run.gave import Reference
from effivlm.run.sharding import lacking, numbers_of, shard_of
from effivlm.session.matrix import Plan


@pytest.mark.parametrize("text", ["slurm", "ray:", "ray://", "ray:/10.0.0.1", "rays"])
def test_another_engine_or_a_broken_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"--on: .* is not ray or ray://ADDRESS"):
        clustered.address_of(text)
    assert (clustered.address_of("ray"), clustered.address_of("ray://head:6379")) == ("", "head:6379")


def test_without_ray_it_says_what_to_install_and_makes_no_folder(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from effivlm.__main__ import main\n"
        "sys.exit(main(['run', '--tasks', 'docvqa_micro', '--on', 'ray', '--limit', '2', '--out', 'out']))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert said.returncode == 1
    assert "--on ray needs the package ray: pip install -e '.[cluster]'" in said.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-k", "fastv"), r"-k fastv: with --on only options that begin with --vlm-"),
        (("--vlm-baseline=x.json",), "--vlm-baseline=x.json: with --on only options"),
        (("--vlm-limit=0",), "--vlm-limit: '0' is not a whole number"),
        (("--vlm-no-share",), "--vlm-no-share runs cells alone"),
        (("--vlm-run=a", "--vlm-resume=b"), "give one of them"),
        (("--vlm-resume=nowhere",), "nowhere holds no outcomes.jsonl"),
        (("--vlm-shard=3/2",), "'3/2' is no shard I/N"),
        (("--vlm-shard=1/2", "--vlm-judge=openai:m"), "marks whole cells"),
    ],
)
def test_options_that_a_cluster_does_not_take_are_refused_before_it_is_asked(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=message):
        clustered.run("ray", arguments)


def test_what_is_left_of_a_block_are_the_stretches_that_nobody_answered() -> None:
    assert list(without(range(2, 8), {3, 4, 7, 99})) == [range(2, 3), range(5, 7)]
    assert list(without(range(1, 9, 3), {4})) == [range(1, 2, 3), range(7, 8, 3)]
    assert list(without(range(3), {0, 1, 2})) == []
    assert [list(part) for part in without(range(3), set())] == [[0, 1, 2]]


class Dealt(Pool):
    """Two workers that take what they are given."""

    def __init__(self) -> None:
        super().__init__(ray=None, arguments=(), gpus=0, hands=[Hand("one"), Hand("two")])
        self.given: list[tuple[str, range]] = []
        self.jobs: list[tuple[str, Job]] = []
        self.references: list[Mapping[int, Reference]] = []
        self.expecting: list[bool] = []

    def staff(self, wanted: int) -> None:
        self.wanted = wanted

    def answer(self, hand: Hand, job: Job, *arguments: Any) -> None:
        hand.streams.append(job)
        self.given.append((hand.actor, job.left))
        self.jobs.append((hand.actor, job))
        *_, references, expects = arguments
        self.references.append(references)
        self.expecting.append(expects)


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return Suite(Plan(Settings(), {}, ()), tmp_path, False, (), tmp_path)


def work(blocks: int) -> Work:
    return Work([Cell("m", "dense", "paper", "1.00", "t")], {}, waiting=[(range(n, n + 1), 0) for n in range(blocks)])


def given(number: int) -> Reference:
    return Reference(Answer(f"s{number}", "0" * 64, "yes", "yes", 1.0))


@pytest.mark.parametrize(("blocks", "handed"), [(1, 1), (2, 2), (4, 2), (5, 3), (6, 4), (9, 4)])
def test_a_block_waits_with_every_worker_while_more_wait_than_there_are_workers(
    blocks: int, handed: int, suite: Suite
) -> None:
    pool, whole = Dealt(), work(blocks)
    suite._hand_out(pool, [whole])
    suite._hand_out(pool, [whole])
    assert [number for _, (number,) in pool.given] == list(range(handed))
    assert [name for name, _ in pool.given[:2]] == ["one", "two"][: min(blocks, 2)]
    assert (whole.out, len(whole.waiting), pool.wanted) == (handed, blocks - handed, blocks)


def test_a_changed_checkpoint_is_made_by_one_worker_while_the_other_does_something_else(suite: Suite) -> None:
    pool, whole, changed = Dealt(), work(1), work(3)
    changed.cells, changed.references = [Cell("m", "magnitude", "paper", "2:4", "t")], {0: given(0), 2: given(2)}
    suite._hand_out(pool, [changed, whole])
    assert [(name, job.work) for name, job in pool.jobs] == [("one", changed), ("two", whole)]
    pool.hands[1].streams.clear()
    suite._hand_out(pool, [changed, whole])
    assert len(pool.jobs) == 2, "it would only wait"
    changed.begun = True
    suite._hand_out(pool, [changed, whole])
    assert [(name, job.work) for name, job in pool.jobs][2:] == [("two", changed)]
    assert [sorted(references) for references in pool.references] == [[0], [], []], "of its own samples"
    assert pool.expecting == [False, False, False]
    before = work(1)
    before.later = [changed]
    suite._hand_out(pool := Dealt(), [before])
    assert pool.expecting == [True], "dense is asked what it expects where a changed checkpoint follows"


def test_workers_lost_with_one_sample_fail_a_group_and_those_lost_on_the_way_do_not(suite: Suite) -> None:
    whole = work(0)
    for tries in range(9):  # each answered one sample before it went
        suite._lost(Job(whole, range(tries, 20), 0), Lost("gone", True))
    suite._lost(Job(whole, range(30, 40), 2), Lost("gone", False))
    assert whole.ended is None
    assert whole.waiting[0] == (range(30, 40), 2), "nobody had begun it"
    suite._lost(Job(whole, range(30, 40), 2), Lost("gone", True))
    assert whole.ended == ("failed", "3 workers were lost with samples [30, 31, 32, 33, 34]; the last: gone")


@pytest.mark.parametrize(("weights", "gpus"), [(0, 1), (85, 1), (86, 2), (340, 4)])
def test_a_model_takes_as_many_gpus_as_its_weights_fill(weights: int, gpus: int) -> None:
    assert needed(weights, 100) == gpus
    assert needed(weights, 0) == 1, "no GPU is known"


def test_that_all_is_answered_is_told_once() -> None:
    said: list[str] = []
    progress = Progress(said.append, 2, 0)
    for _ in range(2):
        progress.step()
        progress.show(1)
    for _ in range(3):
        progress.show(1)
    assert [line.partition(",")[0] for line in said] == ["effivlm: 1 of 2 samples", "effivlm: 2 of 2 samples"]


def test_shards_part_the_samples_and_the_missing_ones_are_named() -> None:
    assert sorted(number for place in (1, 2, 3) for number in numbers_of(f"{place}/3", 10)) == list(range(10))
    assert list(numbers_of("", 3)) == [0, 1, 2]
    assert lacking(["3/4", "1/4"]) == ["2/4", "4/4"]
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"):
        with pytest.raises(ValueError, match="is no shard I/N"):
            shard_of(text)
