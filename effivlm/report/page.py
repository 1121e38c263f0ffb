"""The page: one self-contained file that opens offline."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from effivlm.report.asides import asides
from effivlm.report.payload import embed, payload
from effivlm.report.samples import Changed
from effivlm.report.viewer import viewer

LIMIT = 9_500_000
_SLOT = re.compile(r"<!--(\w+)-->|/\*(css|script)\*/")
_SCRIPTS = ("core", "plot", "pointing", "chart", "viewer", "sections", "page")
_FACT = 400


def render(document: Mapping[str, Any], samples: Changed, title: str = "run") -> str:
    """The HTML of a document and its samples. All text from outside is escaped or embedded as JSON.

    Samples get what the cells leave of `LIMIT` bytes.
    """
    folder = Path(__file__).parent
    run = document["run"]
    parts = {
        "title": escape(title),
        "status": _status(run),
        "subtitle": _subtitle(run),
        "tiles": "".join(_tile(label, value) for label, value in _headline(document)),
        "machine": "".join(
            f"<tr><th scope=row>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in _flat(_machine(run))
        ),
        "data": embed({**payload(document), **asides(document)}),
        "css": (folder / "page.css").read_text(encoding="utf-8"),
        "script": "\n".join((folder / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS),
    }
    parts["samples"] = embed(viewer(samples, max(0, LIMIT - sum(map(_bytes, parts.values())))))
    template = (folder / "page.html").read_text(encoding="utf-8")
    # one pass over the template: what is put in is never searched for slots again
    return _SLOT.sub(lambda slot: parts[slot[1] or slot[2]], template)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _status(run: Mapping[str, Any]) -> str:
    status = str(run["status"])
    notes = "".join(f"<p class=note>{escape(str(note))}</p>" for note in run.get("notes", []))
    failed, broken = run["counts"]["failed"], run["counts"]["broken"]
    if status == "finished" and failed:
        cases = "1 case failed" if failed == 1 else f"{failed:,} cases failed"
        return (
            f'<div class="status bad" role=alert><strong>✗ Run finished, but {cases}</strong>'
            f'<span>They stand in no table and no mean: <a href="#unmeasured">which and why</a>.</span></div>{notes}'
        )
    if status == "finished" and broken:
        samples = "1 sample broke and is" if broken == 1 else f"{broken:,} samples broke and are"
        return f'<p class="status note">⚠ Run finished; {samples} left out of the scores</p>{notes}'
    if status == "finished":
        return f'<p class="status good">✓ Run finished</p>{notes}'
    shown = "Run interrupted" if status == "interrupted" else f"Run ended: {status}"
    return (
        f'<div class="status bad" role=alert><strong>⚠ {escape(shown)}</strong>'
        f"<span>This page shows what was measured until then. Cells may be missing.</span></div>{notes}"
    )


def _headline(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    run, counts = document["run"], document["run"]["counts"]
    facts = [(word.capitalize(), f"{counts[word]:,}") for word in ("models", "methods", "tasks", "samples")]
    facts += [
        ("Cells measured", f"{counts['cells']:,}"),
        ("Skipped / failed", f"{counts['skipped']:,} / {counts['failed']:,}"),
    ]
    if counts["broken"]:
        facts.append(("Broken samples", f"{counts['broken']:,}"))
    return [*facts, ("Device", _device(run))]


def _device(run: Mapping[str, Any]) -> str:
    device = run.get("device")
    if isinstance(device, Mapping):
        device = device.get("name") or next((value for value in device.values() if isinstance(value, str)), None)
    return _short(str(device)) if device else "not recorded"


def _subtitle(run: Mapping[str, Any]) -> str:
    command = run.get("command")
    words = " ".join(map(str, command)) if isinstance(command, list) else str(command or "")
    started = next((str(run[key]) for key in ("started", "start", "started_at", "start_time") if run.get(key)), "")
    return " ".join([f"<code>{escape(_short(words))}</code>" if words else "", escape(started)]).strip()


def _short(text: str, most: int = _FACT) -> str:
    """A text of so many characters at most, cut at a word and marked so."""
    return text if len(text) <= most else text[: text.rfind(" ", 0, most) + 1 or most] + "…"


def _tile(label: str, value: str) -> str:
    wide = ' class="wide"' if len(value) > 12 else ""
    return f"<div{wide}><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>"


def _machine(run: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in run.items() if key not in ("counts", "notes")}


def _flat(facts: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested facts as (dotted name, text); facts that say nothing are left out."""
    for key, value in facts.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            yield from _flat({str(place): one for place, one in enumerate(value)}, f"{name}.")
        elif value not in (None, "", []):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield name, _short(text, 10 * _FACT)
