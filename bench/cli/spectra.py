"""`bench spectra`: the spectra of a run over training, or of any safetensors model or adapter without training."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.cli.parser import Parser, choice, common
from bench.config.sections import QUANTITIES
from bench.core.errors import UsageError

EXAMPLES = (
    "bench spectra 1f3a9c",
    "bench spectra 1f3a9c --runs results --layer encoder.layer.1.attention.self.query --output pictures",
    "bench spectra runs/1f3a9c0123456789/adapter.safetensors",
    "bench spectra tuned --base original --metrics all",
)


def parser() -> Parser:
    """Build the parser."""
    parser = Parser(
        prog="bench spectra",
        description="Show the spectra of a run: singular values and ranks of every layer over training. Or those of\n"
        "any model or adapter in safetensors (a file, a folder, shards with their index, an adapter of peft or of a\n"
        "run, a hub id), without training and with one layer at a time in memory. Convolutions count as matrices\n"
        "(out, in·k·k); vectors have no spectrum. Pictures are spectra.png and spectra.html.",
        parents=[common()],
        examples=EXAMPLES,
    )
    parser.add_argument(
        "what",
        metavar="RUN|CHECKPOINT|HF-ID",
        help="a run's folder or the beginning of its id; a file, folder or hub id",
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument(
        "--base", metavar="BASE", help="take the spectrum of CHECKPOINT minus this model, layer by layer"
    )
    parser.add_argument(
        "--of", metavar="QUANTITY", type=choice(*QUANTITIES), help=f"of a run, only: {', '.join(QUANTITIES)}"
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="whose singular values a run's picture shows (default: largest)"
    )
    parser.add_argument(
        "--metrics",
        metavar="few|all",
        type=choice("few", "all"),
        default="few",
        help="all: also numerical rank by float64 SVD and the power law's α, which take long (default: few)",
    )
    parser.add_argument(
        "--revision", metavar="REV", default="main", help="commit or branch of a hub id (default: main)"
    )
    parser.add_argument(
        "--output", metavar="DIR", type=Path, help="where the pictures go (default: the run's folder; spectra/NAME)"
    )
    return parser


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
    from bench.cli.spectra_output import report
    from bench.cli.spectra_weights import measure

    found = measure(options.what, options.base, options.revision, every=options.metrics == "all")
    name = re.sub(r"[^\w.-]+", "-", options.what).strip("-.") or "model"
    folder: Path = (options.output or Path("spectra") / name).expanduser()
    return report(found.rows, found.figure(), folder, notes=found.notes, options=options, more=found.more)
