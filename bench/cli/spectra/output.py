"""What `bench spectra` prints and draws: a table of layers, JSON, and pictures."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.cli.output import emit
from bench.cli.spectra import values
from bench.cli.spectra.draw import draw
from bench.cli.spectra.values import LayerValues
from bench.core.errors import OK, SOME_FAILED
from bench.core.text import printable, table
from bench.figures import Figure, Table
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Spectra:
    """The spectra of a run or of files.

    Attributes:
        rows: layers in the network's order.
        figure: None where no layer has a spectrum.
        notes: what was left out and what to know, a line each.
        more: what JSON says besides.
        values: all singular values, for `--values`.
    """

    rows: Sequence[LayerMetrics]
    figure: Figure | None
    notes: Sequence[str]
    more: Mapping[str, object]
    values: Sequence[LayerValues] = ()


def report(spectra: Spectra, folder: Path, picture: Path | None, raw: Path | None, *, as_json: bool) -> int:
    """Print the table or JSON, write files, and return 1 if a layer has no spectrum, else 0.

    These are the singular values, as `raw`, and the pictures: `picture`, or else a PNG and a page in `folder`.

    The table comes first: it is there even where the files cannot be written.
    """
    rows = spectra.rows
    errors = [f"error: {row.layer}: {row.error}" for row in rows if row.error]
    for line in (*spectra.notes, *errors):
        print(printable(line), file=sys.stderr)
    if rows and not as_json:
        print(table(*_cells(rows)), flush=True)
    header, body = _cells(rows)
    layers = Table(title="All layers", header=header, rows=body)
    if raw and spectra.values:
        values.write(raw, spectra.values)
    files = draw(spectra.figure, "spectra", folder, picture, layers) if spectra.figure else []
    if as_json:
        written = [*files, *([raw] if raw and spectra.values else [])]
        layers = [_as_json(row) for row in rows]
        emit({**spectra.more, "layers": layers, "notes": list(spectra.notes), "files": list(map(str, written))})
        return SOME_FAILED if errors else OK
    if raw and spectra.values:
        count = len(spectra.values)
        print(f"\nsingular values of {count} {'matrix' if count == 1 else 'matrices'}: {printable(str(raw))}")
    if files:
        print("\npictures:", printable(", ".join(map(str, files))))
    return SOME_FAILED if errors else OK


def _cells(rows: Sequence[LayerMetrics]) -> tuple[list[str], list[list[str]]]:
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


def _as_json(row: LayerMetrics) -> dict[str, object]:
    numbers = {name: row.numbers[name] for name in COLUMNS if name in row.numbers}
    how = {"how": row.how, "embedding": row.embedding, "error": row.error or None}
    return {"layer": row.layer, "shape": row.shape, "nominal": row.nominal, **numbers, **how}


def _number(value: float | None, name: str) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if name == "norm" else f"{value:.2f}" if isinstance(value, float) else str(value)
