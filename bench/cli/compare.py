"""`bench compare`: two runs, groups or filters against each other."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.output import emit, read_records
from bench.cli.parser import Parser, common, listed
from bench.core.errors import OK, EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from leaderboard.compare.comparison import Comparison
    from leaderboard.compare.selection import Side

ENDINGS = (".html", ".png")
EXAMPLES = (
    "bench compare full lora",
    "bench compare 1f3a9c full --runs results",
    "bench compare 'method=lora&method.rank=8' 'method=lora&method.rank=16' --tasks glue/cola",
    "bench compare full lora --where state=done --figure compare.html",
)


def parser() -> Parser:
    """Build the parser."""
    parser = Parser(
        prog="bench compare",
        description="Compare B with A: what differs in their specifications, the differences of their scores (B − A, "
        "over\nthe seeds of both, with a 95 % bootstrap interval), what B costs relative to A, and the ranks of each "
        "layer's ΔW\nside by side. A and B are each a method, the beginning of an id of a run or of a group (all its "
        "seeds), or a\ncondition on records such as method=lora, several joined by &: 'method=lora&method.rank=8'.",
        parents=[common()],
        examples=EXAMPLES,
    )
    parser.add_argument("a", metavar="A", help="method, run, group or condition that B is compared with")
    parser.add_argument("b", metavar="B", help="method, run, group or condition to compare with A")
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)"
    )
    parser.add_argument("--tasks", metavar="NAME,…", type=listed(), default=(), help="only these; * is a wildcard")
    parser.add_argument(
        "--where",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="only runs of which this holds: 'seed<3', cost.device=cpu (= != < <= > >=); repeatable",
    )
    parser.add_argument(
        "--figure", metavar="FILE.html|.png", type=Path, help="draw singular values and ranks of ΔW of both"
    )
    return parser


def handle(options: argparse.Namespace) -> int:
    """Compare, print, and draw if asked for."""
    path: Path | None = options.figure.expanduser() if options.figure else None
    if path and path.suffix not in ENDINGS:
        raise UsageError(
            f"--figure: {path} names no known format", f"known: {', '.join(ENDINGS)}", "Such as --figure compare.html."
        )
    a, b = _sides(options)
    from leaderboard.compare.comparison import compare

    found = compare(a, b)
    if path:
        _draw(found, a, b, path, options.runs.expanduser())
    if options.json:
        emit(as_json(found))
    else:
        from leaderboard.compare.markdown import render

        sys.stdout.write(render(found))
    return OK


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain JSON values."""
    value = asdict(found)
    value["cautions"] = [one._asdict() for one in found.cautions]
    value["layers"] = [
        {"layer": one.layer}
        | {side: layer._asdict() if layer else None for side, layer in (("a", one.a), ("b", one.b))}
        for one in found.layers
    ]
    return value


def _sides(options: argparse.Namespace) -> tuple[Side, Side]:
    from leaderboard.compare.selection import select_sides
    from leaderboard.tables.filters import RunFilter

    folder: Path = options.runs.expanduser()
    records, _ = read_records(folder)
    if not records:
        raise EnvironmentProblem(
            f"no records in {folder}",
            "none of its records can be read",
            "Do what the warnings say, or name another folder: --runs DIR.",
        )
    kept = RunFilter(tasks=options.tasks, where=tuple(options.where)).apply(records)
    return select_sides(kept, options.a, options.b)


def _draw(found: Comparison, a: Side, b: Side, path: Path, runs: Path) -> None:
    from bench.cli.compare_figure import figure
    from bench.figures import page, png

    drawn, notes = figure(found, (a, b), runs)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        if path.suffix == ".png":
            png.write(drawn, path)
        else:
            page.write(drawn, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}", str(error), "Name a file in a folder that exists.") from error
    print(f"wrote {path}", file=sys.stderr)
