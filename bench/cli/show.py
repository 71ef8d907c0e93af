"""`bench show`: everything about a method, a task, a backbone, an experiment or a run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.api.task import TaskSpec
from bench.cli.output import emit
from bench.cli.parser import Parser, common
from bench.cli.show_run import text as run_text
from bench.config.help import Description, describe, facts
from bench.config.options import Option, options_of
from bench.config.options import show as written
from bench.config.sections import SECTIONS, TaskConfig
from bench.core import registry
from bench.core.errors import OK, UsageError, did_you_mean, plain
from bench.core.text import printable_lines, table
from bench.harness import task_names
from bench.launchers.options import SLURM, SlurmConfig

EXAMPLES = (
    "bench show deeplora",
    "bench show glue",
    "bench show glue/rte --json",
    "bench show minilm",
    "bench show parsimony",
    "bench show 1f3a9c --runs results",
)
Shown = tuple[dict[str, object], str]
"""What is shown, as a JSON value and as text."""


def parser() -> Parser:
    about = (
        "Show a method with its options, a task, a backbone, an experiment of `bench reproduce`, or a run\n"
        "by its folder or the beginning of its id."
    )
    parser = Parser(prog="bench show", description=about, parents=[common()], examples=EXAMPLES)
    about = "a name from `bench list` or `bench reproduce --list`, a run's folder, or the beginning of its id"
    parser.add_argument("name", metavar="NAME|RUN", help=about)
    parser.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of runs (default: runs)")
    return parser


def handle(options: argparse.Namespace) -> int:
    """Print every thing of that name, or else the run whose id begins so."""
    name: str = options.name
    shown = [_method(name)] if registry.known("methods", name) else []
    if registry.family(name) in registry.entries("tasks"):
        task_names.check_task(name)
        shown.append(_task(name))
    shown += [_backbone(name)] if registry.known("backbones", name) else []
    shown += [_experiment(name)] if registry.known("experiments", name) else []
    shown += [_launcher()] if name == SLURM else []
    shown = shown or [_run(name, options.runs.expanduser())]
    if options.json:
        emit(shown[0][0] if len(shown) == 1 else [value for value, _ in shown])
    else:
        print(printable_lines("\n\n".join(text for _, text in shown)))
    return OK


def _method(name: str) -> Shown:
    found = describe("methods", name)
    shared = {space: [*options_of(config).values()] for space, config in SECTIONS.items()}
    parts: list[str] = []
    if config := found.subject:
        tried = ", ".join(map(str, config.learning_rates))
        rates = f"learning rate {config.learning_rate}; --select lr tries {tried}"
        parts.append(f"{rates}\nworks on {', '.join(sorted(config.needs))}")
    if found.options:
        first = found.options[0]
        parts.append(_options("options of the method", {"method": found.options}))
        setting = f"method.{first.name}={written(first.default)}"
        parts.append(f"set them with: bench run --method {name} --task glue --set {setting}")
    parts.append(_options("options of every method", shared))
    return {"kind": "method", **_json("methods", found), "shared_options": shared}, _text(found, *parts)


def _task(name: str) -> Shown:
    suite, member = registry.family(name), name.partition("/")[2]
    found = describe("tasks", suite)
    value: dict[str, object] = {"kind": "task", **_json("tasks", found)}
    options = {"task": [option for option in found.options if option.name not in options_of(TaskConfig)]}
    if getattr(found.subject, "argument", ""):  # it says what it predicts only once it is opened
        options["data"] = [*options_of(SECTIONS["data"]).values()]
        name, members = task_names.written(found.name), ""
    else:
        specs, error = _specs(suite, [member] if member else task_names.tasks_of(suite))
        value |= {"members": specs, "error": found.error or error or None}
        header = ("task", "version", "reads", "classes", "primary metric", "all metrics", "note")
        members = table(header, [_member(spec) for spec in specs]) if specs else f"tasks cannot be read: {error}"
    run = f"run it with: bench run --method lora --task {name}"
    return value, _text(found, members, _options("options of the task", options), run)


def _specs(suite: str, members: Sequence[str]) -> tuple[list[TaskSpec], str]:
    """Specifications of the tasks; modules of tasks are free of torch, so this one imports it."""
    try:
        task = registry.load("tasks", suite)
        return [task(member).spec for member in (members or getattr(task, "members", ()) or [""])], ""
    except Exception as error:  # a third party's task may be wrong in any way; its text is shown all the same
        return [], f"{type(error).__name__}: {error}"


def _member(spec: TaskSpec) -> tuple[str, ...]:
    classes, metrics = str(spec.num_classes or "score"), ", ".join(spec.metrics)
    return (spec.name, str(spec.version), spec.modality, classes, spec.primary_name, metrics, spec.note)


def _backbone(name: str) -> Shown:
    found = describe("backbones", name)
    options = _options("options of the backbone", {"backbone": found.options})
    text = _text(found, options, f"use it with: bench run … --backbone {name}")
    return {"kind": "backbone", **_json("backbones", found)}, text


def _experiment(name: str) -> Shown:
    found = describe("experiments", name)
    place = getattr(found.subject, "place", "")
    quick = " ".join(f"{key}={written(value)}" for key, value in getattr(found.subject, "quick", {}).items())
    text = _text(
        found,
        f"in the survey: {place}" if place else "",
        _options("options", {"": found.options}),
        f"--quick: {quick or 'the same'}",
        f"run it with: bench reproduce {name}",
    )
    return {"kind": "experiment", **_json("experiments", found)}, text


def _launcher() -> Shown:
    options = [*options_of(SlurmConfig).values()]
    text = "slurm: `bench run --launcher slurm` submits an array of workers, which share the runs of the plan"
    about = "Other options of sbatch are taken from its environment variables, such as SBATCH_EXCLUSIVE."
    example = "bench run --method lora --task glue --launcher slurm --set slurm.partition=gpu --set slurm.gres=gpu:1"
    parts = (text, about, _options("options of the launcher", {SLURM: options}), f"use it with: {example}")
    return {"kind": "launcher", "name": SLURM, "options": options}, "\n\n".join(parts)


def _run(prefix: str, out: Path) -> Shown:
    from bench.records import job_log
    from bench.records.record import FILE, locate

    is_folder = (Path(prefix).expanduser() / FILE).is_file()
    if not is_folder and not re.fullmatch(r"[0-9a-f]{1,16}", prefix):
        known = [name for kind in registry.BUILTIN for name in registry.entries(kind)]
        tasks = task_names.all_tasks()
        # `rte` for `glue/rte` is the likeliest slip
        meant = [task for task in tasks if plain(task).endswith(f"/{plain(prefix)}")]
        hint = did_you_mean(prefix, meant or [*known, *tasks])
        raise UsageError(
            f"nothing is called '{prefix}', and it is not the beginning of a run id",
            f"names: {', '.join(known)}",
            f"{hint} `bench list runs --runs {out}` lists runs.".strip(),
        )
    record, folder = locate(out, prefix)
    log = job_log.read(folder)
    text = run_text(record) + (f"\n\nlog of its job: {log}" if log else "")
    return {"kind": "run", **record.to_json(), **({"log": log} if log else {})}, text


def _text(found: Description, *parts: str) -> str:
    """Name, summary and text without the sections for programmers (`Raises:`), then the parts that are not empty."""
    head = f"{found.name}: {found.summary}" if found.summary else found.name
    doc = re.sub(r"^(Args|Attributes|Raises|Returns):\n(?:[ ].*\n?|\n)*", "", found.doc, flags=re.M).strip()
    error = f"cannot be imported: {found.error}" if found.error else ""
    return "\n\n".join(filter(None, (head, doc, error, *parts)))


def _options(title: str, spaces: Mapping[str, Sequence[Option]]) -> str:
    """A table of the options by namespace, or an empty string without any."""
    rows = [
        (
            f"{space}.{option.name}" if space else option.name,
            option.type,
            "(required)" if option.required else written(option.default),
            option.help,
        )
        for space, options in spaces.items()
        for option in options
    ]
    return f"{title}\n{table(('option', 'type', 'default', 'meaning'), rows, indent='  ')}" if rows else ""


def _json(kind: registry.Kind, found: Description) -> dict[str, object]:
    return {
        "name": found.name,
        "summary": found.summary,
        "doc": found.doc,
        **facts(kind, found),
        "options": found.options,
        "error": found.error or None,
    }
