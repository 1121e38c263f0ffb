"""`python -m effivlm rescore`: score the stored answers of a run again, without a model, after a scorer changed."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.records import Answer, Outcome, Sample, Settings, fingerprint
from effivlm.report.write import OUTCOMES, write
from effivlm.run.faults import FAULTS, told
from effivlm.run.judged import judge_of, marked_by
from effivlm.session.recorder import Recorder, read
from effivlm.tasks._base import Task
from effivlm.tasks._judged import Judged
from effivlm.tasks._opened import opened


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "rescore",
        "score the answers of a run again, without a GPU, and make its report in a new folder",
        run,
        "reports/2026-01-31T12-00-00 --out reports/rescored",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help=f"a folder that holds {OUTCOMES}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder (default: RUN-rescored)")
    parser.add_argument("--judge", default=None, metavar="JUDGE", help="as --vlm-judge, if another than the run's")
    parser.add_argument("--data", default=None, metavar="DIR", help="where sets lie now, if not where the run had them")


def run(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    out: Path = options.out or folder.with_name(f"{folder.name}-rescored")
    if not (folder / OUTCOMES).is_file():
        raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run")
    if (out / OUTCOMES).exists():
        raise ValueError(f"{out} holds a run already: name another folder with --out")
    records = list(read(folder))
    header = next((one for one in records if one.get("kind") == "run"), None)
    if header is None:
        raise ValueError(f"{folder} holds no header, so it is not known which samples its answers belong to")
    settings = _settings(header["settings"], {"data": options.data, "judge": options.judge})
    book = _Book(settings, {})
    made = [book.again(Outcome.from_json(one)) if one.get("kind") == "outcome" else one for one in records]
    _store(out, folder, header, made)
    for line in book.told():
        print(line)
    write(out)
    print(f"report: {out / 'report.html'}")
    return 0


def _settings(stored: Mapping[str, Any], given: Mapping[str, str | None]) -> Settings:
    known = {name: stored[name] for name in ("limit", "seed", "data", "judge", "folders") if name in stored}
    return Settings(**{**known, **{name: value for name, value in given.items() if value is not None}})


@dataclass
class _Book:
    """Tasks with their samples by id, and what changed by case."""

    settings: Settings
    tasks: dict[str, tuple[Task, dict[str, Sample]]]
    changes: list[tuple[Outcome, Outcome]] | None = None

    def again(self, outcome: Outcome) -> Outcome:
        """The outcome with its answers scored again; one that holds no answers stands as it is."""
        if outcome.part != "quality" or outcome.status != "ok":
            return outcome
        task, samples = self._task(outcome.cell.task)
        answers = [self._scored(task, samples, one, outcome) for one in outcome.answers]
        settled = task.settle([one.id for one in answers], [one.score for one in answers])
        answers = [replace(one, score=score) for one, score in zip(answers, settled, strict=True)]
        known = [(one.id, one.score) for one in answers if one.score is not None]
        score = task.overall([one for one, _ in known], [value for _, value in known]) if known else None
        facts: dict[str, Any] = {
            "metric": task.metric,
            "scoring": task.scoring,
            "scale": task.scale,
            "group": task.group,
        }
        name = fingerprint(
            {"rescored": outcome.fingerprint, "task": [type(task).__name__, task.version, task.identity()]}
        )
        facts |= {"n": len(known), "broken": len(answers) - len(known), "fingerprint": name, "score": score}
        if score is None:
            facts |= {"status": "failed", "reason": f"no answer could be scored; the first: {answers[0].error}"}
        found = replace(outcome, answers=tuple(answers), **facts)
        self.changes = [*(self.changes or ()), (outcome, found)]
        return found

    def told(self) -> Iterator[str]:
        """One line for each case whose score is another now, and how many are not."""
        same = 0
        for before, after in self.changes or ():
            if before.score == after.score:
                same += 1
                continue
            old, new = (one.score * one.scale if one.score is not None else float("nan") for one in (before, after))
            yield f"{after.cell.id}: {old:.2f} is {new:.2f} now"
        yield f"{same} of {len(self.changes or ())} scores stand"

    def _task(self, name: str) -> tuple[Task, dict[str, Sample]]:
        if name not in self.tasks:
            if name not in self.settings.folders:
                registry.check("tasks", name)
            task = opened(name, self.settings)
            task.pictured = isinstance(task, Judged)  # a judge may look at the picture
            if isinstance(task, Judged) and self.settings.judge and task.rubric:
                task.judged(*marked_by(judge_of(self.settings.judge), task.rubric))
            self.tasks[name] = task, {one.id: one for one in task.samples(self.settings.limit, self.settings.seed)}
        return self.tasks[name]

    def _scored(self, task: Task, samples: Mapping[str, Sample], answer: Answer, outcome: Outcome) -> Answer:
        if answer.error and not answer.tokens:
            return answer
        sample = samples.get(answer.id)
        if sample is None or sample.prompt_sha256 != answer.prompt_sha256:
            raise ValueError(
                f"{outcome.cell.task}: the run asked {answer.id!r} with another prompt or set than there is now, so its answers"
                " cannot be scored again"
            )
        try:
            score = task.score(answer.text, sample)
        except FAULTS as error:  # as in a run: one answer that cannot be scored is missing, and the others stand
            return replace(answer, score=None, error=told(error))
        return replace(answer, score=score, error="", extracted=task.extract(answer.text))


def _store(out: Path, folder: Path, header: Mapping[str, Any], made: Sequence[Any]) -> None:
    began = time.monotonic()
    recorder = Recorder(out)
    recorder.open(
        {**{key: value for key, value in header.items() if key not in ("kind", "schema")}, "rescored": str(folder)}
    )
    for one in made:
        if isinstance(one, Outcome):
            recorder.add(one)
        elif one.get("kind") in ("sample", "kept"):
            recorder.add_sample(one)
    ended: dict[str, Any] = next(
        (one for one in reversed(made) if isinstance(one, dict) and one.get("kind") == "end"), {}
    )
    recorder.close({**ended, "kind": "end", "seconds": ended.get("seconds", round(time.monotonic() - began, 3))})
