"""What a run trains and how long it takes, before it trains: its network is built, or makes a few steps.

No record is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from bench.core.errors import BenchError
from bench.harness.outlook import Forecast, Measured, Outlook, kind
from bench.training.callbacks import course_steps
from bench.training.counting import count_parameters
from bench.training.trainer import trained

if TYPE_CHECKING:
    from bench.api.datamodule import Split, StepDataModule
    from bench.harness.planner import PlannedRun

WARM, TIMED = 3, 5
"""Steps before the clock starts, and steps that are timed."""
EVALUATED = 4
"""Batches of each evaluation split that are timed."""
COUNTING_S = 30.0
"""Time after which `count` leaves the rest unknown. A network of 20 M parameters takes a tenth of a second."""
SILENT_S = 2.0
"""Time between two lines of its progress."""


def count(found: Forecast, say: Callable[[str], object]) -> dict[str, Measured]:
    """Build each kind of run that is left and whose size is unknown, and count the parameters that it trains.

    Args:
        found: what finished runs say.
        say: called with a line about the progress where it takes long.
    """
    kinds = _kinds(one for one in _left(found) if one.trainable is None)
    counted: dict[str, Measured] = {}
    began = said = time.monotonic()
    for number, (name, one) in enumerate(kinds.items()):
        now = time.monotonic()
        if now - began > COUNTING_S:
            rest = len(kinds) - number
            say(f"counted {number} of {len(kinds)} kinds of runs in {now - began:.0f} s; {rest} stay unknown")
            break
        if now - said > SILENT_S:
            said = now
            say(f"counting parameters {number + 1}/{len(kinds)}: {_described(one.run)}")
        counted[name] = _attempted(_count, one)
    return counted


def _count(one: Outlook) -> Measured:
    run = one.run
    counts = count_parameters(run.spec, run.task, run.dataset, run.backbone)
    if counts is None or run.spec.options.allocation.policy == "gradient":  # of all examples the first batch may differ
        return Measured()
    return Measured(trainable=counts["trainable"])


def measure(found: Forecast, say: Callable[[str], object]) -> dict[str, Measured]:
    """Train a few steps of each kind of run that is left and whose time or size is unknown.

    Args:
        found: what finished runs say.
        say: called with a line before each measurement.
    """
    kinds = _kinds(one for one in _left(found) if one.seconds is None or one.trainable is None)
    measured: dict[str, Measured] = {}
    for number, (name, one) in enumerate(kinds.items(), 1):
        say(f"measuring {number}/{len(kinds)}: {_described(one.run)}")
        measured[name] = _attempted(_measure, one)
    return measured


def _left(found: Forecast) -> Iterator[Outlook]:
    """What is to train and has its options; others wait for their trials to choose them."""
    return (one for one in (*found.runs, *found.trials) if not (one.left_alone or one.run.spec.space))


def _kinds(several: Iterable[Outlook]) -> dict[str, Outlook]:
    """Return a run of each kind, in the order of the plan."""
    return {kind(one.run): one for one in several}


def _described(run: PlannedRun) -> str:
    given = (f"{space}.{key}={value}" for (space, key), value in run.given.items())
    return " ".join((run.spec.method, run.spec.task, *given))


def _attempted(look: Callable[[Outlook], Measured], one: Outlook) -> Measured:
    try:
        return look(one)
    except MemoryError:  # where the run trains there may be more
        return Measured()
    except BenchError as error:
        return Measured(error=error.line())
    except Exception as error:  # the run would fail with it, which its record would say
        return Measured(error=f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")


def _measure(one: Outlook) -> Measured:
    run, clock = one.run, _Clock()
    method, data = trained(run.spec.on_one_device(), run.task, run.dataset, run.backbone, callbacks=[clock])
    batches = [len(loader) for loader in data.val_dataloader()]
    evaluation = sum(seconds * count for seconds, count in zip(clock.batch_s, batches, strict=True))
    course = run.spec.evaluate
    times = 1 if course is None else 1 + len(course_steps(course, one.steps, per_epoch=data.batches.per_epoch))
    return Measured(
        trainable=method.parameter_counts()["trainable"], seconds=clock.step_s * one.steps + times * evaluation
    )


class _Clock(Callback):
    """Times a few steps and a few evaluation batches, and then ends the training.

    Attributes:
        step_s: seconds per optimiser step.
        batch_s: seconds per batch of each evaluation split.
    """

    def __init__(self) -> None:
        self.step_s = 0.0
        self.batch_s: list[float] = []
        self._ends: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._ends.append(_now())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step < len(self._ends):  # a part of a batch
            return
        self._ends.append(_now())
        if trainer.global_step < min(WARM + TIMED, trainer.max_steps):
            return
        timed = self._ends[-TIMED - 1 :]
        self.step_s = (timed[-1] - timed[0]) / (len(timed) - 1)
        self.batch_s = [*self._evaluate(trainer, pl_module)]
        trainer.should_stop = True

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> Iterator[float]:
        module.eval()
        data = cast("StepDataModule[object, Split]", vars(trainer)["datamodule"])
        for loader in data.val_dataloader():
            began, few = _now(), min(EVALUATED, len(loader))
            with torch.no_grad():
                for batch in islice(loader, few):
                    module.validation_step(trainer.strategy.batch_to_device(batch), 0)
            yield (_now() - began) / few


def _now() -> float:
    """Return the time at which what was asked of a GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
