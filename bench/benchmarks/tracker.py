"""Training time with spectra at their defaults and without: `python -m bench.benchmarks.tracker`.

MiniLM with LoRA on glue/rte and a ViT trained in full on digits train in this process, with and without in turn, in an
order that is drawn anew in each of several rounds, so that what else the machine does falls on both alike. A ratio
compares two runs of the same round; beside it is the share that the tracker measured of itself. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bench
from bench.benchmarks import add_grid_flags, grid_of, unscored
from bench.config.sections import SpectraConfig
from bench.core.errors import BenchError
from bench.core.text import table
from bench.harness.plan_text import describe
from bench.harness.planner import PlannedRun

CASES: dict[str, dict[str, Any]] = {
    "minilm lora": {"methods": "lora", "tasks": "glue/rte", "backbones": "minilm"},
    "vit full": {"methods": "full", "tasks": "digits", "backbones": "vit"},
}
OFF, ON = "off", "on"


class Seconds(NamedTuple):
    """Of one run: all of training, and what the tracker took of it by its own clock."""

    train: float
    tracking: float


def run(planned: PlannedRun, spectra: SpectraConfig) -> Seconds:
    """Train once."""
    from bench.training.trainer import fit

    runtime = planned.spec.options.runtime.changed(save="none", checkpoint_s=None)
    spec = planned.spec.with_options(spectra=spectra, runtime=runtime)
    with tempfile.TemporaryDirectory() as folder:
        cost = fit(spec, planned.task, planned.dataset, planned.backbone, directory=Path(folder)).cost
    return Seconds(cost.train_s, cost.tracking_s)


def measure(name: str, planned: PlannedRun, rounds: int) -> dict[str, list[Seconds]]:
    """Both once per round; a run before the first warms up."""
    options = {OFF: SpectraConfig(of="none"), ON: planned.spec.options.spectra}
    run(planned, options[OFF])
    found: dict[str, list[Seconds]] = {variant: [] for variant in options}
    for number in range(rounds):
        for variant in random.Random(number).sample([*options], len(options)):
            found[variant].append(run(planned, options[variant]))
            last = found[variant][-1]
            sys.stderr.write(f"{name}  round {number + 1} of {rounds}  {variant:<3} {last.train:.2f} s\n")
    return found


def report(found: Mapping[str, Mapping[str, Sequence[Seconds]]]) -> str:
    """A row per case: median seconds, the ratio of on to off, its median and range, and the tracker's own share."""
    rows: list[tuple[str, ...]] = []
    for name, seconds in found.items():
        ratios = [on.train / off.train for on, off in zip(seconds[ON], seconds[OFF], strict=True)]
        shares = [one.tracking / one.train for one in seconds[ON]]
        rows.append(
            (
                name,
                *(f"{statistics.median(s.train for s in seconds[variant]):.2f}" for variant in (OFF, ON)),
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} … {max(ratios):.3f})",
                f"{statistics.median(s.tracking for s in seconds[ON]):.2f}",
                f"{100 * statistics.median(shares):.1f} % (most {100 * max(shares):.1f} %)",
            )
        )
    return table(("run", "off, s", "on, s", "ratio", "tracker, s", "its share"), rows)


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.tracker", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each variant (default: 5)")
    parser.add_argument("--case", choices=[*CASES], action="append", help="one of them alone")
    add_grid_flags(parser)
    options = parser.parse_args(argv)
    found: dict[str, dict[str, list[Seconds]]] = {}
    try:
        for name in options.case or CASES:
            plan = bench.plan(**grid_of(options, **CASES[name]))
            sys.stderr.write(describe(plan) + "\n")
            found[name] = measure(name, unscored(plan.runs[0]), options.rounds)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    print(report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
