"""The verdict: is one run worse than another beyond what is allowed, cell by cell, and what could not be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effivlm.metrics.discoveries import RATE, adjusted
from effivlm.metrics.statistics import LEVEL, ends
from effivlm.records import PARTS, SCHEMA, Budget
from effivlm.report.baseline import Key, Measured, Side
from effivlm.report.comparable import incomparable
from effivlm.report.conditions import device_of
from effivlm.report.drop import Change, cost_ratio, pooled_drop, score_drop
from effivlm.report.limits import GROUPS, Limits
from effivlm.report.trust import sign

Row = dict[str, Any]
STATUSES = ("fail", "refused", "warn", "ok")
LEVELS = {"fail": "failed", "refused": "refused"}


def verdict(before: Side, after: Side, limits: Limits, unselected: Collection[Key] = ()) -> dict[str, Any]:
    """Compare `after` with `before`; the document of verdict.schema.json, its rows worst first.

    `unselected`: parts of cells that the session of `after` left out on purpose; they are missing only where
    `limits.missing` says what to do with missing ones. Status: failed where a row fails, else refused where something
    could not be compared, else passed.
    """
    judge = _Judge(before, after, limits)
    judge.come_and_gone(unselected if limits.missing is None else ())
    for name, old in before.cells.items():
        if name in after.cells:
            judge.compare(old, after.cells[name])
    found = [*judge.rows, *judge.pooled(), *judge.grouped()]
    _among_all(found, limits.inconclusive)
    rows = sorted(found, key=lambda row: STATUSES.index(row["status"]))
    counts = {status: sum(row["status"] == status for row in rows) for status in STATUSES}
    compared = sum(row["how"] is not None for row in rows)
    if not compared:
        judge.notes.append("no measurement was compared with another: the two have nothing in common that may be")
        counts["refused"] += 1
    return {
        "kind": "verdict",
        "schema": SCHEMA,
        "status": next((LEVELS[status] for status in LEVELS if counts[status]), "passed"),
        "before": _facts(before),
        "after": _facts(after),
        "policies": limits.policies,
        "tolerances": [
            *({"of": "", "group": name, "value": value} for name, value in limits.defaults.items()),
            *({"of": one.of, "group": one.group, "value": one.value} for one in limits.tolerances),
        ],
        "level": LEVEL,
        "rate": RATE / 2,
        "compared": compared,
        "counts": counts,
        "notes": judge.notes,
        "rows": rows,
    }


def _among_all(rows: Sequence[Row], inconclusive: str) -> None:
    """What fails by itself fails only where it is a discovery among all comparisons: of many cells some look worse by chance."""
    tested = [row for row in rows if row["p"] is not None]
    for row, q in zip(tested, adjusted([row["p"] for row in tested]), strict=True):
        row["q"] = q
        if row["status"] == "fail" and q is not None and q > RATE / 2:  # one side of the interval
            row["status"] = inconclusive
            row["text"] += f" (inconclusive: one of {len(tested)} comparisons, of which some look so by chance)"


def _facts(side: Side) -> dict[str, Any]:
    device, driver = device_of(side.run)
    return {
        "name": side.name,
        "status": side.run["status"],
        "started": side.run.get("started"),
        "commit": side.run.get("commit"),
        "device": device,
        "driver": driver,
        "cells": len(side.cells),
    }


def _row(name: str, part: str, check: str, status: str, text: str, **facts: Any) -> Row:
    empty = dict.fromkeys(("before", "after", "change", "interval", "allowed", "how", "p", "q"))
    return {"cell": name, "part": part, "check": check, "status": status, "text": text, **empty, **facts}


@dataclass
class _Judge:
    before: Side
    after: Side
    limits: Limits
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _alike: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    _drops: dict[tuple[Any, ...], list[tuple[Change, float]]] = field(default_factory=dict)

    def come_and_gone(self, unselected: Collection[Key]) -> None:
        left_out = 0
        for name, part in _keys(self.before):
            if part in _parts(self.after, name):
                continue
            if (name, part) in unselected:
                left_out += 1
                continue
            why = self.after.unmeasured.get((name, part), "it is not in the run")
            self.rows.append(_row(name, part, "missing", self.limits.missing or "fail", f"{part} is missing: {why}"))
        if left_out:
            self.notes.append(
                f"{left_out} measurements were not selected in this session, so they were not compared;"
                " a full run checks all"
            )
        for name, part in _keys(self.after):
            if part not in _parts(self.before, name):
                text = f"{part} is new: nothing to compare it with"
                self.rows.append(_row(name, part, "new", self.limits.new, text))

    def compare(self, old: Measured, new: Measured) -> None:
        both = [part for part in PARTS if part in old.parts and part in new.parts]
        alike = [part for part in both if not self._refused(old, new, part)]
        if "quality" in alike:
            self._quality(old, new)
        if alike and ("quality" in alike) == ("quality" in old.parts) == ("quality" in new.parts):
            self._kept(old, new)
        timed = [part for part in alike if part != "quality" and self._same_machine(old, new, part)]
        for group, facts in GROUPS.items():
            measured = [part for part in timed if facts.part in ("", part)]
            known = facts.cost and measured and all(facts.cost in side.data["costs"] for side in (old, new))
            if known and not self._doubted(group, old, new):
                self._cost(group, old, new, measured[0])

    def _refused(self, old: Measured, new: Measured, part: str) -> bool:
        """Whether this part of a cell may not be compared at all; why is put on record."""
        found = incomparable(old, new, part)
        if found:
            self._alike.setdefault(found, []).append(old.id)
        return found is not None

    def _same_machine(self, old: Measured, new: Measured, part: str) -> bool:
        before, after = old.where[part].machine, new.where[part].machine
        if before != after:
            self._alike.setdefault(("device", f"the device changed from {before} to {after}"), []).append(old.id)
        return before == after

    def _doubted(self, group: str, old: Measured, new: Measured) -> bool:
        """Whether a timing of either side is untrusted; why is put on record."""
        for word, side in (("before", old), ("after", new)):
            if reasons := side.untrusted.get(group):
                why = f"{group} {word} is untrusted: {sign(reasons[0])}"
                self._alike.setdefault(("untrusted", why), []).append(old.id)
                return True
        return False

    def grouped(self) -> Iterator[Row]:
        """Refusals that many cells share, each as one row."""
        for (check, why), cells in self._alike.items():
            timing = check in ("device", "untrusted")  # neither tells anything of the code
            status = self.limits.device if timing else "refused"
            what = "timings were not compared, scores were" if timing else "measurements were not compared"
            first = f", the first is {cells[0]}" if len(cells) > 1 else f": {cells[0]}"
            yield _row("", "", check, status, f"{why}: {len(cells)} {what}{first}")

    def _quality(self, old: Measured, new: Measured) -> None:
        allowed = self.limits.allowed("score", old.data)
        drop = score_drop(old, new)
        if drop is None:
            self._alike.setdefault(("samples", "no sample was answered on both sides"), []).append(old.id)
            return
        setting = tuple(old.data[word] for word in ("model", "method", "preset", "keep"))
        self._drops.setdefault(setting, []).append((drop, allowed))
        self._judge(old.id, "quality", "score", drop, allowed)
        more = int(new.data["broken"]) - int(old.data["broken"])
        if more > 0:
            facts = {"before": old.data["broken"], "after": new.data["broken"], "change": more, "allowed": 0}
            self.rows.append(_row(old.id, "quality", "broken", "fail", f"{more} more samples broke", **facts))

    def pooled(self) -> Iterator[Row]:
        """The drop of a setting over its tasks: sees what is too small for one task's samples to show."""
        for (model, method, preset, keep), found in self._drops.items():
            drop = pooled_drop([change for change, _ in found])
            if drop is not None:
                allowed = sum(limit for _, limit in found) / len(found)
                label = method if preset == "paper" else f"{method}@{preset}"
                name = f"{model}-{label}-{Budget.parse(keep).named} over {len(found)} tasks"
                yield _judged(name, "quality", "score", drop, allowed, self.limits.inconclusive)

    def _cost(self, group: str, old: Measured, new: Measured, part: str) -> None:
        name = GROUPS[group].cost
        ratio = cost_ratio(old.data["costs"][name]["rounds"], new.data["costs"][name]["rounds"], name)
        if ratio is not None:
            self._judge(old.id, part, group, ratio, self.limits.allowed(group, old.data))

    def _judge(self, name: str, part: str, check: str, change: Change, allowed: float) -> None:
        self.rows.append(_judged(name, part, check, change, allowed, self.limits.inconclusive))

    def _kept(self, old: Measured, new: Measured) -> None:
        before, after = old.data["achieved"], new.data["achieved"]
        part = "quality" if "quality" in old.parts else old.parts[0]
        if before is None:
            return
        if after is None:
            self.rows.append(_row(old.id, part, "kept", "fail", "what was kept is no longer measured"))
            return
        samples = max(1, int(old.data["n"]) + int(old.data["broken"]))
        rounding = samples / before["total"] if before["total"] else 0.0  # one counted thing a sample
        allowed = rounding + self.limits.allowed("kept", old.data) + 1e-9
        for check, ours, theirs in (
            ("kept", before["keep"], after["keep"]),
            ("cache", _share(before), _share(after)),
        ):
            if ours is None or theirs is None:
                continue
            change = theirs - ours
            status = "fail" if abs(change) > allowed else "ok"
            word = f"kept fraction of {before['of']}" if check == "kept" else "share of the dense cache's bytes"
            text = f"{word} {ours:.4g} -> {theirs:.4g}, asked for {before['asked_keep']:.4g}"
            facts = {"before": ours, "after": theirs, "change": change, "allowed": allowed, "how": "counted"}
            self.rows.append(_row(old.id, part, check, status, text, **facts))


def _judged(name: str, part: str, check: str, change: Change, allowed: float, inconclusive: str) -> Row:
    worse, undecided = change.worse_than(allowed), change.undecided(allowed)
    status = "fail" if worse else inconclusive if undecided else "ok"
    if check == "score":
        text = f"score {change.before:.4f} -> {change.after:.4f}, drop {change.value:+.4f}"
    else:
        text = f"{GROUPS[check].cost} {change.before:.4g} -> {change.after:.4g}, ratio {change.value:.3f}"
    if change.interval:
        text += f" [{change.interval[0]:.4g}, {change.interval[1]:.4g}]"
    text += f", allowed {allowed:.4g}" + (" (inconclusive: too few to tell)" if undecided else "")
    facts = {"before": change.before, "after": change.after, "change": change.value, "interval": ends(change.interval)}
    facts["p"] = change.p(allowed)
    return _row(name, part, check, status, text, **facts, allowed=allowed, how=f"{change.how}, n {change.n}")


def _keys(side: Side) -> Iterator[Key]:
    return ((name, part) for name, one in side.cells.items() for part in one.parts)


def _parts(side: Side, name: str) -> tuple[str, ...]:
    return side.cells[name].parts if name in side.cells else ()


def _share(achieved: Mapping[str, Any]) -> float | None:
    return achieved["kv_bytes"] / achieved["kv_bytes_dense"] if achieved["kv_bytes_dense"] else None
