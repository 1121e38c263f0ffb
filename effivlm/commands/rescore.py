"""`python -m effivlm rescore`: score the stored answers of a run again, without a model, after a scorer changed or by a judge."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.commands import RUN
from effivlm.metrics.profiles import FIXED
from effivlm.records import Answer, Outcome, Sample, Settings, fingerprint
from effivlm.report.document import read
from effivlm.report.write import OUTCOMES, write
from effivlm.run.scoring import NO_PROFILE, overall, profile_remarks, reported, scored, settled
from effivlm.session.groups import on_device
from effivlm.session.judged import Asked, marked, questions
from effivlm.session.judges import JUDGES, NONE, Judges, judges_of, rubric_named
from effivlm.session.matrix import SCORINGS
from effivlm.session.recorder import Recorder
from effivlm.tasks._base import Task
from effivlm.tasks._opened import opened


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "rescore",
        "score the answers of a run again, without a GPU, and make its report in a new folder",
        run,
        f"{RUN} --out reports/rescored",
        f"{RUN} --judge openai:gpt-4o-2024-08-06",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help=f"a folder that holds {OUTCOMES}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="new folder (default: RUN-rescored)")
    parser.add_argument(
        "--judge", default="", metavar="SPEC", help="mark the answers of tasks that a judge scores; as --vlm-judge"
    )
    parser.add_argument("--second-judge", default="", metavar="SPEC", help="as --vlm-second-judge")
    parser.add_argument(
        "--repeats", default=Settings().judge_repeats, type=int, metavar="N", help="as --vlm-judge-repeats"
    )
    parser.add_argument("--scoring", choices=SCORINGS, help="as --vlm-scoring (default: as the run was scored)")
    parser.add_argument(
        "--device", default="auto", metavar="DEVICE", help="where a local judge runs; as --vlm-device (default: auto)"
    )
    parser.add_argument("--data", default=None, metavar="DIR", help="where sets lie now, if not where the run had them")


def run(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    out: Path = options.out or folder.with_name(f"{folder.name}-rescored")
    if not (folder / OUTCOMES).is_file():
        raise ValueError(f"{folder} holds no {OUTCOMES}: name the folder of one run")
    if (out / OUTCOMES).exists():
        raise ValueError(f"{out} holds a run already: name another folder with --out")
    beside: list[Mapping[str, Any]] = []
    header, outcomes, end = read(folder / OUTCOMES, beside.append)
    if shard := header["settings"].get("shard"):
        raise ValueError(
            f"{folder} is shard {shard}, which has no scores: merge all of them (report A B ... --out FOLDER) and score that"
        )
    settings = _settings(header["settings"], options)
    families = {name: source.get("family", "") for name, source in header.get("models", {}).items()}
    book = _Book(settings, families, judges_of(settings))
    latest = {(outcome.cell, outcome.part): outcome for outcome in outcomes}
    if not any(outcome.part == "quality" and outcome.answers for outcome in latest.values()):
        raise ValueError(f"{folder} holds no answers to score: no quality case of it was measured")
    made = [book.again(outcome) for outcome in latest.values()]
    asked = {name: getattr(settings, name) for name in (*JUDGES, "scoring")}
    _store(out, folder, {**header, "settings": {**header["settings"], **asked}}, made, beside, end or {})
    for line in book.told():
        print(line)
    write(out)
    print(f"report: {out / 'report.html'}")
    return 0


def _settings(stored: Mapping[str, Any], options: argparse.Namespace) -> Settings:
    known = {name: stored[name] for name in ("limit", "seed", "data", "folders", "scoring") if name in stored}
    given: dict[str, Any] = {
        "judge": options.judge,
        "second_judge": options.second_judge,
        "judge_repeats": options.repeats,
    }
    given |= {name: value for name in ("data", "scoring") if (value := getattr(options, name)) is not None}
    settings = Settings(**{**known, **given})
    if settings.judge_repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {settings.judge_repeats}")
    if settings.second_judge and settings.judge in ("", NONE):
        raise ValueError("--second-judge: there is no first one to agree with; give --judge too")
    if any(spec.startswith("local:") for spec in (settings.judge, settings.second_judge)):
        return on_device(replace(settings, device=options.device))
    return settings


@dataclass
class _Book:
    """Tasks with their samples by id, what judges are told of them, what changed by case, and what waits for a judge."""

    settings: Settings
    families: Mapping[str, str]
    judges: Judges | None
    tasks: dict[str, tuple[Task, dict[str, Sample]]] = field(default_factory=dict)
    asked: dict[str, tuple[Task, Asked]] = field(default_factory=dict)
    changes: list[tuple[Outcome, Outcome]] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)

    def again(self, outcome: Outcome) -> Outcome:
        """The outcome with its answers scored again; one that holds no answers stands as it is."""
        if outcome.part != "quality" or not outcome.answers:
            return outcome
        if rubric_named(outcome.cell.task, self.settings):
            return self._marked(outcome)
        if outcome.status != "ok":
            return outcome
        task, samples = self._task(outcome.cell.task)
        answers = [self._scored(task, samples, one, outcome) for one in outcome.answers]
        answers = settled(answers, task)
        known = sum(one.score is not None for one in answers)
        words = ("metric", "scoring", "scale", "group", "profile", "average")
        facts: dict[str, Any] = {word: getattr(task, word) for word in words}
        facts |= {"score": overall(answers, task) if known else None, "parts": reported(answers, task), "n": known}
        facts["samples_from"] = task.samples_from()
        facts["remarks"] = (*(one for one in outcome.remarks if one != NO_PROFILE), *profile_remarks(task))
        scored_by = [type(task).__name__, task.version, task.identity(), *[task.profile] * (task.profile != FIXED)]
        name = fingerprint({"rescored": outcome.fingerprint, "task": scored_by})
        found = replace(outcome, **facts, fingerprint=name, answers=tuple(answers))
        self.changes.append((outcome, found))
        return found

    def _marked(self, outcome: Outcome) -> Outcome:
        """The outcome with its answers marked by the judges; where there are none it stands as it is."""
        name, family = outcome.cell.task, self.families.get(outcome.cell.model, "")
        if self.judges is None:
            self.waiting.add(name)
            return outcome
        if name not in self.asked:
            task = opened(name, self.settings, family)
            self.asked[name] = task, questions(task, self.settings)
        task, asked = self.asked[name]
        facts = {"rescored": outcome.fingerprint, "task": [name, task.version, task.identity()]}
        found = marked(outcome, task, asked, self.judges, self.settings.seed)
        found = replace(found, fingerprint=fingerprint({**facts, "judges": self.judges.facts(task.rubric)}))
        self.changes.append((outcome, found))
        return found

    def told(self) -> Iterator[str]:
        """One line for each case whose score is another now, and how many are not."""
        same = 0
        for before, after in self.changes:
            if before.score == after.score:
                same += 1
                continue
            old, new = (_shown(one) for one in (before, after))
            yield f"{after.cell.id}: {old} is {new} now"
        yield f"{same} of {len(self.changes)} scores stand"
        if self.waiting:
            yield f"as they were: {', '.join(sorted(self.waiting))}, whose answers a judge marks (--judge SPEC)"

    def _task(self, name: str) -> tuple[Task, dict[str, Sample]]:
        if name not in self.tasks:
            if name not in self.settings.folders:
                registry.check("tasks", name)
            task = opened(name, self.settings)
            task.pictured = False
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
        return replace(answer, error="", **scored(task, answer.text, sample)._asdict())


def _shown(outcome: Outcome) -> str:
    return "no score" if outcome.score is None else f"{outcome.score * outcome.scale:.2f}"


def _store(
    out: Path,
    folder: Path,
    header: Mapping[str, Any],
    made: Sequence[Outcome],
    beside: Sequence[Mapping[str, Any]],
    end: Mapping[str, Any],
) -> None:
    began = time.monotonic()
    recorder = Recorder(out)
    recorder.open(
        {**{key: value for key, value in header.items() if key not in ("kind", "schema")}, "rescored": str(folder)}
    )
    for outcome in made:
        recorder.add(outcome)
    for one in beside:
        if one.get("kind") in ("sample", "kept"):
            recorder.add_sample(one)
    recorder.close({**end, "kind": "end", "seconds": end.get("seconds", round(time.monotonic() - began, 3))})
