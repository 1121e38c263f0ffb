"""The records that travel through a run, one per arrow of the flow.

Options become `Cell`s, a task yields `Sample`s, a run turns both into `Answer`s and `Outcome`s, and the report is made of
outcomes alone. Everything stored is made of JSON types and reads back equal under `SCHEMA`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from effivlm.sample import Sample as Sample

SCHEMA = 1
STATUSES = ("ok", "failed", "unsupported", "interrupted")
PARTS = ("quality", "ttft", "decode")
SEAMS = ("image", "vision", "layer", "cache")  # where methods reach into the run of a sample, in its order
LONGEST = 60  # characters of a budget
SCORINGS = ("exact", "rule", "judge", "proxy")
HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair: text that was cut in the middle of a character holds it, and it has no UTF-8 form."""


class Unsupported(ValueError):
    """A (model, method, budget) that cannot exist; the message is the reason the report shows."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The fraction that stays, exact: 0 < keep <= 1.

    Built with `Budget.parse("0.10")`; a float would lose tokens (int(1000 * (1 - 0.9)) is 99).
    """

    keep: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(
                f"budget {float(self.keep):g} is not a fraction that stays: it must lie in (0, 1], e.g. 0.10"
            )

    @classmethod
    def parse(cls, text: str | float | Fraction) -> Budget:
        """Read a decimal such as "0.10"; ValueError names the text when it is no number in (0, 1]."""
        word = str(text).strip()
        try:
            # A long exponent is refused unread: the exact fraction of 1e-99999999 would fill the memory.
            if len(word) > LONGEST or re.search(r"[eE][+-]?0*\d{3}", word):
                raise ValueError
            keep = text if isinstance(text, Fraction) else Fraction(word)
        except (ValueError, ZeroDivisionError):
            shown = repr(text) if len(word) <= LONGEST else f"{word[:LONGEST]}..."
            raise ValueError(f"budget {shown} is not a number: it must be a decimal in (0, 1], e.g. 0.10") from None
        return cls(keep)

    def of(self, total: int, at_least: int = 1) -> int:
        """How many of `total` stay: rounded half up, never under `at_least`, never over `total`."""
        above, below = self.keep.numerator, self.keep.denominator  # whole numbers: methods ask this in every layer
        return min(total, max(at_least, (2 * above * total + below) // (2 * below)))

    @property
    def label(self) -> str:
        """The form in case ids: two decimals, more only where two would lie (0.10, 0.015)."""
        value = float(self.keep)
        return f"{value:.2f}" if Fraction(f"{value:.2f}") == self.keep else f"{value:.12g}"

    def __float__(self) -> float:
        return float(self.keep)


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One case: a model, a method with its preset, a budget and a task.

    `method` is one name, or a composition such as `fastv@effivlm:0.40+snapkv`, whose preset is "paper".
    """

    model: str
    method: str
    preset: str
    keep: str
    task: str

    @property
    def budget(self) -> Budget:
        return Budget.parse(self.keep)

    @property
    def dense(self) -> Cell:
        """The case that every other one of its group is compared with."""
        return Cell(self.model, "dense", "paper", "1.00", self.task)

    @property
    def group(self) -> tuple[str, str]:
        """Cells of one group share images, vision tower and prefill."""
        return (self.model, self.task)

    @property
    def id(self) -> str:
        """The case id, e.g. `micro_qwen2_vl-fastv-keep0.10-docvqa_micro`; other presets stand as `fastv@effivlm`."""
        method = self.method if self.preset == "paper" else f"{self.method}@{self.preset}"
        return f"{self.model}-{method}-keep{self.keep}-{self.task}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "keep": float(self.budget)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        if not isinstance(data, Mapping):
            raise ValueError("its cell is no object")
        _check_types("its cell", data, dict.fromkeys(("model", "method", "preset", "task"), str))
        return cls(**{**data, "keep": Budget.parse(data["keep"]).label})


@dataclass(frozen=True, slots=True)
class Answer:
    """What one cell said to one sample. `score` is None where `error` is set: a broken sample is no zero.

    `forced` is the share of dense's tokens, its end included, that the cell chooses too when it is fed dense's answer up to
    there. Dense alone has `again`, its answer under a harmless numeric change; its `forced` is that second run's.
    None: dense broke on this sample, or what was wanted could not be computed, which the outcome's remarks say.
    """

    id: str
    prompt_sha256: str
    text: str
    extracted: str
    score: float | None
    error: str = ""
    tokens: tuple[int, ...] = ()
    same_as_dense: bool | None = None
    exact_as_dense: bool | None = None
    common_prefix_tokens: int | None = None
    forced: float | None = None
    again: str | None = None
    again_tokens: tuple[int, ...] = ()
    prompt_tokens: int = 0
    visual_tokens: int = 0
    kept: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class KeptBy:
    """What one method of a composition kept of what the one before it left, summed over samples."""

    method: str
    of: str
    asked_keep: float
    kept: int
    total: int


@dataclass(frozen=True, slots=True)
class Achieved:
    """What was really kept, measured on tensors and summed over samples; `per_layer` is the mean kept count of each layer.

    `per_head` holds those of a layer's KV heads, for all layers, where heads differ; else it is empty.
    `parts` are the methods of a composition, which has the entries of the dense prompt in all layers as its `total`, and as
    `asked_keep` the budget of its case; empty for a method alone.
    """

    of: str
    asked_keep: float
    kept: int
    total: int
    keep: float
    per_layer: tuple[float, ...] = ()
    kv_bytes: int = 0
    kv_bytes_dense: int = 0
    visual_tokens: int = 0
    parts: tuple[KeptBy, ...] = ()
    per_head: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Achieved:
        parts = tuple(KeptBy(**part) for part in data.get("parts", ()))
        heads = tuple(tuple(layer) for layer in data.get("per_head", ()))
        return cls(**{**data, "per_layer": tuple(data["per_layer"]), "parts": parts, "per_head": heads})


@dataclass(frozen=True, slots=True)
class Cost:
    """Repeated measurements of one quantity; the unit stands in the name under which it is stored."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        ordered = sorted(self.rounds)
        middle = len(ordered) // 2
        return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """One measured part of one cell (quality, ttft or decode).

    `group`: answers that were scored together, by their ids; `scoring`: how a score comes to be (exact, rule, judge or proxy);
    `change`: the numeric change under which dense was asked `again`; `judged`: who marked the answers, by which prompt, and how
    far such marks can be trusted (`session.judged`), None where no judge did.
    """

    cell: Cell
    fingerprint: str
    status: str
    part: str = "quality"
    reason: str = ""
    n: int = 0
    broken: int = 0
    score: float | None = None
    metric: str = ""
    answer_type: str = ""
    scoring: str = "rule"
    scale: float = 100.0
    group: int = 1
    answers: tuple[Answer, ...] = ()
    achieved: Achieved | None = None
    costs: Mapping[str, Cost] = field(default_factory=dict)
    engine: str = ""
    kernel: str = ""
    weights: str = "trained"
    change: str = ""
    remarks: tuple[str, ...] = ()
    judged: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if self.part not in PARTS:
            raise ValueError(f"part {self.part!r} is not one of {', '.join(PARTS)}")
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring {self.scoring!r} is not one of {', '.join(SCORINGS)}")

    def with_remarks(self, *remarks: str) -> Outcome:
        return replace(self, remarks=(*self.remarks, *remarks))

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["cell"] = self.cell.to_json()
        data["costs"] = {
            name: {"rounds": list(cost.rounds), "median": cost.median} for name, cost in self.costs.items()
        }
        return {"kind": "outcome", **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        fields = {name: value for name, value in data.items() if name != "kind"}
        _check_types("it", fields, OUTCOME_TYPES)
        achieved = fields["achieved"]
        return cls(
            **{
                **fields,
                "cell": Cell.from_json(fields["cell"]),
                "answers": tuple(answer_of(answer) for answer in fields["answers"]),
                "achieved": achieved and Achieved.from_json(achieved),
                "costs": {name: Cost(tuple(cost["rounds"])) for name, cost in fields["costs"].items()},
                "remarks": tuple(fields["remarks"]),
            }
        )


OUTCOME_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("fingerprint", "status", "part", "reason", "metric", "answer_type", "scoring"), str),
    **dict.fromkeys(("n", "broken", "group"), int),
    **dict.fromkeys(("answers", "remarks"), list | tuple),
    "score": int | float | None,
    "scale": int | float,
    "costs": Mapping,
    "judged": Mapping | None,
}
ANSWER_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("id", "prompt_sha256", "text", "extracted", "error"), str),
    "score": int | float | None,
    "tokens": list | tuple,
}


def _check_types(of: str, data: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """ValueError where a field that is there has another type than `types` says, or a score does not lie in [0, 1]."""
    for name, kind in types.items():
        if name in data and not isinstance(data[name], kind):
            raise ValueError(f"{of} has {name} {str(data[name])[:40]!r}, which is of the wrong type")
    score = data.get("score")
    if score is not None and not 0 <= score <= 1:
        raise ValueError(f"{of} has the score {score!r}, which does not lie in [0, 1]")


def answer_of(data: Mapping[str, Any]) -> Answer:
    """An answer as `asdict` and JSON leave it, read back."""
    _check_types("an answer", data, ANSWER_TYPES)
    return Answer(**{**data, **{name: tuple(data[name]) for name in ("tokens", "again_tokens") if name in data}})


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was asked for, built once; what a run needs beside its cells.

    `data`: where published sets lie ("" = what was fetched, or the hub); `folders`: tasks that are a user's folder, by name.
    `judge`, `second_judge`: as typed ("none": answers wait), without a key; `judge_repeats`: times it is asked the same.
    """

    limit: int = 100
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    share: bool = True
    engine: str = "auto"
    batch: int = 1
    prompt: int = 0
    data: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    pixels: int = 0
    tiles: int = 0
    processor: str = "pil"
    generation: str = "checkpoint"
    judge: str = ""
    second_judge: str = ""
    judge_repeats: int = 3
    kernels: str = "auto"


def dump(record: Mapping[str, Any]) -> str:
    """One JSON line with a UTF-8 form: halves of surrogate pairs stand escaped, and read back equal.

    Raises:
        ValueError: NaN or infinity, which are refused rather than written.
        TypeError: a value of no JSON type.
    """
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_listed)
    return HALF_PAIR.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _listed(value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:
        raise TypeError(f"a value of type {type(value).__name__} cannot be stored: {repr(value)[:60]}") from None


def fingerprint(facts: Mapping[str, Any]) -> str:
    """A short stable name for everything that determines an outcome."""
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
