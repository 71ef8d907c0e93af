"""The documentation as a site: it builds strictly, loads nothing from elsewhere, and shows what GitHub shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytest.importorskip("material", reason="mkdocs-material is not installed")
markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")

ROOT = Path(__file__).resolve().parents[2]
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "object": "data",
}
"""Elements that load what an attribute names; a `link` does by its `rel`."""
KEPT = ("preconnect", "dns-prefetch", "preload", "stylesheet", "icon", "manifest", "modulepreload")
BLOCKS = ("table", "tr", "ul", "ol", "li", "pre", "h1", "h2", "h3", "img", "strong")
PAGES = {"README.md": "index", "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}
PAGES |= {f"docs/{path.name}": path.stem for path in sorted((ROOT / "docs").glob("*.md"))}
"""Page in the repository → page of the site."""


class Seen(HTMLParser):
    """What a page loads, and its elements by name: all of them, or those of its article."""

    def __init__(self, text: str, *, article: bool) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.elements: Counter[str] = Counter()
        self._inside = not article
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = self._inside or tag == "article"
        if self._inside and "headerlink" not in (given.get("class") or ""):
            self.elements[tag] += 1
        if tag == "link" and set((given.get("rel") or "").split()) & {*KEPT}:
            self.loaded.append(given.get("href") or "")
        self.loaded += [given.get(LOADS.get(tag, "")) or "", *_in_css(given.get("style") or "")]
        self.loaded += [part.split()[0] for part in (given.get("srcset") or "").split(",") if part.strip()]

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "article"

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style":
            self.loaded += _in_css(data)


def _in_css(text: str) -> list[str]:
    found = re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)", text)
    return [address or imported for address, imported in found]


def foreign(addresses: list[str]) -> list[str]:
    return [one for one in addresses if re.match(r"(?!data:)([a-z][a-z0-9+.-]*:)?//|(?!data:)[a-z]+:", one.strip())]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `mkdocs build --strict` builds it: a broken link, anchor or page without a place ends it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        loaded = Seen(page.read_text(encoding="utf-8"), article=False).loaded
        assert not foreign(loaded), page.name
        assert any("main" in one for one in loaded) or page.name == "reference_grid_page.html"
    sheets = sorted(site.rglob("*.css"))
    assert len(sheets) >= 3
    for sheet in sheets:
        assert not foreign(_in_css(sheet.read_text(encoding="utf-8"))), sheet.name


@pytest.mark.parametrize("source", [name for name in PAGES if name != "docs/python.md"])
def test_a_page_has_the_tables_lists_and_code_that_github_shows(site: Path, source: str) -> None:
    """Python-Markdown and GitHub differ in what is a list, a table or a code block."""
    github = markdown_it.MarkdownIt("commonmark").enable("table").render((ROOT / source).read_text(encoding="utf-8"))
    expected = Seen(github, article=False).elements
    shown = Seen((site / f"{PAGES[source]}.html").read_text(encoding="utf-8"), article=True).elements
    assert {name: shown[name] for name in BLOCKS} == {name: expected[name] for name in BLOCKS}


def test_the_reference_of_python_has_the_docstrings(site: Path) -> None:
    text = (site / "python.html").read_text(encoding="utf-8")
    for name in ("bench.runs.run", "bench.runs.load", "bench.runs.Runs.frame", "bench.spectra.effective_rank"):
        assert f'id="{name}"' in text, name
    assert "Train every combination of methods" in text


def test_it_works_without_a_server_and_on_a_phone(site: Path, browser: Browser) -> None:
    requests, problems = list[str](), list[str]()
    for width, scheme in ((1400, "dark"), (390, "light")):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        for name in ("index", "spectra", "commands", "results", "record", "python"):
            page.goto(f"file://{site}/{name}.html")
            page.wait_for_function("document.fonts.status == 'loaded'")
            wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(wider) == 0, f"{name} is wider than {width} px"
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 300) == (scheme == "dark"), background
        if width == 1400:
            page.goto(f"file://{site}/index.html")
            page.locator("input[name=query]").click()
            page.keyboard.type("truncation")
            page.wait_for_selector(".md-search-result__item a[href*=ranks]", timeout=15_000)
        page.close()
    assert not [address for address in requests if not address.startswith(("file:", "data:", "blob:"))]
    assert problems == []
