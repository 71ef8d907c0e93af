"""`bench list`: methods, tasks, backbones, and the runs of a folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.output import emit, warn
from bench.cli.parser import Parser, choice, common
from bench.config.help import Description, describe, describe_prefixes, facts
from bench.core import registry
from bench.core.errors import OK
from bench.core.text import format_score, table
from bench.harness import task_names

if TYPE_CHECKING:
    from bench.records.record import Record

KINDS = ("methods", "tasks", "backbones", "runs")
EXAMPLES = ("bench list methods", "bench list tasks", "bench list backbones --json", "bench list runs --runs results")


def parser() -> Parser:
    about = "List methods, tasks, backbones, or the runs of a folder."
    parser = Parser(prog="bench list", description=about, parents=[common()], examples=EXAMPLES)
    parser.add_argument("kind", metavar="|".join(KINDS), type=choice(*KINDS), help="what to list")
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
    kind = options.kind
    if kind == "runs":
        return _runs(options.runs.expanduser(), as_json=options.json)
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


def _runs(out: Path, *, as_json: bool) -> int:
    from bench.records.record import load_all

    records, problems = load_all(out)
    for problem in problems:
        warn(problem)
    if as_json:
        emit([record.to_json() for record in records])
        return OK
    header = ("run", "state", "method", "task", "backbone", "seed", "lr", "score")
    print(table(header, [_run_row(record) for record in records]) if records else f"no runs in {out}")
    return OK


def _run_row(record: Record) -> tuple[str, ...]:
    spec, score = record.spec, "–"
    if record.metrics:
        primary = record.metrics.primary
        score = f"{primary.name} {format_score(primary.value, primary.higher_is_better)}"
    lr = "–" if record.lr is None else f"{record.lr:g}"
    task = spec.task + (" (trial)" if spec.holdout else "")  # of --select, scored on held-out train examples
    return (record.run_id, record.state, spec.method, task, record.backbone.name, str(spec.seed), lr, score)
