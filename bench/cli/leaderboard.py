"""`bench leaderboard`: tables and a page of all finished runs in a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.output import emit, read_records
from bench.cli.parser import Parser, choice, common, listed, port
from bench.core.errors import OK, EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from leaderboard.render.formats import Leaderboard

RESULTS = Path("leaderboard") / "results"
FORMATS = ("md", "csv", "tex", "json", "html")
EXAMPLES = (
    "bench leaderboard",
    "bench leaderboard --format html --output leaderboard.html",
    "bench leaderboard --format tex --tasks glue --methods full,lora,deeplora --where method.rank=8",
    "bench leaderboard --runs results --baseline lora",
    "bench leaderboard serve --port 8000",
    "bench leaderboard --check leaderboard/results",
)


def parser() -> Parser:
    """Build the parser."""
    parser = Parser(
        prog="bench leaderboard",
        description="Tables, or a page, of all runs in a folder: score (mean ± s.d. over seeds) against trained\n"
        "parameters and the rank really used. A table ranks only rows of the same data, backbone and budget.\n"
        "`bench leaderboard serve` shows the page live while a grid runs.",
        parents=[common()],
        examples=EXAMPLES,
    )
    parser.add_argument("serve", nargs="?", metavar="serve", type=choice("serve"), help="serve the page until Ctrl-C")
    parser.add_argument(
        "--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)"
    )
    parser.add_argument(
        "--format", type=choice(*FORMATS), metavar="|".join(FORMATS), help="default: md, or as --output's name ends"
    )
    parser.add_argument("--output", metavar="FILE", type=Path, help="write a file instead of standard output")
    parser.add_argument(
        "--picture", metavar="FILE.png", type=Path, help="draw score against parameters, and ranks used"
    )
    for flag, what in (
        ("--tasks", "suites or tasks"),
        ("--methods", "methods"),
        ("--backbone", "backbones"),
        ("--source", "kinds of data source, or their revisions"),
    ):
        parser.add_argument(
            flag, metavar="NAME,…", type=listed(), default=(), help=f"only these {what}; * is a wildcard"
        )
    parser.add_argument(
        "--where",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="only runs of which this holds: 'seed<3', method.rank=8, cost.device=cpu (= != < <= > >=); repeatable",
    )
    parser.add_argument("--baseline", metavar="ROW", help="method, or label of a row, to compare with (default: full)")
    parser.add_argument(
        "--with-published", action="store_true", help="with scores from papers for the same backbone and task"
    )
    for flag, what in (
        ("--check", "exit 4 if the tables in DIR do not match the records in DIR/runs"),
        ("--update", "write the tables of DIR again, in all formats"),
    ):
        parser.add_argument(
            flag, metavar="DIR", nargs="?", const=RESULTS, type=Path, help=f"{what} (default: {RESULTS})"
        )
    parser.add_argument("--host", default="127.0.0.1", help="with serve: address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8000, help="with serve: port, 0 for a free one (default: 8000)")
    return parser


def handle(options: argparse.Namespace) -> int:
    """Render the folder, or serve, check or update it."""
    if options.check or options.update:
        return _handle_results(options)
    if options.serve:
        from leaderboard.serve import serve

        return serve(
            lambda: _build(options, live=True).to_json(), options.runs.expanduser(), options.host, options.port
        )
    board = _build(options)
    if options.picture:
        _draw(board, options.picture.expanduser())
    if options.json:
        emit(board.to_json())
    elif options.output or not options.picture:
        _write(options, _text(options, board))
    return OK


def _build(options: argparse.Namespace, *, live: bool = False) -> Leaderboard:
    """The tables that are asked for; `live` accepts that there is nothing yet."""
    from bench.records.record import load_all
    from leaderboard.render.formats import BASELINE, build_leaderboard
    from leaderboard.tables.filters import RunFilter

    folder: Path = options.runs.expanduser()
    records, problems = load_all(folder) if live else read_records(folder)
    selection = RunFilter(
        tasks=options.tasks,
        methods=options.methods,
        backbones=options.backbone,
        sources=options.source,
        where=tuple(options.where),
    )
    board = build_leaderboard(
        selection.apply(records),
        problems,
        baseline=options.baseline or BASELINE,
        published=options.with_published,
    )
    if options.baseline and not live:
        _check_baseline(options.baseline, board)
    if options.with_published and not live:
        _note_missing_published(board)
    return board


def _check_baseline(name: str, board: Leaderboard) -> None:
    from bench.core.errors import did_you_mean

    if any(table.baseline for table in board.tables):
        return
    unclear = [note for table in board.tables for note in table.notes if note.startswith("no baseline")]
    known = sorted({row.label for table in board.tables for row in table.rows})
    raise UsageError(
        f"--baseline: no row is clearly '{name}'",
        unclear[0] if unclear else f"rows: {', '.join(known[:20])}",
        did_you_mean(name, known) or "Give the label of a row as the table shows it.",
    )


def _note_missing_published(board: Leaderboard) -> None:
    from leaderboard.tables.published import models

    if not any(table.published for table in board.tables):
        note = f"there are published scores for {', '.join(models())} on GLUE, but no row has one of these backbones"
        print(f"note: {note}", file=sys.stderr)


def _text(options: argparse.Namespace, board: Leaderboard) -> str:
    from leaderboard.render import formats

    ending = options.output.suffix.removeprefix(".") if options.output else ""
    return formats.FORMATS[options.format or (ending if ending in FORMATS else "md")](board)


def _write(options: argparse.Namespace, text: str) -> None:
    from bench.core.files import write_atomic

    if options.output is None:
        sys.stdout.write(text)
        return
    path: Path = options.output.expanduser()
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}", str(error), "Name a file in a folder that exists.") from error
    print(f"wrote {path} ({len(text.encode()) / 1e6:.2f} MB)", file=sys.stderr)


def _draw(board: Leaderboard, path: Path) -> None:
    from leaderboard.render.figure import figure

    drawn = figure(board.tables)
    from bench.figures import png

    try:
        png.write(drawn, path)
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}", str(error), "Name a file in a folder that exists.") from error
    print(f"wrote {path}", file=sys.stderr)


def _handle_results(options: argparse.Namespace) -> int:
    """Write the tables of a results folder, or check that they match its records."""
    from leaderboard.render import results

    if options.update:
        paths = results.update(options.update.expanduser())
        print(f"wrote {', '.join(str(path) for path in paths)}", file=sys.stderr)
        return OK
    folder: Path = options.check.expanduser()
    results.check(folder)
    if options.json:
        emit({"folder": str(folder), "ok": True})
    else:
        print(f"{folder}: the rendered tables match the records")
    return OK
