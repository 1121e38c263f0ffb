"""What a task gives back, looked at before it is used: an author's slip breaks an answer, or a cell, and never the run."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from effivlm.metrics.choice import listed_options
from effivlm.metrics.same import TYPES, same
from effivlm.records import Answer, Reported, Sample
from effivlm.run.faults import FAULTS, Ill, told
from effivlm.tasks._base import Task

FALLEN = "it is scored together with a sample that broke"
HANDED_IN = "its answers are scored elsewhere: python -m effivlm export RUN writes them for"
NO_PROFILE = "scored fixed: the task knows no other profile"
WAITS = "its answers wait for a judge: python -m effivlm rescore RUN --judge SPEC"


def samples_of(name: str, task: Task, limit: int, seed: int) -> Sequence[Sample]:
    """The samples of a task, none of them read yet.

    Raises:
        ValueError: there are none, they cannot be counted, or nobody knows when two of their answers are the same.
    """
    if task.answer_type not in TYPES:
        raise ValueError(f"task {name!r}: answer_type {task.answer_type!r} is not one of {', '.join(TYPES)}")
    samples: Any = task.samples(limit, seed)
    if not (hasattr(samples, "__len__") and hasattr(samples, "__getitem__")):
        raise ValueError(
            f"task {name!r}: samples() gave a {type(samples).__name__}, which has no length;"
            " a list or tasks._base.Lazy is wanted"
        )
    if not len(samples):
        raise ValueError(f"task {name!r} has no samples for limit {limit}")
    return samples  # type: ignore[no-any-return]


def read(samples: Sequence[Sample], number: int, known: Collection[str]) -> Sample:
    """One sample; `known` are the ids of those before it.

    Raises:
        Ill: it is no sample, or its id is not its own. Whatever reading it raises comes through.
    """
    sample: Any = samples[number]
    if not isinstance(sample, Sample):
        raise Ill(f"samples[{number}] is {_shown(sample)}, no Sample")
    refuse_repeated(number, sample.id, known)
    return sample


def refuse_repeated(number: int, name: str, known: Collection[str]) -> None:
    """Ill where a sample bears the id of one before it."""
    if name in known:
        raise Ill(f"samples[{number}] has the id {name!r} of a sample before it")


class Scored(NamedTuple):
    """What of an answer is scored, its score, and whether it says nothing that can be scored."""

    extracted: str
    score: float
    invalid: bool


def scored(task: Task, text: str, sample: Sample) -> Scored:
    """An answer as a task scores it.

    Raises:
        Ill: something is not what a task may give. Whatever the task raises comes through.
    """
    extracted: Any = task.read(text, sample)
    if not isinstance(extracted, str):
        raise Ill(f"extract() gave {_shown(extracted)}, no text")
    return Scored(extracted, share("score()", task.score(text, sample)), mute(task, text, sample))


def mute(task: Task, text: str, sample: Sample) -> bool:
    """Whether an answer says nothing that can be scored. Raises Ill for anything but a bool, and whatever the task raises."""
    invalid: Any = task.invalid(text, sample)
    if not isinstance(invalid, bool):
        raise Ill(f"invalid() gave {_shown(invalid)}, neither True nor False")
    return invalid


def waits_for(task: Task) -> str:
    """Why a task's answers have no score yet, "" where they are scored as they come."""
    return WAITS if task.rubric else f"{HANDED_IN} {task.elsewhere}" if task.elsewhere else ""


def profile_remarks(task: Task) -> tuple[str, ...]:
    """What an outcome says where it was scored in another way than was asked for."""
    return (NO_PROFILE,) if task.asked_profile != task.profile else ()


def settled(answers: Sequence[Answer], task: Task) -> list[Answer]:
    """Answers with the scores that hold once all are known; one whose score falls with another's says so.

    A sample that could not be read has no answer, so the samples that are scored with it (`Task.fallen`) have no score.

    Raises:
        Ill: `settle` gave no list of one score an answer. Whatever it raises comes through.
    """
    unread = [at for at, answer in enumerate(answers) if not answer.prompt_sha256]
    fallen = task.fallen(unread) if unread else set()
    there = [at for at in range(len(answers)) if at not in fallen]
    scores: Any = task.settle([answers[at].id for at in there], [answers[at].score for at in there])
    if not isinstance(scores, Sequence) or isinstance(scores, str) or len(scores) != len(there):
        raise Ill(f"settle() gave {_shown(scores)}, no list of {len(there)} scores")
    found: list[float | str | None] = [None] * len(answers)
    for at, score in zip(there, scores, strict=True):
        found[at] = _settled(score)
    return [_with(_placed(answer, task), score) for answer, score in zip(answers, found, strict=True)]


def _placed(answer: Answer, task: Task) -> Answer:
    """An answer with the part of the benchmark that it counts in; one to a sample that could not be read has none."""
    part: Any = task.part(answer.id) if answer.prompt_sha256 else ""
    if not isinstance(part, str):
        raise Ill(f"part() gave {_shown(part)}, no text")
    return replace(answer, part=part)


def _settled(score: Any) -> float | str | None:
    """A settled score, or why it is none."""
    try:
        return None if score is None else share("settle()", score)
    except Ill as error:
        return str(error)


def _with(answer: Answer, score: float | str | None) -> Answer:
    if isinstance(score, str) or answer.error:  # a broken answer is no zero, whatever settle() makes of it
        return replace(answer, score=None, error=answer.error or str(score))
    return replace(answer, score=score, error=answer.error or (FALLEN if score is None else ""))


def overall(answers: Sequence[Answer], task: Task) -> float:
    """The score of a cell from those of its answers that have one. Raises Ill where it is none, and whatever the task raises."""
    return share("overall() or aggregate()", task.total([answer for answer in answers if answer.score is not None]))


def reported(answers: Sequence[Answer], task: Task) -> dict[str, Reported]:
    """What the benchmark reports beside its score. Raises Ill for what is no score, and whatever the task raises."""
    known = [answer for answer in answers if answer.score is not None]
    found: Mapping[str, Any] = task.parts(known) if known else {}
    return {name: replace(one, score=share(f"parts()[{name!r}]", one.score)) for name, one in found.items()}


def share(what: str, value: Any) -> float:
    """A score as it may be stored: a plain finite number in [0, 1]; a value of another library's or another meaning is refused.

    Raises:
        Ill: it is none, saying what it is.
    """
    if type(value) not in (int, float):
        raise Ill(f"{what} gave {_shown(value)}, no plain number: float(...) makes one")
    if not math.isfinite(value) or not 0 <= value <= 1:
        raise Ill(f"{what} gave {value!r}, which does not lie in [0, 1]")
    return float(value)


def _shown(value: Any) -> str:
    """A value and its kind, shortened; also of one that cannot even be shown."""
    try:
        text = repr(value)[:60]
    except FAULTS as error:
        text = told(error)
    return f"{text} ({type(value).__name__})"


def against(answer: Answer, dense: Answer, kind: str, sample: Sample) -> Answer:
    """An answer with what it has in common with dense's."""
    common = 0
    for ours, theirs in zip(answer.tokens, dense.tokens, strict=False):
        if ours != theirs:
            break
        common += 1
    options = listed_options(sample.prompt) if kind == "choice" else None
    return replace(
        answer,
        same_as_dense=None if kind == "free" else same(kind, answer.text, dense.text, options),
        exact_as_dense=answer.text == dense.text,
        common_prefix_tokens=common,
    )
