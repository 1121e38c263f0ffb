"""Figures as SVG: text that can be read and found, shapes beside colours, and the page's own colours in light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Any

from bench_tests.studies.observations.effects import HOLDS, NOT

LINE, LEFT, WIDE, RIGHT = 26, 300, 880, 60
SHAPES = {HOLDS: "holds", NOT: "not"}
SERIES = 11
"""Colours of lines that the page's style has."""


@dataclass(frozen=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Some four round values between the ends."""
        step = 10 ** math.floor(math.log10((self.high - self.low) / 2))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (factor * step) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}"'
        f' xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def mark(x: float, y: float, verdict: str, hint: str) -> str:
    """A full disc where a claim holds, a square where it does not, a ring where it cannot be told."""
    kind, title = SHAPES.get(verdict, "open"), f"<title>{escape(hint)}</title>"
    if kind == "not":
        return f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" class="mark not">{title}</rect>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5" class="mark {kind}">{title}</circle>'


def forest(claims: Sequence[Mapping[str, Any]]) -> str:
    """Effects in points with their intervals, one line a claim; "" where none has one."""
    shown = [one for one in claims if one["unit"] == "points" and one["interval"]]
    if not shown:
        return ""
    ends = [100 * end for one in shown for end in one["interval"]] + [0.0]
    x = Scale(min(ends) - 2, max(ends) + 2, LEFT, WIDE - RIGHT)
    bottom = LINE * (len(shown) + 1)
    parts = [line(x(tick), LINE / 2, x(tick), bottom, "zero" if tick == 0 else "grid") for tick in x.ticks()]
    parts += [text(x(tick), bottom + 16, f"{tick:+g}", "small", "middle") for tick in x.ticks()]
    parts.append(text((LEFT + WIDE) / 2, bottom + 34, "effect, in points of 100", "small", "middle"))
    for number, one in enumerate(shown, start=1):
        y, (low, high) = LINE * number, (100 * end for end in one["interval"])
        value = 100 * one["effect"]
        parts += [text(0, y + 4, str(one["name"])), line(x(low), y, x(high), y, "whisker")]
        if one["paper"] is not None and x.low <= 100 * one["paper"] <= x.high:
            parts.append(text(x(100 * one["paper"]), y + 5, "×", "paper", "middle"))
        parts.append(
            mark(x(value), y, one["verdict"], f"{one['text']} {value:+.1f} [{low:+.1f}, {high:+.1f}]: {one['verdict']}")
        )
        parts.append(text(WIDE - RIGHT + 8, y + 4, f"{value:+.1f}", "small"))
    return svg(WIDE, bottom + 44, "Effects of all claims in points, with intervals", parts)


def budgets(panel: Mapping[str, Any]) -> str:
    """Scores by budget of one kind of task: pruning in solid lines, cache methods in dashed ones."""
    wide, high, left = 400.0, 260.0, 40.0
    x, y = Scale(0, len(panel["budgets"]) - 1, left, wide - 110), Scale(0, 1, high - 30, 26)
    parts = [text(left, 14, f"{panel['kind']} ({panel['pairs']} pairs)", "head")]
    parts += [line(left, y(tick), x.end, y(tick), "grid") for tick in y.ticks()]
    parts += [text(left - 6, y(tick) + 4, f"{100 * tick:.0f}", "small", "end") for tick in y.ticks()]
    parts += [
        text(x(at), high - 12, f"{float(label):.0%}", "small", "middle") for at, label in enumerate(panel["budgets"])
    ]
    parts.append(line(left, y(panel["dense"]), x.end, y(panel["dense"]), "zero"))
    heights = [y(panel["dense"]), *(y(one["scores"][-1]) for one in panel["lines"])]
    level, *ends = apart(heights, 11, top=y(1))
    parts.append(text(x.end + 6, level + 4, "dense", "small"))
    for number, (one, end) in enumerate(zip(panel["lines"], ends, strict=True)):
        points = " ".join(f"{x(at):.1f},{y(score):.1f}" for at, score in enumerate(one["scores"]))
        kind = f"s{number % SERIES} {'' if one['prunes'] else 'dashed'}"
        parts.append(
            f'<polyline points="{points}" class="series {kind}"><title>{escape(one["method"])}</title></polyline>'
        )
        parts.append(text(x.end + 6, end + 4, one["method"], f"small t{number % SERIES}"))
    return svg(wide, high, f"Score by budget: {panel['kind']}", parts)


def apart(places: Sequence[float], least: float, top: float = 0.0) -> list[float]:
    """The same places, moved so that none is nearer than `least` to the next; their middle stays, but for none above `top`."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    found = list(places)
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + least)
    shift = (sum(found) - sum(places)) / len(places) if places else 0.0
    shift = min(shift, min(found, default=top) - top)
    return [place - shift for place in found]


def front(points: Sequence[Mapping[str, Any]], saves: str) -> str:
    """OP against one saving; points that no other beats are full, named and joined."""
    wide, high, left = 400.0, 300.0, 44.0
    times = [point["times"] for point in points]
    x, y = Scale(min(times) * 0.95, max(times) * 1.05, left, wide - 20), Scale(0, 1.05, high - 40, 26)
    parts = [text(left, 14, saves, "head"), text(wide - 20, high - 6, "times better than dense", "small", "end")]
    parts += [line(left, y(tick), wide - 20, y(tick), "grid") for tick in y.ticks()]
    parts += [text(left - 6, y(tick) + 4, f"{tick:.1f}", "small", "end") for tick in y.ticks()]
    parts += [text(x(tick), high - 22, f"{tick:g}", "small", "middle") for tick in x.ticks()]
    best = sorted((one for one in points if one["front"]), key=lambda one: float(one["times"]))
    steps = " ".join(f"{x(one['times']):.1f},{y(one['op']):.1f}" for one in best)
    parts.append(f'<polyline points="{steps}" class="whisker thin"/>')
    for one in points:
        words = f"{one['method']} {float(one['keep']):.0%}: OP {one['op']:.2f}, {one['times']:.2f} times"
        parts.append(mark(x(one["times"]), y(one["op"]), HOLDS if one["front"] else "", words))
    labels = apart([y(one["op"]) for one in best], 11)
    for one, place in zip(best, labels, strict=True):
        late = x(one["times"]) > wide - 150
        shift, anchor = (-9, "end") if late else (9, "start")
        parts.append(
            text(x(one["times"]) + shift, place + 4, f"{one['method']} {float(one['keep']):.0%}", "small", anchor)
        )
    return svg(wide, high, f"OP against {saves}", parts)
