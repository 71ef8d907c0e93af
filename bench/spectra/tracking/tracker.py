"""SpectrumTracker: singular values of updates, weights, gradients, steps and activations while a run trains."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bench.api.batching import Batch
from bench.api.method import Method
from bench.config.sections import SpectraConfig
from bench.records.fields import Quantity
from bench.records.files import is_finished
from bench.records.results import Spectra
from bench.spectra.delta import Delta
from bench.spectra.files import history
from bench.spectra.files.history import LayerLog
from bench.spectra.tracking import sources
from bench.spectra.tracking.activations import ActivationMoments, moment_spectrum

WRITE_S = 2.0
"""Minimal seconds between two writes of the file during training."""
WRITE_SHARE = 0.01
"""Share of the training time that writing may take: the longer a write takes, the rarer it is."""


class SpectrumTracker(Callback):
    """Record spectra during training without changing it: no forward pass, random number or gradient of its own.

    Updates and weights are those after a snapshot's step. A gradient is that of the global batch at a snapshot's
    weights, after accumulation and reduction over devices and before clipping. A step is the change by the next call of
    the optimiser and by the method after it; the last gradient and step belong to the last step but one. Activations
    are those of the training batches before a snapshot, with the weights of that time; at step 0 those of the first
    batch.

    Attributes:
        tracking_s: seconds of tracking, over all processes of an interrupted run; part of the training time.
    """

    def __init__(self, config: SpectraConfig, *, steps: int, directory: Path) -> None:
        """Args: the options, the number of optimiser steps of the run, and its folder."""
        self.config, self.steps, self.file = config, steps, directory / history.FILE
        self.snapshots = sources.snapshots(steps, config.every) if config.names else []
        self.tracking_s = 0.0
        self._logs: dict[tuple[str, str], LayerLog] = {}  # by quantity and layer
        self._notes: list[str] = []
        self._readers: dict[str, Callable[[], Iterator[tuple[str, Delta]]]] = {}
        self._matrices: dict[str, sources.TrainedMatrix] = {}  # whose steps are tracked
        self._before: dict[str, Tensor] = {}
        self._moments: ActivationMoments | None = None
        self._device, self._in_timer, self._done = torch.device("cpu"), False, 0
        self._writes, self._unwritten, self._next_write = True, False, 0.0

    def result(self) -> Spectra | None:
        """What the record keeps; None where nothing was looked at."""
        return history.summarise(self._logs.values()) if self._logs else None

    def warnings(self) -> list[str]:
        """List what could not be tracked."""
        not_finite: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
        for log in self._logs.values():
            if lost := {*log.steps} - {step for step, _ in log.finite()}:
                not_finite[min(lost), log.of].append(log.layer)
        return self._notes + [
            f"{of} of {', '.join(layers[:3])}{f' and {len(layers) - 3} more' if layers[3:] else ''}: "
            f"a NaN or an infinity at step {step}, so no spectrum"
            for (step, of), layers in sorted(not_finite.items(), key=lambda item: item[0][0])
        ]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the layers, and keep the initial weights: a checkpoint is loaded later."""
        if stage != "fit" or not self.snapshots:
            return
        self._writes = trainer.is_global_zero
        with self._timed():
            method = cast(Method, pl_module)
            for of in self.config.names:
                if of == "activations":
                    self._moments = self._activation_moments(method)
                elif self._writes:
                    self._readers[of] = self._reader(of, method)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the snapshot of step 0, or write the spectra of a checkpoint."""
        self._device, self._done = pl_module.device, trainer.global_step
        if self._moments:
            self._moments.attach()
        if self._done == 0:
            self._take(("updates", "weights"), 0)
        self._write(now=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Count activations in the batches before a snapshot."""
        if self._moments and (self._done == 0 or self._done >= self._first_batch(self._done)):
            mask = batch["inputs"].get("attention_mask")
            self._moments.begin(attention_mask=mask, weighted=bool(batch["weight"] != 0))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: object) -> None:
        """Take gradients before clipping, and keep the weights before the step."""
        step = trainer.global_step
        if step in self.snapshots or step == self.steps - 1:
            self._take(("gradients",), step)
            with self._timed():
                self._before = {name: matrix.value.clone() for name, matrix in self._matrices.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Take a snapshot after the last micro batch of its step."""
        if self._moments:
            self._moments.counting = False
        if trainer.global_step == self._done:
            return
        self._done = trainer.global_step
        if self._before:
            self._take(("steps",), self._done - 1)
            self._before = {}
        if self._moments and (self._done == 1 or self._done in self.snapshots):
            self._take_activations(self._moments)
        if self._done in self.snapshots:
            self._take(("updates", "weights"), self._done)
        self._write(now=self._done == self.steps)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the hooks of activations."""
        if self._moments:
            self._moments.detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write the spectra so far."""
        self.on_train_end(trainer, pl_module)
        self._write(now=True)

    def state_dict(self) -> dict[str, object]:
        """Return all spectra and sums of activations, so that a resumed run writes the same file as a whole one."""
        with self._timed():
            return {
                "log": [vars(log) for log in self._logs.values()],
                "moments": self._moments.state() if self._moments else {},
                "notes": self._notes,
                "tracking_s": self.tracking_s,
            }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; later spectra, which only the file holds, are recorded again."""
        logs = [LayerLog(**state) for state in state_dict["log"]]
        self._logs = {(log.of, log.layer): log for log in logs}
        if self._moments:
            self._moments.load(state_dict["moments"])
        self._notes, self.tracking_s = state_dict["notes"], state_dict["tracking_s"]

    def _reader(self, of: str, method: Method) -> Callable[[], Iterator[tuple[str, Delta]]]:
        """Choose the layers of a quantity, and return what reads their current matrices."""
        values: dict[str, Callable[[str, sources.TrainedMatrix], Tensor | None]] = {
            "gradients": lambda name, matrix: matrix.gradient,
            "steps": lambda name, matrix: matrix.value - self._before[name],
        }
        if of in values:
            source = sources.trained_matrices(sources.find_trained(method), values[of])
        else:
            source = sources.updates(method) if of == "updates" else sources.weights(method)
        chosen = self._chosen(of, source.widths, source.secondary)
        if source.trained:
            if of == "steps":
                self._matrices = {name: source.trained.matrices[name] for name in chosen}
            if left_out := source.trained.no_maps:
                self._note_once(f"trained tensors that are no matrix have no spectrum: {', '.join(left_out)}")
        return partial(source.read, chosen)

    def _chosen(self, of: str, widths: dict[str, int], secondary: frozenset[str] = frozenset()) -> list[str]:
        chosen, unmatched = sources.choose(self.config.layers, widths, secondary)
        names = ", ".join([*widths][:4]) + (", …" if len(widths) > 4 else "")
        self._notes += [f"spectra.layers={p} names none of the {of}: there are {names or 'none'}" for p in unmatched]
        return chosen

    def _activation_moments(self, method: Method) -> ActivationMoments:
        every, usual = sources.modules(method)
        if self.config.layers == "auto":
            chosen = sources.spread(usual)
        else:
            chosen = self._chosen("activations", dict.fromkeys(usual if self.config.layers == "all" else every, 0))
        last = any(getattr(module, "output_fmt", "") == "NHWC" for module in method.backbone.modules())  # of timm
        return ActivationMoments({name: every[name] for name in chosen}, channels_last=last, timed=self._timed)

    def _first_batch(self, step: int) -> int:
        """Return the first batch, numbered by the steps before it, that counts for the next snapshot after `step`."""
        following = min((s for s in self.snapshots if s > step), default=self.steps)
        return max(0, following - self.config.window, *(s for s in self.snapshots if s <= step))

    def _take(self, quantities: tuple[str, ...], step: int) -> None:
        for of in [of for of in quantities if of in self._readers]:
            with self._timed():
                try:
                    for layer, delta in self._readers[of]():
                        self._add(of, layer, step, delta)
                except (RuntimeError, MemoryError) as error:  # no memory, or a tuner that cannot be read now
                    reason = next(iter(str(error).splitlines()), repr(error))
                    self._notes.append(f"{of} at step {step}: {reason}")

    def _add(self, of: str, layer: str, step: int, delta: Delta) -> None:
        # the cheap way, the same for all steps of a layer: singular values below 1e-8·σ₁ change none of these ranks
        way = "auto" if delta.factors[0].dtype == torch.float64 else "gram"
        try:
            values, how = delta.spectrum(how=way)
        except ValueError:  # not finite
            values, how = None, "factors" if delta.factors[1:] else "gram"
        self._log(of, layer, delta.shape, how).add(step, values)

    def _log(self, of: str, layer: str, shape: tuple[int, int], how: str) -> LayerLog:
        self._unwritten = True
        of = cast(Quantity, of)  # as `SpectraConfig` checks
        return self._logs.setdefault((of, layer), LayerLog(of=of, layer=layer, shape=shape, how=how))

    def _take_activations(self, moments: ActivationMoments) -> None:
        """Record spectra of the activations since the last snapshot, and for step 0 those of the first batch."""
        steps = [step for step, due in ((0, self._done == 1), (self._done, self._done in self.snapshots)) if due]
        with self._timed():
            totals = moments.totals()
            for name in moments.modules if self._writes else ():
                total, rows = totals.get(name, (torch.empty(0), 0))
                if not rows:
                    self._note_once(f"activations of {name}: no training batch passed through it")
                    continue
                try:
                    values = moment_spectrum(total, rows)
                except ValueError:  # not finite
                    values = None
                log = self._log("activations", name, (len(total), len(total)), "covariance")
                for step in steps:
                    log.add(step, values, rows)
        if self._done in self.snapshots or self._first_batch(0) > 0:
            moments.clear()

    def _note_once(self, note: str) -> None:
        self._notes += [note] * (note not in self._notes)

    def _write(self, *, now: bool) -> None:
        """Write the file if there is something new and the last write is long enough ago, or `now`."""
        if not self._writes or not self._logs:  # a resumed run restores the logs on every device
            return
        if not now and not (self._unwritten and time.monotonic() >= self._next_write):
            return
        if is_finished(self.file.parent):  # by another command meanwhile
            return
        with self._timed():
            began = time.monotonic()
            try:
                history.write(self.file, [log.history() for log in self._logs.values()])
            except OSError as error:
                self._note_once(f"{self.file.name} could not be written: {error.strerror}")
            took = time.monotonic() - began
            self._next_write, self._unwritten = time.monotonic() + max(WRITE_S, took / WRITE_SHARE), False

    @contextmanager
    def _timed(self) -> Generator[None]:
        """Run the block without gradients and add its time; nested blocks count once, and no tracking takes no time."""
        if self._in_timer or not self.snapshots:
            yield
            return
        self._synchronize()
        self._in_timer, began = True, time.perf_counter()
        try:
            with torch.no_grad():
                yield
            self._synchronize()
        finally:
            self._in_timer = False
            self.tracking_s += time.perf_counter() - began

    def _synchronize(self) -> None:
        """Wait for the GPU, so that exactly the work of tracking is timed."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
