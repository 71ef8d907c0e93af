"""Which method runs on which architecture, as `docs/backbones.md`.

    python docs/backbones.py

Every architecture is built small from its configuration and held against what a record claims of a run on it, in about
a minute; `tests/architectures` does the same and holds the page against the code.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "backbones.md"
HEAD = """# Backbones and methods

`--backbone DIR` or a hub id loads any text encoder of transformers, `--backbone timm:NAME` any image network of timm.
This page says what the methods, at their defaults, make of their architectures.

- ● The network starts at the backbone's function, ΔW added to the weights of a plain copy gives the outputs of the
  adapted network, every trained tensor has a gradient, and no frozen one moves.
- ◐ The same, with a warning in the record that is quoted below.
- – The run is refused with the reason quoted below.

`python docs/backbones.py` writes this page from small random networks; `tests/architectures` holds it against the code.

"""


def write() -> str:
    """Return the page."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from architectures import ARCHITECTURES, METHODS, outcome

    rows, quotes = list[str](), list[str]()
    for name in ARCHITECTURES:
        found = {column: outcome(name, column) for column in METHODS}
        rows.append(f"| {name} | {' | '.join(sign for sign, _ in found.values())} |")
        texts: dict[str, list[str]] = {}
        for column, (_, said) in found.items():
            for text in said:
                texts.setdefault(text, []).append(column)
        quotes += [f"- **{name}**, {'; '.join(columns)}: {text}" for text, columns in texts.items()]
    header = f"| | {' | '.join(METHODS)} |\n|---|{':-:|' * len(METHODS)}"
    return HEAD + "\n".join([header, *rows, "", *quotes, ""])


if __name__ == "__main__":
    PAGE.write_text(write(), encoding="utf-8")
