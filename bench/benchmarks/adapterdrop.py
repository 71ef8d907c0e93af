"""Training time of AdapterDrop against n, with and without its prefix cache: `python -m bench.benchmarks.adapterdrop`.

All variants train in this process, one after the other, in a new random order in each of several rounds, so that other
load on the machine affects all of them alike. A ratio compares two runs of the same round. No limit is checked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bench.benchmarks import add_grid_flags, plan_one, print_or_fail, shuffled_rounds, train
from bench.config.options import Value
from bench.core.text import table
from bench.harness.planner import PlannedRun

EPOCHS = 2
BASE = "n=0"


class Seconds(NamedTuple):
    """Times of one run.

    Attributes:
        epoch: of the last epoch.
        extra: how much longer the first epoch took, for warming up and filling the cache.
    """

    epoch: float
    extra: float


def variants(blocks: int) -> dict[str, Mapping[str, Value]]:
    """Return options by name: n = 0, and every larger n without and with the cache."""
    options: dict[str, Mapping[str, Value]] = {BASE: {"n": 0, "cache": False}}
    for n in range(1, blocks):
        options |= {f"n={n}": {"n": n, "cache": False}, f"n={n} cached": {"n": n, "cache": True}}
    return options


def time_run(planned: PlannedRun, options: Mapping[str, Value]) -> Seconds:
    """Train one variant."""
    at: dict[int, float] = {}

    def on_step(step: int, loss: float) -> None:
        at[step] = time.perf_counter()

    method = planned.spec.options.method.changed(**options, sweep=False)
    cost = train(planned, planned.spec.with_options(method=method), on_step)
    last = at[cost.steps] - at[cost.steps // EPOCHS]
    return Seconds(last, cost.train_s - EPOCHS * last)


def measure(planned: PlannedRun, rounds: int) -> dict[str, list[Seconds]]:
    """Time every variant once per round, after a run that warms up."""
    assert planned.backbone.path is not None
    config = json.loads((planned.backbone.path / "config.json").read_text())
    options = variants(config.get("num_hidden_layers") or config["n_layers"])
    time_run(planned, options[BASE])
    times: dict[str, list[Seconds]] = {name: [] for name in options}
    for label, name in shuffled_rounds([*options], rounds):
        times[name].append(time_run(planned, options[name]))
        sys.stderr.write(f"{label}  {name:<11} {times[name][-1].epoch:.2f} s per epoch\n")
    return times


def report(times: Mapping[str, Sequence[Seconds]]) -> str:
    """Format a row per variant: median seconds, and the ratio to n = 0 as median and range over the rounds."""
    rows: list[tuple[str, ...]] = []
    for name, seconds in times.items():
        ratios = [one.epoch / base.epoch for one, base in zip(seconds, times[BASE], strict=True)]
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
    """Run the benchmark and print its report."""
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.adapterdrop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each variant (default: 3)")
    add_grid_flags(parser)
    options = parser.parse_args(argv)
    own = {"methods": "adapterdrop", "tasks": "glue/rte", "train_samples": 64, "epochs": EPOCHS}
    return print_or_fail(lambda: report(measure(plan_one(options, **own), options.rounds)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
