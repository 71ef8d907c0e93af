"""Figures as files: the end of the name decides between a picture, by matplotlib, and an interactive page."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import UsageError
from bench.figures import Figure, Table

PICTURES, PAGES = (".png", ".pdf", ".svg"), (".html",)
ENDINGS = (*PICTURES, *PAGES)


def check_ending(flag: str, path: Path) -> None:
    """Refuse a file whose name says no known format, before anything is computed.

    Raises:
        UsageError: the error names `flag` and the known endings.
    """
    if path.suffix not in ENDINGS:
        known = f"known: {', '.join(ENDINGS)}"
        raise UsageError(f"{flag}: {path} names no known format", known, f"Such as {flag} figure.pdf.")


def write(figure: Figure, path: Path, *, table: Table | None = None) -> None:
    """Write `figure` in the format that the end of the name says; a page also has the table.

    Raises:
        OSError: the file cannot be written.
    """
    if path.suffix in PAGES:
        from bench.figures import page

        page.write(figure, path, table=table)
    else:
        from bench.figures import picture  # imports matplotlib, which takes a second

        picture.write(figure, path)
