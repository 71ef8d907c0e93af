"""A browser for the page's tests: Debian's Chromium, started once; skipped, with the reason, where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boards
import pytest
from looking import Opened, Show

from leaderboard.render.page import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    # of the package, not the session: while playwright runs, no other test could start an event loop
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="package")
def show(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Show:
    """Open the page of a board, or, without one, an address that is served."""

    def opened(board: dict[str, Any] | None, *, width: int = 1400, scheme: Any = "light", at: str = "") -> Opened:
        file = tmp_path_factory.mktemp("page") / "page.html"
        if board is not None:
            file.write_text(render(board), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
        page.set_default_timeout(10_000)
        made = Opened(page, file)
        page.on("request", lambda request: made.requests.append(request.url))
        page.on("pageerror", lambda error: made.complaints.append(str(error)))
        page.on("console", lambda m: made.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.goto(at or f"file://{file}")
        page.wait_for_selector("#curve .plotly", state="attached")
        made.settle()
        return made

    return opened


@pytest.fixture(scope="package")
def shared(show: Show) -> Iterator[Opened]:
    """The small board, opened once."""
    made = show(boards.small())
    yield made
    made.page.close()


@pytest.fixture
def small(shared: Opened) -> Iterator[Opened]:
    """The small board as it looks at first; whatever is done to it must raise no complaint."""
    shared.page.set_viewport_size({"width": 1400, "height": 900})
    shared.go()
    yield shared
    assert shared.complaints == []
