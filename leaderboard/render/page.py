"""The leaderboard as one HTML file that works offline: filters, plots (plotly), tables, and the runs of every score."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from html import escape
from importlib import resources

from bench.figures import style
from bench.figures.page import escape_json, fill

SCRIPTS = ("text.js", "state.js", "table.js", "runs.js", "plots.js", "status.js", "page.js", "library.js")
"""Each may use those before it."""


def render(data: Mapping[str, object], *, live: float | None = None, tag: str = "") -> str:
    """Render the page.

    Args:
        data: result of `leaderboard_json`. All its text counts as hostile: the page holds it in one escaped JSON
            element, and the script makes text nodes of it.
        live: interval in seconds at which the page asks its server for new data. Without it the page loads nothing.
        tag: entity tag of `data` on that server.
    """
    from plotly.offline import get_plotlyjs

    palette = {"light": style.LIGHT, "dark": style.DARK, "markers": style.MARKERS}
    script, plotly = "".join(map(_asset, SCRIPTS)), get_plotlyjs()
    parts = {
        "policy": _policy([plotly, script], live=live is not None),
        "title": escape(style.plain(data.get("title") or "Leaderboard")),
        "style": _asset("page.css"),
        "data": escape_json(dumps({"leaderboard": data, "palette": palette, "live": live, "tag": tag})),
        "plotly": _packed(plotly),
        "script": script,
    }
    return fill(_asset("page.html"), parts)


@lru_cache(maxsize=1)
def _packed(plotly: str) -> str:
    """The library, compressed; it is the same for every page, and takes most of the time of one."""
    return b64encode(gzip.compress(plotly.encode(), mtime=0)).decode()


def without_library(page: str) -> str:
    """The page without plotly and the content security policy, which has its hash."""
    page = re.sub(r'(<meta http-equiv="Content-Security-Policy" content=")[^"]*', r"\1", page, count=1)
    return re.sub(r'(<script type="text/plain" id="plotly">)[^<]*', r"\1", page, count=1)


def dumps(value: object) -> str:
    """JSON in ASCII without spaces; NaN and infinity become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except ValueError:
        finite = json.loads(json.dumps(value), parse_constant=lambda name: None)
        return json.dumps(finite, separators=(",", ":"))


def _policy(scripts: list[str], *, live: bool) -> str:
    """Content security policy: the page loads nothing and runs only these scripts."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in scripts)
    rules = ["default-src 'none'", f"script-src {hashes}", "style-src 'unsafe-inline'", "img-src data: blob:"]
    rules += ["base-uri 'none'", "form-action 'none'"]
    return "; ".join([*rules, "connect-src 'self'"] if live else rules)


def _asset(name: str) -> str:
    return resources.files("leaderboard").joinpath("assets", name).read_text(encoding="utf-8")
