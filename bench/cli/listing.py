"""`bench list`: methods, tasks, backbones, and the runs of a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.cli.list_runs import list_runs
from bench.cli.output import emit
from bench.cli.parser import Parser, choice, common, listed
from bench.config.help import Description, describe, describe_prefixes, facts
from bench.core import registry
from bench.core.errors import OK, UsageError
from bench.core.text import table
from bench.harness import task_names

KINDS = ("methods", "tasks", "backbones", "runs")
EXAMPLES = (
    "bench list methods",
    "bench list tasks",
    "bench list backbones --json",
    "bench list runs --runs results",
    "bench list runs --where method.rank=8 --where 'seed<3' --sort score --reverse",
)


def parser() -> Parser:
    about = "List methods, tasks, backbones, or the runs of a folder."
    parser = Parser(prog="bench list", description=about, parents=[common()], examples=EXAMPLES)
    parser.add_argument("kind", metavar="|".join(KINDS), type=choice(*KINDS), help="what to list")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    where = "of runs: only those of which this holds: 'seed<3', method.rank=8, state=done (= != < <= > >=); repeatable"
    parser.add_argument("--where", metavar="NAME=VALUE", action="append", default=[], help=where)
    about = "of runs: sort by columns, options or fields of a record: score, method.rank, cost.train_s"
    parser.add_argument("--sort", metavar="NAME,…", type=listed(), default=(), help=about)
    parser.add_argument("--reverse", action="store_true", help="with --sort: the largest first")
    return parser


def handle(options: argparse.Namespace) -> int:
    kind = options.kind
    if kind != "runs" and (options.where or options.sort or options.reverse):
        raise UsageError(
            f"--where, --sort and --reverse are of runs, not of {kind}",
            "other lists are short and in order",
            f"Leave them out, or `bench show NAME` for one of the {kind}.",
        )
    if kind == "runs":
        runs = options.runs.expanduser()
        list_runs(runs, options.where, options.sort, reverse=options.reverse, as_json=options.json)
        return OK
    found = [*(describe(kind, name) for name in registry.entries(kind)), *describe_prefixes(kind)]
    if options.json:
        emit([_as_json(kind, description) for description in found])
    elif kind == "methods":
        rows = [(d.name, str(getattr(d.subject, "learning_rate", "")), _summary(d)) for d in found]
        print(table(("method", "lr", "what it does"), rows))
    elif kind == "tasks":
        rows = [(*_task_columns(d), _summary(d)) for d in found]
        print(table(("task", "tasks of the suite", "what it is"), rows))
    else:
        print(table(("backbone", "what it is"), [(d.name, _summary(d)) for d in found]))
    return OK


def _task_columns(found: Description) -> tuple[str, str]:
    if found.subject is None:
        return found.name, "–"
    return task_names.written(found.name), ", ".join(task_names.tasks_of(found.name)) or "–"


def _summary(found: Description) -> str:
    return f"cannot be imported: {found.error}" if found.error else found.summary


def _as_json(kind: registry.Kind, found: Description) -> dict[str, object]:
    described = {"name": found.name, "summary": found.summary, "error": found.error or None}
    return described | facts(kind, found) | {"options": found.options}
