"""Text for people: scores, parameter counts and aligned tables, and text for anyone: without secrets."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

T = TypeVar("T")

DECIMALS = 3  # of a score
SMALL = 0.01  # errors below it are shown with three significant digits instead

SECRETS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b((?:hf|api_org)_)[a-z0-9]{16,}",  # Hugging Face
        r"\b(wandb_v\d+_|local-)(?=\w*\d)\w{20,}",  # W&B; its older keys are 40 hex digits, as are commits
        r"(authorization\W{1,4}(?:(?:bearer|basic|token)\s+)?)[^\s\"'\\,;]+",
        r"\b(bearer\s+)[\w.~+/=-]{16,}",
        r"((?:api_?key|(?:access|auth)_?token|client_?secret|passwd|password)[\"']?\s*[=:]\s*[\"']?)[^\s\"'\\,;&]{8,}",
        r"(://[^\s/:@\"'\\]*:)[^\s/\"'\\]+(?=@)",  # user:password@host
    )
]
"""What looks like a key or a password; the first group stays."""
SECRET_VARIABLES = re.compile(r"(_TOKEN|_KEY|_SECRET|_PASSWORD)$", re.IGNORECASE)
"""Environment variables whose values are secret, HF_TOKEN and WANDB_API_KEY among them."""
HIDDEN = "***"
"""What stands in the place of a secret."""
SHORTEST_SECRET = 8  # shorter values of such variables are words that occur in any text

_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u2064\u2066-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f"
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""Unicode's categories Cc, Cf, Cs, Zl and Zp: controls, directions, surrogates and line ends."""


def printable(text: str) -> str:
    """Put a space in place of every control or direction character, so that text of others cannot steer a terminal."""
    return _INVISIBLE.sub(" ", text)


def printable_lines(text: str) -> str:
    """Apply `printable` to every line of a text, and keep its lines."""
    return "\n".join(map(printable, text.split("\n")))


def dump_json(value: object, default: Callable[[object], object] | None = None, *, indent: int | None = 1) -> str:
    """Write JSON for people, with control and direction characters as escapes; without indent on one line."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=default)
    return _INVISIBLE.sub(lambda match: match[0] if match[0] == "\n" else json.dumps(match[0])[1:-1], text)


def format_score(value: float, higher_is_better: bool | None = True) -> str:
    """Format a score with three decimals, or a small error with three digits: `0.813`, `5.53e-05`."""
    small = higher_is_better is False and 0 < abs(value) < SMALL
    return f"{value:.3g}" if small else f"{value:z.{DECIMALS}f}"


def format_count(parameters: float) -> str:
    """Format a number of parameters: `22.7 M`, `0.07 M`, `1.2 k`, `770`."""
    if parameters >= 9_995:
        return f"{parameters / 1e6:.{1 if parameters >= 9.995e6 else 2}f} M"
    return f"{parameters / 1e3:.1f} k" if parameters >= 1_000 else f"{parameters:.0f}"


def format_trained(parameters: float, share: float) -> str:
    """Format how many parameters train, and their share of all: `0.07 M (0.3 %)`."""
    percent = 100 * share
    digits = f"{percent:.0f}" if percent >= 99.95 else f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
    return f"{format_count(parameters)} ({digits} %)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, indent: str = "") -> str:
    """Align columns. On a terminal the last one is wrapped to its width, elsewhere a row stays one line.

    Control characters become spaces.
    """
    lines = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(width(row[i]) for row in lines) for i in range(len(header) - 1)]
    left = len(indent) + sum(widths) + 2 * len(widths)
    room = max(30, shutil.get_terminal_size().columns - left) if sys.stdout.isatty() else sys.maxsize
    out: list[str] = []
    for *cells, last in lines:
        start = "".join(cell + " " * (most - width(cell) + 2) for cell, most in zip(cells, widths, strict=True))
        first, *rest = textwrap.wrap(last, room) or [""]
        out += [f"{indent}{start}{first}".rstrip(), *(" " * left + more for more in rest)]
    return "\n".join(out)


def width(text: str) -> int:
    """Columns that a text takes on a terminal: combining marks (W̃) take none, and wide characters (漢) two."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in {"W", "F"}) for c in text)


def without_secrets(value: T) -> T:
    """Return a text, or a JSON value with all of its texts, with `***` for everything that looks like a secret.

    Secrets are values of `SECRET_VARIABLES` and what `SECRETS` describes. All that is printed, stored in a record or
    sent to a mirror passes through here.
    """
    values = [v for k, v in os.environ.items() if SECRET_VARIABLES.search(k) and len(v) >= SHORTEST_SECRET]

    def masked(part: Any) -> Any:
        if isinstance(part, str):
            for secret in values:
                part = part.replace(secret, HIDDEN)
            for pattern in SECRETS:
                part = pattern.sub(rf"\1{HIDDEN}", part)
            return part
        if isinstance(part, dict):
            return {key: masked(item) for key, item in cast(dict[object, object], part).items()}
        if isinstance(part, list | tuple):
            return [masked(item) for item in cast(Sequence[object], part)]
        return part

    return masked(value)
