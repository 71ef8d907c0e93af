"""`bench leaderboard`: tables and a page of all finished runs in a folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.output import emit, read_records, warn
from bench.cli.parser import Parser, choice, common, listed, port
from bench.core.errors import OK, BenchError, EnvironmentProblem, UsageError, did_you_mean
from bench.figures.files import check_ending, write

if TYPE_CHECKING:
    from bench.records.record import Record
    from leaderboard.render.formats import Leaderboard
    from leaderboard.tables.examples import Examples

RESULTS = Path("leaderboard") / "results"
FORMATS = ("md", "csv", "tex", "json", "html")
EXAMPLES = (
    "bench leaderboard",
    "bench leaderboard --format html --output leaderboard.html",
    "bench leaderboard --format tex --tasks glue --methods full,lora,deeplora --where method.rank=8",
    "bench leaderboard --format tex --label 'lora=LoRA (ours)' --picture scores.pdf",
    "bench leaderboard --runs results --baseline lora",
    "bench leaderboard serve --port 8000",
    "bench leaderboard --check leaderboard/results",
)


def parser() -> Parser:
    parser = Parser(
        prog="bench leaderboard",
        description="Tables, or a page, of all runs in a folder: score (mean ± s.d. over seeds) against trained\n"
        "parameters and ranks. A table ranks only rows of the same data, backbone and budget.\n"
        "`bench leaderboard serve` shows the page live while a grid runs.",
        parents=[common()],
        examples=EXAMPLES,
    )
    add = parser.add_argument
    add("serve", nargs="?", metavar="serve", type=choice("serve"), help="serve the page until Ctrl-C")
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of records (default: runs)")
    formats = "|".join(FORMATS)
    add("--format", type=choice(*FORMATS), metavar=formats, help="default: md, or as --output's name ends")
    add("--output", metavar="FILE", type=Path, help="write a file instead of standard output")
    about = "draw score against parameters, and effective ranks: FILE.pdf, .svg, .png or .html"
    add("--picture", metavar="FILE", type=Path, help=about)
    for flag, what in (
        ("--tasks", "suites or tasks"),
        ("--methods", "methods"),
        ("--backbone", "backbones"),
        ("--source", "kinds of data source, or their revisions"),
    ):
        add(flag, metavar="NAME,…", type=listed(), default=(), help=f"only these {what}; * is a wildcard")
    where = "only runs of which this holds: 'seed<3', method.rank=8, cost.device=cpu (= != < <= > >=); repeatable"
    add("--where", metavar="NAME=VALUE", action="append", default=[], help=where)
    add("--baseline", metavar="ROW", help="method, or label of a row, to compare with (default: full)")
    about = "call a method, or a row by its label, otherwise: 'lora=LoRA (ours)'; repeatable"
    add("--label", metavar="NAME=TEXT", action="append", default=[], help=about)
    about = "beside every score the best one of those during training (bench run --evaluate), chosen on dev itself"
    add("--best", action="store_true", help=about)
    add("--with-published", action="store_true", help="with scores from papers for the same backbone and task")
    for flag, what in (
        ("--check", "exit 4 if the tables in DIR do not match the records in DIR/runs"),
        ("--update", "write the tables of DIR again, in all formats"),
    ):
        add(flag, metavar="DIR", nargs="?", const=RESULTS, type=Path, help=f"{what} (default: {RESULTS})")
    add("--host", default="127.0.0.1", help="with serve: address to listen on (default: 127.0.0.1)")
    add("--port", type=port, default=8000, help="with serve: port, 0 for a free one (default: 8000)")
    return parser


def handle(options: argparse.Namespace) -> int:
    from leaderboard.render import formats
    from leaderboard.tables.examples import Examples

    folder: Path = options.runs.expanduser()
    if options.picture:
        check_ending("--picture", options.picture)
    if options.update:
        print(f"wrote {', '.join(map(str, formats.update(options.update.expanduser())))}", file=sys.stderr)
    elif options.check:
        checked: Path = options.check.expanduser()
        formats.check(checked)
        if options.json:
            emit({"folder": str(checked), "ok": True})
        else:
            print(f"{checked}: the rendered tables match the records")
    elif options.serve:
        from bench.records.record import load_all
        from leaderboard.serve import serve

        examples = Examples(folder)
        return serve(lambda: _build(options, examples, *load_all(folder)).to_json(), folder, options.host, options.port)
    else:
        examples = Examples(folder)
        leaderboard = _build(options, examples, *read_records(folder, slim=_is_of_tables(options)))
        for problem in examples.problems:
            warn(problem)
        _check_choices(options, leaderboard)
        _show(options, leaderboard)
    return OK


def _format(options: argparse.Namespace) -> str:
    """The format that was asked for, which is `json` with --json."""
    if options.json:
        return "json"
    ending = options.output.suffix.removeprefix(".") if options.output else ""
    return options.format or (ending if ending in FORMATS else "md")


def _is_of_tables(options: argparse.Namespace) -> bool:
    """Whether the tables are enough, so that nothing is shown, or asked for, of single runs."""
    from bench.records.views import NOT_IN_TABLES
    from leaderboard.tables.filters import parse

    asked = {parse(text).name.partition(".")[0] for text in options.where}
    return _format(options) not in ("json", "html") and not asked & NOT_IN_TABLES


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Report that a file cannot be written as a problem of the environment."""
    try:
        yield
    except OSError as error:
        raise EnvironmentProblem(f"cannot write {path}", str(error), "Name a file in a folder that exists.") from error


def _build(
    options: argparse.Namespace, examples: Examples, records: list[Record], problems: list[BenchError]
) -> Leaderboard:
    from leaderboard.render.formats import BASELINE, build_leaderboard
    from leaderboard.tables.filters import filter_runs
    from leaderboard.tables.labels import parse_labels, with_labels

    labels = parse_labels(options.label)
    kept = filter_runs(
        records,
        tasks=options.tasks,
        methods=options.methods,
        backbones=options.backbone,
        sources=options.source,
        where=options.where,
    )
    baseline = options.baseline or BASELINE
    best, published = options.best, options.with_published
    board = build_leaderboard(kept, problems, baseline=baseline, best=best, published=published, examples=examples)
    return replace(board, tables=with_labels(board.tables, labels)) if labels else board


def _check_choices(options: argparse.Namespace, leaderboard: Leaderboard) -> None:
    """Check that some table has the baseline, and note it if none has the best or published scores asked for."""
    tables, name = leaderboard.tables, options.baseline
    if name and not any(table.baseline for table in tables):
        unclear = [note for table in tables for note in table.notes if note.startswith("no baseline")]
        known = sorted({row.label for table in tables for row in table.rows})
        raise UsageError(
            f"--baseline: no row is clearly '{name}'",
            unclear[0] if unclear else f"rows: {', '.join(known[:20])}",
            did_you_mean(name, known) or "Give the label of a row as the table shows it.",
        )
    if options.best and not any(best for table in tables for row in table.rows for best in row.best):
        print(
            "note: no run was evaluated during training, so none has a best; see bench run --evaluate", file=sys.stderr
        )
    if options.with_published and not any(table.published for table in tables):
        from leaderboard.tables.published import models

        note = f"there are published scores for {', '.join(models())} on GLUE, but no row has one of these backbones"
        print(f"note: {note}", file=sys.stderr)


def _show(options: argparse.Namespace, leaderboard: Leaderboard) -> None:
    from bench.core.files import write_atomic
    from leaderboard.render import formats

    if options.picture:
        from leaderboard.render.figure import figure

        picture: Path = options.picture.expanduser()
        drawn = figure(leaderboard.tables)
        with writing(picture):
            write(drawn, picture)
        print(f"wrote {picture}", file=sys.stderr)
    path: Path | None = options.output.expanduser() if options.output else None
    if options.json:
        emit(leaderboard.to_json())
    elif path:
        content = formats.FORMATS[_format(options)](leaderboard).encode()
        with writing(path):
            write_atomic(path, content)
        print(f"wrote {path} ({len(content) / 1e6:.2f} MB)", file=sys.stderr)
    elif not options.picture:
        sys.stdout.write(formats.FORMATS[_format(options)](leaderboard))
