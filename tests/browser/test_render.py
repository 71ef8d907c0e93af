"""The file itself: its size, and data that cannot leave the element it stands in."""

from __future__ import annotations

import gzip
import json
import math
import re
from base64 import b64decode

import boards
from plotly.offline import get_plotlyjs

from leaderboard.render.page import dumps, render, without_library


def test_size() -> None:
    page = render(boards.empty())
    assert len(page.encode()) < 5e6
    assert 10e3 < len(without_library(page).encode()) < 150e3


def test_plotly_is_whole() -> None:
    [packed] = re.findall(r'<script type="text/plain" id="plotly">(.*?)</script>', render(boards.empty()))
    text = gzip.decompress(b64decode(packed)).decode()
    assert text == get_plotlyjs()
    assert "\r" not in text, "a browser would read another text than the policy's hash is of"


def test_data_comes_back_and_ends_no_element() -> None:
    board = boards.hostile() | {"number": [math.nan, math.inf, 1.5]}
    page = render(board)
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    back = json.loads(data)["leaderboard"]
    assert back["tables"][0]["columns"] == board["tables"][0]["columns"]
    assert back["number"] == [None, None, 1.5]
    assert not set("<>&") & set(data), "one of them alone may begin a comment or a script"
    assert page.count("</script>") == 3
    assert boards.SCRIPT not in page
    assert page.count("@@data@@") == data.count("@@data@@") + 2, "in the title and the heading it is text"


def test_same_data_same_bytes() -> None:
    assert render(boards.small()) == render(boards.small())


def test_only_a_served_page_may_connect() -> None:
    assert "connect-src" not in render(boards.empty())
    assert "connect-src 'self'" in render(boards.empty(), live=3.0)


def test_finite_numbers_are_kept_to_the_bit() -> None:
    assert json.loads(dumps([0.1, 1e-300, math.nan])) == [0.1, 1e-300, None]
