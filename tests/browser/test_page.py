"""The page used as people use it: filter, sort, hover, click through to a run; with a mouse, with a keyboard alone."""

from __future__ import annotations

from typing import Any

import boards
import pytest
from looking import Opened, Show

BOARD = boards.small()
FIRST, SECOND = BOARD["tables"]
OWN = [row for row in FIRST["rows"] if not row["published"]]
LABELS = [row["label"] for row in OWN]


def points(opened: Opened) -> int:
    """Markers in the Pareto plot."""
    return opened.page.locator("#pareto .points path.point").count()


def test_first_view(small: Opened) -> None:
    page = small.page
    assert page.title() == page.locator("h1").text_content() == "lowrank-bench leaderboard"
    assert small.rows() == LABELS
    assert small.rows("tbody.published") == ["LoRA"]
    assert page.locator("#count").text_content() == "10 rows shown, of 138 runs in 2 tables."
    assert points(small) == sum(row["average"] is not None for row in OWN)
    assert page.locator("#problem-list").text_content() == BOARD["problems"][0]
    assert "⚠ seeds" in (page.locator("#table").text_content() or "")
    assert "fewer than three seeds" in (page.locator("#notes").text_content() or "")
    assert "Hu et al. 2021, table 2, arXiv 2106.09685" in (page.locator("#notes").text_content() or "")


def test_tables_are_never_mixed(small: Opened) -> None:
    small.page.locator("#table-of").select_option(index=1)
    small.settle()
    assert small.rows() == [row["label"] for row in SECOND["rows"]]
    assert "bert-base" in (small.page.locator("#table caption").text_content() or "")
    small.page.locator("#backbone").select_option("minilm (22.7 M)")
    assert small.rows() == LABELS
    assert small.page.locator("#table-of option").count() == 1


def test_filters_and_their_link(small: Opened, show: Show) -> None:
    page = small.page
    before = points(small)
    page.get_by_role("group", name="Methods").get_by_label("full").uncheck()
    page.get_by_role("group", name="Tasks").get_by_label("mrpc").uncheck()
    page.get_by_role("group", name="Columns").get_by_label("Statistics").uncheck()
    small.settle()
    left = [label for label in LABELS if label != "full"]
    assert small.rows() == left
    assert points(small) == before - 1
    assert page.locator("#count").text_content() == "9 of 10 rows shown, of 138 runs in 2 tables."
    heads = page.locator("#table thead").inner_text()
    assert "rte" in heads
    assert "mrpc" not in heads
    assert "IQM" not in heads
    page.get_by_label("Rows whose name or settings contain").fill("RANK=4 lora")
    assert small.rows() == ["lora (rank=4)"]
    linked = show(BOARD, at=f"{page.url}")
    assert linked.rows() == ["lora (rank=4)"]
    linked.page.get_by_role("button", name="Reset filters").click()
    assert linked.rows() == LABELS
    linked.page.close()


def by(number: Any, *, best_first: bool) -> list[str]:
    """Labels by a number of each row; unknown ones last."""
    known = [row for row in OWN if number(row) is not None]
    known.sort(key=number, reverse=best_first)
    return [row["label"] for row in known] + [row["label"] for row in OWN if number(row) is None]


@pytest.mark.parametrize(
    ("column", "number", "falls"),
    [
        ("mrpc", lambda row: row["cells"][1] and row["cells"][1]["mean"], True),
        ("average , higher", lambda row: row["average"] and row["average"]["mean"], True),
        ("trained", lambda row: row["trainable"], False),
        ("effective rank", lambda row: row["effective"], False),
        ("runs", lambda row: row["states"]["oom"], False),
    ],
)
def test_sorting(small: Opened, column: str, number: Any, falls: bool) -> None:
    head = small.page.locator("#table thead th", has_text=column.split(" ,")[0]).first
    for press, down in enumerate((falls, not falls)):
        head.get_by_role("button").click()
        assert small.rows() == by(number, best_first=down), f"press {press}"
        assert head.get_attribute("aria-sort") == ("descending" if down else "ascending")
        assert small.rows("tbody.published") == ["LoRA"]
    head.get_by_role("button").click()
    assert small.rows() == LABELS
    assert head.get_attribute("aria-sort") == "none"


def test_what_leads_a_column_is_bold_and_nothing_else(small: Opened) -> None:
    for row in OWN:
        line = small.page.locator("#table tbody tr").nth(OWN.index(row))
        bold = line.locator("strong").all_text_contents()
        leading = [cell["mean"] for cell in row["cells"] if cell and cell["leads"]]
        assert [text[:5] for text in bold] == [f"{mean:.3f}" for mean in leading], row["label"]
    assert small.page.locator("#table tbody.published strong").count() == 0


def test_ranks_of_a_row_that_learned_nothing_are_grey_and_say_so(small: Opened) -> None:
    pale = small.page.locator("#table .pale")
    [row] = [row for row in OWN if row.get("learned_nothing")]
    assert pale.count() == 4 == small.page.locator("#table tbody tr", has_text=row["label"]).locator(".pale").count()
    grey, ink = (one.evaluate("e => getComputedStyle(e).color") for one in (pale.first, small.page.locator("body")))
    assert grey != ink and "says nothing" in pale.first.text_content()


def test_the_best_on_dev_stands_beside_the_last(small: Opened) -> None:
    """In the second table, whose last row has no course; it is not bold, says what it is, and sorts."""
    page = small.page
    assert "best" not in page.locator("#table thead").inner_text()
    page.locator("#table-of").select_option(index=1)
    small.settle()
    heads = [text.split("\n")[0] for text in page.locator("#table thead th").all_inner_texts()]
    assert heads[2:8] == ["cola ↑", "best on dev", "mrpc ↑", "best on dev", "average ↑", "average of the best"]
    shown = [row.locator("td").all_text_contents() for row in page.locator("#table tbody tr").all()]
    for row, cells in zip(SECOND["rows"][:-1], shown, strict=False):
        bests = [*(cell["best"]["mean"] for cell in row["cells"]), row["best_average"]["mean"]]
        assert [text[:5] for text in cells[2:7:2]] == [f"{value:.3f}" for value in bests]
    assert shown[len(SECOND["rows"]) - 1][2:7:2] == ["–", "–", "–"]
    assert page.locator("#table tbody td:nth-child(4) strong").count() == 0
    head = page.locator("#table thead th", has_text="best on dev").first
    assert "optimistic" in (head.get_by_role("button").get_attribute("title") or "")
    head.get_by_role("button").click()
    ordered = sorted(SECOND["rows"][:-1], key=lambda row: -row["cells"][0]["mean"])
    assert small.rows() == [row["label"] for row in (*ordered, SECOND["rows"][-1])]


def test_the_course_is_drawn(small: Opened) -> None:
    page = small.page
    page.locator("#table-of").select_option(index=1)
    page.locator("#curve-what").select_option("score")
    small.settle()
    courses = page.evaluate("document.getElementById('curve').data.map(line => [line.x, line.y])")
    assert len(courses) == len(SECOND["rows"]) - 1
    row = SECOND["rows"][0]
    runs = [BOARD["runs"][run_id]["evaluations"] for _, _, run_id in row["cells"][0]["runs"]]
    assert courses[0][0] == [50, 100, 150]
    assert courses[0][1] == pytest.approx([sum(run[i][1] for run in runs) / len(runs) for i in range(3)])


def place(opened: Opened, label: str) -> dict[str, float]:
    """Where a row's point is on the screen."""
    found = opened.page.evaluate(
        """label => {
            const plot = document.getElementById("pareto"), row = chosenTable.rows.find(row => row.label === label);
            const trace = plot._fullData.findIndex(trace => (trace.customdata || []).includes(row.id));
            const at = plot._fullData[trace].customdata.indexOf(row.id), box = plot.getBoundingClientRect();
            const {xaxis, yaxis} = plot._fullLayout, {x, y} = plot.data[trace];
            const across = xaxis._offset + xaxis.l2p(Math.log10(x[at])), down = yaxis._offset + yaxis.l2p(y[at]);
            return {x: box.left + across, y: box.top + down};
        }""",
        label,
    )
    return {name: float(value) for name, value in found.items()}


def test_hover_and_click_lead_to_the_runs(small: Opened) -> None:
    page, row = small.page, OWN[2]
    page.locator("#pareto").scroll_into_view_if_needed()
    page.mouse.move(**place(small, row["label"]))
    hover = page.locator("#pareto .hoverlayer .hovertext")
    hover.wait_for()
    text = hover.text_content() or ""
    assert row["label"] in text
    assert f"{row['average']['mean']:.3f} ± {row['average']['sd']:.3f} (n = 3)" in text
    page.mouse.click(**place(small, row["label"]))
    assert page.locator("#runs-title").text_content() == row["label"]
    assert page.locator("#runs .runs > li").count() == 12
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#runs").is_visible()


def test_a_cell_leads_to_its_runs_and_their_commands(small: Opened) -> None:
    page, row = small.page, OWN[1]
    page.locator("#table tbody tr", has_text=row["label"]).first.locator("td.score button").nth(2).click()
    assert page.locator("#runs-title").text_content() == f"{row['label']} on rte"
    mine = [BOARD["runs"][run_id] for _, _, run_id in row["cells"][2]["runs"]]
    assert page.locator("#runs .runs code").all_text_contents() == [run["command"] for run in mine]
    shown = page.locator("#runs .runs > li").first.inner_text()
    for told in ("rte, seed 0", f"{mine[0]['value']:.3f}", "done", "1e-3", "bb0c437aa0", row["cells"][2]["runs"][0][2]):
        assert told in shown
    page.evaluate("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve() }")
    page.locator("#runs .runs").get_by_role("button", name="Copy").nth(1).click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("window.copied") == mine[1]["command"]
    page.get_by_role("button", name="All tasks").click()
    assert page.locator("#runs .runs > li").count() == 12


def test_runs_without_a_score_are_there_with_their_errors(small: Opened, show: Show) -> None:
    page = small.page
    row = next(row for row in OWN if row["states"]["oom"])
    line = page.locator("#table tbody tr", has_text=row["label"]).first
    assert "3 oom" in line.inner_text()
    assert "3/4" in line.inner_text()
    line.locator("td.score button").nth(1).click()
    assert page.locator("#runs .runs .error").all_text_contents() == ["out of memory\nasked 2 GiB"] * 3
    linked = show(BOARD, at=page.url)
    assert linked.page.locator("#runs-title").text_content() == f"{row['label']} on mrpc"
    linked.page.close()


def focus(opened: Opened) -> str:
    return opened.page.evaluate("document.activeElement.textContent") or ""


def test_keyboard_alone(small: Opened) -> None:
    page = small.page
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.keyboard.press("Tab")
    assert focus(small) == "Skip to the table"
    assert page.locator(".skip").bounding_box() == pytest.approx({"x": 16, "y": 16, "width": 1, "height": 1}, abs=400)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the box that scrolls
    for _ in range(3):
        page.keyboard.press("Tab")
    assert focus(small).startswith("cola")
    page.keyboard.press("Enter")
    assert small.rows() == by(lambda row: row["cells"][0] and row["cells"][0]["mean"], best_first=True)
    assert focus(small).startswith("cola"), "sorting must not lose the place"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    while "n=3" not in focus(small):
        page.keyboard.press("Tab")
    cell = focus(small)
    page.keyboard.press("Enter")
    assert page.locator("#runs").is_visible()
    assert page.evaluate("document.getElementById('runs').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert not page.locator("#runs").is_visible()
    assert focus(small) == cell
    assert "runs=" not in page.url


def test_rows_drawn_below_are_chosen_in_the_table(small: Opened) -> None:
    page = small.page
    assert page.locator("#curves .legend.drawn li").count() == 6
    assert page.locator("#curve .scatterlayer .trace").count() == 6
    page.get_by_label(f"draw {LABELS[0]} below").uncheck()
    small.settle()
    assert page.locator("#curve .scatterlayer .trace").count() == 5
    page.locator("#curve-seed").select_option("all")
    small.settle()
    assert page.locator("#curve .scatterlayer .trace").count() == 15
    page.locator("#curve-what").select_option("rank")
    page.locator("#curve-seed").select_option("1")
    small.settle()
    assert page.evaluate("document.getElementById('curve').data[0].y.length") == 6
    first = next(row for row in OWN[1:] if row["layers"])
    for measure, at in (("effective", 2), ("stable", 3)):
        page.get_by_label(measure, exact=True).check()
        small.settle()
        drawn = page.evaluate("document.getElementById('layers').data.filter(trace => trace.hovertext)[0].y")
        assert drawn == [layer[at] for layer in first["layers"] if "query" in layer[0]]


def test_front_is_that_of_all_pairs(small: Opened) -> None:
    import random

    draw = random.Random(5)
    made = [{"x": draw.randint(1, 9), "y": draw.randint(1, 9)} for _ in range(40)]
    for up in (True, False):
        better = (lambda a, b: a >= b) if up else (lambda a, b: a <= b)

        def beaten(p: dict[str, int], better: Any = better) -> bool:
            return any(q != p and q["x"] <= p["x"] and better(q["y"], p["y"]) for q in made)

        expected = {(p["x"], p["y"]) for p in made if not beaten(p)}
        found = small.page.evaluate("([points, up]) => paretoFront(points, up)", [made, up])
        assert {(p["x"], p["y"]) for p in found} == expected


def test_large_tables_show_their_first_rows(show: Show) -> None:
    opened = show(boards.large(12_000))
    assert len(opened.rows()) == 200
    opened.page.get_by_role("button", name="Show all").click()
    assert len(opened.rows()) == 250
    assert opened.complaints == []
    opened.page.close()
