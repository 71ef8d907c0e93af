"""Training time with spectra at their defaults and without: `python -m bench.benchmarks.tracker`.

MiniLM with LoRA on glue/rte and a ViT trained in full on digits train in this process with and without spectra, in a
new random order in each of several rounds, so that other load on the machine affects both alike. A ratio compares two
runs of the same round; beside it stands the share that the tracker measured itself. No limit is checked.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import bench
from bench.benchmarks import format_ratios, grid_parser, print_or_fail, time_rounds, timed_run, train
from bench.config.sections import SpectraConfig
from bench.core.text import table
from bench.harness.planner import PlannedRun
from bench.records.spec import RunSpec

CASES = {
    "minilm lora": {"methods": "lora", "tasks": "glue/rte", "backbones": "minilm"},
    "vit full": {"methods": "full", "tasks": "digits", "backbones": "vit"},
}
"""Arguments of `bench.plan` by name."""
OFF, ON = "off", "on"


class Seconds(NamedTuple):
    """Seconds of the whole training, and of the tracker by its own clock."""

    train: float
    tracking: float


def measure(name: str, planned: PlannedRun, rounds: int) -> dict[str, list[Seconds]]:
    specs = {OFF: planned.spec.with_options(spectra=SpectraConfig(of="none")), ON: planned.spec}

    def time_run(spec: RunSpec) -> Seconds:
        cost = train(planned, spec)
        return Seconds(cost.train_s, cost.tracking_s)

    return time_rounds(name, specs, rounds, time_run)


def report(cases: Mapping[str, Mapping[str, Sequence[Seconds]]]) -> str:
    """Format a row per case: median seconds, ratio of on to off as median and range, and the tracker's own share."""
    rows: list[tuple[str, ...]] = []
    for name, seconds in cases.items():
        ratios = [on.train / off.train for on, off in zip(seconds[ON], seconds[OFF], strict=True)]
        shares = [on.tracking / on.train for on in seconds[ON]]
        share = f"{100 * statistics.median(shares):.1f} % (most {100 * max(shares):.1f} %)"
        off, on = (f"{statistics.median(run.train for run in seconds[variant]):.2f}" for variant in (OFF, ON))
        tracking = f"{statistics.median(run.tracking for run in seconds[ON]):.2f}"
        rows.append((name, off, on, format_ratios(ratios, 3), tracking, share))
    return table(("run", "off, s", "on, s", "ratio", "tracker, s", "its share"), rows)


def main(argv: Sequence[str]) -> int:
    parser = grid_parser("tracker", __doc__, rounds=5)
    parser.add_argument("--case", choices=[*CASES], action="append", help="run only this case; may be repeated")
    flags = vars(parser.parse_args(argv))
    rounds, names = flags.pop("rounds"), flags.pop("case", [*CASES])

    def run() -> str:
        plans = ((name, bench.plan(**{**CASES[name], **flags})) for name in names)
        return report({name: measure(name, timed_run(plan), rounds) for name, plan in plans})

    return print_or_fail(run)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
