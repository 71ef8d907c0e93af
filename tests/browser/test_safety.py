"""What a board cannot do to the page, and what the page cannot do to its reader."""

from __future__ import annotations

from typing import Any

import boards
import pytest
from looking import Opened, Show

MARKUP = "a<b>c</b> &amp; d<br>e"
ODD = {
    "empty": boards.empty(),
    "one row": boards.one_row(),
    "no ΔW": boards.no_update(),
    "nothing": {},
    "no lists": {"tables": None, "runs": None, "problems": None, "notes": None},
    "null tables": {"tables": [None, {}, {"rows": [None, {}], "columns": [None]}], "runs": {"a": None}},
}


def outside(opened: Opened) -> list[str]:
    """What was asked for besides the file itself and what it made."""
    return [url for url in opened.requests if not url.startswith((opened.file.as_uri(), "data:", "blob:"))]


def everything(opened: Opened) -> None:
    """Open what can be opened and press what can be pressed."""
    page = opened.page
    for head in range(page.locator("#table thead button").count()):
        page.locator("#table thead button").nth(head).click()
    for select in ("#score", "#curve-what", "#curve-task", "#curve-seed"):
        for option in range(page.locator(f"{select} option").count()):
            page.locator(select).select_option(index=option, force=True)
    page.get_by_label("stable", exact=True).check()
    for button in page.locator("#table tbody th.name button").all()[:3]:
        button.click()
        opened.settle()
        page.get_by_role("button", name="Close").click()
    opened.settle()


def test_nothing_is_loaded_and_nothing_is_complained_about(small: Opened) -> None:
    everything(small)
    assert outside(small) == []
    assert small.requests, "the file itself at least"


def test_hostile_texts_stay_texts(show: Show) -> None:
    opened = show(boards.hostile(), scheme="dark")
    page = opened.page
    everything(opened)
    assert page.evaluate("window.ran") is None
    assert page.locator("img, #table script, dialog script, .plot script, #table b, dialog b").count() == 0
    assert opened.complaints == []
    assert outside(opened) == []
    assert page.evaluate("({}).a") is None, "no prototype was changed"
    title = page.locator("h1").text_content() or ""
    assert title.startswith(boards.SCRIPT + boards.IMAGE)
    assert "\u202e" not in page.locator("body").inner_text()
    assert boards.SCRIPT[:22] in (page.locator("#pareto-legend").text_content() or "")
    drawn = page.locator("#pareto text").all_text_contents()
    assert any(text.startswith(boards.SCRIPT) and "…" in text for text in drawn), "plotly draws markup as text"
    assert "-5 " not in (page.locator("#pareto-note").text_content() or "")
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        opened.settle()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_plotly_draws_markup_as_it_is_written(show: Show) -> None:
    board = boards.one_row()
    board["tables"][0]["rows"][0]["label"] = board["tables"][0]["columns"][0]["metric"] = MARKUP
    opened = show(board)
    assert opened.page.locator("#used .ytick text").all_text_contents() == [MARKUP]
    title = opened.page.locator("#pareto .ytitle").text_content()
    assert title == f"cola, {MARKUP} (lower is better)"
    assert opened.page.locator("#pareto .textpoint").all_text_contents() == [MARKUP]
    opened.page.close()


@pytest.mark.parametrize("name", ODD)
def test_odd_boards_break_nothing(show: Show, name: str) -> None:
    opened = show(ODD[name])
    everything(opened)
    assert opened.complaints == []
    if name in ("empty", "nothing", "no lists"):
        assert "No scores yet." in (opened.page.locator("#table").text_content() or "")
    opened.page.close()


def refused(opened: Opened, code: str) -> Any:
    before = len(opened.complaints)
    opened.page.evaluate(code)
    opened.settle()
    said = opened.complaints[before:]
    del opened.complaints[before:]
    return [text for text in said if "Content Security Policy" in text]


FORBIDDEN = [
    "fetch('https://example.org/').catch(() => 0)",
    "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))",
    "document.body.append(Object.assign(document.createElement('img'), {src: 'https://example.org/a.png'}))",
    "document.body.insertAdjacentHTML('beforeend', '<i onclick=\"window.ran = 1\">.</i>'); "
    "document.body.lastElementChild.click()",
]


def test_the_browser_refuses_what_the_policy_forbids(show: Show) -> None:
    opened = show(boards.one_row())
    for code in FORBIDDEN:
        assert refused(opened, code), f"the policy let it through: {code}"
    assert opened.page.evaluate("window.ran") is None
    opened.page.close()


def test_a_command_is_copied_as_it_is_shown(show: Show) -> None:
    board = boards.one_row()
    board["runs"]["0" * 16]["command"] = "bench run\nrm -rf x\u202e"
    opened = show(board)
    opened.page.locator("#table tbody th.name button").click()
    assert opened.page.locator("#runs code").text_content() == "bench run\\u{a}rm -rf x\\u{202e}"
    opened.page.close()
