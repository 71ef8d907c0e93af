"""`bench compare`: two runs, groups or filters against each other."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.leaderboard import writing
from bench.cli.output import emit, read_records, warn
from bench.cli.parser import Parser, choice, common, listed
from bench.core.errors import OK, EnvironmentProblem
from bench.core.text import printable
from bench.figures.files import check_ending, write

if TYPE_CHECKING:
    from leaderboard.compare.comparison import Comparison
    from leaderboard.compare.selection import Side

EXAMPLES = (
    "bench compare full lora",
    "bench compare 1f3a9c full --runs results",
    "bench compare 'method=lora&method.rank=8' 'method=lora&method.rank=16' --tasks glue/cola",
    "bench compare full lora --where state=done --figure compare.pdf",
    "bench compare full lora --label 'lora=LoRA (ours)' --format tex",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench compare",
        description="Compare B with A: what differs in their specifications, the differences of their scores (B − A, "
        "with\na 95 % interval over seeds and examples), what B costs relative to A, and the ranks of each layer's ΔW\n"
        "side by side. A and B are each a method, the beginning of an id of a run or of a group (all its seeds), or a\n"
        "condition on records such as method=lora, several joined by &: 'method=lora&method.rank=8'.",
        parents=[common()],
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("a", metavar="A", help="method, run, group or condition that B is compared with")
    add("b", metavar="B", help="method, run, group or condition to compare with A")
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)")
    add("--tasks", metavar="NAME,…", type=listed(), default=(), help="only these; * is a wildcard")
    where = "only runs of which this holds: 'seed<3', cost.device=cpu (= != < <= > >=); repeatable"
    add("--where", metavar="NAME=VALUE", action="append", default=[], help=where)
    about = "call a side, or its method, otherwise: 'lora=LoRA (ours)'; repeatable"
    add("--label", metavar="NAME=TEXT", action="append", default=[], help=about)
    add("--format", metavar="md|tex", type=choice("md", "tex"), default="md", help="a LaTeX table (default: md)")
    about = "draw singular values and ranks of ΔW of both: FILE.pdf, .svg, .png or .html"
    add("--figure", metavar="FILE", type=Path, help=about)
    return parser


def handle(options: argparse.Namespace) -> int:
    path: Path | None = options.figure.expanduser() if options.figure else None
    if path:
        check_ending("--figure", path)
    runs: Path = options.runs.expanduser()
    records, _ = read_records(runs)
    if not records:
        raise EnvironmentProblem(
            f"no records in {runs}",
            "none of its records can be read",
            "Do what the warnings say, or name another folder: --runs DIR.",
        )
    from leaderboard.compare.comparison import compare
    from leaderboard.compare.selection import select_sides
    from leaderboard.tables.examples import Examples
    from leaderboard.tables.filters import filter_runs
    from leaderboard.tables.labels import parse_labels, titles

    kept = filter_runs(records, tasks=options.tasks, where=options.where)
    sides = select_sides(kept, options.a, options.b)
    examples = Examples(runs)
    comparison = compare(*sides, examples)
    for problem in examples.problems:
        warn(problem)
    asked = [(options.a, comparison.a.methods), (options.b, comparison.b.methods)]
    names = titles(asked, parse_labels(options.label))
    if path:
        _draw(comparison, sides, path, runs)
    if options.json:
        emit(comparison)
    else:
        from leaderboard.compare import latex, markdown

        render = latex.render if options.format == "tex" else markdown.render
        sys.stdout.write(render(comparison, (names[0], names[1])))
    return OK


def _draw(comparison: Comparison, sides: tuple[Side, Side], path: Path, runs: Path) -> None:
    from bench.cli.compare.figure import figure

    drawn, notes = figure(comparison, sides, runs)
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    with writing(path):
        write(drawn, path)
    print(f"wrote {path}", file=sys.stderr)
