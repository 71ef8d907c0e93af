"""Numbers on the page read as in the other tables."""

from __future__ import annotations

import random
from typing import Any

import pytest
from looking import Opened

from bench.core.text import format_trained
from leaderboard.render import cells
from leaderboard.tables.grouping import format_number
from leaderboard.tables.table import Stat

DRAW = random.Random(0)
VALUES = [DRAW.choice([1, -1]) * DRAW.random() * 10 ** DRAW.uniform(-7, 9) for _ in range(300)]
VALUES += [k / 16 for k in range(-17, 18)] + [
    0.0,
    -0.0,
    0.0004,
    -0.0004,
    0.01,
    0.00999,
    9994.9,
    9995,
    999,
    119.96,
    7199.9,
]
SIZES = [abs(value) for value in VALUES]


def page_gives(small: Opened, code: str, values: Any) -> list[str]:
    return small.page.evaluate(f"values => values.map({code})", values)


@pytest.mark.parametrize("up", [True, False, None])
def test_scores(small: Opened, up: bool | None) -> None:
    stats = [Stat(value, abs(value) / 3 if i % 5 else None, 3) for i, value in enumerate(VALUES)]
    plain = [{"mean": stat.mean, "sd": stat.sd} for stat in stats]
    up_word = {True: "true", False: "false", None: "null"}[up]
    assert page_gives(small, f"stat => score(stat, {up_word})", plain) == [cells.score(stat, up) for stat in stats]


def test_parameters(small: Opened) -> None:
    pairs = [[size, DRAW.random() ** 4] for size in SIZES] + [[22.7e6, 1.0], [5, 0.9996], [5, 0.0]]
    assert page_gives(small, "pair => trained(...pair)", pairs) == [format_trained(*pair) for pair in pairs]


def test_times(small: Opened) -> None:
    assert page_gives(small, "duration", SIZES) == [cells.duration(size) for size in SIZES]


def test_rates(small: Opened) -> None:
    rates = [1e-3, 1.5e-4, 0.5, 0.05, 2.0, 3e-5, 0.049, 1e6, 12345.5, *SIZES]
    assert page_gives(small, "rate", rates) == [format_number(rate) for rate in rates]


def test_significant_digits(small: Opened) -> None:
    assert page_gives(small, "value => general(value, 3)", VALUES) == [f"{value:z.3g}" for value in VALUES]


def test_sizes(small: Opened) -> None:
    sizes = [0, 770, 3080, 272_000, 90_864_896, 12.3e9, *SIZES]
    assert page_gives(small, "bytes", sizes) == [cells.size(size) for size in sizes]
