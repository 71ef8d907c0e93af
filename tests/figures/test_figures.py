"""Figures as pictures and pages: what is in them, and what a hostile name cannot do."""

from __future__ import annotations

import json
import math
import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from bench.core.files import write_atomic
from bench.figures import Figure, Map, Panel, Series, Table, page, picture, style

HOSTILE = "a</script><script>alert(1)</script>&amp;<b>$x_1$ 漢\u202e\x07\n@@data@@"


def figure(*panels: Panel, **more: Any) -> Figure:
    return Figure(title="Spectra", panels=panels, **more)


def lines(count: int, **more: Any) -> Panel:
    content = [Series(name=f"s{i}", x=[1, 10, 100], y=[i + 1.0, i + 2.0, i + 4.0]) for i in range(count)]
    return Panel(title="Lines", x="step", y="singular value", content=content, **more)


MAP = Panel(
    title="Map",
    x="step",
    y="layer",
    content=Map(x=[0, 1, 5], y=["a.0", "a.1"], z=[[1, 2, 3], [4, math.nan, 6]], unit="rank"),
)
BARS = Panel(
    title="Bars",
    x="optimiser",
    y="rank",
    content=[Series(name=name, x=["sgd", "adam"], y=[1, 2], spread=[0.5, 3], form="bars") for name in "ab"],
    y_axis="log",
)


class Reader(HTMLParser):
    """Elements with their attributes, and the text of each `script`, `td`, `th`, `h1`, `h2` and `button`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = [("", "")]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append((tag, ""))

    def handle_data(self, data: str) -> None:
        tag, text = self.texts[-1]
        self.texts[-1] = (tag, text + data)

    def of(self, tag: str) -> list[str]:
        return [text.strip() for name, text in self.texts if name == tag]


def written(made: Figure, folder: Path, **more: Any) -> tuple[str, Reader, list[Any]]:
    """The page's text without plotly, as elements, and the data for its script."""
    page.write(made, folder / "page.html", **more)
    text = (folder / "page.html").read_text(encoding="utf-8")
    from plotly.offline import get_plotlyjs

    assert text.count(get_plotlyjs()) == 1
    text = text.replace(get_plotlyjs(), "")
    read = Reader(text)
    return text, read, json.loads(read.of("script")[0])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(("columns", "count", "inches"), [(2, 4, 8.4), (2, 1, 5.6), (3, 3, 12.6)])
def test_picture_has_its_size_and_ink(columns: int, count: int, inches: float, tmp_path: Path) -> None:
    picture.write(figure(*[lines(2)] * count, columns=columns), tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == round(inches * picture.DPI)
    assert image.shape[0] > picture.HEIGHT * picture.DPI * (count / columns)
    blue = np.abs(image.astype(int) - [0x00, 0x72, 0xB2]).sum(-1) < 12
    assert blue.sum() > 300, "the first series' colour is nowhere"


def test_every_form_is_drawn_without_a_warning(tmp_path: Path) -> None:
    theory = Series(name="theory", x=[1, 10, 100], y=[1, 1, 1], form="dashed")
    points = Panel(title="p", x="x", y="y", content=[Series(name="p", x=[1, 2], y=[1, 2], form="points"), theory])
    zero = Panel(title="z", x="x", y="y", content=[Series(name="z", x=[0, 1], y=[0, 0])], y_axis="log", x_axis="log")
    empty = Panel(title="e", x="x", y="y", content=[])
    gaps = Panel(title="g", x="x", y="y", content=[Series(name="g", x=[1, 2, 3], y=[1, math.nan, math.inf])])
    many = lines(30, x_axis="log", y_axis="log")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = figure(points, zero, empty, gaps, many, MAP, BARS, lines(9), caption="words " * 60)
        picture.write(made, tmp_path / "a.png")
        picture.write(figure(), tmp_path / "none.png")
    assert pixels(tmp_path / "a.png").std() > 10


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    x, y = np.arange(3), np.array([1.0, np.nan, 3.0], dtype=np.float32)
    made = figure(
        Panel(title="t", x="x", y="y", content=[Series(name="n", x=x, y=y, form="bars"), Series(name="m", x=x, y=y)])
    )
    picture.write(made, tmp_path / "a.png")
    (panel,) = written(made, tmp_path)[2]
    assert [trace["y"] for trace in panel["traces"]] == [[1.0, None, 3.0]] * 2


@pytest.mark.parametrize("name", [HOSTILE, "$\\frac{$", "_hidden", "x" * 500, ""])
def test_hostile_names_are_drawn_as_they_are(name: str, tmp_path: Path) -> None:
    series = [Series(name=name, x=[1, 2], y=[1, 2]), Series(name="other", x=[1, 2], y=[2, 1])]
    named = Panel(title=name, x=name, y=name, content=[Series(name=name + "2", x=[name, "b"], y=[1, 2], form="points")])
    grid = Panel(title=name, x=name, y=name, content=Map(x=[1, 2], y=[name, "b"], z=[[1, 2], [3, 4]], unit=name))
    plain = Panel(title="t", x="x", y="y", content=series)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture.write(Figure(title=name, panels=[plain, named, grid], caption=name), tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").std() > 5


def test_legend_keeps_names_that_begin_with_an_underscore() -> None:
    from matplotlib.figure import Figure as Canvas

    panel = Panel(title="t", x="x", y="y", content=[Series(name=n, x=[1], y=[1]) for n in ("_a", "b")])
    entries, _ = picture._entries([panel], style.looks(figure(panel)), 4)
    canvas = Canvas()
    picture._legend(canvas, entries)
    assert [text.get_text().strip() for text in canvas.legends[0].get_texts()] == ["_a", "b"]


def test_page_loads_nothing_and_forbids_it(tmp_path: Path) -> None:
    text, read, _ = written(figure(lines(3), MAP, caption="c"), tmp_path)
    assert not [e for e in read.elements if {"src", "href", "srcset", "data", "action", "poster"} & e[1].keys()]
    assert not [tag for tag, _ in read.elements if tag in {"link", "iframe", "img", "object", "embed", "base", "form"}]
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    policy = next(e[1]["content"] for e in read.elements if e[1].get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.split(";")[0] == "default-src 'none'"
    assert "http" not in policy and "*" not in policy and "eval" not in policy
    order = [e[1].get("http-equiv") for e in read.elements]
    assert order.index("Content-Security-Policy") < [tag for tag, _ in read.elements].index("style")


def test_no_name_becomes_markup(tmp_path: Path) -> None:
    one = Series(name=HOSTILE, x=[HOSTILE, "b"], y=[1, 2], spread=[1, 1])
    grid = Map(x=[1, 2], y=[HOSTILE, "b"], z=[[1, 2], [3, 4]], unit=HOSTILE)
    panels = [
        Panel(title=HOSTILE, x=HOSTILE, y=HOSTILE, content=content)
        for content in ([one, Series(name="b", x=["b"], y=[1])], grid)
    ]
    table = Table(title=HOSTILE, header=[HOSTILE], rows=[[HOSTILE]])
    made = Figure(title=HOSTILE, panels=panels, caption=HOSTILE)
    _, read, data = written(made, tmp_path, table=table)
    assert [tag for tag, _ in read.elements].count("script") == 3
    assert not [tag for tag, _ in read.elements if tag == "b"]
    shown = style.plain(HOSTILE)
    assert "\u202e" not in shown and "\n" not in shown
    assert read.of("h1") == [shown]
    assert read.of("h2") == [shown] * 2
    assert shown in read.of("td") + read.of("th")
    strings = [s for s in re.findall(r'"((?:[^"\\]|\\.)*)"', json.dumps(data, ensure_ascii=False)) if "alert" in s]
    assert len(strings) >= 8
    assert not [s for s in strings if "<" in s], "plotly takes markup in every text"
    assert not [s for s in strings if re.search(r"&(?!amp;|lt;|gt;)", s)]


def test_data_cannot_end_their_element() -> None:
    value = [{"name": "</script><!-- & \u2028"}]
    text = page.escape_json(json.dumps(value))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_page_holds_the_numbers_as_tables(tmp_path: Path) -> None:
    table = Table(title="All", header=["layer", "rank"], rows=[["a.0", 1.5]])
    _, read, data = written(figure(lines(2), MAP, BARS), tmp_path, table=table)
    assert [tag for tag, _ in read.elements].count("details") == 4
    assert {"1.5", "a.0", "100", "4", "nan", "6", "0.5"} <= {*read.of("td"), *read.of("th")}
    assert data[1]["traces"][0]["z"] == [[1.0, 2.0, 3.0], [4.0, None, 6.0]]
    assert data[2]["traces"][0]["error_y"]["array"] == [0.5, 3.0]


def test_long_tables_say_what_is_left_out(tmp_path: Path) -> None:
    one = Series(name="a", x=list(range(page.MAX_ROWS + 5)), y=[0.0] * (page.MAX_ROWS + 5))
    text, read, _ = written(figure(Panel(title="t", x="x", y="y", content=[one])), tmp_path)
    assert len(read.of("td")) == page.MAX_ROWS
    assert "first 2,000 of 2,005 rows" in text


def test_traces_are_plotly_s(tmp_path: Path) -> None:
    import plotly.graph_objects as go

    _, _, data = written(figure(lines(9), MAP, BARS), tmp_path)
    for panel in data:
        for trace in panel["traces"]:
            given = {key: value for key, value in trace.items() if key not in {"colours", "key"}}
            go.Figure(data=[given])  # refuses what plotly does not know
    assert data[2]["y"]["type"] == "log"
    assert data[2]["x"]["type"] == "category"


def test_legend_buttons_stand_for_the_traces_of_one_name(tmp_path: Path) -> None:
    text, read, data = written(figure(lines(3), lines(2)), tmp_path)
    assert read.of("i") == ["s0", "s1", "s2"], text
    assert [[trace["key"] for trace in panel["traces"]] for panel in data] == [[0, 1, 2], [0, 1]]


def test_colours_are_one_per_name_and_told_apart() -> None:
    few = style.looks(figure(lines(3), lines(2)))
    assert len({look.light for look in few.values()}) == 3
    assert not any(look.ordered for look in few.values())
    many = style.looks(figure(lines(style.ORDERED)))
    assert all(look.ordered for look in many.values())
    # lightness of a sequence rises steadily (ITU-R BT.709 luma)
    luma = [
        sum(w * int(look.light[i : i + 2], 16) for w, i in zip((0.2126, 0.7152, 0.0722), (1, 3, 5), strict=True))
        for look in many.values()
    ]
    assert luma == sorted(luma)


def test_sequential_palette_is_viridis() -> None:
    from matplotlib import colormaps

    for i in range(91):
        mine = [int(style.sequential(i / 90)[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        # its tenth colours are its own, those between are not curved as its own are
        assert np.allclose(mine, colormaps["viridis"](i / 90)[:3], atol=0.07 if i % 10 else 0.003)


def test_hidden_series_wait_on_a_page_and_are_not_in_a_picture(tmp_path: Path) -> None:
    hidden = Series(name="hidden", x=[1, 10], y=[1, 1e9], shown=False)
    made = figure(Panel(title="p", x="x", y="y", content=[hidden, *lines(2).content]))
    page.write(made, tmp_path / "f.html")
    text = (tmp_path / "f.html").read_text(encoding="utf-8")
    buttons = [dict(attributes) for tag, attributes in Reader(text).elements if tag == "button"]
    assert [(one["data-key"], one["aria-pressed"]) for one in buttons] == [("1", "true"), ("2", "true"), ("0", "false")]
    left = style.without_hidden(made)
    assert style.names(left.panels) == ["s0", "s1"]
    picture.write(made, tmp_path / "a.svg")
    picture.write(figure(Panel(title="p", x="x", y="y", content=left.panels[0].content)), tmp_path / "b.svg")
    assert "hidden" not in (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert (tmp_path / "a.svg").read_text().count("<path") == (tmp_path / "b.svg").read_text().count("<path")


def test_one_legend_where_it_is_unambiguous() -> None:
    def shared(made: Figure) -> bool:
        return style.shared_legend(made, style.looks(made))

    assert shared(figure(lines(3), lines(2)))
    other = Panel(title="o", x="x", y="y", content=[Series(name=f"o{i}", x=[1], y=[1]) for i in range(6)])
    assert not shared(figure(lines(6), other))


def test_labels_of_layers_lose_what_they_share() -> None:
    names = [f"encoder.layer.{i}.attention.self.query" for i in (3, 10)]
    assert style.labels(names, 40) == ["…3.attention.self.query", "…10.attention.self.query"]
    assert style.labels(["same.name"], 40) == ["same.name"]
    assert len(set(style.labels(names, 16))) == 2


def test_map_cells_meet_halfway() -> None:
    from matplotlib.figure import Figure as Canvas

    axes = Canvas().add_subplot()
    assert picture._along(axes, "x", [0, 10, 30], "linear").tolist() == [0, 5, 20, 30]
    assert np.allclose(picture._along(axes, "x", [1, 100, 10_000], "log"), [1, 10, 1000, 10_000])
    assert picture._along(axes, "y", ["a", "b"], "linear").tolist() == [-0.5, 0.5, 1.5]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.png"
    write_atomic(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in path.parent.iterdir()] == ["a.png"]


def test_bars_of_a_series_that_misses_a_place_stand_with_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    drawn: list[tuple[list[float], float]] = []
    plain = Axes.bar

    def bar(axes: Axes, x: Any, y: Any, **options: Any) -> Any:
        drawn.append(([*map(float, x)], float(options["width"])))
        return plain(axes, x, y, **options)

    monkeypatch.setattr(Axes, "bar", bar)
    every = [
        Series(name="a", x=["one", "two", "three"], y=[1, 2, 3], form="bars"),
        Series(name="b", x=["one", "three"], y=[1, 2], form="bars"),
    ]
    picture.write(Figure(title="t", panels=[Panel(title="p", x="x", y="y", content=every)]), tmp_path / "a.png")
    assert [places for places, _ in drawn] == [pytest.approx([-0.2, 0.8, 1.8]), pytest.approx([0.2, 2.2])]
    assert [width for _, width in drawn] == pytest.approx([0.4, 0.4])
