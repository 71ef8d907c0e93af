"""`bench list`: methods, tasks, backbones, and the runs of a folder."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.cli.output import emit, emit_each, note_reading, warn
from bench.cli.parser import Parser, choice, common
from bench.config.help import Description, describe, describe_prefixes, facts
from bench.core import registry
from bench.core.errors import OK, BenchError
from bench.core.text import format_score, table
from bench.harness import task_names

if TYPE_CHECKING:
    from bench.records.views import Line

KINDS = ("methods", "tasks", "backbones", "runs")
SUMMED = 100
"""More runs than these are counted by state below the list."""
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
    if as_json:
        emit_each(_all_json(out))
        return OK
    from bench.records.index import load_lines

    runs, problems = load_lines(out, note_reading(out))
    for problem in problems:
        warn(problem)
    header = ("run", "state", "method", "task", "backbone", "seed", "lr", "score")
    print(table(header, [_row(run) for run in runs]) if runs else f"no runs in {out}")
    if len(runs) > SUMMED:
        states = ", ".join(f"{count:,} {state}" for state, count in Counter(run.state for run in runs).most_common())
        print(f"{len(runs):,} runs: {states}", file=sys.stderr)
    return OK


def _all_json(out: Path) -> Iterator[dict[str, Any]]:
    """The whole records, one at a time; warns of those that cannot be read."""
    from bench.records.record import iterate

    for one in iterate(out):
        if isinstance(one, BenchError):
            warn(one)
        else:
            yield one.to_json()


def _row(run: Line) -> tuple[str, ...]:
    score = f"{run.metric} {format_score(run.value, run.higher_is_better)}" if run.metric is not None else "–"
    lr = "–" if run.lr is None else f"{run.lr:g}"
    task = run.task + (" (trial)" if run.trial else "")  # of --select, scored on held-out train examples
    return (run.run_id, run.state, run.method, task, run.backbone, str(run.seed), lr, score)
