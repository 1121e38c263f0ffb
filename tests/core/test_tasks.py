"""What every task keeps to, and what a run makes of answers that are scored together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from effivlm_micro import heldout, picture
from forms import sample
from toy_task import Toy

from effivlm import registry
from effivlm.metrics import choice, mme
from effivlm.metrics.same import same
from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Outcome, Sample, Settings
from effivlm.run import group
from effivlm.run.group import run_group, task_of
from effivlm.run.scoring import FALLEN
from effivlm.tasks._base import Scores, Task, by_group

TASKS = [name for name in registry.names("tasks") if name.endswith("_micro")]
INSTRUCTIONS = {"", picture.SHORT, picture.SINGLE, "\n" + picture.LETTER}
WRONG = "qqqqqqqqqqqq"
every_task = pytest.mark.parametrize("name", TASKS)


def described(samples: Sequence[Sample]) -> list[tuple[object, ...]]:
    return [(one.id, one.prompt, one.references, len(one.images), len(one.video)) for one in samples]


def reference_of(one: Sample) -> str:
    """The reference that most people gave."""
    return Counter(one.references).most_common(1)[0][0]


def test_the_generator_and_the_package_know_the_same_tasks() -> None:
    assert sorted(heldout.MAKERS) == TASKS
    assert {name: task_of(name).group for name in TASKS} == {name: heldout.GROUPS.get(name, 1) for name in TASKS}


@every_task
def test_what_decides_a_score_is_a_literal_of_the_tasks_own_file(name: str) -> None:
    task, declared = task_of(name), registry.declared("tasks", name)
    words = {"metric", "answer_type", "scale", "max_new_tokens", "version", "instruction"}
    assert set(declared) == words | ({"group"} if task.group > 1 else set())
    assert all(getattr(task, word) == value for word, value in declared.items())
    assert declared["instruction"] in INSTRUCTIONS
    assert declared["answer_type"] == "free" or same(declared["answer_type"], "A", "A")


@every_task
def test_samples_are_lazy_and_few_of_them_are_the_first_of_many(name: str) -> None:
    task = task_of(name)
    assert len(task.samples(10**9, 0)) >= 10**9
    few, many = task.samples(4, 3), task.samples(12, 3)
    assert described(list(few)) == described(many[: len(few)])
    frames = [(*samples[1].images, *samples[1].video)[-1] for samples in (few, many)]
    assert frames[0].tobytes() == frames[1].tobytes()
    other = task.samples(4, 4)
    assert [one.id for one in other] == [one.id for one in few]
    assert described(list(other)) != described(list(few))


@every_task
def test_a_limit_is_rounded_up_to_whole_groups_and_ids_are_unique(name: str) -> None:
    task = task_of(name)
    samples = task.samples(5, 0)
    assert len(samples) == -(-5 // task.group) * task.group
    ids = [one.id for one in samples]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith(f"{name}-") for one in ids)
    settled = task.settle(ids, [1.0] * len(ids))
    assert settled == [1.0] * len(ids)


@every_task
def test_a_prompt_is_the_question_and_then_the_instruction(name: str) -> None:
    task = task_of(name)
    items = heldout.items(name, 12, 0)
    for item, one in zip(items, task.samples(12, 0), strict=True):
        assert one.prompt == item.question + registry.declared("tasks", name)["instruction"]
        assert (len(one.images), len(one.video)) == ((0, len(item.images)) if item.clip else (len(item.images), 0))
        assert item.images


@every_task
def test_the_reference_scores_1_and_no_or_a_wrong_answer_0(name: str) -> None:
    task = task_of(name)
    for one in task.samples(12, 0):
        right = reference_of(one)
        assert task.score(f" {right}\n", one) == pytest.approx(1.0), one.id
        assert task.score("", one) == task.score(WRONG, one) == 0.0, one.id
        assert task.score(task.extract(right), one) == task.score(right, one)


@every_task
def test_a_reference_fits_into_the_tokens_that_an_answer_may_have(name: str) -> None:
    task = task_of(name)
    longest = max(len(reference.encode()) for one in task.samples(40, 0) for reference in one.references)
    assert longest < task.max_new_tokens, "spelt byte by byte, with an end marker"


def test_rotated_options_move_the_right_one_through_all_letters() -> None:
    samples = task_of("mmbench_micro").samples(8, 0)
    for four in (samples[:4], samples[4:]):
        options = [choice.listed_options(one.prompt) for one in four]
        letters = [one.references[0] for one in four]
        assert sorted(letters) == list("ABCD")
        assert len({of[letter] for of, letter in zip(options, letters, strict=True)}) == 1
        assert len({frozenset(of.values()) for of in options}) == 1


def test_an_option_may_be_named_by_its_text() -> None:
    task = task_of("mmbench_micro")
    (one, *_) = task.samples(4, 0)
    options, right = choice.listed_options(one.prompt), one.references[0]
    assert task.score(f"{right}. {options[right]}", one) == 1.0
    assert [task.score(text, one) for text in options.values()] == [float(mark == right) for mark in options]


def test_of_a_pair_one_is_to_affirm_and_one_to_deny() -> None:
    samples = task_of("mme_image_micro").samples(12, 0)
    answers = [one.references[0].lower() for one in samples]
    assert [sorted(answers[place : place + 2]) for place in range(0, 12, 2)] == [["no", "yes"]] * 6
    task = task_of("mme_image_micro")
    assert task.settle([one.id for one in samples[:4]], [1.0, 1.0, 1.0, 0.0]) == [1.0, 1.0, 0.5, 0.0]


class Pairs(Task):
    """Two questions a picture; whether an answer is right is known before."""

    metric = "pairs"
    answer_type = "short"
    max_new_tokens = 3
    group = 2
    rights: Sequence[float] = (1.0, 1.0, 0.0, 1.0)

    def __init__(self) -> None:
        self.settled: list[tuple[str, ...]] = []

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        return [
            replace(sample("one", place // 2), id=f"pairs-{place // 2}-{place % 2}", references=(str(right),))
            for place, right in enumerate(self.rights)
        ]

    def score(self, text: str, sample: Sample) -> float:
        return float(sample.references[0])

    def settle(self, ids: Sequence[str], scores: Scores) -> list[float | None]:
        self.settled.append(tuple(ids))
        return by_group(ids, scores, self.group, mme.pair)


class Torn:
    size = (4, 4)

    def getexif(self) -> None:
        raise OSError("image file is truncated")


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> Pairs:
    task = Pairs()
    monkeypatch.setattr(group, "task_of", lambda name: task)
    declared = registry.declared
    monkeypatch.setattr(registry, "declared", lambda kind, name: {} if kind == "tasks" else declared(kind, name))
    return task


def outcomes(model: Adapter, share: bool = True) -> list[Outcome]:
    cells = [Cell("twin", name, "paper", "0.30", "pairs") for name in ("snapkv", "fastv")]
    return run_group(cells, model, Settings(share=share))


def test_scores_are_settled_once_a_cell_when_all_samples_are_answered(model: Adapter, pairs: Pairs) -> None:
    together = outcomes(model)
    assert pairs.settled == [tuple(one.id for one in pairs.samples(4, 0))] * 3
    for one in together:
        assert [answer.score for answer in one.answers] == [1.0, 1.0, 0.0, 0.5]
        assert (one.score, one.n, one.broken, one.remarks) == (0.625, 4, 0, ())
    assert all(answer.same_as_dense for answer in together[0].answers)
    alone = outcomes(model, share=False)
    assert [one.answers for one in alone] == [one.answers for one in together]


def test_a_broken_sample_takes_its_group_out_and_no_other(model: Adapter, pairs: Pairs) -> None:
    torn = list(pairs.samples(4, 0))
    torn[1] = replace(torn[1], images=(Torn(),))  # type: ignore[arg-type]
    pairs.samples = lambda limit, seed: torn  # type: ignore[method-assign]
    for one in outcomes(model):
        assert [answer.score for answer in one.answers] == [None, None, 0.0, 0.5]
        assert one.answers[0].error == FALLEN
        assert one.answers[0].text, "what was answered stays on record, and counts for loyalty"
        assert one.answers[0].same_as_dense is not None
        assert "image file is truncated" in one.answers[1].error
        assert (one.status, one.score, one.n, one.broken) == ("ok", 0.25, 2, 2)
        assert one.remarks[0].startswith("2 of 4 samples broke or went with one that did: OSError")
    pairs.samples = lambda limit, seed: torn[:2]  # type: ignore[method-assign]
    for one in outcomes(model):
        assert (one.status, one.score) == ("failed", None)
        assert one.reason.startswith("every sample broke or went with one that did; the first: OSError")


def test_a_run_counts_the_samples_it_had_where_a_limit_was_rounded_up(model: Adapter) -> None:
    seen: list[tuple[int, int]] = []
    cell = Cell("twin", "dense", "paper", "1.00", "mme_image_micro")
    settings = Settings(limit=1)
    lines: list[dict[str, Any]] = []
    (one,) = run_group([cell], model, settings, lambda done, total: seen.append((done, total)), lines.append)
    assert (one.status, one.n, len(one.answers)) == ("ok", 2, 2)
    assert seen == [(1, 2), (2, 2)]
    assert [line["id"] for line in lines] == [answer.id for answer in one.answers]


def test_a_task_whose_answers_nobody_can_compare_is_refused(model: Adapter, toy_task: Toy) -> None:
    toy_task.answer_type = "shrot"
    with pytest.raises(ValueError, match=r"task 'toy': answer_type 'shrot' is not one of choice, yes_no, .*free"):
        run_group([Cell("twin", "dense", "paper", "1.00", "toy")], model, Settings(limit=1))
