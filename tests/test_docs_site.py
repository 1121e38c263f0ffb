"""The built site: strict, whole without a network and without a server, its search included."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort
from toy_session import ROOT

from effivlm import registry
from tests.browsing import needs_browser

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "object": "data",
    "use": "href",
}
SETTINGS = str(ROOT / "mkdocs.yml")
WIDTHS = (1440, 390)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(load_config(SETTINGS, site_dir=str(folder)))
    return folder


class Loaded(HTMLParser):
    """Addresses that a page takes something from when it is opened; links that a reader may follow are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if LOADS.get(tag) == name]


def test_no_page_takes_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > len(registry.names("methods")) + len(registry.names("tasks"))
    for path in pages:
        reader = Loaded()
        reader.feed(path.read_text(encoding="utf-8"))
        assert len(reader.found) > 3
        for address in reader.found:
            assert not re.match(r"\w+:|//", address), f"{path.name}: {address}"
            if path.name != "404.html":
                assert (path.parent / address.partition("#")[0].partition("?")[0]).exists(), f"{path.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet.name


def test_no_sign_of_a_formula_is_lost_or_escaped_twice(site: Path) -> None:
    for path in sorted(site.glob("*/*.html")):
        article = path.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
        shown = re.sub(r"<(pre|code).*?</\1>|<[^>]*>", "", article, flags=re.DOTALL)
        assert not re.search(r"\\|&amp;(lt|gt|amp);", shown), path.name


def test_hooks_and_examples_are_code_and_no_part_of_the_site(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    assert not (site / "hooks").exists()


@pytest.mark.parametrize(
    "text", ["[away](nowhere.md)", "[no such heading](second.md#nothing)", "[from the root](/second.md)", "![](no.png)"]
)
def test_a_link_that_leads_nowhere_stops_the_build(text: str, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.md").write_text(f"# One\n\n{text}\n", encoding="utf-8")
    (pages / "second.md").write_text("# Two\n", encoding="utf-8")
    nav: list[Any] = [{"One": "index.md"}, {"Two": "second.md"}]
    known = {"plugins": [], "hooks": [], "nav": nav, "theme": {"name": "mkdocs"}}
    with pytest.raises(Abort, match="1 warnings in strict mode"):
        build(load_config(SETTINGS, docs_dir=str(pages), site_dir=str(tmp_path / "site"), **known))


@needs_browser
def test_from_the_disk_the_search_finds_a_method_and_nothing_is_asked_from_elsewhere(site: Path, browser: Any) -> None:
    tab = browser.new_page()
    asked: list[str] = []
    errors: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto((site / "index.html").as_uri())
    tab.click("input.md-search__input")
    tab.keyboard.type("sparsegpt")
    tab.locator("a.md-search-result__link[href*='methods/sparsegpt.html']").first.wait_for(timeout=15_000)
    assert [address for address in asked if not address.startswith("file:")] == []
    assert errors == []
    tab.close()


@pytest.mark.parametrize("width", WIDTHS)
@needs_browser
def test_no_page_is_wider_than_its_window(width: int, site: Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900})
    for path in sorted(site.glob("*.html")):
        tab.goto(path.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path.name
    tab.close()
