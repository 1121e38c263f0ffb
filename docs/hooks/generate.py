"""What the site has beside its written pages: a page for each method, task and report, made anew at every build."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page as Shown

sys.path.insert(0, str(Path(__file__).parent))

import markers
import measured
import methods
import tasks
from documented import Page

TAKEN = {"pictures/report.png": measured.FOLDER / "report.png"}
"""Files of the repository that pages show, by their place in the site."""
KINDS = {"Methods": methods.pages, "Tasks": tasks.pages, "Measured": measured.pages}


def generated() -> dict[str, list[Page]]:
    """By heading of the navigation: the index of a kind, then a page for each name."""
    return {heading: pages() for heading, pages in KINDS.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages into the navigation, and take out what would be fetched from elsewhere."""
    config.extra["polyfills"] = ["assets/worker.js"]  # the plugin for pages without a server asks a CDN for its own
    made = generated()
    config.extra["generated"] = made
    config.nav = [_filled(entry, made) for entry in config.nav or []]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for page in (page for pages in config.extra.pop("generated").values() for page in pages):
        files.append(File.generated(config, page.path, content=page.text))
    for path, source in {**TAKEN, **measured.taken()}.items():
        files.append(File.generated(config, path, abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, *, page: Shown, config: MkDocsConfig, files: Files) -> str:
    try:
        return markers.expanded(markdown)
    except ValueError as error:
        raise PluginError(f"{page.file.src_uri}: {error}") from error


def _filled(entry: Any, made: dict[str, list[Page]]) -> Any:
    """An entry of the navigation, with the pages of its kind behind its index, those of a section together."""
    heading = next(iter(entry))
    if heading not in made:
        return entry
    index, *pages = made[heading]
    sections: dict[str, list[dict[str, str]]] = {}
    for page in pages:
        sections.setdefault(page.section, []).append({page.title: page.path})
    flat = sections.pop("", [])
    return {heading: [index.path, *flat, *({name: found} for name, found in sections.items())]}
