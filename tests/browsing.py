"""A browser for tests of the page, and the page of a small run that holds everything a page can show."""

from __future__ import annotations

import base64
import importlib.util
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from effivlm.records import Achieved, Cell, Outcome, dump
from effivlm.report import document, page, samples
from tests.outcomes import CACHE, END, HEADER, achieved, cell, missing, quality, store, stored_beside, timed

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LACKS = [
    *([] if CHROMIUM else ["Chromium (apt-get install -y chromium)"]),
    *([] if importlib.util.find_spec("playwright") else ["playwright (pip install 'effivlm[test]')"]),
]
needs_browser = pytest.mark.skipif(
    bool(LACKS), reason=f"the page is looked at in a browser, which needs {' and '.join(LACKS)}"
)
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
TASKS = ("docvqa_micro", "video_micro")
KEEPS = ("0.10", "0.40")
WIDTH = 1440
PATIENCE_S = 30
LINE_PX = 60  # no row of a table is taller: nothing in it wraps

# Smallest contrast of each text with what lies behind it, as WCAG 2 defines it; text in a heat map against all its colours.
CONTRAST = """() => {
  const parse = text => { const found = text.match(/[0-9.]+/g).map(Number); return found.length < 4 ? [...found, 1] : found; };
  const linear = v => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = rgb => [0.2126, 0.7152, 0.0722].reduce((sum, share, i) => sum + share * linear(rgb[i] / 255), 0);
  const against = (a, b) => { const [x, y] = [light(a), light(b)].sort((m, n) => n - m); return (x + 0.05) / (y + 0.05); };
  const behind = e => {
    const ground = parse(getComputedStyle(e).backgroundColor);
    return ground[3] > 0 ? ground : e.parentElement ? behind(e.parentElement) : [255, 255, 255, 1];
  };
  const stops = document.createElement("canvas").getContext("2d");
  const rgb = hex => { stops.fillStyle = hex; return [1, 3, 5].map(i => parseInt(stops.fillStyle.slice(i, i + 2), 16)); };
  const heat = [0, 1, 2, 3, 4].map(i => rgb(getComputedStyle(document.documentElement).getPropertyValue(`--h${i}`).trim()));
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), e = walker.currentNode.parentElement;
    if (!text || !e.checkVisibility()) continue;
    if (e.closest("script, noscript, .unseen, .skip, button:disabled, option")) continue;
    const svg = e.closest("svg"), colour = parse(svg ? getComputedStyle(e).fill : getComputedStyle(e).color);
    const grounds = svg && e.closest(".tiles") ? heat : [behind(svg ? svg.parentElement : e)];
    found.push([Math.min(...grounds.map(ground => against(colour, ground))), text.slice(0, 40)]);
  }
  return found;
}"""

# Milliseconds of each task that held the page for 50 and more, from its first byte on.
LONG = """window.long = []; new PerformanceObserver(list => list.getEntries().forEach(one => window.long.push(one.duration)))
  .observe({ type: "longtask", buffered: true });"""


@dataclass
class Shown:
    """A page in the browser, with what it said and asked for."""

    tab: Any
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def eval(self, script: str, argument: Any = None) -> Any:
        return self.tab.evaluate(script, argument)

    def until(self, script: str, argument: Any = None) -> None:
        """Ask again until it is so; the page's own policy forbids the driver's way of waiting."""
        end = time.monotonic() + PATIENCE_S
        while not self.eval(script, argument):
            assert time.monotonic() < end, f"never so: {script}"
            self.tab.wait_for_timeout(20)

    def drawn(self) -> Shown:
        self.until("performance.getEntriesByName('drawn').length")
        return self

    def redraw(self, change: Callable[[], Any]) -> None:
        """Do what draws all charts again, and wait for it."""
        self.drawn().eval("performance.clearMarks('drawn')")
        change()
        self.drawn()

    def resize(self, width: int) -> None:
        """Another width, and the charts drawn for it."""
        if self.eval("innerWidth") != width:
            self.redraw(partial(self.tab.set_viewport_size, {"width": width, "height": 900}))

    def pick(self, select: str, label: str) -> None:
        choose = partial(self.tab.select_option, f"#{select}", label=label)
        if select in ("model", "task"):
            self.redraw(choose)
        else:
            choose()

    def traces(self, chart: str = "chart") -> int:
        found: int = self.eval("id => document.getElementById(id).querySelectorAll('.series').length", chart)
        return found


def show(browser: Any, path: Path) -> Shown:
    tab = browser.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="light").new_page()
    tab.set_default_timeout(1000 * PATIENCE_S)
    shown = Shown(tab)
    tab.add_init_script(LONG)
    tab.on("console", lambda message: shown.said.append(message.text))
    tab.on("pageerror", lambda error: shown.said.append(str(error)))
    tab.on("dialog", lambda dialog: (shown.said.append("dialog"), dialog.dismiss()))
    tab.on("request", lambda request: shown.asked.append(request.url))
    tab.goto(path.as_uri())
    return shown.drawn()


def marks(shown: Shown) -> int:
    """Marks of all lines in the first section's charts that are shown."""
    script = "[...document.querySelectorAll('#tradeoff .chart')].flatMap(e => e.spec ? e.spec.series : [])"
    found: int = shown.eval(f"{script}.reduce((sum, one) => sum + one.points.length, 0)")
    return found


def picture(shade: int) -> str:
    file = BytesIO()
    Image.new("RGB", (96, 96), (shade, 240, 250)).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def mask(*kept: int, tokens: int = 16) -> str:
    bits = np.isin(np.arange(tokens), kept)
    return base64.b64encode(np.packbits(bits).tobytes()).decode()


def outcomes() -> list[Outcome]:
    found = []
    for task in TASKS:
        dense = cell(task=task)
        found += [quality(dense, [1.0] * 8), timed(dense, "ttft", *[0.2] * 6), timed(dense, "decode", *[4.0] * 6)]
        for method in ("fastv", "pyramid_kv"):
            for keep in KEEPS:
                right = 4 if keep == "0.10" else 6
                flags = [place < right for place in range(8)]
                which = cell(method, keep, task)
                layers = (60.0, 20.0) if method == "pyramid_kv" else (40.0, 40.0)
                of = "prompt entries" if method in CACHE else "visual tokens"
                kept: Achieved = achieved(float(keep), of=of)
                kept = Achieved(
                    kept.of, kept.asked_keep, kept.kept, kept.total, kept.keep, layers, kept.kv_bytes, 64_000
                )
                found += [
                    quality(which, [float(flag) for flag in flags], flags, achieved=kept),
                    timed(which, "ttft", *[0.2 if method in CACHE else 0.1] * 6),
                    timed(which, "decode", *[3.0] * 6),
                ]
    return [*found, missing(cell("look_m", "0.10"), reason="RuntimeError: out of memory")]


def kept_line(which: Cell, sample: str) -> dict[str, Any]:
    video = which.task == "video_micro"
    layers = {"0": mask(0, 1, 2), "1-3": mask(15)} if which.method == "pyramid_kv" else {"0-3": mask(0, 5)}
    grid, shows = ([[2, 2, 4]], [[0, 2]]) if video else ([[1, 4, 4]], [[0, 1]])
    facts = {"kind": "kept", "task": which.task, "sample": sample, "cell": which.to_json()}
    return {**facts, "grid": grid, "shows": shows, "layers": layers}


def build(folder: Path) -> Path:
    """The page of a small run with everything a page can show."""
    found = outcomes()
    path = store(folder, found)
    extra: list[dict[str, Any]] = []
    for task in TASKS:
        for place in range(8):
            pictures = [picture(200), picture(90)] if task == "video_micro" else [picture(230)]
            facts = {"kind": "sample", "task": task, "id": f"s{place}", "prompt": "What?", "references": ["yes"]}
            extra.append({**facts, "thumbnail": pictures[0], "pictures": pictures})
    extra += [
        kept_line(one.cell, answer.id)
        for one in found
        if one.part == "quality" and one.cell.method != "dense"
        for answer in one.answers
    ]
    with path.open("a", encoding="utf-8") as file:
        file.writelines(dump(line) + "\n" for line in extra)
    made = document.build(HEADER, found, END)
    for one in made["cells"]:
        one["costs"]["ttft_floor_s"] = {"rounds": [0.03], "median": 0.03, "interval": None, "n": 1}
        if one["method"] == "dense":
            noise = {"same": 0.97, "exact": 0.9, "soft": 0.98, "prefix": 0.95, "forced": 0.99}
            one["noise"] = {**noise, "n": 8, "change": "another kernel"}
    for row in made["summary"]["ol"]:
        row["noise"] = 0.97
    made["summary"]["refused"] = [{"table": "og", "reason": "no mean over scoring", "select": "--vlm-tasks docvqa"}]
    facts = {"source": "a paper, table 3", "model": "micro_llava", "method": "fastv", "keep": 0.1, "task": None}
    made["published"] = [{**facts, "of": "op", "value": 0.4}]
    (folder / "report.html").write_text(
        page.render(made, samples.changed(found, stored_beside(path))), encoding="utf-8"
    )
    return folder / "report.html"
