"""A user's own set without any code: a folder of pictures and one file of questions (`--vlm-tasks NAME=DIR`)."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from effivlm.data.pictures import picture
from effivlm.data.source import ids_hash
from effivlm.data.subset import subset
from effivlm.metrics.anls import anls, anls_pages
from effivlm.metrics.choice import letter, listed_options
from effivlm.metrics.contains import contains
from effivlm.metrics.exact import exact_match
from effivlm.metrics.lines import line_f1
from effivlm.metrics.mme import yes_no
from effivlm.metrics.relaxed import relaxed_accuracy
from effivlm.metrics.validity import ANSWER_TYPES
from effivlm.metrics.vqa_accuracy import vqa_accuracy
from effivlm.metrics.words import word_recall
from effivlm.records import Sample
from effivlm.tasks._base import Lazy, Task

Scorer = Callable[[str, Sample], float]
INFO = "task.json"
KEYS = ("metric", "answer_type", "max_new_tokens", "instruction", "scale")
ENCODING = "utf-8-sig"  # UTF-8, with or without the mark that some editors put in front


def _of_text(score: Callable[[str, Sequence[str]], float]) -> Scorer:
    return lambda text, sample: score(text, sample.references)


def _yes_no(text: str, sample: Sample) -> float:
    return float(yes_no(text) in {reference.strip().lower() for reference in sample.references})


def _choice(text: str, sample: Sample) -> float:
    """The letter that is named, of the options that the question lists one a line ("A. cat")."""
    found = letter(text, options=listed_options(sample.prompt) or None)
    return float(found in {reference.strip().upper() for reference in sample.references})


METRICS: Mapping[str, tuple[Scorer, str]] = {
    "anls": (_of_text(anls), "short"),
    "anls_pages": (_of_text(anls_pages), "short"),
    "relaxed_accuracy": (_of_text(relaxed_accuracy), "number"),
    "vqa_accuracy": (_of_text(vqa_accuracy), "short"),
    "contains": (_of_text(contains), "ocr"),
    "word_recall": (_of_text(word_recall), "ocr"),
    "exact_match": (_of_text(exact_match), "short"),
    "line_f1": (_of_text(line_f1), "free"),
    "yes_no": (_yes_no, "yes_no"),
    "choice": (_choice, "choice"),
}
"""Scorers that a row or a set may name, and the type of their answers."""

_ALLOWED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "metric": (lambda value: value in tuple(METRICS), f"one of {', '.join(METRICS)}"),
    "answer_type": (lambda value: value in ANSWER_TYPES, f"one of {', '.join(ANSWER_TYPES)}"),
    "max_new_tokens": (lambda value: type(value) is int and value > 0, "a whole number of at least 1"),
    "instruction": (lambda value: isinstance(value, str), "a text"),
    "scale": (
        lambda value: type(value) in (int, float) and value > 0 and math.isfinite(value),
        "a number above 0",
    ),
}
"""What `task.json` may say under each key, and the same in words."""


class Folder(Task):
    """Questions about pictures in a folder: one `*.jsonl` file, a JSON object for each question.

    Its keys: `image` or `images` (a path or a list of paths from the folder, `[]` for no picture), `question`, `answers` (a
    list, or one text as `answer`), `metric` (one of `METRICS`; may stand in `task.json` instead), and, if wanted, `id`.
    `task.json` may hold what holds for all rows: `metric`, `instruction` (put behind each question), `max_new_tokens`,
    `answer_type`, `scale`.
    """

    metric: ClassVar[str] = "own"
    answer_type: ClassVar[str] = "short"

    def __init__(self, name: str, folder: str) -> None:
        self.name, self.place = name, Path(folder).expanduser()
        self._info = self._read_info()
        self._rows = self._read_rows()
        kinds = {str(row["metric"]) for row in self._rows}
        self._set(kinds)

    def _set(self, kinds: set[str]) -> None:
        """What holds for this set alone, in the place of class attributes."""
        one = next(iter(kinds)) if len(kinds) == 1 else ""
        own: dict[str, Any] = {"metric": one or "mixed", "answer_type": METRICS[one][1] if one else "short"}
        for key, value in {**own, **{key: self._info[key] for key in KEYS[1:] if key in self._info}}.items():
            setattr(self, key, value)

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        pictures = [json.dumps(self._paths(row)) for row in self._rows]
        places = subset([(one, "") for one in pictures], limit, seed)
        return Lazy(len(places), lambda number: self._sample(self._rows[places[number]]))

    def score(self, text: str, sample: Sample) -> float:
        return METRICS[str(sample.facts["metric"])][0](text, sample)

    def identity(self) -> str:
        rows = [json.dumps(row, sort_keys=True) for row in self._rows]
        paths = sorted({path for row in self._rows for path in self._paths(row)})
        return ids_hash([*rows, json.dumps(self._info, sort_keys=True), *map(self._digest, paths)])

    def _digest(self, path: str) -> str:
        if not (self.place / path).is_file():
            return f"{path} is missing"
        with (self.place / path).open("rb") as file:
            return f"{path} {hashlib.file_digest(file, 'sha256').hexdigest()}"

    def _sample(self, row: Mapping[str, Any]) -> Sample:
        images = tuple(picture(path, self.place) for path in self._paths(row))
        prompt = row["question"] + str(self._info.get("instruction", ""))
        return Sample(row["id"], prompt, tuple(row["answers"]), images, facts={"metric": row["metric"]})

    @staticmethod
    def _paths(row: Mapping[str, Any]) -> list[str]:
        given: str | list[str] = row["images"] if "images" in row else row["image"]
        return [given] if isinstance(given, str) else given

    def _read_info(self) -> dict[str, Any]:
        if not self.place.is_dir():
            raise ValueError(f"task {self.name!r}: {self.place} is no folder")
        path = self.place / INFO
        info = _parsed(_text(path), str(path)) if path.exists() else {}
        if odd := sorted(set(info) - set(KEYS)):
            raise ValueError(f"{path}: unknown key {odd[0]!r}; known: {', '.join(KEYS)}")
        for key, value in info.items():
            fits, wanted = _ALLOWED[key]
            if not fits(value):
                raise ValueError(f"{path}: {key} {value!r} is not {wanted}")
        return info

    def _read_rows(self) -> list[dict[str, Any]]:
        files = sorted(self.place.glob("*.jsonl"))
        if len(files) != 1:
            found = ", ".join(path.name for path in files) or "none"
            raise ValueError(f"task {self.name!r}: {self.place} must hold one *.jsonl file of questions, found {found}")
        rows: list[dict[str, Any]] = []
        seen = set()
        for number, line in enumerate(_text(files[0]).split("\n"), 1):
            if not line.strip():
                continue
            row = self._checked(_parsed(line, where := f"{files[0]}:{number}"), where, len(rows))
            if row["id"] in seen:
                raise ValueError(f"{where}: the id {row['id']!r} stands twice")
            seen.add(row["id"])
            rows.append(row)
        if not rows:
            raise ValueError(f"task {self.name!r}: {files[0]} holds no question")
        return rows

    def _checked(self, row: dict[str, Any], where: str, place: int) -> dict[str, Any]:
        row.setdefault("metric", self._info.get("metric"))
        if "answers" not in row and isinstance(row.get("answer"), str):
            row["answers"] = [row["answer"]]
        metric, answers = row["metric"], row.get("answers")
        if metric not in tuple(METRICS):  # it may be a list, which no mapping takes
            raise ValueError(f"{where}: metric {metric!r} is not one of {', '.join(METRICS)}")
        if not isinstance(row.get("question"), str) or not row["question"].strip():
            raise ValueError(f"{where}: 'question' must be a text")
        if not isinstance(answers, list) or not answers or not all(isinstance(one, str) for one in answers):
            raise ValueError(f"{where}: 'answers' must be a list of texts with at least one")
        given = [row[key] for key in ("image", "images") if key in row]
        paths = given[0] if len(given) == 1 and isinstance(given[0], list) else given
        if len(given) != 1 or not all(isinstance(path, str) and path for path in paths):
            raise ValueError(
                f"{where}: 'image' must be a path, or 'images' a list of paths ([]: no picture), one of both"
            )
        row["id"] = _id(row, place)
        return row


def _id(row: Mapping[str, Any], place: int) -> str:
    """The row's own id, made unique by its suite and picture where a set has several of them; else its place."""
    if row.get("id") is None:
        return f"{place:06d}"
    return "/".join(str(part) for part in (row.get("suite"), row["id"]) if part is not None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding=ENCODING)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not written in UTF-8 ({error})") from None


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not readable JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{where} must hold a JSON object")
    return found
