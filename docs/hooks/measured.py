"""What was measured: the pages that studies wrote into reports/baselines, as they are, and an index of them."""

from __future__ import annotations

import re
from pathlib import Path

from documented import Page, table

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "reports" / "baselines"
KIND = "measured"
LINK = re.compile(r"\]\(([\w.-]+)\)")
OWN = "README"  # about the folder, for who writes into it


def pages() -> list[Page]:
    """The index first, then the pages of the studies by name.

    Raises:
        ValueError: a page does not begin with its title.
    """
    texts = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md")) if path.stem != OWN}
    titles = {name: _title(name, text) for name, text in texts.items()}
    alike = [title for title in titles.values() if list(titles.values()).count(title) > 1]
    named = {name: f"{title}: {name}" if title in alike else title for name, title in titles.items()}
    found = [Page(f"{KIND}/{name}.md", named[name], "", text) for name, text in texts.items()]
    return [_index(found), *found]


def taken() -> dict[str, Path]:
    """Files beside those pages that they show or link to, by their place in the site."""
    names = {name for page in pages() for name in LINK.findall(page.text)}
    return {f"{KIND}/{name}": FOLDER / name for name in sorted(names) if (FOLDER / name).suffix != ".md"}


def _title(name: str, text: str) -> str:
    title = text.partition("\n")[0]
    if not title.startswith("# "):
        raise ValueError(f"reports/baselines/{name}.md does not begin with its title")
    return title.removeprefix("# ")


def _index(found: list[Page]) -> Page:
    rows = [
        (f"[{page.title}]({Path(page.path).name})", f"`reports/baselines/{Path(page.path).name}`") for page in found
    ]
    text = (
        "# Measured\n\nPages that studies of this repository wrote from runs, as they stand in the repository. Each says by which"
        " command it was made, on which machine and when.\n\n"
    )
    return Page(f"{KIND}/index.md", "Measured", "", f"{text}{table(['page', 'file'], rows)}\n")
