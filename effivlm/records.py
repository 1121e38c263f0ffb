"""The records that travel through a run, one per arrow of the flow.

Options become `Cell`s, a task yields `Sample`s, a run turns both into `Answer`s and `Outcome`s, and the report is made of
outcomes alone. Everything stored is made of JSON types and reads back equal under `SCHEMA`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from typing import Any

from effivlm.budget import Budget as Budget
from effivlm.divergence import Divergence as Divergence
from effivlm.sample import Sample as Sample
from effivlm.settings import Settings as Settings
from effivlm.stored import ANSWER_TYPES, OUTCOME_TYPES, check_types
from effivlm.stored import HALF_PAIR as HALF_PAIR
from effivlm.stored import dump as dump
from effivlm.stored import fingerprint as fingerprint

SCHEMA = 1
STATUSES = ("ok", "failed", "unsupported", "interrupted")
PARTS = ("quality", "ttft", "decode")
SEAMS = (
    "weights",
    "image",
    "vision",
    "layer",
    "cache",
)  # where methods reach into a model, or the run of a sample; in order
SCORINGS = ("exact", "rule", "judge", "proxy")
AVERAGES = ("samples", "groups", "parts")


class Unsupported(ValueError):
    """A (model, method, budget) that cannot exist; the message is the reason the report shows."""


@lru_cache(maxsize=4096)
def _budget(keep: str) -> Budget:
    return Budget.parse(keep)


@lru_cache(maxsize=4096)
def _named(keep: str) -> str:
    return _budget(keep).named


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
        return _budget(self.keep)

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
        return f"{self.model}-{method}-{_named(self.keep)}-{self.task}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "keep": self.budget.stored}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cell:
        if not isinstance(data, Mapping):
            raise ValueError("its cell is no object")
        check_types("its cell", data, dict.fromkeys(("model", "method", "preset", "task"), str))
        return cls(**{**data, "keep": Budget.parse(data["keep"]).label})


@dataclass(frozen=True, slots=True)
class Answer:
    """What one cell said to one sample. `score` is None where `error` is set: a broken sample is no zero.

    `forced` is the share of dense's tokens, its end included, that the cell chooses too when it is fed dense's answer up to
    there. Dense alone has `again`, its answer under a harmless numeric change; its `forced` is that second run's.
    None: dense broke on this sample, or what was wanted could not be computed, which the outcome's remarks say.
    `invalid`: it says nothing that can be scored (no option, or several; blank), None where that is not known. `part`: the
    part of the benchmark that it counts in. `pictures`: a digest of what the sample shows, "" where it shows nothing or none was
    made: samples that show the same are drawn together. `kl`: how far its next tokens are from dense's along dense's answer, None
    for dense and where that was not measured.
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
    invalid: bool | None = None
    part: str = ""
    pictures: str = ""
    kl: Divergence | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """A score beside a task's own: of answers whose `part` is one of `of`, averaged as the task's is.

    Where `of` is empty it is another figure of all answers, and no mean. `score` lies in [0, 1], `scale` is the factor to the
    published one.
    """

    score: float
    scale: float
    n: int
    of: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptBy:
    """What one method of a composition kept of what the one before it left, summed over samples; the rest as in `Achieved`."""

    method: str
    of: str
    asked_keep: float
    kept: int
    total: int
    asked: str = ""
    counted: float | None = None


@dataclass(frozen=True, slots=True)
class Achieved:
    """What was really kept, measured on tensors and summed over samples; `per_layer` is the mean kept count of each layer.

    `per_head` holds those of a layer's KV heads, for all layers, where heads differ; else it is empty.
    `parts` are the methods of a composition, which has the entries of the dense prompt in all layers as its `total`, and as
    `asked_keep` the budget of its case; empty for a method alone. Where a budget is no fraction, `asked` is its label and
    `counted` what was measured in its unit: tokens of a sample (entries of a layer), the fraction of zeros, or bits of a weight.
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
    asked: str = ""
    counted: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Achieved:
        parts = tuple(KeptBy(**part) for part in data.get("parts", ()))
        heads = tuple(tuple(layer) for layer in data.get("per_head", ()))
        return cls(**{**data, "per_layer": tuple(data["per_layer"]), "parts": parts, "per_head": heads})


@dataclass(frozen=True, slots=True)
class Product:
    """The checkpoint that a method of the seam `weights` made, which a cell ran on.

    `disk_bytes` are those of its files of tensors and `memory_bytes` those of its open weights, each beside that of the model it
    was made of. `reading`: what computes with the weights ("dequantised", a kernel, "zeros stored densely"), `engine`:
    what computed them, in how many `seconds`. `calibration` is the set that was looked at, `samples` how many of it, `tokens` how
    their tokens count, `drawn` a fingerprint of what was drawn; empty for a method that looks at none.
    """

    fingerprint: str
    engine: str
    packing: str
    reading: str
    disk_bytes: int
    disk_bytes_dense: int
    memory_bytes: int
    memory_bytes_dense: int
    seconds: float
    calibration: str = ""
    samples: int = 0
    tokens: str = ""
    drawn: str = ""


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

    `group`: answers that were scored together, by their ids; `scoring`: how a score comes to be (exact, rule, judge or proxy),
    and `profile` whether by the rule that is meant or as the paper's code has it; `average`: what of the answers' scores the
    score is a mean over (one of `AVERAGES`), and `parts` what the benchmark reports beside it; `samples_from`: the state of the
    published set that was asked; `change`: the numeric change under which dense was asked `again`; `judged`: who marked the
    answers, by which prompt, and how far such marks can be trusted (`session.judged`), None where no judge did; `product`: the
    checkpoint that its method made, None for a method that makes none.
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
    profile: str = "fixed"
    average: str = "samples"
    parts: Mapping[str, Reported] = field(default_factory=dict)
    samples_from: str = ""
    product: Product | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is not one of {', '.join(STATUSES)}")
        if self.part not in PARTS:
            raise ValueError(f"part {self.part!r} is not one of {', '.join(PARTS)}")
        if self.scoring not in SCORINGS:
            raise ValueError(f"scoring {self.scoring!r} is not one of {', '.join(SCORINGS)}")
        if self.average not in AVERAGES:
            raise ValueError(f"average {self.average!r} is not one of {', '.join(AVERAGES)}")

    def with_remarks(self, *remarks: str) -> Outcome:
        return replace(self, remarks=(*self.remarks, *remarks))

    def to_json(self) -> dict[str, Any]:
        data = asdict(self)
        data["cell"] = self.cell.to_json()
        costs = self.costs.items()
        data["costs"] = {name: {"rounds": list(cost.rounds), "median": cost.median} for name, cost in costs}
        return {"kind": "outcome", **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        known = {name: value for name, value in data.items() if name != "kind"}
        check_types("it", known, OUTCOME_TYPES)
        achieved, product = known["achieved"], known.get("product")
        return cls(
            **{
                **known,
                "cell": Cell.from_json(known["cell"]),
                "answers": tuple(answer_of(answer) for answer in known["answers"]),
                "achieved": achieved and Achieved.from_json(achieved),
                "costs": {name: Cost(tuple(cost["rounds"])) for name, cost in known["costs"].items()},
                "remarks": tuple(known["remarks"]),
                "product": product and Product(**product),
                "parts": {
                    name: Reported(**{**one, "of": tuple(one["of"])}) for name, one in known.get("parts", {}).items()
                },
            }
        )


def answer_of(data: Mapping[str, Any]) -> Answer:
    """An answer as `asdict` and JSON leave it, read back."""
    check_types("an answer", data, ANSWER_TYPES)
    if tuple(data) == _ANSWER:  # as it is written today; a report of a million reads them in half the time
        values = list(data.values())
        for place in _TUPLES:
            values[place] = tuple(values[place])
        values[_KL] = values[_KL] and Divergence.from_json(values[_KL])
        return Answer(*values)
    read = {name: tuple(data[name]) for name in _TOKENS if name in data}
    kl = data.get("kl")
    return Answer(**{**data, **read, "kl": kl and Divergence.from_json(kl)})


_ANSWER = tuple(one.name for one in fields(Answer))
_TOKENS = ("tokens", "again_tokens")
_TUPLES = tuple(map(_ANSWER.index, _TOKENS))
_KL = _ANSWER.index("kl")
