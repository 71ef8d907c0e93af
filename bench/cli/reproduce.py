"""`bench reproduce`: runs a named experiment and holds theory against measurement."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.output import emit
from bench.cli.parser import ACCELERATORS, Parser, choice, common
from bench.config.help import describe
from bench.config.overrides import build_bare
from bench.core import registry
from bench.core.errors import CHECK, INTERRUPTED, OK, PREEMPTED, UsageError
from bench.core.text import table
from bench.env.preflight import check
from bench.figures.files import check_ending

EXAMPLES = (
    "bench reproduce --list",
    "bench reproduce parsimony --set width=30 --set classes=3",
    "bench reproduce parsimony-compressed --quick --json",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench reproduce",
        description="Run an experiment of the survey: its prediction is held against what is measured. Exit code 4 if\n"
        "the check does not hold. The same command again goes on where it stopped.",
        parents=[common()],
        examples=EXAMPLES,
        usage="bench reproduce NAME [flags] | bench reproduce --list",
    )
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="see --list")
    add("--list", action="store_true", help="list the experiments")
    add("--quick", action="store_true", help="smaller, on embedded data, within two minutes on two cores")
    add("--set", metavar="KEY=VALUE", action="append", default=[], help="an option; `bench show NAME` lists them")
    about = "as in `bench run` (default: $BENCH_DATA)"
    add("--data-dir", metavar="[NAME=]DIR", action="append", default=[], help=about)
    about = "auto, cpu, gpu, cuda or mps (default: auto)"
    add("--accelerator", metavar="A", type=choice(*ACCELERATORS), default="auto", help=about)
    about = "folder for records, result and figure, in a folder NAME of its own (default: reproductions)"
    add("--out", metavar="DIR", type=Path, default=Path("reproductions"), help=about)
    about = "draw the figure as this file too: FILE.pdf, .svg, .png or .html"
    add("--figure", metavar="FILE", type=Path, help=about)
    return parser


def handle(options: argparse.Namespace) -> int:
    if options.figure:
        check_ending("--figure", options.figure)
    if options.list:
        return _list(as_json=options.json)
    if not options.name:
        known = ", ".join(registry.entries("experiments"))
        raise UsageError("no experiment is named", f"known experiments: {known}", "`bench reproduce --list`")
    experiment = registry.load("experiments", options.name)
    given = build_bare(options.set, experiment.Config, options.name)
    config = experiment.Config(**{**(experiment.quick if options.quick else {}), **given})
    check()

    from bench.experiments.lab import Lab
    from bench.experiments.report import text, write
    from bench.harness.runner import Preempted, make_folder, stopped

    folder: Path = options.out.expanduser() / options.name
    make_folder(folder)
    shared = {"data_dir": options.data_dir, "accelerator": options.accelerator}
    if options.quick and not options.data_dir:
        shared["data"] = "embedded"
    lab = Lab(folder=folder, common=shared, quick=options.quick)
    try:
        outcome = experiment(config, lab).run()
    except (KeyboardInterrupt, SystemExit, Preempted) as end:  # Lightning makes SystemExit of Ctrl-C
        if (stop := stopped(end)) is None:
            raise
        print("interrupted; finished runs stay, the same command goes on", file=sys.stderr)
        return PREEMPTED if isinstance(stop, Preempted) else INTERRUPTED
    if not options.json:
        print(text(options.name, outcome), flush=True)  # it is there even where the files cannot be written
    files = write(options.name, config, outcome, lab, options.figure and options.figure.expanduser())
    emit(outcome.to_json(options.name)) if options.json else print("", *files, sep="\n")
    return OK if outcome.held else CHECK


def _list(*, as_json: bool) -> int:
    found = [describe("experiments", name) for name in registry.entries("experiments")]
    if as_json:
        emit([{"name": d.name, "summary": d.summary, "options": d.options, "error": d.error or None} for d in found])
    else:
        rows = [(d.name, getattr(d.subject, "place", ""), d.error or d.summary) for d in found]
        print(table(("experiment", "survey", "what is held against what"), rows))
    return OK
