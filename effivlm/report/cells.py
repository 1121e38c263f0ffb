"""One object per cell of the document, from the parts in which its outcomes came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from effivlm.metrics.statistics import Floats, ends
from effivlm.records import Achieved, Cell, Outcome
from effivlm.report.costs import Dense, dense_costs, describe_costs, engines, speedups, trusts
from effivlm.report.mixes import Origin, origin
from effivlm.report.quality import Quality, compare
from effivlm.report.trust import impossible

DENSE = "dense"
_KEPT = tuple(field.name for field in fields(Achieved))


@dataclass(frozen=True, slots=True)
class Row:
    """A cell as the document stores it, with what the summary needs and the document does not.

    That is the bootstrap draws, and where its numbers come from, by part (quality, ttft, decode).
    """

    data: dict[str, Any]
    ratio_draws: Floats | None
    same_draws: Floats | None
    origins: Mapping[str, Origin]


def describe(group: Sequence[Sequence[Outcome]]) -> list[Row]:
    """Describe all cells of one (model, task); each comes as its good outcomes, one per part."""
    qualities = [outcome for parts in group for outcome in parts if outcome.part == "quality"]
    dense = next((outcome for outcome in qualities if outcome.cell.method == DENSE and outcome.score is not None), None)
    compared = dict(zip((outcome.cell for outcome in qualities), compare(qualities, dense), strict=True))
    reference = dense_costs(outcome for parts in group for outcome in parts if outcome.cell.method == DENSE)
    return [_describe(parts, compared.get(parts[0].cell), reference) for parts in group]


def name(cell: Cell) -> dict[str, Any]:
    """How the document names a cell."""
    return {
        "id": cell.id,
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "keep": cell.budget.stored,
        "task": cell.task,
    }


def _describe(parts: Sequence[Outcome], quality: Quality | None, dense: Dense) -> Row:
    lead = next((outcome for outcome in parts if outcome.part == "quality"), parts[0])
    quality = quality or Quality()
    faster, unmatched = speedups(parts, dense)
    achieved = next((outcome.achieved for outcome in (lead, *parts) if outcome.achieved), None)
    remarks = [remark for outcome in parts for remark in outcome.remarks]
    kept, trust = as_stored(achieved) if achieved else None, trusts(parts, dense)
    if strange := impossible(kept, faster["ttft"]):
        trust["ttft"]["untrusted"].append(strange)
        remarks.append(strange)
    data = {
        **name(lead.cell),
        "fingerprints": {outcome.part: outcome.fingerprint for outcome in parts},
        "metric": lead.metric,
        "answer_type": lead.answer_type,
        "scoring": lead.scoring,
        "judged": lead.judged,
        "scale": lead.scale,
        "n": lead.n if lead.part == "quality" else 0,
        "units": quality.units,
        "broken": sum(outcome.broken for outcome in parts),
        "score": lead.score if lead.part == "quality" else None,
        "interval": ends(quality.interval),
        "ratio": quality.ratio,
        "ratio_interval": ends(quality.ratio_interval),
        "paired": quality.paired,
        "control": quality.control,
        "loyalty": quality.loyalty,
        "noise": quality.noise,
        "achieved": kept,
        "costs": describe_costs(parts),
        "speedups": faster,
        "trust": trust,
        "engine": " ".join(dict.fromkeys(outcome.engine for outcome in parts if outcome.engine)),
        "kernel": " ".join(dict.fromkeys(outcome.kernel for outcome in parts if outcome.kernel)),
        "weights": lead.weights,
        "remarks": list(dict.fromkeys([*remarks, *quality.remarks, *unmatched])),
    }
    origins = {"quality": origin(lead.scoring, lead.engine, lead.weights)}
    for word, engine in engines(parts).items():
        origins[word] = origin("", engine, lead.weights)  # times have no kind of score
    return Row(data, quality.ratio_draws, quality.same_draws, origins)


def as_stored(achieved: Achieved) -> dict[str, Any]:
    """What was kept, as the document stores it."""
    found = {name: getattr(achieved, name) for name in _KEPT}
    return {
        **found,
        "per_layer": list(achieved.per_layer),
        "per_head": [list(layer) for layer in achieved.per_head],
        "parts": [asdict(part) for part in achieved.parts],
    }
