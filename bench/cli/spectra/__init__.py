"""`bench spectra`: the spectra of a run over training, or of any safetensors model or adapter without training."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.cli.parser import Parser, choice, common
from bench.cli.spectra.values import check_file
from bench.config.sections import QUANTITIES
from bench.core.errors import UsageError
from bench.figures.files import check_ending

EXAMPLES = (
    "bench spectra 1f3a9c",
    "bench spectra 1f3a9c --runs results --layer encoder.layer.1.attention.self.query --output pictures",
    "bench spectra 1f3a9c --truncation",
    "bench spectra runs/1f3a9c0123456789/adapter.safetensors",
    "bench spectra tuned --base original --metrics all",
    "bench spectra model.safetensors --layer layer.0 --layer layer.11 --values values.parquet",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench spectra",
        description="Show the spectra of a run: singular values and ranks of every layer over training. Or those of\n"
        "any model or adapter in safetensors (a file, a folder, shards with their index, an adapter of peft or of a\n"
        "run, a hub id), without training and with one layer at a time in memory. Convolutions count as matrices\n"
        "(out, in·k·k), stacked experts one by one; vectors have no spectrum. Pictures: spectra.png, spectra.html.",
        parents=[common()],
        examples=EXAMPLES,
    )
    add = parser.add_argument
    what = "a run's folder or the beginning of its id; a file, folder or hub id"
    add("what", metavar="RUN|CHECKPOINT|HF-ID", help=what)
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    add("--truncation", action="store_true", help="of a run: its score with ΔW cut to rank k, and the rank needed")
    add("--base", metavar="BASE", help="take the spectrum of CHECKPOINT minus this model, layer by layer")
    add("--of", metavar="QUANTITY", type=choice(*QUANTITIES), help=f"of a run, only: {', '.join(QUANTITIES)}")
    about = "layer, or part of its name, whose singular values are drawn; of a model all that it fits; repeatable\n"
    about += "(default: the largest ΔW of a run; of a model some over its depth, and on its page any other)"
    add("--layer", metavar="NAME", action="append", default=[], help=about)
    about = "all singular values as a file too: FILE.npz, .csv or .parquet; per step where a run tracked them"
    add("--values", metavar="FILE", type=Path, help=about)
    metrics = "all: also numerical rank by float64 SVD and the power law's α, which take long (default: few)"
    add("--metrics", metavar="few|all", type=choice("few", "all"), default="few", help=metrics)
    add("--revision", metavar="REV", default="main", help="commit or branch of a hub id (default: main)")
    add("--output", metavar="DIR", type=Path, help="where the pictures go (default: the run's folder; spectra/NAME)")
    about = "this one file instead of a PNG and a page in --output: FILE.pdf, .svg, .png or .html"
    add("--figure", metavar="FILE", type=Path, help=about)
    return parser


def handle(options: argparse.Namespace) -> int:
    from bench.records import record

    if options.figure:
        check_ending("--figure", options.figure)
    picture: Path | None = options.figure.expanduser() if options.figure else None
    raw: Path | None = options.values.expanduser() if options.values else None
    if raw:
        check_file(raw)
    what: str = options.what
    given = Path(what).expanduser()
    named = not given.exists() and re.fullmatch(r"[0-9a-f]{1,16}", what)
    if (given / record.FILE).is_file() or named:
        _refuse(options, "--base", "--metrics", of="a run")
        run, folder = record.locate(options.runs.expanduser(), what)
        if options.truncation:
            _refuse(options, "--of", "--layer", "--values", of="--truncation")
            from bench.cli.spectra import truncation

            return truncation.report(run, (options.output or folder).expanduser(), picture, as_json=options.json)
        from bench.cli.spectra.run import measure_run

        spectra = measure_run(run, folder, of=options.of, layers=options.layer, with_values=raw is not None)
    else:
        _refuse(options, "--of", "--truncation", of="a checkpoint")
        from bench.cli.spectra.weights import measure_weights

        every = options.metrics == "all"
        spectra = measure_weights(what, options.base, options.revision, every=every, drawn=options.layer)
        folder = Path("spectra") / (re.sub(r"[^\w.-]+", "-", what).strip("-.") or "model")
    from bench.cli.spectra.output import report

    return report(spectra, (options.output or folder).expanduser(), picture, raw, as_json=options.json)


def _refuse(options: argparse.Namespace, *flags: str, of: str) -> None:
    """Refuse flags that mean nothing here."""
    for flag in flags:
        if getattr(options, flag.removeprefix("--")) not in (None, False, "few", []):
            known = (
                "that shows scores, not singular values"
                if of.startswith("--")
                else f"'{options.what}' is taken as {of}"
            )
            raise UsageError(
                f"{flag} does not go with {of}", known, "Leave it out; `bench spectra --help` explains every flag."
            )
