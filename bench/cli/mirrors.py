"""`bench wandb`: send finished runs to Weights & Biases, or build a report on a project there."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.leaderboard import writing
from bench.cli.output import emit, read_records
from bench.cli.parser import Parser, choice, common
from bench.core.errors import OK, SOME_FAILED, EnvironmentProblem, UsageError
from bench.core.text import table

if TYPE_CHECKING:
    from bench.records.transfer import Outcome

EXAMPLES = (
    "bench wandb sync --runs results --dry-run",
    "bench wandb sync --all",
    "bench wandb report my-team/lowrank-bench",
    "bench wandb report my-team/lowrank-bench --dry-run --output report.json",
)


def parser() -> Parser:
    about = (
        "sync: send finished runs that are still offline. report: build a report on a project's runs\n"
        "(score against parameters, effective rank, parallel coordinates)."
    )
    parser = Parser(prog="bench wandb", description=about, parents=[common()], examples=EXAMPLES)
    parser.add_argument("what", metavar="sync|report", type=choice("sync", "report"), help="what to do")
    parser.add_argument("project", nargs="?", metavar="ENTITY/PROJECT", help="with report: the project it is about")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    parser.add_argument("--all", action="store_true", help="with sync: finished runs that no mirror has, too")
    parser.add_argument("--dry-run", action="store_true", help="print, or write, what would be sent, and send nothing")
    parser.add_argument("--output", metavar="FILE", type=Path, help="with report --dry-run: a file instead of stdout")
    return parser


def handle(options: argparse.Namespace) -> int:
    if options.what == "report":
        return _report(options)
    if options.project:
        what = f"sync takes no project, but '{options.project}'"
        raise UsageError(what, "each run has its project", "Set it with WANDB_PROJECT.")
    return _sync(options)


def split(path: str | None) -> tuple[str, str]:
    """Entity and project of `ENTITY/PROJECT`; raises UsageError for anything else."""
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)", path or "")
    if not match:
        what = f"'{path}' is not ENTITY/PROJECT" if path else "no project is given"
        known = "a project's address is https://wandb.ai/ENTITY/PROJECT"
        raise UsageError(what, known, "Such as my-team/lowrank-bench.")
    return match[1], match[2]


def print_outcomes(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    if as_json:
        emit({"runs": outcomes})
    elif outcomes:
        print(table(("run", "state", "why"), [(o.run_id, o.state, o.why) for o in outcomes]))


def _sync(options: argparse.Namespace) -> int:
    from bench.records.transfer import Outcome
    from bench.tracking import account
    from bench.tracking.sync import sync, waiting

    out: Path = options.runs.expanduser()
    records, _ = read_records(out)
    due = waiting(records, every=options.all)
    if options.dry_run:
        outcomes = [Outcome(run_id=run.run_id, state="would send") for run in due]
    else:
        if due:
            account.require()
        outcomes = [sync(out, run) for run in due]
    print_outcomes(outcomes, as_json=options.json)
    if not due and not options.json:
        print("nothing to send")
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    verb = "would be sent" if options.dry_run else "sent"
    print(f"{len(due) - failed} {verb}, {failed} failed, {len(records) - len(due)} not due", file=sys.stderr)
    return SOME_FAILED if failed else OK


def _report(options: argparse.Namespace) -> int:
    from bench.tracking import account
    from bench.tracking.report import report, to_json

    entity, project = split(options.project)
    if options.dry_run:
        text = json.dumps(to_json(report(entity, project, offline=True)), indent=1) + "\n"
        if options.output is None:
            sys.stdout.write(text)
            return OK
        from bench.core.files import write_atomic

        with writing(options.output):
            write_atomic(options.output.expanduser(), text.encode())
        print(f"wrote {options.output}", file=sys.stderr)
        return OK
    account.require()
    try:
        sent = report(entity, project)
        sent.save()
    except EnvironmentProblem:
        raise
    except Exception as error:  # whatever W&B's packages raise
        what = f"W&B did not take the report on {entity}/{project}"
        todo = "Check that it exists and that you may write to it."
        raise EnvironmentProblem(what, account.first_line(error), todo) from error
    print(sent.url)
    return OK
