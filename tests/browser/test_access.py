"""Read by everyone: axe finds nothing serious, nothing overflows a phone, and paper gets what paper can show."""

from __future__ import annotations

import boards
import pytest
from looking import Opened, Show, serious

from bench.figures import style


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(show: Show, scheme: str) -> None:
    opened = show(boards.small(), scheme=scheme)
    for width in (1400, 390):
        opened.page.set_viewport_size({"width": width, "height": 900})
        opened.settle()
        assert serious(opened) == []
        opened.page.locator("#table td.score button").first.click()
        assert serious(opened) == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        opened.page.keyboard.press("Escape")
    opened.page.close()


def test_a_phone_starts_without_the_filters_in_the_way(show: Show) -> None:
    opened = show(boards.small(), width=390)
    assert not opened.page.get_by_role("group", name="Methods").is_visible()
    opened.page.get_by_text("Filters", exact=True).click()
    assert opened.page.get_by_role("group", name="Methods").is_visible()
    for place in ("#pareto", "#ranks", "#curves", "#scores .box"):
        box = opened.page.locator(place).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    opened.page.close()


def test_axe_sees_what_is_wrong(show: Show) -> None:
    opened = show(boards.one_row())
    opened.page.evaluate("document.querySelector('#find').parentElement.previousElementSibling.remove()")
    opened.page.evaluate("document.querySelector('.lead').style.color = '#bbb'")
    assert {text.partition(":")[0] for text in serious(opened)} >= {"label", "color-contrast"}
    opened.page.close()


def test_headings_landmarks_and_texts_for_plots(small: Opened) -> None:
    page = small.page
    assert page.locator("h1").count() == 1
    for landmark in ("header", "main", "footer"):
        assert page.locator(f"body > {landmark}").count() == 1
    assert page.locator("#table caption").count() == 1
    assert page.locator("#table thead th:not([scope=col])").count() == 0
    for plot in ("pareto", "used", "layers", "curve"):
        assert len(page.locator(f"#{plot}").get_attribute("aria-label") or "") > 30
    assert "galore" in (page.locator("#pareto").get_attribute("aria-label") or "")
    assert page.locator("#count").get_attribute("aria-live") == "polite"


def test_paper(show: Show) -> None:
    opened = show(boards.small(), scheme="dark")
    page = opened.page
    page.get_by_label("Print the runs").check()
    page.emulate_media(media="print", color_scheme="dark")
    opened.settle()
    for hidden in (".choosers", "#filters", ".tools >> nth=0", ".skip", "#close"):
        assert not page.locator(hidden).is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#appendix code").count() == 108
    ink = page.evaluate("document.querySelector('#pareto .xtick text').style.fill")
    assert ink == "rgb(27, 30, 35)"
    paints = page.locator("#pareto-legend path").evaluate_all("all => all.map(one => one.getAttribute('fill'))")
    assert paints
    assert set(paints) <= set(style.LIGHT)
    assert page.pdf(landscape=True)[:4] == b"%PDF"
    page.emulate_media(media="screen")
    opened.settle()
    assert not page.locator("#appendix").is_visible()
    page.close()
