"""A page in a browser, as the tests of it look at one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


@dataclass
class Opened:
    """A page with all that it asked for and complained about."""

    page: Page
    file: Path
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def go(self, address: str = "") -> None:
        """The view of an address; without one, everything as it is at first."""
        self.page.goto(f"file://{self.file}#{address}")
        self.settle()

    def settle(self) -> None:
        """Wait until plots are drawn, too: they come one task after what they follow from."""
        self.page.evaluate(
            "new Promise(done => setTimeout(() => requestAnimationFrame(() => setTimeout(done, 30)), 30))"
        )

    def rows(self, body: str = "tbody:not(.published)") -> list[str]:
        """The names in the table, in order."""
        return self.page.locator(f"#table {body} th.name .label").all_text_contents()


Show = Callable[..., Opened]


def serious(opened: Opened) -> list[str]:
    """What axe-core calls serious or critical."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found: list[dict[str, Any]] = axe.Axe().run(opened.page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]
