"""`bench spectra`: the spectra of a run over training, or of any safetensors model or adapter without training."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.output import emit
from bench.cli.parser import Parser, choice, common
from bench.config.sections import QUANTITIES
from bench.core.errors import OK, SOME_FAILED, UsageError
from bench.core.text import table

if TYPE_CHECKING:
    from bench.figures import Figure
    from bench.spectra.files.layer_metrics import LayerMetrics

EXAMPLES = (
    "bench spectra 1f3a9c",
    "bench spectra 1f3a9c --runs results --layer encoder.layer.1.attention.self.query --output pictures",
    "bench spectra runs/1f3a9c0123456789/adapter.safetensors",
    "bench spectra tuned --base original --metrics all",
)
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


def parser() -> Parser:
    """The verb's parser."""
    made = Parser(
        prog="bench spectra",
        description="Show the spectra of a run: singular values and ranks of every layer over training. Or those of\n"
        "any model or adapter in safetensors (a file, a folder, shards with their index, an adapter of peft or of a\n"
        "run, a hub id), without training and with one layer at a time in memory. Convolutions count as matrices\n"
        "(out, in·k·k); vectors have no spectrum. Pictures are spectra.png and spectra.html.",
        parents=[common()],
        examples=EXAMPLES,
    )
    made.add_argument(
        "what",
        metavar="RUN|CHECKPOINT|HF-ID",
        help="a run's folder or the beginning of its id; a file, folder or hub id",
    )
    made.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    made.add_argument("--base", metavar="BASE", help="take the spectrum of CHECKPOINT minus this model, layer by layer")
    made.add_argument(
        "--of", metavar="QUANTITY", type=choice(*QUANTITIES), help=f"of a run, only: {', '.join(QUANTITIES)}"
    )
    made.add_argument("--layer", metavar="NAME", help="whose singular values a run's picture shows (default: largest)")
    made.add_argument(
        "--metrics",
        metavar="few|all",
        type=choice("few", "all"),
        default="few",
        help="all: also numerical rank by float64 SVD and the power law's α, which take long (default: few)",
    )
    made.add_argument("--revision", metavar="REV", default="main", help="commit or branch of a hub id (default: main)")
    made.add_argument(
        "--output", metavar="DIR", type=Path, help="where the pictures go (default: the run's folder; spectra/NAME)"
    )
    return made


def handle(options: argparse.Namespace) -> int:
    """Tell runs and checkpoints apart, and show what was found."""
    from bench.records import record

    what: str = options.what
    folder = Path(what).expanduser()
    named = not folder.exists() and re.fullmatch(r"[0-9a-f]{1,16}", what)
    if (folder / record.FILE).is_file() or named:
        from bench.cli.spectra_run import show

        _no(options, "--base", "--metrics", of="a run")
        return show(options)
    _no(options, "--of", "--layer", of="a checkpoint")
    return _checkpoint(options)


def _no(options: argparse.Namespace, *flags: str, of: str) -> None:
    """Refuse flags that mean nothing here."""
    for flag in flags:
        if getattr(options, flag.removeprefix("--")) not in (None, "few"):
            raise UsageError(
                f"{flag} does not go with {of}",
                f"'{options.what}' is taken as {of}",
                "Leave it out; `bench spectra --help` explains every flag.",
            )


def _checkpoint(options: argparse.Namespace) -> int:
    from bench.cli import spectra_weights

    found = spectra_weights.measure(options.what, options.base, options.revision, every=options.metrics == "all")
    name = re.sub(r"[^\w.-]+", "-", options.what).strip("-.") or "model"
    folder: Path = (options.output or Path("spectra") / name).expanduser()
    return publish(found.rows, found.figure(), folder, notes=found.notes, options=options, more=found.more)


def publish(
    rows: Sequence[LayerMetrics],
    figure: Figure | None,
    folder: Path,
    *,
    notes: Sequence[str],
    options: argparse.Namespace,
    more: Mapping[str, Any],
) -> int:
    """Write pictures, print the table (or JSON), and say what is wrong with which layer.

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
            print(text(rows))
        if files:
            print(f"\npictures: {', '.join(map(str, files))}")
    return SOME_FAILED if any(row.error for row in rows) else OK


def text(rows: Sequence[LayerMetrics]) -> str:
    """The table on a terminal."""
    header, body = cells(rows)
    return table(header, body)


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
