"""Run the trainings of an experiment in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import bench
from bench.config.options import Value
from bench.core.errors import BenchError
from bench.records.record import DoneRecord, Record
from bench.runs import Runs

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from bench.api.datamodule import Split, StepDataModule
    from bench.api.method import Method
    from bench.harness.planner import Plan

    Data = StepDataModule[object, Split]


class Grid(TypedDict, total=False):
    """Keyword arguments of `bench.run` that experiments use; each of several values is a run of its own."""

    methods: str | Sequence[str]
    tasks: str | Sequence[str]
    backbones: str
    seeds: int | Iterable[int]
    lr: float
    max_steps: int
    batch_size: int
    train_samples: int
    precision: str
    set: Mapping[str, Value]


@dataclass(kw_only=True)
class Lab:
    """The folder of an experiment, and the settings that all of its runs share.

    Attributes:
        folder: has the records in `runs`.
        common: keyword arguments of `bench.run` for all runs, such as `data_dir`.
        sources: of all data used so far, such as `glue/rte: embedded`.
    """

    folder: Path
    common: Mapping[str, object] = field(default_factory=dict[str, object])
    quick: bool = False
    sources: set[str] = field(default_factory=set[str])

    def run(self, **grid: Unpack[Grid]) -> Runs[DoneRecord]:
        """Train what is not finished of a grid, and return its records in the order of the plan.

        Raises:
            UsageError, EnvironmentProblem: as `bench.run`.
            BenchError: a run did not finish.
        """
        from bench.harness.runner import run_plan

        plan = self._plan(grid)
        records = plan.in_order(run_plan(plan))
        unfinished = [record for record in records if record.state != "done"]
        if unfinished:
            error = unfinished[0].error
            count, why = f"{len(unfinished)} of {len(records)}", error.what if error else unfinished[0].state
            raise BenchError(
                f"{count} runs of the experiment did not finish: {why}",
                f"records in {plan.request.out}",
                (error and error.todo) or "Run the same command again.",
            )
        return Runs(records, plan.request.out).done

    def train_with(self, callbacks: Sequence[Callback] = (), **grid: Unpack[Grid]) -> Iterator[tuple[Method, Data]]:
        """Train a grid with Lightning callbacks; yield the trained method of every run, and its data. Store nothing."""
        from bench.training.trainer import trained

        for run in self._plan(grid).runs:
            yield trained(run.spec, run.task, run.dataset, run.backbone, callbacks=callbacks)

    def build(self, **grid: Unpack[Grid]) -> Iterator[tuple[Method, Data]]:
        """Yield the adapted, untrained method of every run of a grid, and its data."""
        from bench.training.trainer import build

        for run in self._plan(grid).runs:
            data, method, _ = build(run.spec, run.task, run.dataset, run.backbone)
            yield method, data

    def folder_of(self, record: Record) -> Path:
        return self.folder / "runs" / record.run_id

    def _plan(self, grid: Grid) -> Plan:
        # an experiment with a failed run has no result, so failed runs are repeated
        arguments: dict[str, Any] = {**grid, **self.common, "out": self.folder / "runs", "retry": True}
        plan = bench.plan(**arguments)
        for skip in (*plan.broken, *plan.skipped):
            raise skip.error
        self.sources |= {f"{run.spec.task}: {run.dataset.source}" for run in plan.runs}
        return plan
