"""The page: one file that opens offline, with the verdicts, what each was measured on, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bench_tests.studies.observations import drawing
from bench_tests.studies.observations.page import HEAD, figure, introduction, short

STYLE = Path(__file__).with_name("page.css")
KINDS = {"holds": "holds", "does not hold": "not"}


def page(found: Mapping[str, Any]) -> str:
    """The page of what `judge` found."""
    claims = found["claims"]
    parts = [
        "<h1>The paper's observations, tested</h1>",
        *(f"<p>{_marked(one)}</p>" for one in introduction(claims) if one),
    ]
    if forest := drawing.forest(claims):
        parts += [
            _figure(forest, "Disc: holds; square: does not; ring: cannot be told; ×: the paper's own numbers.", "tall")
        ]
    for group in dict.fromkeys(claim["group"] for claim in claims):
        own = [one for one in claims if one["group"] == group]
        parts += [f"<h2>{escape(group)}</h2>", _table(own), *map(_details, own)]
    parts += _curves(found["curves"]) + _fronts(found["pareto"])
    parts += ["<h2>Where this is from</h2>", "<ul>", *(f"<li>{escape(one)}</li>" for one in found["sources"]), "</ul>"]
    commands = "\n".join(found["commands"])
    parts += [f"<pre>{escape(commands)}</pre>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>The paper's observations, tested</title><style>{STYLE.read_text(encoding='utf-8')}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _marked(text: str) -> str:
    """Text with its **strong** words as the page has them."""
    pieces = escape(text, quote=False).split("**")
    return "".join(f"<strong>{piece}</strong>" if at % 2 else piece for at, piece in enumerate(pieces))


def _figure(drawn: str, caption: str, kind: str = "") -> str:
    return (
        f'<figure class="{kind}"><div class="scroll">{drawn}</div><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _table(claims: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th scope=col>{escape(word)}</th>" for word in HEAD)
    rows = []
    for one in claims:
        ends = " to ".join(figure(end, one["unit"]) for end in one["interval"] or ())
        effect, least, printed = (figure(one[name], one["unit"]) for name in ("effect", "detectable", "paper"))
        numbers = (effect, ends, least.lstrip("+"), printed)
        kind = KINDS.get(one["verdict"], "open")
        rows.append(
            f"<tr><th scope=row>{escape(short(one))}</th><td class=words>{escape(one['text'])}</td>"
            f'<td class="verdict {kind}">{escape(one["verdict"])}</td>'
            + "".join(f"<td class=number>{escape(number)}</td>" for number in numbers)
            + "</tr>"
        )
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _details(one: Mapping[str, Any]) -> str:
    over = f" Over {one['over']}, {one['units']:,} units." if one["over"] else ""
    rates = [
        f"{word} {one[name]:.3g}"
        for word, name in (("q", "q"), ("q of being too small", "q_against"))
        if one[name] is not None
    ]
    why = f" <strong>Not tested: {escape(one['reason'])}.</strong>" if one["reason"] else ""
    told = f" {escape(', '.join(rates))}." if rates else ""
    return (
        f"<details><summary>{escape(short(one))}: what was measured</summary>"
        f"<p>{escape(one['measured'])}.{escape(over)}{told}{why}</p><p>{escape(one['caveat'])}</p></details>"
    )


def _curves(panels: Sequence[Mapping[str, Any]]) -> list[str]:
    if not panels:
        return []
    caption = "Mean score by budget. Solid: pruning; dashed: cache methods; the line across is dense."
    drawn = "".join(f"<div>{drawing.budgets(panel)}</div>" for panel in panels)
    return ["<h2>Scores by budget</h2>", f'<div class="panels">{drawn}</div><p class="caption">{escape(caption)}</p>']


def _fronts(points: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = []
    for where in dict.fromkeys(point["where"] for point in points):
        own = [point for point in points if point["where"] == where]
        drawn = [
            f"<div>{drawing.front([one for one in own if one['saves'] == saves], saves)}</div>"
            for saves in dict.fromkeys(point["saves"] for point in own)
        ]
        parts.append(f'<h3>{escape(where)}</h3><div class="panels">{"".join(drawn)}</div>')
    caption = (
        "OP of the micro models against what each setting saves on a model of the published shape with random weights: full discs"
        " are settings that no other beats in both. Micro models say which settings to try, not what a large model would lose."
    )
    return ["<h2>Pareto fronts</h2>", *parts, f'<p class="caption">{escape(caption)}</p>'] if parts else []
