"""`bench reproduce`: runs a named experiment and holds theory against measurement."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from bench.cli.output import emit, table
from bench.cli.parser import Parser, choice, common
from bench.config import overrides
from bench.config.help import describe
from bench.core import registry
from bench.core.errors import CHECK, INTERRUPTED, OK, PREEMPTED, UsageError
from bench.env.preflight import check

EXAMPLES = (
    "bench reproduce --list",
    "bench reproduce parsimony --set width=30 --set classes=3",
    "bench reproduce parsimony-compressed --quick --json",
)


def parser() -> Parser:
    """The verb's parser."""
    made = Parser(
        prog="bench reproduce",
        description="Run an experiment of the survey: its prediction is held against what is measured. Exit code 4 if\n"
        "the check does not hold. The same command again goes on where it stopped.",
        parents=[common()],
        examples=EXAMPLES,
        usage="bench reproduce NAME [flags] | bench reproduce --list",
    )
    made.add_argument("name", nargs="?", metavar="NAME", help="see --list")
    made.add_argument("--list", action="store_true", help="list the experiments")
    made.add_argument("--quick", action="store_true", help="smaller, on embedded data, within two minutes on two cores")
    made.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="an option; `bench show NAME` lists them"
    )
    made.add_argument(
        "--data-dir", metavar="[NAME=]DIR", action="append", default=[], help="as in `bench run` (default: $BENCH_DATA)"
    )
    made.add_argument("--accelerator", metavar="A", type=choice("auto", "cpu", "gpu", "cuda", "mps"), default="auto")
    made.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        default=Path("reproductions"),
        help="folder for records, result and figure, in a folder NAME of its own (default: reproductions)",
    )
    return made


def handle(options: argparse.Namespace) -> int:
    """Run one experiment, or list them."""
    if options.list:
        return _list(as_json=options.json)
    if not options.name:
        known = ", ".join(registry.entries("experiments"))
        raise UsageError("no experiment is named", f"known experiments: {known}", "`bench reproduce --list`")
    given = overrides.resolve_bare(options.set, "experiments", options.name)
    if options.quick:
        given = {**describe("experiments", options.name).attributes.get("quick", {}), **given}
    check()
    return _reproduce(options, given)


def _reproduce(options: argparse.Namespace, given: dict[str, Any]) -> int:
    from bench.experiments.lab import Lab
    from bench.experiments.report import text, write
    from bench.harness.runner import Preempted, make_folder, stopped

    kind = registry.load("experiments", options.name)
    words = [word for folder in options.data_dir for word in ("--data-dir", folder)]
    words += ["--data", "embedded"] if options.quick and not options.data_dir else []
    words += ["--accelerator", options.accelerator] if options.accelerator != "auto" else []
    folder: Path = options.out.expanduser() / options.name
    config = kind.Config(**given)
    make_folder(folder)
    lab = Lab(folder=folder, words=words, quick=options.quick)
    try:
        outcome = kind(config, lab).run()
    except (KeyboardInterrupt, SystemExit, Preempted) as end:  # Lightning makes SystemExit of Ctrl-C
        if (stop := stopped(end)) is None:
            raise
        print("interrupted; finished runs stay, the same command goes on", file=sys.stderr)
        return PREEMPTED if isinstance(stop, Preempted) else INTERRUPTED
    files = write(options.name, config, outcome, lab)
    emit(outcome.to_json(options.name)) if options.json else print(text(options.name, outcome, files))
    return OK if outcome.held else CHECK


def _list(*, as_json: bool) -> int:
    found = [describe("experiments", name) for name in registry.entries("experiments")]
    if as_json:
        emit([{"name": d.name, "summary": d.summary, "options": d.options, "error": d.error or None} for d in found])
    else:
        rows = [(d.name, str(d.attributes.get("place", "")), d.error or d.summary) for d in found]
        print(table(("experiment", "survey", "what is held against what"), rows))
    return OK
