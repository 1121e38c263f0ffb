"""One object per cell of the document, from the parts in which its outcomes came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from effivlm.metrics.profiles import FIXED
from effivlm.metrics.statistics import Floats, ends
from effivlm.records import Achieved, Cell, Outcome
from effivlm.report.budgets import budget_of
from effivlm.report.costs import Dense, dense_costs, dense_medians, describe_costs, engines, speedups, trusts
from effivlm.report.judges import remark, within
from effivlm.report.mixes import Origin, origin
from effivlm.report.quality import Quality, compare
from effivlm.report.trust import impossible
from effivlm.report.why import of_cell

DENSE = "dense"
_KEPT = tuple(field.name for field in fields(Achieved))


@dataclass(frozen=True, slots=True)
class Row:
    """A cell as the document stores it, with what the summary needs and the document does not.

    That is the bootstrap draws, where its numbers come from, by part (quality, ttft, decode), and of a composition what it has
    beyond its methods alone (`additive.beyond`).
    """

    data: dict[str, Any]
    ratio_draws: Floats | None
    same_draws: Floats | None
    origins: Mapping[str, Origin]
    beyond: dict[str, Any] | None = None


def describe(group: Sequence[Sequence[Outcome]]) -> list[Row]:
    """Describe all cells of one (model, task); each comes as its good outcomes, one per part."""
    qualities = [outcome for parts in group for outcome in parts if outcome.part == "quality"]
    dense = next((outcome for outcome in qualities if outcome.cell.method == DENSE and outcome.score is not None), None)
    compared = dict(zip((outcome.cell for outcome in qualities), compare(qualities, dense), strict=True))
    reference = dense_costs(outcome for parts in group for outcome in parts if outcome.cell.method == DENSE)
    return [_describe(parts, compared.get(parts[0].cell), reference, dense) for parts in group]


def name(cell: Cell) -> dict[str, Any]:
    """How the document names a cell."""
    return {
        "id": cell.id,
        "model": cell.model,
        "method": cell.method,
        "preset": cell.preset,
        "keep": budget_of(cell.keep).stored,
        "task": cell.task,
    }


def _describe(parts: Sequence[Outcome], quality: Quality | None, dense: Dense, marked: Outcome | None) -> Row:
    lead = next((outcome for outcome in parts if outcome.part == "quality"), parts[0])
    quality = quality or Quality()
    faster, unmatched = speedups(parts, dense)
    achieved = next((outcome.achieved for outcome in (lead, *parts) if outcome.achieved), None)
    remarks = [remark for outcome in parts for remark in outcome.remarks]
    costs = describe_costs(parts)
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
        "profile": lead.profile,
        "samples_from": lead.samples_from,
        "judged": lead.judged,
        "scale": lead.scale,
        "n": lead.n if lead.part == "quality" else 0,
        "units": quality.units,
        "broken": sum(outcome.broken for outcome in parts),
        "invalid": _invalid(lead),
        "score": lead.score if lead.part == "quality" else None,
        "interval": ends(quality.interval),
        "parts": _reported(lead, quality),
        "ratio": quality.ratio,
        "ratio_interval": ends(quality.ratio_interval),
        "paired": quality.paired,
        "control": quality.control,
        "loyalty": quality.loyalty,
        "noise": quality.noise,
        "achieved": kept,
        "costs": costs,
        "speedups": faster,
        "why": of_cell(costs, dense_medians(parts, dense), {} if lead.cell.method == DENSE else faster),
        "trust": trust,
        "engine": " ".join(dict.fromkeys(outcome.engine for outcome in parts if outcome.engine)),
        "kernel": " ".join(dict.fromkeys(outcome.kernel for outcome in parts if outcome.kernel)),
        "weights": lead.weights,
        "product": next((asdict(outcome.product) for outcome in (lead, *parts) if outcome.product), None),
        "remarks": list(dict.fromkeys([*remarks, *quality.remarks, *unmatched, *_within_noise(lead, marked)])),
    }
    scored = lead.scoring if lead.profile == FIXED else f"{lead.scoring} {lead.profile}"
    origins = {"quality": origin(scored, lead.engine, lead.weights)}
    for word, engine in engines(parts).items():
        origins[word] = origin("", engine, lead.weights)  # times have no kind of score
    return Row(data, quality.ratio_draws, quality.same_draws, origins, quality.beyond)


def _within_noise(outcome: Outcome, dense: Outcome | None) -> list[str]:
    """A remark where the judge's noise is as large as the difference to dense."""
    if dense is None or dense is outcome or outcome.score is None or dense.score is None:
        return []
    noise = within(outcome.judged, outcome.score, dense.judged, dense.score)
    return [] if noise is None else [remark(outcome.score, dense.score, noise, outcome.scale)]


def _invalid(outcome: Outcome) -> dict[str, Any] | None:
    """How many answers say nothing that can be scored, of those of which that is known; None where it is known of none."""
    told = [answer.invalid for answer in outcome.answers if answer.invalid is not None]
    return {"count": sum(told), "n": len(told), "rate": sum(told) / len(told)} if told else None


def _reported(outcome: Outcome, quality: Quality) -> dict[str, Any]:
    """What the benchmark reports beside its score, with intervals where the figure is a mean as the score is."""
    return {
        name: {"score": one.score, "scale": one.scale, "n": one.n, "interval": ends(quality.parts.get(name))}
        for name, one in outcome.parts.items()
    }


def as_stored(achieved: Achieved) -> dict[str, Any]:
    """What was kept, as the document stores it."""
    found = {name: getattr(achieved, name) for name in _KEPT}
    return {
        **found,
        "per_layer": list(achieved.per_layer),
        "per_head": [list(layer) for layer in achieved.per_head],
        "parts": [asdict(part) for part in achieved.parts],
    }
