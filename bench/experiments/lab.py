"""Where an experiment trains: `bench run` in a folder of its own, its records back, and a look inside a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import BenchError
from bench.records.record import DoneRecord, Record, is_done
from bench.records.schema import RunError

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback

    from bench.api.method import Method
    from bench.harness.planner import Cell, Plan
    from bench.harness.request import Request


@dataclass(kw_only=True)
class Lab:
    """One experiment's folder and words.

    Attributes:
        folder: records go to `runs` in it.
        words: flags of `bench run` that hold for all of the experiment's runs, such as `--data-dir`.
        quick: whether `--quick` was given.
    """

    folder: Path
    words: Sequence[str] = ()
    quick: bool = False
    sources: set[str] = field(default_factory=set[str])
    """Where the data of the runs came from, such as `embedded`."""

    def run(self, words: str, *more: str) -> list[DoneRecord]:
        """The records of `bench run WORDS …`, in the plan's order; what is done is not run again, what failed is.

        Raises:
            UsageError, EnvironmentProblem: as `bench run`.
            BenchError: a run did not end well.
        """
        from bench.harness.runner import train

        plan, request = self._plan(words, *more)
        records = list(train(plan, request))
        done = [record for record in records if is_done(record)]
        bad = [record for record in records if not is_done(record)]
        if bad:
            error = bad[0].error or RunError(what=bad[0].state, known="", todo="")
            raise BenchError(
                f"{len(bad)} of {len(records)} runs of the experiment did not end: {error.what}",
                f"records in {request.out}",
                error.todo or "Run the same command again.",
            )
        return done

    def watch(self, words: str, *more: str, callbacks: Sequence[Callback] = ()) -> Iterator[tuple[Method, Any]]:
        """Train the cells of `bench run WORDS …` one by one under `callbacks`; the trained method and its data of each.

        For what a record does not hold. Nothing of it is kept: the same call trains again.
        """
        from bench.training.trainer import trained

        plan, _ = self._plan(words, *more)
        for cell in plan.cells:
            yield trained(cell.spec, cell.task, cell.corpus, cell.backbone, callbacks=callbacks)

    def built(self, words: str, *more: str) -> Iterator[tuple[Method, Any]]:
        """The adapted, untrained method and its data of every cell of `bench run WORDS …`."""
        from bench.training.trainer import build

        for cell in self._plan(words, *more)[0].cells:
            data, method, _ = build(cell.spec, cell.task, cell.corpus, cell.backbone)
            yield method, data

    def folder_of(self, record: Record) -> Path:
        """The folder of a run."""
        return self.folder / "runs" / record.run_id

    def _plan(self, words: str, *more: str) -> tuple[Plan, Request]:
        from bench.cli.run import make_request, parser
        from bench.harness.planner import make

        out = ["--out", str(self.folder / "runs"), "--retry"]  # an experiment with a failed run has no answer
        request = make_request(parser().parse_args([*shlex.split(words), *more, *self.words, *out]))
        plan = make(request)
        if plan.broken:
            raise plan.broken[0].error
        if plan.skipped:
            raise plan.skipped[0].error
        self.sources |= {_source(cell) for cell in plan.cells}
        return plan, request


def _source(cell: Cell) -> str:
    return f"{cell.spec.task}: {cell.corpus.source}"
