"""`bench leaderboard`: the table of all finished runs in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.errors import OK, EnvironmentProblem

EXAMPLES = ("bench leaderboard", "bench leaderboard --out results > results.md")


def parser() -> Parser:
    """The verb's parser."""
    made = Parser(
        prog="bench leaderboard",
        description="Print a Markdown table of all runs in a folder: score (mean ± s.d. over seeds) against trained\n"
        "parameters and the rank really used. Rows of different data are never ranked together.",
        parents=[common()],
        examples=EXAMPLES,
    )
    made.add_argument("--out", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)")
    return made


def handle(options: argparse.Namespace) -> int:
    """Render the folder."""
    from leaderboard.markdown import render_folder

    out: Path = options.out.expanduser()
    if not any(out.glob("*/record.json")):
        raise EnvironmentProblem(
            f"no records in {out}",
            "the folder is empty" if out.is_dir() else "there is no such folder",
            "Run something first (bench run --method deeplora --task glue), or name the folder: --out DIR.",
        )
    text, problems = render_folder(out)
    for problem in problems:
        print(f"warning: {' '.join(str(problem).split())}", file=sys.stderr)
    if options.json:
        emit({"markdown": text, "problems": [str(problem) for problem in problems]})
    else:
        print(text.rstrip("\n"))
    return OK
