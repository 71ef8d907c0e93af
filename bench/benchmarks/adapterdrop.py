"""Training time of AdapterDrop against n, with and without its prefix cache: `python -m bench.benchmarks.adapterdrop`.

All variants train in this process, one after the other in an order that is drawn anew in each of several rounds, so
that what else the machine does falls on all alike. A ratio compares two runs of the same round. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import bench
from bench.benchmarks import add_grid_flags, grid_of, unscored
from bench.config.options import Value
from bench.core.errors import BenchError
from bench.core.text import table
from bench.harness.plan_text import describe
from bench.harness.planner import PlannedRun

EPOCHS = 2
BASE = "n=0"


class Seconds(NamedTuple):
    """Of one run: its last epoch, and what the first took longer (warming up, and filling the cache)."""

    epoch: float
    extra: float


def variants(blocks: int) -> dict[str, Mapping[str, Value]]:
    """Options by name: n = 0, and every larger n without and with the cache."""
    found: dict[str, Mapping[str, Value]] = {BASE: {"n": 0, "cache": False}}
    for n in range(1, blocks):
        found |= {f"n={n}": {"n": n, "cache": False}, f"n={n} cached": {"n": n, "cache": True}}
    return found


def run(planned: PlannedRun, options: Mapping[str, Value]) -> Seconds:
    """Train one variant."""
    from bench.training.trainer import fit

    given = planned.spec.options
    spec = planned.spec.with_options(
        method=given.method.changed(**options, sweep=False),
        runtime=given.runtime.changed(save="none", checkpoint_s=None),
    )
    at: dict[int, float] = {}

    def tell(step: int, loss: float) -> None:
        at[step] = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        cost = fit(spec, planned.task, planned.dataset, planned.backbone, directory=Path(folder), tell=tell).cost
    last = at[cost.steps] - at[cost.steps // EPOCHS]
    return Seconds(last, cost.train_s - EPOCHS * last)


def measure(planned: PlannedRun, rounds: int) -> dict[str, list[Seconds]]:
    """Every variant once per round; a run before the first warms up."""
    assert planned.backbone.path is not None
    config = json.loads((planned.backbone.path / "config.json").read_text())
    options = variants(config.get("num_hidden_layers") or config["n_layers"])
    run(planned, options[BASE])
    found: dict[str, list[Seconds]] = {name: [] for name in options}
    for number in range(rounds):
        for name in random.Random(number).sample([*options], len(options)):
            found[name].append(run(planned, options[name]))
            sys.stderr.write(f"round {number + 1} of {rounds}  {name:<11} {found[name][-1].epoch:.2f} s per epoch\n")
    return found


def report(found: Mapping[str, Sequence[Seconds]]) -> str:
    """A row per variant: median seconds, and the ratio to n = 0, its median and its range over the rounds."""
    rows: list[tuple[str, ...]] = []
    for name, seconds in found.items():
        ratios = [one.epoch / base.epoch for one, base in zip(seconds, found[BASE], strict=True)]
        rows.append(
            (
                name,
                f"{statistics.median(s.epoch for s in seconds):.2f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})",
                f"{statistics.median(s.extra for s in seconds):+.2f}",
            )
        )
    return table(("variant", "s per epoch", f"ratio to {BASE}", "first epoch, s more"), rows)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.adapterdrop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each variant (default: 3)")
    add_grid_flags(parser)
    options = parser.parse_args(argv)
    own = {"methods": "adapterdrop", "tasks": "glue/rte", "train_samples": 64, "epochs": EPOCHS}
    try:
        plan = bench.plan(**grid_of(options, **own))
        sys.stderr.write(describe(plan) + "\n")
        print(report(measure(unscored(plan.runs[0]), options.rounds)))
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
