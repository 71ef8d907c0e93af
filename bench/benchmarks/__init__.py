"""Timings: whole runs side by side, as ratios. They report; nothing is asserted."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from bench.harness.planner import PlannedRun


def add_grid_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that a timed run shares with `bench run`; those that are not given keep the benchmark's own."""
    parser.add_argument("--backbone", dest="backbones", metavar="B")
    parser.add_argument("--data", metavar="SOURCE", choices=("auto", "dir", "hub", "embedded"))
    parser.add_argument("--data-dir", metavar="[NAME=]DIR", action="append")
    parser.add_argument("--accelerator", metavar="A")
    parser.add_argument("--train-samples", metavar="N", type=int)
    parser.add_argument("--max-steps", metavar="N", type=int)


def grid_of(options: argparse.Namespace, **own: Any) -> dict[str, Any]:
    """Return the keyword arguments of `bench.plan`: the benchmark's own, and over them the given flags."""
    names = ("backbones", "data", "data_dir", "accelerator", "train_samples", "max_steps")
    return {**own, **{name: value for name in names if (value := getattr(options, name)) is not None}}


def unscored(run: PlannedRun) -> PlannedRun:
    """Keep one text of each split to score: evaluation is not what is timed."""
    splits: dict[str, Any] = {**run.dataset.evaluation}
    few = {name: rows[:1] if isinstance(rows, list) else rows for name, rows in splits.items()}
    return replace(run, loaded=run.loaded._replace(dataset=replace(run.dataset, evaluation=few)))
