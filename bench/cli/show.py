"""`bench show`: everything about a method, a task, a backbone, an experiment or a run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.api.task import TaskSpec
from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.cli.show_run import text as run_text
from bench.config.help import Description, describe, facts
from bench.config.options import Option, options_of
from bench.config.options import show as written
from bench.config.sections import SECTIONS, TaskConfig
from bench.core import registry
from bench.core.errors import OK, UsageError, did_you_mean
from bench.core.text import table
from bench.harness import task_names

EXAMPLES = (
    "bench show deeplora",
    "bench show glue",
    "bench show glue/rte --json",
    "bench show minilm",
    "bench show parsimony",
    "bench show 1f3a9c --runs results",
)


def parser() -> Parser:
    """Build the parser."""
    parser = Parser(
        prog="bench show",
        description="Show a method with its options, a task, a backbone, an experiment of `bench reproduce`, or a run\n"
        "by the beginning of its id.",
        parents=[common()],
        examples=EXAMPLES,
    )
    parser.add_argument(
        "name",
        metavar="NAME|RUN",
        help="a name from `bench list` or `bench reproduce --list`, or the beginning of a run id",
    )
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
    """Print every thing of that name, or else the run whose id begins so."""
    name: str = options.name
    shown: list[tuple[dict[str, Any], str]] = []
    shown += [_method(name)] if registry.known("methods", name) else []
    if registry.family(name) in registry.entries("tasks"):
        task_names.check_task(name)
        shown.append(_task(name))
    shown += [_backbone(name)] if registry.known("backbones", name) else []
    shown += [_experiment(name)] if registry.known("experiments", name) else []
    if not shown:
        shown.append(_run(name, options.runs.expanduser()))
    if options.json:
        emit(shown[0][0] if len(shown) == 1 else [value for value, _ in shown])
    else:
        print("\n\n".join(text for _, text in shown))
    return OK


def _method(name: str) -> tuple[dict[str, Any], str]:
    found = describe("methods", name)
    shared = {space: [*options_of(config).values()] for space, config in SECTIONS.items()}
    config = found.subject
    parts = [
        _head(found),
        "",
    ]
    if config is not None:
        tried = ", ".join(map(str, config.learning_rates))
        parts += [f"learning rate {config.learning_rate}; --select lr tries {tried}"]
        parts += [f"works on {', '.join(sorted(config.needs))}"]
    if found.options:
        parts += ["", "options of the method", _options("method", found.options)]
        first = f"method.{found.options[0].name}={written(found.options[0].default)}"
        parts += ["", f"set them with: bench run --method {name} --task glue --set {first}"]
    parts += ["", "options of every method"]
    parts.append(_options_table([(f"{space}.{o.name}", o) for space, fields in shared.items() for o in fields]))
    value = {"kind": "method", **_json("methods", found), "shared_options": shared}
    return value, "\n".join(parts)


def _task(name: str) -> tuple[dict[str, Any], str]:
    suite, member = registry.family(name), name.partition("/")[2]
    found = describe("tasks", suite)
    if getattr(found.subject, "argument", ""):
        return {"kind": "task", **_json("tasks", found)}, f"{_head(found)}\n\n{_own(found)}"
    specs, error = _specs(suite, [member] if member else task_names.tasks_of(suite))
    rows = [
        (
            s.name,
            str(s.version),
            s.modality,
            str(s.num_classes or "score"),
            s.primary_name,
            ", ".join(s.metrics),
            s.note,
        )
        for s in specs
    ]
    header = ("task", "version", "reads", "classes", "primary metric", "all metrics", "note")
    body = table(header, rows) if rows else f"tasks cannot be read: {error}"
    run = f"bench run --method lora --task {name}"
    value = {"kind": "task", **_json("tasks", found), "members": specs, "error": found.error or error or None}
    own = _own_options(found)
    options = f"\n\noptions of the task\n{_options_table(own)}" if own else ""
    return value, f"{_head(found)}\n\n{body}{options}\n\nrun it with: {run}"


def _own(found: Description) -> str:
    """Options of a task that says what it predicts only once it is opened, and how to run it."""
    text = task_names.written(found.name)
    own = [*_own_options(found), *((f"data.{option.name}", option) for option in options_of(SECTIONS["data"]).values())]
    run = f"bench run --method lora --task {text}"
    return f"options of the task\n{_options_table(own)}\n\nrun it with: {run}"


def _own_options(found: Description) -> list[tuple[str, Option]]:
    """Options of a task beside those of every text task."""
    shared = {*options_of(TaskConfig)}
    return [(f"task.{option.name}", option) for option in found.options if option.name not in shared]


def _specs(suite: str, members: Sequence[str]) -> tuple[list[TaskSpec], str]:
    """Specifications of the tasks; modules of tasks are free of torch, so this one imports it."""
    try:
        task: Callable[[str], Any] = registry.load("tasks", suite)
        return [task(member).spec for member in (members or getattr(task, "members", ()) or [""])], ""
    except Exception as error:  # a third party's task may be wrong in any way; its text is shown all the same
        return [], f"{type(error).__name__}: {error}"


def _backbone(name: str) -> tuple[dict[str, Any], str]:
    found = describe("backbones", name)
    parts = [_head(found)]
    if found.options:
        parts.append(f"options of the backbone\n{_options('backbone', found.options)}")
    parts.append(f"use it with: bench run … --backbone {name}")
    return {"kind": "backbone", **_json("backbones", found)}, "\n\n".join(parts)


def _experiment(name: str) -> tuple[dict[str, Any], str]:
    found = describe("experiments", name)
    place = getattr(found.subject, "place", "")
    parts = [_head(found), *([f"in the survey: {place}"] if place else [])]
    if found.options:
        parts.append(f"options\n{_options_table([(option.name, option) for option in found.options])}")
    quick = " ".join(f"{key}={written(value)}" for key, value in getattr(found.subject, "quick", {}).items())
    parts.append(f"--quick: {quick or 'the same'}")
    parts.append(f"run it with: bench reproduce {name}")
    return {"kind": "experiment", **_json("experiments", found)}, "\n\n".join(parts)


def _run(prefix: str, out: Path) -> tuple[dict[str, Any], str]:
    from bench.records.record import find

    if not re.fullmatch(r"[0-9a-f]{1,16}", prefix):
        known = [name for kind in registry.BUILTIN for name in registry.entries(kind)]
        tasks = task_names.all_tasks()
        meant = [task for task in tasks if task.endswith(f"/{prefix}")]  # `rte` for `glue/rte` is the likeliest slip
        hint = did_you_mean(prefix, meant or [*known, *tasks])
        raise UsageError(
            f"nothing is called '{prefix}', and it is not the beginning of a run id",
            f"names: {', '.join(known)}",
            f"{hint} `bench list runs --runs {out}` lists runs.".strip(),
        )
    record = find(out, prefix)
    return {"kind": "run", **record.to_json()}, run_text(record)


def _head(found: Description) -> str:
    """Name, summary and text, without the sections (`Raises:`) that are for programmers."""
    parts = [f"{found.name}: {found.summary}" if found.summary else found.name]
    parts.append(re.sub(r"^(Args|Attributes|Raises|Returns):\n(?:[ ].*\n?|\n)*", "", found.doc, flags=re.M).strip())
    parts.append(f"cannot be imported: {found.error}" if found.error else "")
    return "\n\n".join(filter(None, parts))


def _options(space: str, options: Sequence[Option]) -> str:
    return _options_table([(f"{space}.{option.name}", option) for option in options])


def _options_table(options: Sequence[tuple[str, Option]]) -> str:
    rows = [
        (key, option.type, "(required)" if option.required else written(option.default), option.help)
        for key, option in options
    ]
    return table(("option", "type", "default", "meaning"), rows, indent="  ")


def _json(kind: registry.Kind, found: Description) -> dict[str, Any]:
    return {
        "name": found.name,
        "summary": found.summary,
        "doc": found.doc,
        **facts(kind, found),
        "options": found.options,
        "error": found.error or None,
    }
