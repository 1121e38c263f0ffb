"""Columns of the tables that only some runs have: by name, where a value stands in a row of the document."""

from __future__ import annotations

from collections.abc import Mapping

from effivlm.records import SEAMS
from effivlm.report.costs import SPEEDUPS

Path_ = tuple[str, ...]
Columns = Mapping[str, Path_]


def _part(place: int) -> Columns:
    """A method of a composition by itself: no two work at one seam."""
    path = "parts", str(place)
    facts = {"": "method", "_preset": "preset", "_keep_fraction": "keep", "_op_ratio": "value"}
    return {f"part_{place + 1}{word}": (*path, fact) for word, fact in facts.items()}


_BYTES = ("disk_bytes", "disk_bytes_dense", "memory_bytes", "memory_bytes_dense")
FURTHER: Mapping[str, Columns] = {
    "parameters": {
        "model": ("model",),
        "method": ("method",),
        "preset": ("preset",),
        "asked": ("asked",),
        "counted": ("counted",),
        "counted_unit": ("unit",),
        "op_ratio": ("op", "value"),
        "op_ratio_low": ("op", "interval", "0"),
        "op_ratio_high": ("op", "interval", "1"),
        "tasks": ("op", "tasks"),
        "set": ("op", "set"),
        "ol_share": ("ol", "value"),
        "ol_share_low": ("ol", "interval", "0"),
        "ol_share_high": ("ol", "interval", "1"),
        "forced_token_share": ("forced",),
        "kl_nats": ("kl",),
        **{f"{word}_speedup_ratio": ("oe", word, "value") for word in SPEEDUPS},
        "read_by": ("product", "reading"),
        "speed": ("speed",),
        "packing": ("product", "packing"),
        **{word: ("product", word) for word in _BYTES},
        "engine": ("product", "engine"),
        "calibration": ("product", "calibration"),
        "calibration_samples_count": ("product", "samples"),
        "calibration_tokens": ("product", "tokens"),
        "calibration_fingerprint": ("product", "drawn"),
        "made_s": ("product", "seconds"),
    },
    "compositions": {
        "model": ("model",),
        "tasks": ("tasks",),
        "method": ("method",),
        "preset": ("preset",),
        "keep_fraction": ("keep",),
        "op_ratio": ("value",),
        "op_ratio_low": ("value_interval", "0"),
        "op_ratio_high": ("value_interval", "1"),
        **{column: path for place in range(len(SEAMS)) for column, path in _part(place).items()},
        "expected_op_ratio": ("expected",),
        "beyond_fraction": ("difference",),
        "beyond_fraction_low": ("interval", "0"),
        "beyond_fraction_high": ("interval", "1"),
        "better_count": ("better",),
        "worse_count": ("worse",),
        "beyond_p": ("mean_p",),
        "beyond_q": ("q",),
        "detectable_beyond_fraction": ("detectable",),
        "compared_count": ("n",),
        "verdict": ("verdict",),
    },
    "suites": {
        "suite": ("suite",),
        "suite_tasks_count": ("of",),
        "scored": ("scored",),
        "model": ("model",),
        "method": ("method",),
        "preset": ("preset",),
        "keep_fraction": ("keep",),
        "set": ("set",),
        "op_ratio": ("value",),
        "op_ratio_low": ("interval", "0"),
        "op_ratio_high": ("interval", "1"),
        "mean_ratio": ("mean",),
        "tasks_count": ("n",),
        "undefined_count": ("undefined",),
        "tasks": ("tasks",),
        "missing_tasks": ("missing",),
    },
    "judges": {
        "model": ("model",),
        "task": ("task",),
        "judge": ("judge",),
        "judge_models": ("models",),
        "rubric": ("rubric",),
        "prompt_sha256": ("prompt_sha256",),
        "cells_count": ("cells",),
        "marks_count": ("marks",),
        "missing_count": ("missing",),
        "noise_fraction": ("noise", "spread"),
        "noise_changed_share": ("noise", "changed"),
        "noise_answers_count": ("noise", "n"),
        "noise_repeats_count": ("noise", "repeats"),
        "second_judge": ("agreement", "judge"),
        "same_mark_share": ("agreement", "same"),
        "mean_mark_difference": ("agreement", "difference"),
        "both_marked_count": ("agreement", "n"),
        "pairs_within_noise_count": ("pairs", "within"),
        "pairs_count": ("pairs", "of"),
    },
}
"""Tables that stand in a document beside its summary, and are there only where a run has what they are about."""
_WHO = ("model", "method", "asked", "keep_fraction", "op_ratio", "op_ratio_low", "op_ratio_high")
PRINTED: Mapping[str, tuple[str, ...]] = {
    "parameters": (*_WHO, "counted", "ol_share", "kl_nats", "disk_bytes", "disk_bytes_dense", "read_by"),
    "compositions": (*_WHO, "tasks", "expected_op_ratio", "beyond_fraction", "beyond_q", "verdict"),
    "suites": ("suite", "suite_tasks_count", "scored", *_WHO, "tasks_count"),
    "judges": (
        "task",
        "judge",
        "missing_count",
        "noise_fraction",
        "same_mark_share",
        "pairs_within_noise_count",
        "pairs_count",
    ),
}
"""Of each, the columns that stand in LaTeX: all of them fit no page."""
