"""What goes wrong in code of authors (methods, tasks, scorers), told so that they find the place."""

from __future__ import annotations

from asyncio import CancelledError
from pathlib import PurePath
from traceback import FrameSummary, extract_tb
from types import TracebackType

FAULTS = (Exception, SystemExit, GeneratorExit, CancelledError)
"""What fails one cell or one sample alone: also what is no `Exception`, such as the end of an author's own event loop. An
interrupt from the keyboard is none of it, and neither is what pytest ends a test by."""
FRAMES = 3
LONGEST = 500  # characters of a message
OURS = PurePath(__file__).parent


class Ill(ValueError):
    """What a task or method gave back is not what it may give; the message is the whole of it."""


def told(error: BaseException) -> str:
    """Kind and message of an error, and the last calls that led to it, innermost first: "at snapkv.py:12 in select <- ...".

    Half a surrogate pair stands escaped: a reason is printed, and sent from process to process, where it has no UTF-8 form.
    """
    kind = "" if isinstance(error, Ill) else f"{type(error).__name__}: "
    return harmless(f"{kind}{error}"[:LONGEST] + where(error.__traceback__))


def said(error: BaseException) -> str:
    """A plain ValueError or OSError is written for a reader, and is the whole of it; of anything else the place is half."""
    plain = isinstance(error, ValueError | OSError) and str(error)
    return harmless(str(error)[:LONGEST]) if plain else told(error)


def where(trace: TracebackType | None) -> str:
    """The calls below the run itself, as " (at <file>:<line> in <function> <- ...)"; "" where there are none."""
    frames = [*extract_tb(trace)]
    below = max((at for at, frame in enumerate(frames) if PurePath(frame.filename).parent == OURS), default=-1)
    theirs = frames[below + 1 :][-FRAMES:] or frames[-1:]
    return f" (at {' <- '.join(map(_place, reversed(theirs)))})" if theirs else ""


def _place(frame: FrameSummary) -> str:
    """File with the folder it stands in, so that no path of a machine is stored."""
    return f"{'/'.join(PurePath(frame.filename).parts[-2:])}:{frame.lineno} in {frame.name}"


def harmless(text: str) -> str:
    """The text with halves of surrogate pairs escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
