"""Every table of a document as CSV, Markdown and LaTeX; column names carry their units, the same document the same bytes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effivlm.report import grids
from effivlm.report.columns import FURTHER, PRINTED, Columns, Path_
from effivlm.report.costs import BESIDE, FLOORS, SPEEDUPS

Row = Sequence[Any]
_SETTING: Columns = {
    "models": ("models",),
    "tasks": ("tasks",),
    "method": ("method",),
    "preset": ("preset",),
    "keep_fraction": ("keep",),
    "set": ("set",),
}
_ENDS: Columns = {"low": ("interval", "0"), "high": ("interval", "1")}
_COUNTS: Columns = {"pairs_count": ("n",), "undefined_count": ("undefined",)}
_NAME: Columns = {
    "cell": ("id",),
    "model": ("model",),
    "method": ("method",),
    "preset": ("preset",),
    "keep_fraction": ("keep",),
    "task": ("task",),
}


def _value(unit: str) -> Columns:
    return {unit: ("value",), **{f"{unit}_{end}": path for end, path in _ENDS.items()}, **_COUNTS}


def _timed(word: str, cost: str) -> Columns:
    return {
        f"{word}_speedup_ratio": ("speedups", word, "value"),
        f"{word}_speedup_ratio_low": ("speedups", word, "interval", "0"),
        f"{word}_speedup_ratio_high": ("speedups", word, "interval", "1"),
        f"median_{cost}": ("costs", cost, "median"),
        f"low_{cost}": ("costs", cost, "interval", "0"),
        f"high_{cost}": ("costs", cost, "interval", "1"),
        f"{word}_untrusted": ("trust", word, "untrusted"),
        f"{word}_dense_untrusted": ("trust", word, "against"),
        f"{word}_unsettled": ("trust", word, "unsettled"),
    }


_MISSING: Columns = {
    **_NAME,
    "part": ("part",),
    "status": ("status",),
    "reason": ("reason",),
    "kept_fraction": ("achieved", "keep"),
}
_FLIPS = ("right_to_wrong", "wrong_to_right", "both_right", "both_wrong_same", "both_wrong_different")
TABLES: Mapping[str, Columns] = {
    "op": {
        **_SETTING,
        **_value("op_ratio"),
        "mean_ratio": ("mean",),
        "control": ("control", "method"),
        "control_difference_ratio": ("control", "difference"),
        "control_difference_ratio_low": ("control", "interval", "0"),
        "control_difference_ratio_high": ("control", "interval", "1"),
        "control_verdict": ("control", "verdict"),
    },
    "og": {**_SETTING, "over": ("over",), **_value("og_percent")},
    "ol": {**_SETTING, **_value("ol_share"), "noise_share": ("noise",)},
    "oe": {**_SETTING, "of": ("of",), **_value("speedup_ratio")},
    "pareto": {
        **_SETTING,
        **_value("op_ratio"),
        "budget_of": ("budget_of",),
        "cache_share_of_dense": ("costs", "kv"),
        **{f"{word}_speedup_ratio": ("costs", word) for word in SPEEDUPS},
        "front": ("front",),
    },
    "cells": {
        **_NAME,
        "metric": ("metric",),
        "samples_count": ("n",),
        "broken_count": ("broken",),
        "invalid_count": ("invalid", "count"),
        "invalid_share": ("invalid", "rate"),
        "scoring_profile": ("profile",),
        "samples_from": ("samples_from",),
        "score_fraction": ("score",),
        "score_fraction_low": ("interval", "0"),
        "score_fraction_high": ("interval", "1"),
        "published_scale_factor": ("scale",),
        "op_ratio": ("ratio",),
        "op_ratio_low": ("ratio_interval", "0"),
        "op_ratio_high": ("ratio_interval", "1"),
        "difference_fraction": ("paired", "difference"),
        "sign_test_p": ("paired", "p"),
        "difference_p": ("paired", "mean_p"),
        "difference_q": ("paired", "q"),
        "detectable_difference_fraction": ("paired", "detectable"),
        "control": ("control", "method"),
        "control_difference_fraction": ("control", "difference"),
        "control_difference_fraction_low": ("control", "interval", "0"),
        "control_difference_fraction_high": ("control", "interval", "1"),
        "control_q": ("control", "q"),
        "control_verdict": ("control", "verdict"),
        "same_as_dense_share": ("loyalty", "same"),
        "exact_as_dense_share": ("loyalty", "exact"),
        "score_agreement_share": ("loyalty", "score_agreement"),
        "soft_rouge_l_f1": ("loyalty", "soft"),
        "common_prefix_share": ("loyalty", "prefix"),
        "forced_token_share": ("loyalty", "forced"),
        "kl_nats": ("loyalty", "kl", "value"),
        "kl_nats_low": ("loyalty", "kl", "interval", "0"),
        "kl_nats_high": ("loyalty", "kl", "interval", "1"),
        "kl_positions_count": ("loyalty", "kl", "positions"),
        "kl_rest_share": ("loyalty", "kl", "rest"),
        "kappa": ("loyalty", "kappa"),
        **{f"{flip}_count": ("loyalty", "flips", flip) for flip in _FLIPS},
        "noise_same_share": ("noise", "same"),
        "budget_of": ("achieved", "of"),
        "asked_keep_fraction": ("achieved", "asked_keep"),
        "asked": ("achieved", "asked"),
        "counted": ("achieved", "counted"),
        "kept_fraction": ("achieved", "keep"),
        "kv_bytes": ("achieved", "kv_bytes"),
        "kv_bytes_dense": ("achieved", "kv_bytes_dense"),
        "median_weight_bytes": ("costs", "weight_bytes", "median"),
        "median_peak_memory_bytes": ("costs", "peak_memory_bytes", "median"),
        **{column: path for word, cost in SPEEDUPS.items() for column, path in _timed(word, cost).items()},
        **{f"median_{cost}": ("costs", cost, "median") for cost in (*FLOORS.values(), *BESIDE)},
        **{f"{word}_limit": ("why", word, "text") for word in SPEEDUPS},
        "engine": ("engine",),
        "kernel": ("kernel",),
        "weights": ("weights",),
        "remarks": ("remarks",),
    },
    **FURTHER,
    "refused": {"table": ("table",), "reason": ("reason",), "select": ("select",)},
    "skipped": _MISSING,
    "failed": _MISSING,
}


def tables(document: Mapping[str, Any]) -> dict[str, list[Row]]:
    """All tables by name, each as rows of values, the first row its column names; None where there is no value."""
    lists = {name: document.get(name, []) for name in ("cells", *FURTHER, "skipped", "failed")}
    sources = {**document["summary"], **lists}
    return {
        name: [list(columns), *([_at(row, path) for path in columns.values()] for row in sources.get(name, []))]
        for name, columns in TABLES.items()
        if name not in FURTHER or sources[name]
    }


def export(document: Mapping[str, Any], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every table in each of `formats` (csv, md, latex) into `folder`; returns the files in order.

    In LaTeX cells stand as method x task tables, one for each model, and tables that only some runs have hold what fits a page.

    Raises ValueError for another format, OSError where the folder cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"{name!r} is no format of tables; choose from: {', '.join(FORMATS)}")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for format_ in dict.fromkeys(formats):
        suffix, form = FORMATS[format_]
        for name, rows in tables(document).items():
            path = folder / f"{name}.{suffix}"
            printed = _printed(name, rows) if format_ == "latex" else rows
            text = paper_tables(document) if (format_, name) == ("latex", "cells") else form(printed)
            path.write_bytes(text.encode("utf-8", "replace"))
            written.append(path)
    return written


def _printed(name: str, rows: Sequence[Row]) -> Sequence[Row]:
    """Those columns of a table that a paper has room for."""
    wanted = PRINTED.get(name, rows[0])
    places = [place for place, column in enumerate(rows[0]) if column in wanted]
    return [[row[place] for place in places] for row in rows]


def paper_tables(document: Mapping[str, Any]) -> str:
    """Cells as papers print them, methods by tasks: a table of a column for each fact of a cell fits no page."""
    return "\n".join(grids.to_latex(grid, _latex) for grid in grids.grids(document))


def _at(row: Any, path: Path_) -> Any:
    """What stands at a path of keys and places; None where any step is missing."""
    for step in path:
        if isinstance(row, Mapping):
            row = row.get(step)
        elif isinstance(row, Sequence) and not isinstance(row, str) and step.isdigit() and int(step) < len(row):
            row = row[int(step)]
        else:
            return None
    return row


def _text(value: Any) -> str:
    """A value as one line: lists joined, numbers short enough to read back equal, control characters as "?"."""
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    line = re.sub(r"\s+", " ", str(value))
    return "".join(char if char.isprintable() else "?" for char in line)


def to_csv(rows: Sequence[Row]) -> str:
    """RFC 4180 lines; a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    for row in rows:
        writer.writerow(_harmless(_text(value)) if _is_text(value) else _text(value) for value in row)
    return file.getvalue()


def _is_text(value: Any) -> bool:
    return not isinstance(value, int | float)


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def to_markdown(rows: Sequence[Row]) -> str:
    """A pipe table; nothing in a cell is read as Markdown or HTML."""
    lines = [f"| {' | '.join(_markdown(_short(value)) for value in row)} |" for row in rows]
    ruler = "|" + "|".join(" --- " for _ in rows[0]) + "|"
    return "\n".join([lines[0], ruler, *lines[1:]]) + "\n"


def _markdown(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#+!|~$])", r"\\\1", text)


def _short(value: Any) -> str:
    """Numbers with five digits: these two forms are read by people."""
    return f"{value:.5g}" if isinstance(value, float) else _text(value)


def to_latex(rows: Sequence[Row]) -> str:
    """A tabular of LaTeX alone (no package), numbers right-aligned."""
    body = rows[1:]
    right = [any(isinstance(row[place], int | float) for row in body) for place in range(len(rows[0]))]
    lines = [" & ".join(_latex(_short(value)) for value in row) + r" \\" for row in rows]
    columns = "".join("r" if is_number else "l" for is_number in right)
    return "\n".join([rf"\begin{{tabular}}{{{columns}}}", r"\hline", lines[0], r"\hline", *lines[1:], END_OF_TABLE])


END_OF_TABLE = "\\hline\n\\end{tabular}\n"
_SPECIAL = {
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after a line's end it would be read as an argument
    "]": "{]}",
}


def _latex(text: str) -> str:
    return "".join(_SPECIAL.get(char, char) for char in text)


FORMATS: Mapping[str, tuple[str, Callable[[Sequence[Row]], str]]] = {
    "csv": ("csv", to_csv),
    "md": ("md", to_markdown),
    "latex": ("tex", to_latex),
}
