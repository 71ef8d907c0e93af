"""The site's pages that lie outside `docs/`, and links that work on GitHub and on the site.

GitHub and the site show the same Markdown. A link is written for GitHub, from file to file; here it is changed to the
place that the file has on the site. `README.md` is the first page, the notebook a page without outputs.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PLACES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "leaderboard/results/leaderboard.md": "reference_grid.md",
    "leaderboard/results/leaderboard.html": "reference_grid_page.html",
    "docs/python_api.ipynb": "python_api.md",
    "CITATION.cff": "CITATION.cff",
    "LICENSE": "LICENSE.txt",
}
"""File of the repository → its place on the site; every other file of `docs/` keeps its name."""
SOURCES = {place: source for source, place in PLACES.items()}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of `PLACES`."""
    if notebook := files.get_file_from_path("python_api.ipynb"):
        files.remove(notebook)
    for source, place in PLACES.items():
        path = ROOT / source
        text = _notebook(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
        if source.endswith("results/leaderboard.md"):
            page = "also as a [page to explore](leaderboard.html)"
            text = f"# Reference grid\n\nTables of the records in `leaderboard/results`, {page}.\n\n{text}"
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to the places of the site, and give code blocks that are files a title."""
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))
    if here == "index.md":
        page.meta["hide"] = ["navigation"]  # it would list this page alone

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        place = PLACES.get(target, target.removeprefix("docs/"))
        return f"]({posixpath.relpath(place, posixpath.dirname(here) or '.')}"

    markdown = re.sub(r"\]\((?![a-z]+:|#)([^)#\s]+)", moved, markdown)
    return re.sub(r"^```(\w+) (\S+)$", r'```\1 title="\2"', markdown, flags=re.M)


def _notebook(path: Path) -> str:
    """Return the cells of a notebook as Markdown."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    texts = [("".join(cell["source"]), cell["cell_type"]) for cell in cells]
    return "\n\n".join(f"```python\n{text}\n```" if kind == "code" else text for text, kind in texts)
