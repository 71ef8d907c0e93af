"""Timings of whole runs, reported as ratios; no limit is checked."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
from bench.core.errors import BenchError
from bench.harness.plan_text import describe
from bench.harness.planner import PlannedRun
from bench.records.schema import Cost
from bench.records.spec import RunSpec


def add_grid_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that a benchmark shares with `bench run`; without them the benchmark's own values are used."""
    parser.add_argument("--backbone", dest="backbones", metavar="B")
    parser.add_argument("--data", metavar="SOURCE", choices=("auto", "dir", "hub", "embedded"))
    parser.add_argument("--data-dir", metavar="[NAME=]DIR", action="append")
    parser.add_argument("--accelerator", metavar="A")
    parser.add_argument("--train-samples", metavar="N", type=int)
    parser.add_argument("--max-steps", metavar="N", type=int)


def plan_one(options: argparse.Namespace, **own: Any) -> PlannedRun:
    """Plan one run and describe it on stderr.

    The run evaluates one text of each split, since evaluation is not timed.

    Args:
        options: parsed flags of `add_grid_flags`.
        own: the benchmark's arguments of `bench.plan`, which the flags replace.
    """
    names = ("backbones", "data", "data_dir", "accelerator", "train_samples", "max_steps")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    plan = bench.plan(**{**own, **given})
    sys.stderr.write(describe(plan) + "\n")
    run = plan.runs[0]
    splits: dict[str, Any] = {**run.dataset.evaluation}
    few: dict[str, Any] = {name: rows[:1] if isinstance(rows, list) else rows for name, rows in splits.items()}
    return replace(run, loaded=run.loaded._replace(dataset=replace(run.dataset, evaluation=few)))


def train(run: PlannedRun, spec: RunSpec, on_step: Callable[[int, float], None] = lambda step, loss: None) -> Cost:
    """Train a planned run with a changed specification, save nothing, and return its cost."""
    from bench.training.trainer import fit

    spec = spec.with_options(runtime=spec.options.runtime.changed(save="none", checkpoint_s=None))
    with tempfile.TemporaryDirectory() as folder:
        return fit(spec, run.task, run.dataset, run.backbone, directory=Path(folder), on_step=on_step).cost


def shuffled_rounds(variants: Sequence[str], rounds: int) -> Iterator[tuple[str, str]]:
    """Yield `round 1 of 3` and a variant: all variants in every round, in a new random order."""
    for number in range(rounds):
        for variant in random.Random(number).sample(variants, len(variants)):
            yield f"round {number + 1} of {rounds}", variant


def print_or_fail(measure: Callable[[], str]) -> int:
    """Print a report and return the exit code; an error of the suite is printed on stderr."""
    try:
        print(measure())
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0
