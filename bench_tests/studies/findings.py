"""A page of findings from reports of a GPU: `python bench_tests/studies/findings.py REPORT_JSON... --out PAGE`.

What compression saves in time to first token, in decoding alone and in decoding of a batch, beside the device's floors and the
speed-ups that were published. Every number on the page comes from the reports; none is typed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effivlm.report.costs import FLOORS, SPEEDUPS
from effivlm.report.published import load, speedup

PAGE = Path(__file__).parents[2] / "reports" / "baselines" / "gpu_efficiency.md"
CACHE = ("streaming_llm", "h2o", "snapkv", "pyramidkv", "look_m", "vl_cache")
HEAD = (
    *("method", "keep", "TTFT ms", "TTFT x", "published", "decode ms", "decode x", "published"),
    *("ms a step of the batch", "batch x", "floor allows", "largest batch", "cache MB"),
)


@dataclass(frozen=True)
class Group:
    """The cells of one model at one prompt length in one run, dense first; `where` names its device where runs differ in it."""

    where: str
    model: str
    tokens: int
    batch: int
    cells: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.model}, {self.tokens:,} prompt tokens" + (f", {self.where}" if self.where else "")

    @property
    def dense(self) -> Mapping[str, Any]:
        return self.cells[0]

    def at(self, keep: float, methods: Iterable[str] | None = None) -> list[Mapping[str, Any]]:
        """Cells of a budget, of all methods or of some."""
        wanted = None if methods is None else set(methods)
        return [
            cell for cell in self.cells[1:] if cell["keep"] == keep and (wanted is None or cell["method"] in wanted)
        ]

    @property
    def keeps(self) -> list[float]:
        return sorted({cell["keep"] for cell in self.cells[1:]})


def read(path: Path) -> dict[str, Any]:
    """A report.json. Raises OSError where it cannot be read, ValueError where it is something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or not {"run", "cells", "summary"} <= set(found):
        raise ValueError(f"{path} is no report.json of a run: it has no run, cells and summary")
    return found


def groups(documents: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Cells by run, model and prompt length. Raises ValueError for a group whose dense was not measured."""
    devices = [str(document["run"].get("device")) for document in documents]
    found: dict[tuple[int, str, int], list[Mapping[str, Any]]] = {}
    for number, document in enumerate(documents):
        for cell in document["cells"]:
            if "prompt_tokens" in cell["costs"]:
                tokens = round(median(cell, "prompt_tokens") or 0)
                found.setdefault((number, cell["model"], tokens), []).append(cell)
    made = []
    if not found:
        raise ValueError("these reports hold no timings: run bench_tests/test_efficiency.py")
    for (number, model, tokens), cells in found.items():
        cells.sort(key=lambda cell: (cell["method"] != "dense", cell["method"] in CACHE, cell["method"], cell["keep"]))
        if cells[0]["method"] != "dense":
            raise ValueError(f"dense of {model} at {tokens} prompt tokens was not measured")
        where = devices[number] if len(set(devices)) > 1 else ""
        made.append(Group(where, model, tokens, round(median(cells[0], "batch") or 1), cells))
    return made


def median(cell: Mapping[str, Any], name: str) -> float | None:
    cost = cell["costs"].get(name)
    return None if cost is None else float(cost["median"])


def allowed(group: Group, cell: Mapping[str, Any], word: str) -> float | None:
    """The speed-up that bytes or operations alone would give."""
    own, dense = (median(one, FLOORS[word]) for one in (cell, group.dense))
    return dense / own if own and dense else None


def published(cell: Mapping[str, Any], word: str) -> float | None:
    return speedup(cell["method"], cell["keep"], word)


def repeats(documents: Sequence[Mapping[str, Any]], again: Mapping[str, Any]) -> list[str]:
    """Cells that a second run measured too: both medians with their intervals, and whether the intervals meet."""
    alike = [document for document in documents if document["run"].get("device") == again["run"].get("device")]
    first = {(group.tokens, cell["id"]): cell for group in groups(alike) for cell in group.cells}
    lines, met, total = [], 0, 0
    for group in groups([again]):
        for cell in group.cells:
            other = first.get((group.tokens, cell["id"]))
            for name in SPEEDUPS.values() if other else ():
                pair = [one["costs"].get(name) for one in (other, cell)]
                if not all(one and one["interval"] for one in pair):
                    continue
                (low, high), (start, end) = (one["interval"] for one in pair)
                meets = low <= end and start <= high
                met, total = met + meets, total + 1
                shown = [f"{one['median']:.4g} [{one['interval'][0]:.4g}, {one['interval'][1]:.4g}]" for one in pair]
                apart = abs(pair[1]["median"] / pair[0]["median"] - 1)
                lines.append(
                    f"| {cell['id']} | {name} | {' | '.join(shown)} | {apart:.1%} | {'yes' if meets else 'no'} |"
                )
    head = ["| cell | what | first run | second run | medians apart | intervals meet |", "|---|---|---|---|---|---|"]
    return [
        f"Of {total} medians with intervals, {met} intervals meet those of a second process on the same card.",
        "",
        *head,
        *lines,
    ]


def page(documents: Sequence[Mapping[str, Any]], sources: Sequence[str], again: Mapping[str, Any] | None = None) -> str:
    """The page as Markdown; `again` is a second run of some of the cells."""
    made = groups(documents)
    lines = ["# What compression saves on a GPU", ""]
    lines += [
        "Made by `python bench_tests/studies/findings.py` from the reports below. Shapes are those of the published models, "
        "weights are random: times and bytes are real, answers mean nothing. A speed-up is dense's time over the method's, "
        'both compiled and captured in the same run. "Floor allows": what the bytes of a step would allow. Published: read off '
        "the paper's plot "
        f"for LLaVA-OneVision-7B on DocVQA ({load()['source']}).",
        "",
        *(line for source in zip(documents, sources, strict=True) for line in described(*source)),
        "",
        "## Findings",
        "",
    ]
    for group in made:
        lines += [f"**{group.name}**", ""]
        lines += [f"- {sentence}" for sentence in sentences(group)] + [""]
    for group in made:
        lines += [f"## {group.name}, batch {group.batch}", ""]
        lines += [f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
        lines += [f"| {' | '.join(row(group, cell))} |" for cell in group.cells] + [""]
    unmeasured = [one for document in documents for one in (*document["failed"], *document["skipped"])]
    if unmeasured:
        lines += ["## Not measured", ""]
        lines += [f"- {one['id']} ({one['part']}): {one['status']}, {one['reason']}" for one in unmeasured] + [""]
    if again:
        lines += ["## The same cells in a second run", "", *repeats(documents, again), ""]
    return "\n".join(lines)


def described(document: Mapping[str, Any], source: str) -> list[str]:
    """What a reader must know of a run: its machine, whether it finished, and what it noted."""
    run = document["run"]
    facts = [
        *(run.get("device"), f"driver {run.get('driver')}", f"torch {run.get('versions', {}).get('torch')}"),
        *(run["settings"]["dtype"], f"started {run['started']}"),
    ]
    cut = [] if run["status"] == "finished" else [f"it is {run['status']}: cells that it did not reach are missing"]
    return [f"- `{source}`: {', '.join(map(str, facts))}", *(f"    - {remark}" for remark in (*cut, *run["notes"]))]


def sentences(group: Group) -> list[str]:
    """What is real, in words made from the numbers."""
    found = []
    dense_ttft, floor = median(group.dense, "ttft_s"), median(group.dense, FLOORS["ttft"])
    if dense_ttft and floor:
        tower = median(group.dense, "tower_s")
        parts = f", of which {1e3 * tower:.0f} ms in the vision tower" if tower else ""
        found.append(
            f"Dense needs {1e3 * dense_ttft:.0f} ms to the first token{parts}: {dense_ttft / floor:.2f} of its floor."
        )
    for keep in group.keeps:
        pruned = spread(group.at(keep, set(names(group)) - set(CACHE)), "ttft")
        cached = spread(group.at(keep, CACHE), "ttft")
        words = [f"pruning {pruned}" if pruned else "", f"cache methods {cached}" if cached else ""]
        if any(words):
            found.append(f"Speed-up to the first token at keep {keep:g}: {', '.join(filter(None, words))}.")
    for word, where in (("decode", "one prompt"), ("batch", f"a batch of {group.batch}")):
        time, least = median(group.dense, SPEEDUPS[word]), median(group.dense, FLOORS[word])
        if not time or not least:
            continue
        found.append(f"Decoding of {where}: dense takes {time:.2f} ms a step, {time / least:.2f} of the floor.")
        for keep in group.keeps:
            cells = group.at(keep)
            allows = [value for cell in cells if (value := allowed(group, cell, word))]
            if (own := spread(cells, word)) and allows:
                printed = [value for cell in cells if (value := published(cell, "decode"))]
                beside = f"; published {min(printed):.2f} to {max(printed):.2f}" if printed else ""
                found.append(
                    f"Its speed-ups at keep {keep:g}: {own}, where bytes allow at most {max(allows):.2f}{beside}."
                )
    most = median(group.dense, "largest_batch")
    for keep in group.keeps if most else ():
        fits = [value for cell in group.at(keep) if (value := median(cell, "largest_batch"))]
        if fits and most:
            found.append(
                f"At keep {keep:g} {min(fits):.0f} to {max(fits):.0f} prompts fit beside the weights, dense {most:.0f}."
            )
    return found


def names(group: Group) -> list[str]:
    return list(dict.fromkeys(cell["method"] for cell in group.cells[1:]))


def spread(cells: Iterable[Mapping[str, Any]], word: str) -> str:
    """The smallest and largest speed-up with whose it is; "" where there is none."""
    found = sorted((one["value"], cell["method"]) for cell in cells if (one := cell["speedups"][word]))
    if not found:
        return ""
    (low, least), (high, best) = found[0], found[-1]
    return f"{low:.2f} (`{least}`) to {high:.2f} (`{best}`)" if len(found) > 1 else f"{low:.2f} (`{least}`)"


def row(group: Group, cell: Mapping[str, Any]) -> list[str]:
    """One line of the table; "" where there is no value."""
    ttft, decode, batch = (median(cell, SPEEDUPS[word]) for word in ("ttft", "decode", "batch"))
    achieved = cell["achieved"] or {}
    return [
        f"`{cell['method']}`",
        f"{cell['keep']:g}",
        _number(ttft and 1e3 * ttft, 1),
        _speedup(cell, "ttft"),
        _number(published(cell, "ttft"), 2),
        _number(decode, 2),
        _speedup(cell, "decode"),
        _number(published(cell, "decode"), 2),
        _number(batch, 2),
        _speedup(cell, "batch"),
        _number(allowed(group, cell, "batch"), 2),
        _number(median(cell, "largest_batch"), 0),
        _number(achieved.get("kv_bytes", 0) / 1e6 or None, 0),
    ]


def _speedup(cell: Mapping[str, Any], word: str) -> str:
    found = cell["speedups"][word]
    if not found:
        return ""
    ends = found["interval"]
    return f"{found['value']:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path, help="report.json of one run each")
    parser.add_argument("--again", type=Path, help="report.json of a second run of some of the cells")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    try:
        documents = [read(path) for path in asked.reports]
        again = read(asked.again) if asked.again else None
        text = page(documents, [path.name for path in asked.reports], again)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    asked.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
