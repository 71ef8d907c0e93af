"""Timings of whole runs, reported as ratios; no limit is checked."""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from bench.core.errors import BenchError
from bench.harness.outlook import forecast
from bench.harness.plan_text import describe
from bench.harness.planner import Plan, PlannedRun
from bench.records.data import Rows
from bench.records.results import Cost
from bench.records.spec import RunSpec

SecondsT = TypeVar("SecondsT", bound=tuple[float, float])


def grid_parser(name: str, description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Build a parser with `--rounds`, and flags of `bench run` whose default is the benchmark's own value."""
    prog = f"python -m bench.benchmarks.{name}"
    parser = argparse.ArgumentParser(prog=prog, description=description, argument_default=argparse.SUPPRESS)
    rounds_help = f"runs of each variant (default: {rounds})"
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=rounds_help)
    parser.add_argument("--backbone", dest="backbones", metavar="B")
    parser.add_argument("--data", metavar="SOURCE", choices=("auto", "dir", "hub", "embedded"))
    parser.add_argument("--data-dir", metavar="[NAME=]DIR", action="append")
    parser.add_argument("--accelerator", metavar="A")
    parser.add_argument("--train-samples", metavar="N", type=int)
    parser.add_argument("--max-steps", metavar="N", type=int)
    return parser


def timed_run(plan: Plan) -> PlannedRun:
    """Describe the plan of one run on stderr; return it with one text per evaluation split, which is not timed."""
    sys.stderr.write(describe(plan, forecast(plan)) + "\n")
    run = plan.runs[0]
    splits = run.dataset.evaluation.items()
    few: dict[str, Rows] = {name: rows[:1] if isinstance(rows, list) else rows for name, rows in splits}
    return replace(run, loaded=run.loaded._replace(dataset=replace(run.dataset, evaluation=few)))


def train(run: PlannedRun, spec: RunSpec, on_step: Callable[[int, float], None] = lambda step, loss: None) -> Cost:
    """Train a planned run with a changed specification, save nothing, and return its cost."""
    from bench.training.trainer import fit

    spec = spec.with_options(runtime=spec.options.runtime.changed(save="none", checkpoint_s=None))
    with tempfile.TemporaryDirectory() as folder:
        return fit(spec, run.task, run.dataset, run.backbone, directory=Path(folder), on_step=on_step).cost


def time_rounds(
    label: str, specs: Mapping[str, RunSpec], rounds: int, time_run: Callable[[RunSpec], SecondsT]
) -> dict[str, list[SecondsT]]:
    """Time every variant once per round, in a new random order, after a run of the first variant that warms up."""
    time_run(next(iter(specs.values())))
    times: dict[str, list[SecondsT]] = {name: [] for name in specs}
    for number in range(rounds):
        for name in random.Random(number).sample([*specs], len(specs)):
            times[name].append(time_run(specs[name]))
            progress = f"{label}  round {number + 1} of {rounds}  {name:<11} {times[name][-1][0]:.2f} s"
            sys.stderr.write(f"{progress}\n")
    return times


def format_ratios(ratios: Sequence[float], digits: int) -> str:
    """Format median and range over the rounds."""
    median, low, high = (f"{value:.{digits}f}" for value in (statistics.median(ratios), min(ratios), max(ratios)))
    return f"{median} ({low} … {high})"


def print_or_fail(measure: Callable[[], str]) -> int:
    """Print a report and return the exit code; an error of the suite is printed on stderr."""
    try:
        print(measure())
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
