"""The command that repeats one run of a grid, to the same run id."""

from __future__ import annotations

from dataclasses import fields

from bench.config.lists import single
from bench.config.options import options_of, show
from bench.harness.planner import PlannedRun
from bench.harness.request import WIDEN, Request


def repeat_command(run: PlannedRun, request: Request) -> list[str]:
    """Return the argv of a `bench run` that plans this run alone; empty for a trial, which no flag asks for.

    Data come from where they came from: a folder that `BENCH_DATA` named is named as `--data-dir`.
    """
    spec = run.spec
    if spec.holdout:
        return []
    argv = ["bench", "run", "--method", spec.method, "--task", run.loaded.name, "--backbone", run.backbone_name]
    argv += ["--seeds", str(spec.seed)]
    argv += ["--epochs", f"{spec.epochs!r}"] if spec.epochs else ["--max-steps", str(spec.max_steps)]
    argv += ["--batch-size", str(spec.batch_size)]
    argv += ["--train-samples", str(spec.train_samples)] if spec.train_samples else []
    argv += ["--evaluate", str(spec.evaluate)] if spec.evaluate else []
    argv += ["--lr", ",".join(map(repr, spec.select)) or repr(spec.lr)]
    if run.trials:
        argv += ["--select", ",".join([*(["lr"] if spec.select else []), *(name for name, _ in spec.space)])]
        argv += ["--select-on", request.select_on] if request.select_on else []
        argv += ["--trials", str(spec.trials)] if spec.trials else []
        argv += ["--widen", str(spec.widen)] if spec.select and not spec.trials and spec.widen != WIDEN else []
    argv += _data(run, request)
    argv += _changed(request)
    for (space, key), value in run.given.items():
        known = [options_of(type(config)) for name, config in run.configs if name == space]
        commas = any(options[key].commas for options in known if key in options)
        argv += ["--set", f"{space}.{key}={value if commas else single(value)}"]
    for name, values in spec.space:
        argv += ["--set", f"{name}={','.join(single(show(value)) for value in values)}"]
    return argv


def _data(run: PlannedRun, request: Request) -> list[str]:
    """Flags that lead to the same sources, for the task and for the one whose train chooses the learning rate."""
    sources = {one.dataset.source for one in (run, *run.trials)} - {"file"}
    if "directory" in sources:
        dirs = [f"{name}={folder}" if name else str(folder) for name, folder in request.data.dirs]
        if request.data.parent and not any(name is None for name, _ in request.data.dirs):
            dirs.append(str(request.data.parent))
        return [word for folder in dirs for word in ("--data-dir", folder)]
    return ["--data", *sources] if len(sources) == 1 else []


def _changed(request: Request) -> list[str]:
    """Flags of how and where it runs, if they are not the defaults."""
    defaults = {one.name: one.default for one in fields(Request)}
    names = ("precision", "accelerator", "devices", "track", "out")
    return [
        word
        for name in names
        if getattr(request, name) != defaults[name]
        for word in (f"--{name}", str(getattr(request, name)))
    ]
