"""Figures as data: one description for a picture (`bench.figures.picture`) and a page (`bench.figures.page`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Axis = Literal["linear", "log"]
Form = Literal["line", "points", "dashed", "bars"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line, or one set of points, of a panel.

    Attributes:
        name: entry of the legend; series of one name share colour and entry.
        x, y: equally many numbers; x may be names instead (bars and points over categories).
        spread: half the height of whiskers, or none.
        form: `dashed` is for predictions of theory.
        shown: if not, a picture leaves it out, and a page draws it when its name is pressed.
    """

    name: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    spread: Sequence[float] = ()
    form: Form = "line"
    shown: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """Numbers over two axes as colours, such as effective rank over steps and layers.

    Attributes:
        x, y: values of columns and rows.
        z: a row of numbers for each of `y`.
        unit: meaning of the colours.
    """

    x: Sequence[float] | Sequence[str]
    y: Sequence[float] | Sequence[str]
    z: Sequence[Sequence[float]]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes, labelled `x` and `y`, with units."""

    title: str
    x: str
    y: str
    content: Sequence[Series] | Map
    x_axis: Axis = "linear"
    y_axis: Axis = "linear"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Panels under one title, `columns` in a row; the caption says where the numbers come from."""

    title: str
    panels: Sequence[Panel]
    caption: str = ""
    columns: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of numbers under the plots of a page; a row has as many cells as the header."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]
