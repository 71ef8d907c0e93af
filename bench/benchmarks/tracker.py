"""Training time with spectra at their defaults and without: `python -m bench.benchmarks.tracker`.

MiniLM with LoRA on glue/rte and a ViT trained in full on digits train in this process with and without spectra, in a
new random order in each of several rounds, so that other load on the machine affects both alike. A ratio compares two
runs of the same round; beside it stands the share that the tracker measured itself. No limit is checked.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bench.benchmarks import add_grid_flags, plan_one, print_or_fail, shuffled_rounds, train
from bench.config.sections import SpectraConfig
from bench.core.text import table
from bench.harness.planner import PlannedRun

CASES: dict[str, dict[str, Any]] = {
    "minilm lora": {"methods": "lora", "tasks": "glue/rte", "backbones": "minilm"},
    "vit full": {"methods": "full", "tasks": "digits", "backbones": "vit"},
}
"""Arguments of `bench.plan` by name."""
OFF, ON = "off", "on"


class Seconds(NamedTuple):
    """Times of one run.

    Attributes:
        train: of the whole training.
        tracking: of the tracker, by its own clock.
    """

    train: float
    tracking: float


def time_run(planned: PlannedRun, spectra: SpectraConfig) -> Seconds:
    """Train once."""
    cost = train(planned, planned.spec.with_options(spectra=spectra))
    return Seconds(cost.train_s, cost.tracking_s)


def measure(name: str, planned: PlannedRun, rounds: int) -> dict[str, list[Seconds]]:
    """Time both variants once per round, after a run that warms up."""
    options = {OFF: SpectraConfig(of="none"), ON: planned.spec.options.spectra}
    time_run(planned, options[OFF])
    times: dict[str, list[Seconds]] = {variant: [] for variant in options}
    for label, variant in shuffled_rounds([*options], rounds):
        times[variant].append(time_run(planned, options[variant]))
        sys.stderr.write(f"{name}  {label}  {variant:<3} {times[variant][-1].train:.2f} s\n")
    return times


def report(cases: Mapping[str, Mapping[str, Sequence[Seconds]]]) -> str:
    """Format a row per case: median seconds, ratio of on to off as median and range, and the tracker's own share."""
    rows: list[tuple[str, ...]] = []
    for name, seconds in cases.items():
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
    """Run the benchmark and print its report."""
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.tracker", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each variant (default: 5)")
    parser.add_argument("--case", choices=[*CASES], action="append", help="run only this case; may be repeated")
    add_grid_flags(parser)
    options = parser.parse_args(argv)
    names: list[str] = options.case or [*CASES]
    return print_or_fail(lambda: report({n: measure(n, plan_one(options, **CASES[n]), options.rounds) for n in names}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
