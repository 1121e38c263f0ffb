"""What published benchmarks share: a declared source, a seeded subset, rows that become samples when they are asked."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from effivlm.data.pictures import picture
from effivlm.data.rows import Row, Rows, open_rows
from effivlm.data.seen import check_ids, check_rows
from effivlm.data.source import Source
from effivlm.data.subset import subset
from effivlm.metrics.categories import grouped, mean_of_means
from effivlm.metrics.choice import letter
from effivlm.records import Answer, Reported, Sample
from effivlm.tasks._base import Lazy, Scores, Task

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
LETTERS = "ABCDEFGHIJ"
PLACE = "_place"
"""The key under which a row says where it stands in its set."""


class Benchmark(Task):
    """One published benchmark.

    A subclass declares its `source`, the columns that `index` the set (those that `name`, `together` and `stratum` look at), and
    turns a row into a prompt, references and pictures. Answers end at the model's end token and nowhere else; the official
    harness of some families also cuts at a blank line, which is no rule of any benchmark.

    `chance` is what guessing scores and `dense` what the paper (arXiv 2506.00479) prints for the uncompressed models, both on
    the published scale; `comparable` says whether a score here may stand beside the paper's: where it begins with "yes", a
    report lays the printed one over it. `group` 2 says that samples depend on each other: their ids are alike up to the last
    hyphen, however many they are.

    Homes, splits and the columns that are asked or scored are those that public code reads (lmms-eval's tasks, and the paper's
    fork of them). Numbers of rows, and columns that only say which samples belong together (DocVQA's `docId`, POPE's
    `image_source` ...), come from cards and statistics of the sets. None of the sets could be loaded where these files were
    written, so every load checks them and refuses by name what differs; and no commit is pinned that nobody has seen: the one
    that the hub names is recorded when a set is fetched, and stands in every outcome.
    """

    source: ClassVar[Source]
    index: ClassVar[tuple[str, ...]] = ()
    chance: ClassVar[float] = 0.0
    dense: ClassVar[Mapping[str, float]] = {}
    comparable: ClassVar[str] = "not in the paper"
    jointly: ClassVar[bool] = False
    """Whether samples of one group are scored together, and not only drawn together."""

    def __init__(self) -> None:
        self.rows: Rows | None = None
        self.known: dict[str, Row] = {}

    @property
    def title(self) -> str:
        """The task's name: that of its file."""
        return type(self).__module__.rpartition(".")[2]

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        """The samples of a seeded subset; whole groups, every stratum, so that the score keeps its definition.

        Unlike the micro tasks, seed 0 is a draw like any other: most sets stand in blocks of one category.

        Raises:
            ValueError: the set is not there, or is not the one that was declared.
        """
        rows = open_rows(self.title, self.source, self.data)
        asked = [(row, item) for row in self._indexed(rows) if self.wanted(row) for item in self.items(row)]
        ids = self._ids(asked)
        check_ids(self.title, self.source, ids, rows.origin)
        keys = [(self.together(row) or one, self.stratum(row)) for one, (row, _) in zip(ids, asked, strict=True)]
        places = subset(keys, limit, seed)
        chosen = [(ids[place], *asked[place]) for place in places]
        self.rows = rows
        self.known = {one: row for one, row, _ in chosen}
        rows.choose([row[PLACE] for _, row, _ in chosen])

        def make(number: int) -> Sample:
            one, row, item = chosen[number]
            return self.sample(one, {**rows[row[PLACE]], PLACE: row[PLACE]}, item)

        return Lazy(len(chosen), make)

    def samples_from(self) -> str:
        if self.rows is None:
            return ""
        return self.rows.version or f"a folder of {self.source.home}, which tells no commit"

    def fallen(self, unread: Sequence[int]) -> set[int]:
        if not self.jointly:
            return set(unread)
        groups = [one.rpartition("-")[0] for one in self.known]
        torn = {groups[place] for place in unread}
        return {place for place, group in enumerate(groups) if group in torn}

    def _indexed(self, rows: Rows) -> list[Row]:
        index = rows.index(self.index)
        check_rows(self.title, self.source, len(index), rows.origin)
        return [{**row, PLACE: place} for place, row in enumerate(index)]

    def _ids(self, asked: Iterable[tuple[Row, Any]]) -> list[str]:
        """Ids in order; within a group the last part is what the row is called, or a running number."""
        counts: dict[str, int] = {}
        ids = []
        for row, item in asked:
            group, own = self.together(row), self.name(row, item)
            if not group:
                ids.append(own)
                continue
            counts[group] = counts.get(group, -1) + 1
            ids.append(f"{group}-{own.replace('-', '_') or counts[group]}")
        return ids

    def sample(self, one: str, row: Row, item: Any = None) -> Sample:
        """The sample of a row. Raises ValueError where a picture is missing or torn: that sample is broken, not the set."""
        images = tuple(picture(value, self.folder) for value in self.images(row)) if self.pictured else ()
        return Sample(one, self.prompt(row, item), self.references(row, item), images, facts=self.facts(row, item))

    @property
    def folder(self) -> Any:
        """What relative paths in rows start at."""
        return self.rows.folder if self.rows else None

    def wanted(self, row: Row) -> bool:
        """Whether an indexed row belongs to the benchmark."""
        return True

    def items(self, row: Row) -> Sequence[Any]:
        """The questions of one row, where it holds several."""
        return (None,)

    def name(self, row: Row, item: Any) -> str:
        """The id of a row, or its last part within a group; "" for a running number."""
        return ""

    def together(self, row: Row) -> str:
        """The group of a row ("" where it stands alone): what is scored together, or shows one picture."""
        return ""

    def stratum(self, row: Row) -> str:
        """The part of the benchmark that a row counts in, where the score is a mean over parts."""
        return ""

    def counts_in(self, row: Row) -> str:
        """The part of the benchmark that a row counts in, the finest one of which a score is reported."""
        return self.stratum(row)

    def reported(self, part: str) -> Sequence[str]:
        """The names under which the benchmark reports a part beside its score, () where it does not."""
        return ()

    def part(self, one: str) -> str:
        return self.counts_in(self.known[one]) if one in self.known else ""

    def parts(self, answers: Sequence[Answer]) -> Mapping[str, Reported]:
        """The score of each name that `reported` knows, averaged as the benchmark's own is."""
        found: dict[str, list[Answer]] = {}
        for one in answers:
            for name in self.reported(one.part):
                found.setdefault(name, []).append(one)
        return {name: self._reported(found[name]) for name in sorted(found)}

    def _reported(self, answers: Sequence[Answer]) -> Reported:
        scores = [one.score for one in answers if one.score is not None]
        keys = {"groups": [one.id.rpartition("-")[0] for one in answers], "parts": [one.part for one in answers]}
        mean = mean_of_means(scores, keys.get(self.average, [""] * len(scores)))
        of = tuple(grouped(scores, [one.part for one in answers]))
        return Reported(mean, self.part_scale(of, len(scores)), len(scores), of)

    def part_scale(self, of: Sequence[str], n: int) -> float:
        """The factor to the published scale of a score of `n` answers in the parts `of`."""
        return 100.0

    @abstractmethod
    def prompt(self, row: Row, item: Any) -> str:
        """The text of the user's turn."""

    @abstractmethod
    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        """Accepted answers."""

    def images(self, row: Row) -> Sequence[Any]:
        """The row's encoded pictures, in the order of the prompt."""
        return (row["image"],)

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        """What the scorer needs beside references."""
        return {}


class Choice(Benchmark):
    """A benchmark whose answer is the letter of an option; an answer that names none, or more than one, is wrong.

    No letter is drawn at random and no judge is asked: such an answer is invalid, which a report counts.
    """

    def options(self, row: Row) -> Sequence[str]:
        """The texts of the options, in order."""
        raise NotImplementedError

    def facts(self, row: Row, item: Any) -> dict[str, Any]:
        return {"options": dict(zip(LETTERS, self.options(row), strict=False))}

    def read(self, text: str, sample: Sample) -> str:
        """The letter of the option that is named, "" where none is, or several are."""
        return letter(text, options=sample.facts["options"]) or ""


def listed(options: Sequence[str]) -> str:
    """Options one a line, "A. cat"."""
    return "\n".join(f"{mark}. {text}" for mark, text in zip(LETTERS, options, strict=False))


def numbered(row: Row, question: str) -> str:
    """An id for sets that have none: the place in the set, and a mark of the question, so that moved rows are seen."""
    mark = hashlib.sha256(question.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{row[PLACE]:06d}_{mark}"


def by_part(known: Mapping[str, Row], ids: Sequence[str], scores: Sequence[float], part: Any) -> float:
    """Mean over parts of the mean scores in each; `part` names the part of a row."""
    return mean_of_means(scores, [part(known[one]) for one in ids])


def together_all(ids: Sequence[str], scores: Scores, rule: Any) -> list[float | None]:
    """Scores by a rule over each group, whatever its size; a group with a missing score has none at all."""
    places: dict[str, list[int]] = {}
    for place, one in enumerate(ids):
        places.setdefault(one.rpartition("-")[0], []).append(place)
    settled: list[float | None] = [None] * len(ids)
    for group in places.values():
        known = [score for place in group if (score := scores[place]) is not None]
        if len(known) == len(group):
            for place, score in zip(group, rule(known), strict=True):
                settled[place] = score
    return settled
