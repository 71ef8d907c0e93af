"""`bench import`: records from the runs of a W&B project."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from bench.cli.mirrors import print_outcomes, split
from bench.cli.parser import Parser, choice, common
from bench.core.errors import OK, SOME_FAILED

EXAMPLES = ("bench import wandb my-team/lowrank-bench --out imported", "bench leaderboard --runs imported")


def parser() -> Parser:
    about = (
        "Write the records of a W&B project's runs into a folder; every table can be made from it again.\n"
        "A record that exists already stays as it is."
    )
    parser = Parser(prog="bench import", description=about, parents=[common()], examples=EXAMPLES)
    parser.add_argument("source", metavar="wandb", type=choice("wandb"), help="the service")
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="the project, as its address ends")
    about = "folder of records (default: runs)"
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help=about)
    parser.add_argument("--replace", action="store_true", help="overwrite records that differ")
    return parser


def handle(options: argparse.Namespace) -> int:
    from bench.tracking import account
    from bench.tracking.sync import restore, runs

    entity, project = split(options.project)
    account.require()
    out: Path = options.out.expanduser()
    outcomes = list(restore(runs(f"{entity}/{project}"), out, replace=options.replace))
    print_outcomes(outcomes, as_json=options.json)
    counts = Counter(outcome.state for outcome in outcomes)
    summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no runs"
    print(f"{summary} · next: bench leaderboard --runs {out}", file=sys.stderr)
    return SOME_FAILED if any(counts[state] for state in ("bad", "kept ours", "not fetched")) else OK
