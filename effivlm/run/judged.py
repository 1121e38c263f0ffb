"""Marks of a judge as scores of a task: what `--vlm-judge` names is asked about every answer, once."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from effivlm.data.places import data_home
from effivlm.judging.endpoint import Endpoint
from effivlm.judging.judge import Judge
from effivlm.judging.local import Local
from effivlm.judging.remembered import Remembered
from effivlm.judging.rubrics import Item, rubric_of
from effivlm.records import Sample

Mark = Callable[[str, Sample], float]
KEPT = "judged"
"""The folder of replies among the fetched sets: the same answer is never judged twice, in this run or another."""


def judge_of(text: str, folder: Path | None = None) -> Judge:
    """The judge that an option names: `endpoint:MODEL`, `endpoint:MODEL@URL` or `local:FOLDER_OR_ID[@COMMIT]`.

    Raises:
        ValueError: another kind, or an address or a commit that is none.
    """
    kind, _, rest = text.partition(":")
    model, _, where = rest.partition("@")
    if kind not in ("endpoint", "local") or not model:
        raise ValueError(f"--vlm-judge: {text!r} is neither endpoint:MODEL[@URL] nor local:FOLDER_OR_ID[@COMMIT]")
    if kind == "local":
        judge: Judge = Local(model, where)
    else:
        judge = Endpoint(model, where) if where else Endpoint(model)
    return Remembered(judge, folder or data_home() / KEPT)


def marked_by(judge: Judge, rubric: str) -> tuple[str, Mark]:
    """What is recorded of a judge (its name and the hash of its prompt), and how it marks an answer, in [0, 1].

    A reply that does not come, or holds no mark, raises: that answer is missing, never 0.
    """
    asked = rubric_of(rubric)

    def mark(text: str, sample: Sample) -> float:
        images = tuple(_encoded(sample)) if asked.shown else ()
        item = Item(sample.id, sample.prompt, sample.references[0], text, images)
        reply = judge.reply(asked.query(item))
        marks = asked.read(reply.text)
        if marks is None:
            raise ValueError(f"the judge's reply holds no mark: {reply.text[:80]!r}")
        return float(marks[0])

    return f"{judge.name}, prompt {asked.sha256[:12]}", mark


def _encoded(sample: Sample) -> list[bytes]:
    found = []
    for image in sample.images:
        file = BytesIO()
        image.convert("RGB").save(file, "PNG")
        found.append(file.getvalue())
    return found
