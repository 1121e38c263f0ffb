"""From a name to a task that knows where its data lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from effivlm import registry
from effivlm.metrics.profiles import FIXED, Profile
from effivlm.records import Settings
from effivlm.tasks._base import Task
from effivlm.tasks._folder import Folder


def task_of(name: str) -> Task:
    return cast(type[Task], registry.load("tasks", name))()


def profile_of(kind: type[Task], settings: Settings) -> Profile:
    """The profile by which tasks of a class are scored: the one that is asked for, where they know it."""
    return cast(Profile, settings.scoring) if settings.scoring in kind.profiles else FIXED


def opened(name: str, settings: Settings, family: str = "", of: Callable[[str], Task] = task_of) -> Task:
    """The task of a name as a run uses it: told where its data lies, which family answers, and how it is scored.

    One that does not know the profile that is asked for is scored as it always is.

    Raises:
        ValueError: unknown name, or a user's folder that is not as it should be; says where.
    """
    task: Task = Folder(name, settings.folders[name]) if name in settings.folders else of(name)
    task.data, task.family = settings.data, family
    task.profile, task.asked_profile = profile_of(type(task), settings), settings.scoring
    return task
