"""`bench recommend`: the smallest method within noise of the best, from the runs of a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.output import emit, read_records, warn
from bench.cli.parser import Parser, common, listed, positive
from bench.core.errors import OK
from bench.core.text import printable_lines

EXAMPLES = (
    "bench recommend",
    "bench recommend --runs results --tasks glue",
    "bench recommend --margin 0.005",
    "bench recommend --where method.rank=8 --json",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench recommend",
        description="Say which method to use: the one with the fewest trained parameters that is within noise of the\n"
        "best and loses no more than the margin; the rank that its update needs; what the next smaller one costs;\n"
        "what is too uncertain to say, and how many seeds or examples would settle it. Only runs of the same data,\n"
        "backbone and budget are compared; of several tasks first their average, then each. A method counts with\n"
        "three seeds or more.",
        parents=[common()],
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)")
    for flag, what in (("--tasks", "suites or tasks"), ("--methods", "methods"), ("--backbone", "backbones")):
        add(flag, metavar="NAME,…", type=listed(), default=(), help=f"only these {what}; * is a wildcard")
    where = "only runs of which this holds: 'seed<3', method.rank=8, cost.device=cpu (= != < <= > >=); repeatable"
    add("--where", metavar="NAME=VALUE", action="append", default=[], help=where)
    add("--margin", metavar="X", type=positive, default=0.01, help="loss of score that does not matter (default: 0.01)")
    return parser


def handle(options: argparse.Namespace) -> int:
    folder: Path = options.runs.expanduser()
    records, _ = read_records(folder)
    from leaderboard.recommend import text
    from leaderboard.recommend.recommendation import recommend
    from leaderboard.tables.examples import Examples
    from leaderboard.tables.filters import filter_runs

    kept = filter_runs(
        records, tasks=options.tasks, methods=options.methods, backbones=options.backbone, where=options.where
    )
    examples = Examples(folder)
    found = [*recommend(kept, examples, margin=options.margin)]
    for problem in examples.problems:
        warn(problem)
    if options.json:
        emit([text.to_json(one, folder) for one in found])
    elif found:
        sys.stdout.write(printable_lines("\n".join(text.render(one, folder) for one in found)))
    else:
        print("no finished run has a score yet")
    return OK
