"""Where an experiment trains: runs in a folder of its own, and a look at networks while they train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bench
from bench.core.errors import BenchError
from bench.records.record import DoneRecord, Record
from bench.records.schema import RunError
from bench.runs import Runs

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from bench.api.method import Method
    from bench.harness.planner import Plan


@dataclass(kw_only=True)
class Lab:
    """One experiment's folder, and what all of its runs have in common.

    Attributes:
        folder: records go to `runs` in it.
        common: keyword arguments of `bench.run` for all of the experiment's runs, such as `data_dir`.
        quick: whether `--quick` was given.
        sources: where the data of the runs came from, such as `glue/rte: embedded`.
    """

    folder: Path
    common: Mapping[str, Any] = field(default_factory=dict[str, Any])
    quick: bool = False
    sources: set[str] = field(default_factory=set[str])

    def run(self, **grid: Any) -> Runs[DoneRecord]:
        """Train a grid (keyword arguments of `bench.run`) and return its records in the plan's order.

        What is done is not run again, what failed is.

        Raises:
            UsageError, EnvironmentProblem: as `bench.run`.
            BenchError: a run did not finish.
        """
        from bench.harness.runner import run_plan

        plan = self._plan(grid)
        records = [*run_plan(plan)]
        bad = [record for record in records if record.state != "done"]
        if bad:
            error = bad[0].error or RunError(what=bad[0].state, known="", todo="")
            raise BenchError(
                f"{len(bad)} of {len(records)} runs of the experiment did not finish: {error.what}",
                f"records in {plan.request.out}",
                error.todo or "Run the same command again.",
            )
        return Runs(records, plan.request.out).done

    def train_with(self, callbacks: Sequence[Callback] = (), **grid: Any) -> Iterator[tuple[Method, Any]]:
        """Train a grid run by run under Lightning callbacks; yields each trained method and its data.

        For what a record does not hold. Nothing of it is kept: the same call trains again.
        """
        from bench.training.trainer import trained

        for run in self._plan(grid).runs:
            yield trained(run.spec, run.task, run.dataset, run.backbone, callbacks=callbacks)

    def build(self, **grid: Any) -> Iterator[tuple[Method, Any]]:
        """Yield the adapted, untrained method of every run of a grid, and its data."""
        from bench.training.trainer import build

        for run in self._plan(grid).runs:
            data, method, _ = build(run.spec, run.task, run.dataset, run.backbone)
            yield method, data

    def folder_of(self, record: Record) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / record.run_id

    def _plan(self, grid: Mapping[str, Any]) -> Plan:
        # an experiment with a failed run has no answer, so failed runs are tried again
        given: dict[str, Any] = {**grid, **self.common, "out": self.folder / "runs", "retry": True}
        plan = bench.plan(**given)
        for skip in (*plan.broken, *plan.skipped):
            raise skip.error
        self.sources |= {f"{run.spec.task}: {run.dataset.source}" for run in plan.runs}
        return plan
