"""The leaderboard as one offline page (HTML, by plotly): filters, plots, tables, and the runs behind every number."""

from __future__ import annotations

import gzip
import json
import math
import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any

from bench.figures import style

SCRIPTS = ("text.js", "board.js", "table.js", "runs.js", "plots.js", "page.js", "library.js")
"""In the order in which they need each other."""


def render(board: Mapping[str, Any], *, live: float | None = None, tag: str = "") -> str:
    """The page of a board.

    Args:
        board: JSON values as `leaderboard.render.board.board` makes them. All text in it is taken as hostile: it
            stands in one escaped JSON element, and the script makes text nodes of it.
        live: ask the server for the board again every so many seconds; else the page may load nothing at all.
        tag: which state of the board this is, as the server calls it.
    """
    from plotly.offline import get_plotlyjs

    palette = {"light": style.LIGHT, "dark": style.DARK, "markers": style.MARKERS}
    script, plotly = "".join(map(_asset, SCRIPTS)), get_plotlyjs()
    parts = {
        "policy": _policy([plotly, script], live=live is not None),
        "title": escape(style.plain(board.get("title") or "Leaderboard")),
        "style": _asset("page.css"),
        "data": _json({"board": board, "palette": palette, "live": live, "tag": tag}),
        "plotly": b64encode(gzip.compress(plotly.encode(), mtime=0)).decode(),
        "script": script,
    }
    pieces = _asset("page.html").split("@@")  # text, name, text, name, …: what is filled in is never searched for names
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def without_library(page: str) -> str:
    """The page without plotly and the policy that names it: what is the project's own."""
    page = re.sub(r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*', r"\1", page, count=1)
    return re.sub(r'(<script type="text/plain" id="plotly">)[^<]*', r"\1", page, count=1)


def dumps(value: Any) -> str:
    """JSON in ASCII without spaces; a number that is not finite is null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False, separators=(",", ":"))


def _policy(scripts: list[str], *, live: bool) -> str:
    """What the browser itself refuses: to load anything, and to run any script but these."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    rules = ["default-src 'none'", f"script-src {hashes}", "style-src 'unsafe-inline'", "img-src data: blob:"]
    rules += ["base-uri 'none'", "form-action 'none'"]
    return "; ".join([*rules, "connect-src 'self'"] if live else rules)


def _asset(name: str) -> str:
    return resources.files("leaderboard").joinpath("assets", name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that cannot end the element it stands in."""
    return dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
