"""What the marks of judges make of an outcome: its answers' scores, and how far these can be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from io import BytesIO
from typing import Any

from effivlm.judging.grading import MOST_MISSING, Graded, agreement, grade, noise
from effivlm.judging.rubrics import Item, Rubric, rubric_of
from effivlm.records import Answer, Outcome, Sample, Settings
from effivlm.run.faults import FAULTS, told
from effivlm.run.scoring import reported
from effivlm.session.judges import Judges, judged_name, judges_of, rubric_named
from effivlm.tasks._base import Task
from effivlm.tasks._opened import opened

SIDE = 2048  # pixels of the longer side of what a judge is shown
NO_MARK = "the judge gave no mark: "
Asked = Mapping[str, tuple[Item, str]]
"""What a judge is told beside an answer, and the digest of its prompt, by sample id."""
TOLD = "judge: "
"""How remarks on a judge begin: those of another one are taken away by it."""


def questions(task: Task, settings: Settings) -> dict[str, tuple[Item, str]]:
    """By sample id, what a judge is told beside an answer, and the digest of the prompt; a sample that cannot be read is absent.

    Pictures go along where the rubric shows them, as JPEG of at most 2048 pixels on the longer side.
    """
    rubric = rubric_of(task.rubric)
    task.pictured = rubric.shown
    samples, found = task.samples(settings.limit, settings.seed), {}
    for number in range(len(samples)):
        try:
            one = samples[number]
            images = tuple(_jpeg(image) for image in one.images) if rubric.shown else ()
        except FAULTS:
            continue  # it was asked nothing either, and its answer says why
        found[one.id] = (_item(task, one, images), one.prompt_sha256)
    return found


def mark_all(outcomes: Iterable[Outcome], settings: Settings, family: str) -> list[Outcome]:
    """Outcomes of one task with their answers marked, where a judge does that; their fingerprints name who did.

    Where marking itself fails, an outcome has failed and keeps its answers.
    """
    found = list(outcomes)
    judges = judges_of(settings)
    if not found or judges is None or not rubric_named(task := found[0].cell.task, settings):
        return found
    try:
        own = opened(task, settings, family)
        asked = questions(own, settings)
        found = [marked(one, own, asked, judges, settings.seed) for one in found]
    except FAULTS as error:
        reason = f"its answers could not be marked: {told(error)}"
        found = [replace(one, status="failed", reason=reason) if one.answers else one for one in found]
    return [replace(one, fingerprint=judged_name(one.fingerprint, task, settings)) for one in found]


def _item(task: Task, sample: Sample, images: tuple[bytes, ...]) -> Item:
    return Item(sample.id, task.question(sample), sample.references[0] if sample.references else "", "", images)


def _jpeg(image: Any) -> bytes:
    file = BytesIO()
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    small.save(file, "JPEG", quality=90)
    return file.getvalue()


def marked(outcome: Outcome, task: Task, asked: Asked, judges: Judges, seed: int) -> Outcome:
    """The outcome with its answers marked; an answer without a mark is missing and says why, never 0.

    `asked` is what `questions` gave. An outcome without answers stands as it is; one without a single mark has failed, and keeps
    its answers, to be marked another time.

    Raises:
        ValueError: an answer is to another prompt than there is now.
    """
    rubric = rubric_of(task.rubric)
    items = [
        _answered(one, asked, outcome) for one in outcome.answers if not one.error or one.error.startswith(NO_MARK)
    ]
    if not items:
        return outcome
    graded = grade(judges.first, rubric, items, threads=judges.threads)
    answers = [_with(one, graded, rubric) for one in outcome.answers]
    errors = [one.error for one in answers if one.error]
    facts, remarks = _trust(graded, rubric, items, judges, seed)
    score = None if graded.score is None else min(1.0, graded.score)
    if graded.score is not None and graded.score > 1:
        remarks.append(f"{TOLD}the answers have {graded.score:.4f} times the references' points, stored as 1")
    answers = [replace(one, part=task.part(one.id) if one.prompt_sha256 else "") for one in answers]
    return replace(
        outcome,
        parts=reported(answers, task),
        status="ok" if graded.marks else "failed",
        reason="" if graded.marks else f"no answer has a mark; the first: {next(iter(graded.missing.values()))}",
        answers=tuple(answers),
        n=len(graded.marks),
        broken=len(errors),
        score=score,
        judged=facts,
        remarks=(*(one for one in outcome.remarks if not one.startswith(TOLD)), *remarks),
    )


def _answered(answer: Answer, asked: Asked, outcome: Outcome) -> Item:
    item, prompt = asked.get(answer.id, (None, ""))
    if item is None or prompt != answer.prompt_sha256:
        raise ValueError(
            f"{outcome.cell.task}: the run asked {answer.id!r} with another prompt or set than there is now, so its answers"
            " cannot be marked"
        )
    return replace(item, answer=answer.text)


def _with(answer: Answer, graded: Graded, rubric: Rubric) -> Answer:
    text = answer.text.strip()
    if answer.id in graded.marks:
        return replace(answer, score=rubric.share(graded.marks[answer.id]), extracted=text, error="")
    if answer.id in graded.missing:
        return replace(answer, score=None, extracted=text, error=NO_MARK + graded.missing[answer.id])
    return answer


def _trust(
    graded: Graded, rubric: Rubric, items: Sequence[Item], judges: Judges, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """What stands on record of the judge beside the score, and the same in words."""
    models = [model for model in graded.models if model]
    words = [f"marked by {graded.judge} ({', '.join(models) or 'no model named'}), prompt {graded.prompt_sha256[:12]}"]
    if not graded.trusted:
        few = f"{len(graded.missing)} of {len(items)} answers have no mark, over {MOST_MISSING:.0%}"
        words.append(f"{few}: the score says too little; the first: {next(iter(graded.missing.values()))}")
    facts = {
        "judge": graded.judge,
        "models": models,
        "rubric": graded.rubric,
        "prompt_sha256": graded.prompt_sha256,
        "missing": len(graded.missing),
        "noise": _noise(rubric, items, judges, seed, words) if graded.marks and judges.repeats > 1 else None,
        "agreement": _agreement(graded, rubric, items, judges, words) if graded.marks else None,
    }
    return facts, [f"{TOLD}{word}" for word in words]


def _noise(rubric: Rubric, items: Sequence[Item], judges: Judges, seed: int, words: list[str]) -> dict[str, Any] | None:
    try:
        floor = noise(judges.first, rubric, items, judges.repeats, seed=seed, threads=judges.threads)
    except ValueError as error:
        words.append(f"its noise is not known: {error}")
        return None
    words.append(
        f"its scores of the same {floor.n} answers lie {floor.spread:.4f} apart over {judges.repeats} askings"
        f" ({floor.changed:.0%} of marks change): smaller differences say nothing"
    )
    return {**asdict(floor), "scores": list(floor.scores)}


def _agreement(
    graded: Graded, rubric: Rubric, items: Sequence[Item], judges: Judges, words: list[str]
) -> dict[str, Any] | None:
    if judges.second is None:
        return None
    other = grade(judges.second, rubric, items, threads=judges.threads)
    try:
        alike = agreement(graded, other, rubric)
    except ValueError as error:
        words.append(f"the agreement of two judges is not known: {error}")
        return None
    words.append(
        f"{other.judge} gives the same mark to {alike.same:.0%} of {alike.n} answers; the two scores are"
        f" {alike.scores[0]:.4f} and {alike.scores[1]:.4f}"
    )
    return {"judge": other.judge, **asdict(alike), "scores": list(alike.scores)}
