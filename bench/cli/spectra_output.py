"""What `bench spectra` prints and draws: a table of layers, JSON, and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.output import emit
from bench.core.errors import OK, SOME_FAILED, UsageError
from bench.core.text import table

if TYPE_CHECKING:
    from bench.figures import Figure
    from bench.spectra.files.layer_metrics import LayerMetrics

COLUMNS = {
    "stable": "stable",
    "effective": "effective",
    "energy90": "90 % energy",
    "participation": "participation",
    "numerical": "numerical",
    "alpha": "power law α",
    "norm": "‖·‖₂",
}
"""Numbers of a row and their columns."""
SHOWN = {"effective": "effective rank", "stable": "stable rank", "norm": "spectral norm"}
"""What is drawn over depth."""


def report(
    rows: Sequence[LayerMetrics],
    figure: Figure | None,
    folder: Path,
    *,
    notes: Sequence[str],
    options: argparse.Namespace,
    more: Mapping[str, Any],
) -> int:
    """Write pictures, print the table or JSON, and name layers without a spectrum.

    Args:
        rows: layers in the network's order.
        figure: what is drawn, if there is anything.
        folder: where the pictures go.
        notes: one line each, for stderr.
        options: of the command line.
        more: what JSON says besides.

    Returns:
        0, or 1 if a layer has no spectrum.
    """
    files = _draw(figure, rows, folder) if figure is not None else []
    for note in notes:
        print(note, file=sys.stderr)
    for row in rows:
        if row.error:
            print(f"error: {row.layer}: {row.error}", file=sys.stderr)
    if options.json:
        emit({**more, "layers": list(map(as_json, rows)), "notes": list(notes), "files": list(map(str, files))})
    else:
        if rows:
            print(table(*cells(rows)))
        if files:
            print(f"\npictures: {', '.join(map(str, files))}")
    return SOME_FAILED if any(row.error for row in rows) else OK


def cells(rows: Sequence[LayerMetrics]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the table."""
    shown = [name for name in COLUMNS if any(name in row.numbers for row in rows)]
    header = ["layer", "shape", "nominal", *(COLUMNS[name] for name in shown), "computed"]
    return header, [
        [
            row.layer,
            "×".join(map(str, row.shape)),
            str(row.nominal),
            *(_number(row.numbers.get(name), name) for name in shown),
            f"not: {row.error}" if row.error else row.how + " · embedding" * row.embedding,
        ]
        for row in rows
    ]


def as_json(row: LayerMetrics) -> dict[str, Any]:
    """A layer with all its numbers."""
    numbers = {name: row.numbers[name] for name in COLUMNS if name in row.numbers}
    return {
        "layer": row.layer,
        "shape": list(row.shape),
        "nominal": row.nominal,
        **numbers,
        "how": row.how,
        "embedding": row.embedding,
        "error": row.error or None,
    }


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if name == "norm" else f"{value:.2f}" if isinstance(value, float) else str(value)


def _draw(figure: Figure, rows: Sequence[LayerMetrics], folder: Path) -> list[Path]:
    """Write both pictures.

    Raises:
        UsageError: the folder cannot be written.
    """
    from bench.figures import Table, page, png

    header, body = cells(rows)
    files = [folder / "spectra.png", folder / "spectra.html"]
    try:
        png.write(figure, files[0])
        page.write(figure, files[1], table=Table(title="All layers", header=header, rows=body))
    except OSError as error:
        raise UsageError(f"{folder} cannot be written", str(error), "Name another folder: --output DIR.") from error
    return files
