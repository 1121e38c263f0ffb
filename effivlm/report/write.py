"""A run folder's report.json and report.html, made from its outcomes.jsonl alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from effivlm.records import dump
from effivlm.report.collector import paused
from effivlm.report.document import build, read
from effivlm.report.page import render
from effivlm.report.samples import Facts, changed

OUTCOMES = "outcomes.jsonl"


class Unwritten(OSError):
    """A file of a report could not be written; `document` is the report all the same, for whoever can show it."""

    def __init__(self, error: OSError, document: dict[str, Any]) -> None:
        super().__init__(error.errno, error.strerror or str(error), error.filename)
        self.document = document


@paused()
def write(run_folder: Path | str) -> dict[str, Any]:
    """Write report.json and report.html beside outcomes.jsonl and return the document.

    Each file appears whole or not at all. Raises OSError where the folder cannot be read, Unwritten where it cannot be
    written, ValueError where outcomes.jsonl is of another schema.
    """
    folder = Path(run_folder)
    source = folder / OUTCOMES
    beside = Facts()
    header, outcomes, end = read(source, beside.add)
    document = build(header, outcomes, end)
    page = render(document, changed(outcomes, beside), title=folder.resolve().name)
    try:
        _replace(folder / "report.json", dump(document) + "\n")
        _replace(folder / "report.html", page)
    except OSError as error:
        raise Unwritten(error, document) from error
    return document


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8", "replace"))  # half a surrogate pair in an answer has no UTF-8 form
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
