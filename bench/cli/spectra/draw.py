"""The pictures of `bench spectra`: one file that was named, or a PNG and a page in a folder."""

from __future__ import annotations

from pathlib import Path

from bench.core.errors import UsageError
from bench.figures import Figure, Table
from bench.figures.files import write


def draw(figure: Figure, name: str, folder: Path, picture: Path | None, table: Table | None = None) -> list[Path]:
    """Write `picture`, or else `name`.png and `name`.html in `folder`; return what was written.

    Called after the table has been printed, since matplotlib takes a second.

    Raises:
        UsageError: a file cannot be written.
    """
    files = [picture] if picture else [folder / f"{name}.png", folder / f"{name}.html"]
    try:
        for file in files:
            write(figure, file, table=table)
    except OSError as error:
        flag = "--figure FILE" if picture else "--output DIR"
        raise UsageError(f"{picture or folder} cannot be written", str(error), f"Name another one: {flag}.") from error
    return files
