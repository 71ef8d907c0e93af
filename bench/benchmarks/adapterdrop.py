"""Training time of AdapterDrop against n, with and without its prefix cache: `python -m bench.benchmarks.adapterdrop`.

All variants train in this process, one after the other, in a new random order in each of several rounds, so that other
load on the machine affects all of them alike. A ratio compares two runs of the same round. No limit is checked.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import bench
from bench.benchmarks import format_ratios, grid_parser, print_or_fail, time_rounds, timed_run, train
from bench.core.text import table
from bench.harness.planner import PlannedRun
from bench.records.spec import RunSpec

EPOCHS = 2
BASE = "n=0"


class Seconds(NamedTuple):
    """Seconds of the last epoch, and how many more the first took, for warming up and filling the cache."""

    epoch: float
    extra: float


def measure(planned: PlannedRun, rounds: int) -> dict[str, list[Seconds]]:
    """Time n = 0, and every larger n without and with the cache, once per round."""
    assert planned.backbone.path is not None
    config = json.loads((planned.backbone.path / "config.json").read_text())

    def spec_of(n: int, *, cache: bool) -> RunSpec:
        method = planned.spec.options.method.changed(n=n, cache=cache, sweep=False)
        return planned.spec.with_options(method=method)

    specs = {BASE: spec_of(0, cache=False)}
    for n in range(1, config.get("num_hidden_layers") or config["n_layers"]):
        specs |= {f"n={n}": spec_of(n, cache=False), f"n={n} cached": spec_of(n, cache=True)}

    def time_run(spec: RunSpec) -> Seconds:
        at: dict[int, float] = {}
        cost = train(planned, spec, lambda step, loss: at.update({step: time.perf_counter()}))
        last = at[cost.steps] - at[cost.steps // EPOCHS]
        return Seconds(last, cost.train_s - EPOCHS * last)

    return time_rounds("last epoch", specs, rounds, time_run)


def report(times: Mapping[str, Sequence[Seconds]]) -> str:
    """Format a row per variant: median seconds, and the ratio to n = 0 as median and range over the rounds."""
    rows: list[tuple[str, ...]] = []
    for name, seconds in times.items():
        ratios = [run.epoch / base.epoch for run, base in zip(seconds, times[BASE], strict=True)]
        epoch, extra = (statistics.median(values) for values in zip(*seconds, strict=True))
        rows.append((name, f"{epoch:.2f}", format_ratios(ratios, 2), f"{extra:+.2f}"))
    return table(("variant", "s per epoch", f"ratio to {BASE}", "first epoch, s more"), rows)


def main(argv: Sequence[str]) -> int:
    flags = vars(grid_parser("adapterdrop", __doc__, rounds=3).parse_args(argv))
    rounds = flags.pop("rounds")

    def run() -> str:
        budget: dict[str, Any] = {"train_samples": 64, "epochs": EPOCHS, **flags}
        plan = bench.plan("adapterdrop", "glue/rte", **budget)
        return report(measure(timed_run(plan), rounds))

    return print_or_fail(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
