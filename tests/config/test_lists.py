"""Lists in one text: where they are cut, and that one value can always be written so that it stays one."""

from __future__ import annotations

import random

import pytest

from bench.config.lists import single, split


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4", ["4"]),
        ("", [""]),
        ("4,8, 16", ["4", "8", "16"]),
        ("4,,8", ["4", "", "8"]),
        (r"qv,layer\.\d{1,2}\.query", ["qv", r"layer\.\d{1,2}\.query"]),
        ("(a,b),[c,d]", ["(a,b)", "[c,d]"]),
        ("(a,b", ["(a,b"]),
        ("a),b", ["a)", "b"]),
        (r"\(a,b", [r"\(a", "b"]),
        (r"a\,b,c", ["a,b", "c"]),
        (r"a\\,b", [r"a\,b"]),
    ],
)
def test_it_is_cut_at_commas_outside_of_brackets(text: str, values: list[str]) -> None:
    assert [*split(text)] == values


def test_one_value_can_be_written_alone() -> None:
    draw = random.Random(0)
    for _ in range(20_000):
        value = "".join(draw.choices(r"a,,\\([{)]} ", k=draw.randrange(9)))
        assert split(single(value)) == (value,), value
    assert single(r"\d{1,2}") == r"\d{1,2}", "as it is where that is enough"
