"""The verdicts as Markdown: what was claimed, what was measured, and how sure it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from bench_tests.studies.observations.effects import HOLDS, MARGIN, NOT, OPEN
from effivlm.metrics.discoveries import POWER, RATE
from effivlm.metrics.statistics import LEVEL, ROUNDS

HEAD = ("", "claim", "verdict", "effect", f"{LEVEL:.0%} interval", "could show", "in the paper")


def markdown(found: Mapping[str, Any]) -> str:
    """The page of what `judge` found."""
    claims = found["claims"]
    lines = ["# The paper's observations, tested", ""]
    lines += [line for one in introduction(claims) for line in (one, "")]
    lines += ["The same with figures: `observations.html`.", ""]
    for group in dict.fromkeys(claim["group"] for claim in claims):
        lines += [f"## {group}", "", *table([one for one in claims if one["group"] == group]), ""]
    lines += _fronts(found["pareto"])
    if found["unmeasured"]:
        lines += ["## Not measured", ""]
        lines += [f"- {name}: {count} cells; {why}" for name, (count, why) in sorted(found["unmeasured"].items())] + [
            ""
        ]
    lines += ["## Where this is from", "", *(f"- {one}" for one in found["sources"]), ""]
    return "\n".join([*lines, "```", *found["commands"], "```", ""])


def _fronts(points: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for where, saves in dict.fromkeys((point["where"], point["saves"]) for point in points):
        best = [point for point in points if (point["where"], point["saves"]) == (where, saves) and point["front"]]
        best.sort(key=lambda point: float(point["times"]))
        told = [f"`{one['method']}` {float(one['keep']):.0%} ({one['times']:.2f}, {one['op']:.2f})" for one in best]
        lines.append(f"- {where}, {saves}: {', '.join(told)}")
    note = (
        "Settings that no other beats in both: how many times better than dense, and OP of the micro models. Times are of models"
        " of the published shapes with random weights. Micro models say which settings to try, not what a large model would lose."
    )
    return ["## Pareto fronts", "", note, "", *lines, ""] if lines else []


def introduction(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    counts = Counter(claim["verdict"] for claim in claims)
    tested = sum(claim["q"] is not None for claim in claims)
    """What was done, and how a verdict comes about."""
    return [
        f"Of {len(claims)} claims {counts[HOLDS]} hold, {counts[NOT]} do not, and of {counts[OPEN]} it cannot be told. Claims are"
        " those of EffiVLM-Bench (arXiv 2506.00479); measured are the micro models on the micro tasks. Below each table stands"
        " what such small models cannot say of large ones.",
        "An effect is a difference of mean scores in points of 100 unless its row names another unit; all sides answer the same"
        f" samples. Its interval is that of {ROUNDS:,} resamples of whole units (a picture with all its questions), the same for"
        f" all models and settings. **{HOLDS}**: the effect is above what the claim asks; **{NOT}**: it is below what would"
        f" matter ({100 * MARGIN:g} point), so that a smaller one does not hold however sure it is, and a claim that there is no"
        f" difference does; **{OPEN}**: neither is sure. Both"
        f" kinds of verdict keep the rate of false ones at {RATE:.0%} over the {tested} claims that could be tested (Benjamini"
        " and Hochberg 1995)."
        f' "Could show" is the smallest effect that as many samples show {POWER:.0%} of the time; "in the paper" is what its'
        " own printed numbers give for the same comparison, as shares of dense's score.",
    ]


def source(run: Mapping[str, Any]) -> str:
    """Where and how a run was made."""
    versions = run["versions"] or {}
    named = [f"{name} {versions[name]}" for name in ("torch", "transformers") if name in versions]
    least, most, pairs = run["answered"]
    samples = f"{least} to {most} samples" if least < most else f"{least} samples"
    facts = [
        run["device"],
        run["dtype"],
        f"{samples} of each of {pairs} (model, task) pairs",
        *named,
        run["commit"],
        run["started"],
    ]
    return ", ".join(str(fact) for fact in facts if fact)


def short(claim: Mapping[str, Any]) -> str:
    """The claim's number."""
    return str(claim["name"]).partition(" ")[0]


def table(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    for one in claims:
        ends = " to ".join(figure(end, one["unit"]) for end in one["interval"] or ())
        cells = (
            *(short(one), one["text"], f"**{one['verdict']}**", figure(one["effect"], one["unit"]), ends),
            *(figure(one["detectable"], one["unit"]).lstrip("+"), figure(one["paper"], one["unit"])),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines.append("")
    for one in claims:
        over = f" ({one['over']}, {one['units']} units)" if one["over"] else ""
        why = f" **Not tested: {one['reason']}.**" if one["reason"] else ""
        lines.append(f"- {short(one)}: {one['measured']}{over}.{why} {one['caveat']}")
    return lines


def figure(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    if unit == "points":
        return f"{round(100 * value, 1) + 0.0:+.1f}"  # no -0.0
    return f"{math.exp(value):.2f} times" if unit == "times" else f"{value:+.2f}"
