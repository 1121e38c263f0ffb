"""When two measurements of a cell may not be compared, and what to do about it."""

from __future__ import annotations

from effivlm.metrics.profiles import FIXED
from effivlm.report.baseline import Measured

Reason = tuple[str, str]
RENEW = "write a new baseline with --vlm-update-baseline"


def incomparable(old: Measured, new: Measured, part: str) -> Reason | None:
    """What differs and what to do, or None where this part of a cell may be compared.

    What a side did not record (a task's version, an engine, its questions) counts as the same.
    """
    return _runs(old, new, part) or (_samples(old, new) if part == "quality" else _timings(old, new, part))


def _runs(old: Measured, new: Measured, part: str) -> Reason | None:
    before, after, task = old.where[part], new.where[part], old.data["task"]
    if before.dtype and after.dtype and before.dtype != after.dtype:
        asked = f"run with --vlm-dtype {before.dtype}, or {RENEW}"
        return ("dtype", f"precision {before.dtype} against {after.dtype}: {asked}")
    if None not in (before.seed, after.seed) and before.seed != after.seed:
        asked = f"run with --vlm-seed {before.seed}, or name a baseline of that seed"
        return ("seed", f"seed {before.seed} against {after.seed}, so other samples and draws: {asked}")
    if None not in (before.task_version, after.task_version) and before.task_version != after.task_version:
        versions = f"version {before.task_version} against {after.task_version}"
        return ("task_version", f"task {task} is another one, {versions}: {RENEW}")
    return None


def _samples(old: Measured, new: Measured) -> Reason | None:
    task, before = old.data["task"], old.where["quality"]
    counts = [len(one.ids) or int(one.data["n"]) + int(one.data["broken"]) for one in (old, new)]
    if counts[0] != counts[1] or (old.ids and new.ids and set(old.ids) != set(new.ids)):
        asked = f"run with --vlm-limit {before.limit} --vlm-seed {before.seed}"
        asked += "" if before.limit != new.where["quality"].limit else f", or {RENEW}"
        return ("samples", f"task {task} has other samples, {counts[0]} against {counts[1]}: {asked}")
    if old.prompts and new.prompts and old.prompts != new.prompts:
        return ("samples", f"task {task} asks other questions of the same samples: {RENEW}")
    if old.data["metric"] != new.data["metric"]:
        return ("metric", f"task {task} is scored by {new.data['metric']}, before by {old.data['metric']}: {RENEW}")
    profiles = [one.data.get("profile") or FIXED for one in (old, new)]
    if profiles[0] != profiles[1]:
        asked = f"run with --vlm-scoring {profiles[0]}, or {RENEW}"
        return ("profile", f"answers to {task} were scored by the profile {profiles[0]}, now by {profiles[1]}: {asked}")
    return _judges(old, new)


def _judges(old: Measured, new: Measured) -> Reason | None:
    before, after = (one.data.get("judged") or {} for one in (old, new))
    task = old.data["task"]
    if not (before and after):
        return None
    if before["judge"] != after["judge"]:
        asked = f"ask the same judge, or {RENEW}"
        return ("judge", f"answers to {task} were marked by {before['judge']}, now by {after['judge']}: {asked}")
    if before["prompt_sha256"] != after["prompt_sha256"]:
        return ("judge", f"the judge of {task} is asked in other words now: {RENEW}")
    return None


def _timings(old: Measured, new: Measured, part: str) -> Reason | None:
    before, after = (one.engines.get(part, "").partition(" @ ")[0] for one in (old, new))
    if before and after and before != after:
        return ("engine", f"{part} was timed on engine {before}, now on {after}: {RENEW}")
    lengths = [_counted(one, "prompt_tokens", 0) for one in (old, new)]
    if all(lengths) and lengths[0] != lengths[1]:
        asked = f"run with --vlm-prompt {lengths[0]}, or {RENEW}"
        return ("prompt", f"{part} was timed on a prompt of {lengths[0]:,} tokens, now of {lengths[1]:,}: {asked}")
    batches = [_counted(one, "batch", 1) for one in (old, new)]
    if part == "decode" and batches[0] != batches[1]:
        asked = f"run with --vlm-batch {batches[0]}, or {RENEW}"
        return ("batch", f"decode was also timed at batch {batches[0]}, now at {batches[1]}: {asked}")
    return None


def _counted(one: Measured, name: str, absent: int) -> int:
    cost = one.data["costs"].get(name)
    return round(cost["median"]) if cost else absent
