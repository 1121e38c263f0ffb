"""What a task is: samples, a prompt form, a metric, and how answers are compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

from effivlm.metrics import normalise, validity
from effivlm.metrics.choice import listed_options
from effivlm.metrics.profiles import FIXED, Profile
from effivlm.records import Answer, Reported, Sample

Scores = Sequence[float | None]


class Task(ABC):
    """One benchmark. A subclass is one file; its literal class attributes are read without importing it.

    `metric` names the score's definition in the report, `answer_type` (choice, yes_no, number, short, ocr, free) decides when
    two answers count as the same, `scoring` (exact, rule, judge, proxy) says how a score comes to be, `scale` is the factor to
    the benchmark's published scale, `group` is how many consecutive samples are scored together. `pixels` and `tiles` limit each
    picture where the benchmark's published numbers did (0: the model's own limits), unless the run names others.

    `rubric` names what a judge is asked about the answers (`judging.rubrics`); it marks them once all are given, and `score` is
    not asked.

    `elsewhere` names who scores the answers where nobody here can: they are stored, and `exported` is what is handed in.

    `profiles` are the ways of scoring that a task knows: `fixed`, the rule that is meant, and `compat`, the paper's code with its
    quirks, where that is known. `average` says what the score is a mean over: the samples' scores, those of "groups" (samples
    scored together count once), or "parts" (each part of the benchmark counts alike); a report makes its interval of it.

    A run sets `profile` (one of `profiles`: `asked_profile` where the task knows it), `data`, where published sets lie (the
    folder of a mirror, "stream", or "" for what was fetched and the hub), and `family`, the family file of the model that
    answers ("" where nobody does): how many frames a video has may depend on it.
    Without `pictured`, samples may come without pictures: answers are only scored again.
    """

    metric: ClassVar[str]
    answer_type: ClassVar[str]
    scoring: ClassVar[str] = "rule"
    scale: ClassVar[float] = 100.0
    max_new_tokens: ClassVar[int] = 32
    version: ClassVar[int] = 1
    group: ClassVar[int] = 1
    pixels: ClassVar[int] = 0
    tiles: ClassVar[int] = 0
    rubric: ClassVar[str] = ""
    elsewhere: ClassVar[str] = ""
    profiles: ClassVar[tuple[str, ...]] = ("fixed",)
    average: ClassVar[str] = "samples"
    profile: Profile = FIXED
    asked_profile: str = FIXED
    data: str = ""
    family: str = ""
    pictured: bool = True

    @abstractmethod
    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        """The first `limit` held-out samples of the subset that `seed` fixes (seed 0: the benchmark's own order).

        Whole groups: where samples are scored together, `limit` is rounded up to the next multiple of `group`.
        """

    @abstractmethod
    def score(self, text: str, sample: Sample) -> float:
        """Score of one answer in [0, 1]; the higher the better."""

    def extract(self, text: str) -> str:
        """The part of the answer that is scored."""
        return text.strip()

    def read(self, text: str, sample: Sample) -> str:
        """As `extract`, of an answer to a question that is known."""
        return self.extract(text)

    def invalid(self, text: str, sample: Sample) -> bool:
        """Whether an answer says nothing that can be scored: no single option, neither yes nor no, no number where one is
        asked, or nothing at all. It is wrong, and counted apart; no profile changes what counts as invalid."""
        kind, options = self.answer_type, sample.facts.get("options")
        if kind == "number" and any(normalise.number(one) is None for one in sample.references):
            kind = "short"  # a set of numbers and words: here a word is asked
        if not isinstance(options, Mapping):
            options = listed_options(sample.prompt) or None
        return validity.invalid(kind, text, options)

    def question(self, sample: Sample) -> str:
        """What a judge is told was asked: the prompt, or the part of it that is the benchmark's own."""
        return sample.prompt

    def settle(self, ids: Sequence[str], scores: Scores) -> list[float | None]:
        """The scores of all samples of one cell, in order, where they depend on each other; here they stand as they are.

        None is an answer that broke; a task with groups gives None to the rest of its group too.
        """
        return list(scores)

    def aggregate(self, scores: Sequence[float]) -> float:
        """Score of the task from its samples' scores, in [0, 1]."""
        return sum(scores) / len(scores)

    def overall(self, ids: Sequence[str], scores: Sequence[float]) -> float:
        """Score of the task from the scores of the samples named by `ids`; another than `aggregate` where it is a mean over
        parts of the benchmark."""
        return self.aggregate(scores)

    def total(self, answers: Sequence[Answer]) -> float:
        """As `overall`, of all answers that have a score; another where what they say counts too."""
        return self.overall([one.id for one in answers], [one.score for one in answers if one.score is not None])

    def part(self, one: str) -> str:
        """The part of the benchmark that the sample of this id counts in, "" where there are none."""
        return ""

    def parts(self, answers: Sequence[Answer]) -> Mapping[str, Reported]:
        """What the benchmark reports beside its score, by name, of all answers that have one."""
        return {}

    def fallen(self, unread: Sequence[int]) -> set[int]:
        """Places among the samples that have no score because those at `unread` could not be read, these among them."""
        groups = {place // self.group for place in unread}
        return {number * self.group + inner for number in groups for inner in range(self.group)}

    def exported(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
        """What is handed in of a cell's answers to whoever scores them `elsewhere`."""
        raise NotImplementedError

    def samples_from(self) -> str:
        """Which state of a published set the samples are of: its repository and commit, once they were asked; "" for others."""
        return ""

    def identity(self) -> str:
        """What beside the task's code decides its samples: the content of a folder, "" where there is nothing else."""
        return ""


def by_group(
    ids: Sequence[str], scores: Scores, size: int, rule: Callable[[Sequence[float]], list[float]]
) -> list[float | None]:
    """Scores by a rule over each group; ids of one group are alike up to their last hyphen ("task-000012-1").

    A group with a missing score has none at all.

    Raises:
        ValueError: a group of other than `size` samples, by its id.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(ids):
        places.setdefault(name.rpartition("-")[0], []).append(place)
    settled: list[float | None] = [None] * len(ids)
    for name, group in places.items():
        if len(group) != size:
            raise ValueError(f"{size} samples are scored together, but {len(group)} of {name!r} are here")
        known = [score for place in group if (score := scores[place]) is not None]
        if len(known) == size:
            for place, score in zip(group, rule(known), strict=True):
                settled[place] = score
    return settled


@dataclass(frozen=True, slots=True)
class Lazy(Sequence[Sample]):
    """`size` samples made when they are asked for, so that no more than one is held."""

    size: int
    make: Callable[[int], Sample]

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self.make(number) for number in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        return self.make(index % self.size)
