"""Which judges a session asks: from their specifications to judges whose replies are kept on this machine."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from effivlm import registry
from effivlm.data.places import data_home
from effivlm.judging.breaker import Breaker
from effivlm.judging.endpoint import KEY_VARIABLE, Endpoint
from effivlm.judging.judge import Judge
from effivlm.judging.local import Local
from effivlm.judging.remembered import Remembered
from effivlm.models._content import folder_digest
from effivlm.models._hub import ID, snapshot
from effivlm.models._sources import ModelSource, checkpoints, resolve
from effivlm.records import Settings, fingerprint
from effivlm.run.provenance import module_digest

NONE = "none"
JUDGES = ("judge", "second_judge", "judge_repeats")
"""What settings say of judges."""
ADDRESS = "OPENAI_BASE_URL"
READ = "effivlm.judging.rubrics"  # the code that reads replies
THREADS = 8  # queries that are out at once
_COMMIT = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Judges:
    """One judge or two; `repeats` under 2: the first one's noise is not measured. `threads`: queries out at once."""

    first: Judge
    second: Judge | None
    repeats: int
    threads: int = THREADS

    def facts(self, rubric: str) -> list[Any]:
        """What of them decides an outcome that they mark by a rubric."""
        from effivlm.judging.rubrics import (
            rubric_of,
        )  # not above: it brings scorers, and collecting needs none

        return [
            self.first.name,
            self.second and self.second.name,
            self.repeats,
            rubric_of(rubric).sha256,
            module_digest(READ),
        ]


def judge_of(spec: str, device: str = "cpu") -> Judge:
    """A judge by its specification: `openai:MODEL`, or `local:` with a checkpoint's name, a folder or `OWNER/NAME[@REVISION]`.

    A local one is loaded on `device`, once it is asked; a repository is resolved to a commit, once a process. The key and the
    address of an endpoint come from the environment (OPENAI_API_KEY, OPENAI_BASE_URL) alone.

    Raises ValueError for anything else, and where what it needs is not there.
    """
    kind, _, model = spec.partition(":")
    if kind == "openai" and model:
        if importlib.util.find_spec("openai") is None:
            raise ValueError(f"judge {spec!r} needs the package openai: pip install -e .[judge]")
        if not os.environ.get(KEY_VARIABLE):
            raise ValueError(f"judge {spec!r} needs a key in the environment variable {KEY_VARIABLE}")
        address = os.environ.get(ADDRESS)
        return Breaker(Endpoint(model, address) if address else Endpoint(model))
    if kind == "local" and model:
        return _local(spec, model, device)
    raise ValueError(
        f"judge {spec!r} is none of openai:MODEL and local:MODEL (a checkpoint's name, a folder or a hub id)"
    )


def _local(spec: str, model: str, device: str) -> Local:
    folder, plain = Path(model).expanduser(), model.partition("@")[0]
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"judge {spec!r}: {folder} holds no config.json, so it is no transformers checkpoint")
        return Local(str(folder.resolve()), "", folder_digest(folder), device, _prepare)
    if _COMMIT.fullmatch(model):
        return Local(plain, model.partition("@")[2], "", device, _prepare)
    if plain in checkpoints():
        found = _named(model)
        content = "" if found.commit else folder_digest(Path(found.source))
        return Local(found.repository or found.source, found.commit, content, device, _prepare)
    if ID.fullmatch(model):
        repository, commit = _pinned(model)
        return Local(repository, commit, "", device, _prepare)
    near = registry.unknown("model", plain, sorted(checkpoints()))
    raise ValueError(f"judge {spec!r}: {near}; or give a folder that exists, or a hub id (owner/name)")


@cache
def _named(model: str) -> ModelSource:
    return resolve(model)


@cache
def _pinned(model: str) -> tuple[str, str]:
    """A repository and its commit, which a branch has now."""
    found = snapshot(model, model)
    return found.repository, found.commit


def _prepare() -> None:
    from effivlm.models._torchvision import ensure_torchvision

    ensure_torchvision()


def judges_of(settings: Settings) -> Judges | None:
    """The judges that were asked for, whose replies are kept on this machine; None where there are none. ValueError as above."""
    if settings.judge in ("", NONE):
        return None
    kept = data_home() / "judge_replies"
    made = [judge_of(spec, settings.device) for spec in (settings.judge, settings.second_judge) if spec]
    threads = 1 if any(isinstance(judge, Local) for judge in made) else THREADS
    judges = [Remembered(judge, kept) for judge in made]
    return Judges(judges[0], judges[1] if len(judges) > 1 else None, settings.judge_repeats, threads)


def rubric_named(task: str, settings: Settings) -> str:
    """The rubric by which a judge marks a task's answers; "" where none does. The task's file is not run."""
    return "" if task in settings.folders else str(registry.inherited("tasks", task, "rubric"))


def check(tasks: Iterable[str], settings: Settings) -> None:
    """Whether tasks that need a judge have one, and whether it can be asked. Raises ValueError naming the option."""
    if settings.second_judge and settings.judge in ("", NONE):
        raise ValueError("--vlm-second-judge: there is no first one to agree with; give --vlm-judge too")
    need = {name: rubric for name in tasks if (rubric := rubric_named(name, settings))}
    if need:
        _check_rubrics(need)
    if need and not settings.judge:
        proxies = [f"{name}_proxy" for name in need if f"{name}_proxy" in registry.names("tasks")]
        instead = f", take {', '.join(proxies)} instead" if proxies else ""
        raise ValueError(
            f"--vlm-tasks: {', '.join(need)}: a judge scores the answers; give --vlm-judge SPEC{instead}, or store the answers"
            " for later with --vlm-judge none"
        )
    try:
        judges_of(settings)
    except ValueError as error:
        raise ValueError(f"--vlm-judge: {error}") from None


def _check_rubrics(named: Mapping[str, str]) -> None:
    from effivlm.judging.rubrics import RUBRICS  # as above

    for name, rubric in named.items():
        if rubric not in RUBRICS:
            raise ValueError(f"--vlm-tasks: {name} names the rubric {rubric!r}; there are {', '.join(RUBRICS)}")


def judged_name(answers: str, task: str, settings: Settings) -> str:
    """The fingerprint of an outcome: that of its `answers`, and of who marks them where somebody does."""
    rubric = rubric_named(task, settings)
    judges = judges_of(settings) if rubric else None
    return fingerprint({"answers": answers, "judges": judges.facts(rubric)}) if judges else answers
