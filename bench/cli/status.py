"""`bench status`: where the runs of a folder stand, once or again and again, from any shell or machine that sees it."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli import status_text
from bench.cli.output import emit, error_json
from bench.cli.parser import Parser, common
from bench.core.errors import OK, BenchError
from bench.core.text import dump_json, printable, without_secrets
from bench.records.status import Status, Wanted, Watcher

if TYPE_CHECKING:
    from bench.harness.planner import PlannedRun

EXAMPLES = (
    "bench status",
    "bench status --runs results",
    "bench status --plan grid.yaml",
    "bench status --watch",
    "bench status --json",
)
EVERY_S = 2.0
"""Seconds between two looks of `--watch`."""
WIDEST = 100
"""Columns of a line."""
FEWEST = 3
"""Running runs that are shown on the smallest terminal."""
HEADINGS = r"(?m)^(\d\d:\d\d:\d\d|running|failures|done) .*$"
ALARMS = r"\bstale\b|\bgone\b"


def parser() -> Parser:
    parser = Parser(
        prog="bench status",
        description="Where the runs of a folder stand: how many are done, running or failed; for each one that trains\n"
        "now its host, step, loss and time left; and why runs failed. It only reads, so it works from any\n"
        "shell or machine that sees the folder. Exit code 3 if there is no such folder.\n"
        "With --plan: the runs of a plan, those that have not begun included, and the time that is left.",
        parents=[common()],
        examples=EXAMPLES,
    )
    about = "folder of runs (default: that of the plan, else runs)"
    parser.add_argument("--runs", metavar="DIR", type=Path, help=about)
    about = "only the runs of a file of `bench plan`, whose data and weights are opened"
    parser.add_argument("--plan", metavar="FILE", type=Path, help=about)
    about = f"look every {EVERY_S:g} s until Ctrl-C (exit code 130); with --json one line each time"
    parser.add_argument("--watch", action="store_true", help=about)
    return parser


def handle(options: argparse.Namespace) -> int:
    folder: Path | None = options.runs.expanduser() if options.runs else None
    watcher = _of_plan(options.plan.expanduser(), folder) if options.plan else Watcher(folder or Path("runs"))
    if options.watch:
        show = _json_lines if options.json else _redrawn if sys.stdout.isatty() else _lines
        show(looks(watcher))
    elif options.json:
        emit(asdict(watcher.look()))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST
        print(status_text.text(watcher.look(), columns=min(columns, WIDEST)))
    return OK


def _of_plan(file: Path, folder: Path | None) -> Watcher:
    """Watch the runs of a plan file in its own folder, or in another one."""
    from bench.harness.plan_file import read  # imports yaml
    from bench.harness.plan_text import notes
    from bench.harness.planner import make_plan  # opens data and backbones

    # where a run trains is no part of its id, and this machine may have no such device
    plan = make_plan(replace(read(file), accelerator="cpu", strict=False))
    for line in notes(plan):
        print(printable(line), file=sys.stderr)
    return Watcher(folder or plan.request.out, [_wanted(run) for run in (*plan.runs, *plan.trials)])


def _wanted(run: PlannedRun) -> Wanted:
    return Wanted(
        run_id=run.run_id,
        group_id=run.group_id,
        trial=bool(run.spec.holdout),
        method=run.spec.method,
        task=run.spec.task,
    )


def looks(watcher: Watcher) -> Iterator[Status | BenchError]:
    """Look again and again, without end; a folder that is not there may still come, or come back."""
    while True:
        try:
            yield watcher.look()
        except BenchError as problem:
            yield problem
        time.sleep(EVERY_S)


def _json_lines(found: Iterable[Status | BenchError]) -> None:
    for seen in found:
        value = asdict(seen) if isinstance(seen, Status) else error_json(seen)
        print(without_secrets(dump_json(value, indent=None)), flush=True)


def _lines(found: Iterable[Status | BenchError]) -> None:
    """Print the counts when they have changed, and each failure that is new since the look before."""
    before: str | None = None
    known: set[str] | None = None
    for seen in found:
        if isinstance(seen, Status):
            line = status_text.counts(seen)
            failed = {one.run_id for one in seen.failures}
            new = [one for one in seen.failures if known is not None and one.run_id not in known]
            known = failed
        else:
            line, new = _waiting(seen), []
        for failure in reversed(new):
            print(status_text.failure(failure), flush=True)
        if line != before:
            print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)
        before = line


def _waiting(problem: BenchError) -> str:
    return printable(f"{problem.what} ({problem.known}); waiting for it")


def _redrawn(found: Iterable[Status | BenchError]) -> None:
    """Redraw the whole status in place; as many running runs are shown as the terminal has lines for."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for seen in found:
            if isinstance(seen, Status):
                columns, lines = min(console.width, WIDEST), console.height
                rest = status_text.text(seen, columns=columns, most=0).count("\n") + 4
                shown = status_text.text(seen, columns=columns, most=max(lines - rest, FEWEST))
            else:
                shown = _waiting(seen)
            drawn = Text(shown, no_wrap=True, overflow="ellipsis")
            drawn.highlight_regex(HEADINGS, "bold")
            drawn.highlight_regex(ALARMS, "red")
            live.update(drawn, refresh=True)
