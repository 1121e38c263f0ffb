"""A verdict for people: lines for a terminal, and one self-contained page of differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

SHOWN = 40  # rows in a terminal
EACH = 3  # warnings of a kind there
ROWS = 5000  # rows on a page
WORDS = {"fail": "FAIL", "refused": "REFUSED", "warn": "warn", "ok": "ok"}
HEADLINES = {
    "passed": "nothing got worse beyond its tolerance",
    "failed": "something is worse, missing or new beyond what is allowed",
    "refused": "not everything could be compared",
}
COLUMNS = ("verdict", "cell", "part", "check", "before", "after", "change", "95 % interval", "allowed", "in words")


def lines(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict as lines: both sides, notes, what failed or was refused (the worst 40), some warnings of each kind,
    and the headline last."""
    shown = [row for row in verdict["rows"] if row["status"] != "ok"]
    text = [f"{word}: {_side(verdict[word])}" for word in ("before", "after")]
    text += [f"note: {note}" for note in verdict["notes"]]
    bad = [row for row in shown if row["status"] != "warn"]
    text += [f"{WORDS[row['status']]}: {_sentence(row)}" for row in bad[:SHOWN]]
    if len(bad) > SHOWN:
        text.append(f"and {len(bad) - SHOWN} more rows that failed or were refused")
    text += _warnings([row for row in shown if row["status"] == "warn"])
    text.append(headline(verdict))
    return [_printable(line) for line in text]


def _warnings(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A few warnings of each kind, and how many more there are: they must not hide what failed."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kinds.setdefault(row["check"], []).append(row)
    text = []
    for check, of in kinds.items():
        text += [f"warn: {_sentence(row)}" for row in of[:EACH]]
        if len(of) > EACH:
            text.append(f"warn: and {len(of) - EACH} more of this kind ({check})")
    return text


def headline(verdict: Mapping[str, Any]) -> str:
    """The verdict in one sentence with its counts."""
    counts, status = verdict["counts"], verdict["status"]
    tally = ", ".join(f"{counts[word]} {word}" for word in WORDS)
    return f"gate {status}: {HEADLINES[status]} ({verdict['compared']} measurements compared: {tally})"


def _side(side: Mapping[str, Any]) -> str:
    driver = f", driver {side['driver']}" if side["driver"] else ""
    return (
        f"{side['name']} ({side['cells']} cells, {side['status']}, {side['device'] or 'device not recorded'}{driver})"
    )


def _sentence(row: Mapping[str, Any]) -> str:
    return f"{row['cell']}: {row['text']}" if row["cell"] else str(row["text"])


def _printable(line: str) -> str:
    """Names and reasons come from outside: no control character reaches the terminal."""
    return "".join(char if char.isprintable() else "?" for char in line)


def page(verdict: Mapping[str, Any]) -> str:
    """The verdict as one HTML file without scripts or network; light and dark by the reader's own setting.

    All text from outside is escaped. At most 5,000 rows, the worst first; what was cut is said.
    """
    status = str(verdict["status"])
    rows: Sequence[Mapping[str, Any]] = verdict["rows"]
    cut = f"<p>{len(rows) - ROWS:,} more rows stand in verdict.json.</p>" if len(rows) > ROWS else ""
    sides = "".join(f"<tr><th scope=row>{word}</th><td>{_text(_side(verdict[word]))}</td></tr>" for word in SIDES)
    policies = ", ".join(f"{name} {policy}" for name, policy in verdict["policies"].items())
    allowed = ", ".join(_tolerance(one) for one in verdict["tolerances"])
    notes = "".join(f"<p>{_text(note)}</p>" for note in verdict["notes"])
    head = "".join(f"<th scope=col>{name}</th>" for name in COLUMNS)
    body = "".join(_row(row) for row in rows[:ROWS])
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>gate {escape(status)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1 class={escape(status)}>{_text(headline(verdict))}</h1><table class=facts>{sides}"
        f"<tr><th scope=row>policies</th><td>{_text(policies)}</td></tr>"
        f"<tr><th scope=row>tolerances</th><td>{_text(allowed)}</td></tr></table>{notes}"
        f'<div class=wide tabindex=0 role=region aria-label="Differences"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{cut}</main></body></html>\n"
    )


def _tolerance(one: Mapping[str, Any]) -> str:
    of = f"{one['of']}." if one["of"] else ""
    return f"{of}{one['group']} {one['value']:g}"


def _row(row: Mapping[str, Any]) -> str:
    interval = "" if row["interval"] is None else f"{_number(row['interval'][0])} to {_number(row['interval'][1])}"
    words = (row["cell"] or "all", row["part"], row["check"])
    numbers = (*(_number(row[name]) for name in ("before", "after", "change")), interval, _number(row["allowed"]))
    texts = "".join(f"<td>{_text(word)}</td>" for word in words)
    figures = "".join(f"<td class=number>{number}</td>" for number in numbers)
    return (
        f"<tr><td class={row['status']}>{WORDS[row['status']]}</td>{texts}{figures}<td>{_text(row['text'])}</td></tr>"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(text: object) -> str:
    return escape(_printable(str(text)))


SIDES = ("before", "after")
STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#c9ced6;--bad:#a40e26;--odd:#7a4b00;--good:#116329}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--paper:#14171b;--line:#3b424c;--bad:#ff9492;--odd:#f0b84a;
--good:#6bd58b}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
main{padding:1rem;max-width:100rem;margin:auto}h1{font-size:1.25rem}
.wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.3rem .6rem;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line)}th,.number{white-space:nowrap}.wide td{min-width:4rem}td{overflow-wrap:anywhere}
.wide td:nth-child(2){min-width:14rem}.wide td:last-child{min-width:20rem}
.number{text-align:right;font-variant-numeric:tabular-nums}
.fail,.failed,.refused{color:var(--bad);font-weight:600}.warn{color:var(--odd);font-weight:600}.ok,.passed{color:var(--good)}
"""
