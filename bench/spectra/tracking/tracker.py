"""SpectrumTracker: singular values of updates, weights, gradients, steps and activations while a run trains."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from bench.api.method import Method
from bench.config.sections import SpectraConfig
from bench.records.schema import Spectra
from bench.spectra.delta import Delta
from bench.spectra.files import store
from bench.spectra.tracking import sources
from bench.spectra.tracking.log import Log
from bench.spectra.tracking.moments import Moments, spectrum
from bench.spectra.tracking.sources import Source

WRITE_S = 2.0
"""Least seconds between two writes of the file on the way."""
WRITE_SHARE = 0.01
"""Share of the time that writing may take on the way: the longer it takes, the rarer it is."""


class SpectrumTracker(Callback):
    """Looks on and changes nothing: no forward pass of its own, no random number, no gradient.

    Updates and weights are those after a snapshot's step. A gradient is that of the global batch at a snapshot's
    weights, after accumulation and reduction over devices and before clipping, and a step what the next call of the
    optimiser changed, with what the method does after it; of the last ones the step is the last but one. Activations
    are taken from the training batches before a snapshot, as the network was while they passed; at step 0 from the
    first.

    Attributes:
        tracking_s: seconds that this took, over all processes of an interrupted run; part of the training time.
    """

    def __init__(self, config: SpectraConfig, *, steps: int, directory: Path) -> None:
        """Args: the options, optimiser steps of the run, and its folder."""
        self.config, self.steps, self.file = config, steps, directory / store.FILE
        self.at = sources.snapshots(steps, config.every) if config.names else []
        self.spectra, self.tracking_s = Log(), 0.0
        self._notes: list[str] = []
        self._broken: dict[tuple[str, str], int] = {}
        self._sources: dict[str, tuple[Source, list[str]]] = {}
        self._parameters: dict[str, Tensor] = {}  # whose steps are looked at
        self._before: dict[str, Tensor] = {}
        self._moments: Moments | None = None
        self._device, self._busy, self._done = torch.device("cpu"), False, 0
        self._writes, self._unwritten, self._write_again = True, False, 0.0

    # what the record gets

    def result(self) -> Spectra | None:
        """What the record keeps; None where nothing was looked at."""
        return self.spectra.summary() if self.spectra else None

    def warnings(self) -> list[str]:
        """What could not be looked at."""
        found: dict[tuple[str, int], list[str]] = {}
        for (of, layer), step in self._broken.items():
            found.setdefault((of, step), []).append(layer)
        return self._notes + [
            f"{of} of {', '.join(layers[:3])}{f' and {len(layers) - 3} more' if layers[3:] else ''}: "
            f"a NaN or an infinity at step {step}, so no spectrum"
            for (of, step), layers in found.items()
        ]

    # when it looks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the layers and keep starts, of the network as it was built: a checkpoint is loaded later."""
        if stage != "fit" or not self.at:
            return
        self._writes = trainer.is_global_zero
        with self._timed():
            method = cast(Method, pl_module)
            for of in self.config.names:
                if of == "activations":
                    self._moments = self._listen(method)
                elif self._writes:
                    self._sources[of] = self._source(of, method)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the start, or write what a checkpoint holds."""
        self._device, self._done = pl_module.device, trainer.global_step
        if self._moments:
            self._moments.attach()
        if self._done == 0:
            self._look(("updates", "weights"), 0)
        self._write(now=True)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Listen, in the batches before a snapshot."""
        if self._moments and (self._done == 0 or self._done >= self._first(self._done)):
            self._moments.begin(batch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """Gradients as they are before clipping, and the weights as they are before the step."""
        step = trainer.global_step
        if step in self.at or step == self.steps - 1:
            self._look(("gradients",), step)
            with self._timed():
                self._before = {name: p.detach().clone() for name, p in self._parameters.items()}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last micro batch of a step: look, if it is time."""
        if self._moments:
            self._moments.open = False
        if trainer.global_step == self._done:
            return
        self._done = trainer.global_step
        if self._before:
            self._look(("steps",), self._done - 1)
            self._before = {}
        if self._moments and (self._done == 1 or self._done in self.at):
            self._features(self._moments)
        if self._done in self.at:
            self._look(("updates", "weights"), self._done)
        self._write(now=self._done == self.steps)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen no more."""
        if self._moments:
            self._moments.detach()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave what there is on disk."""
        self.on_train_end(trainer, pl_module)
        self._write(now=True)

    def state_dict(self) -> dict[str, Any]:
        """All rows so far and sums of activations, so that a file after an interruption is that of a whole run."""
        with self._timed():
            return {
                "log": self.spectra.state(),
                "moments": self._moments.state() if self._moments else {},
                "notes": self._notes,
                "broken": [[of, layer, step] for (of, layer), step in self._broken.items()],
                "tracking_s": self.tracking_s,
            }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what `state_dict` gave; rows that are only in the file came after it, and are made again."""
        self.spectra.load(state_dict["log"])
        if self._moments:
            self._moments.load(state_dict["moments"])
        self._notes, self.tracking_s = [*state_dict["notes"]], state_dict["tracking_s"]
        self._broken = {(of, layer): step for of, layer, step in state_dict["broken"]}

    # how it looks

    def _source(self, of: str, method: Method) -> tuple[Source, list[str]]:
        """Where matrices come from, and the layers looked at."""
        if of == "updates":
            source = sources.updates(method)
        elif of == "weights":
            source = sources.weights(method)
        elif of == "gradients":
            source = sources.trained(method, lambda name, parameter: parameter.grad)
        else:
            source = sources.trained(method, lambda name, parameter: parameter - self._before[name])
        chosen = self._chosen(of, source.widths, source.apart)
        if of == "steps":
            every, _ = sources.parameters(method)
            self._parameters = {name: every[name] for name in chosen}
        return source, chosen

    def _chosen(self, of: str, widths: dict[str, int], apart: frozenset[str] = frozenset()) -> list[str]:
        chosen, unmatched = sources.choose(self.config.layers, widths, apart)
        names = ", ".join([*widths][:4]) + (", …" if len(widths) > 4 else "")
        self._notes += [f"spectra.layers={p} names none of the {of}: there are {names or 'none'}" for p in unmatched]
        return chosen

    def _listen(self, method: Method) -> Moments:
        every, usual = sources.modules(method)
        if self.config.layers == "auto":
            chosen = sources.spread(usual)
        else:
            chosen = self._chosen("activations", dict.fromkeys(usual if self.config.layers == "all" else every, 0))
        last = any(getattr(module, "output_fmt", "") == "NHWC" for module in method.backbone.modules())  # timm's word
        return Moments({name: every[name] for name in chosen}, channels_last=last, timed=self._timed)

    def _first(self, step: int) -> int:
        """First batch, counted by the steps done before it, that counts for the snapshot after `step`."""
        following = min((s for s in self.at if s > step), default=self.steps)
        return max(0, following - self.config.window, *(s for s in self.at if s <= step))

    def _look(self, quantities: tuple[str, ...], step: int) -> None:
        for of in quantities:
            if of not in self._sources:
                continue
            source, chosen = self._sources[of]
            with self._timed():
                try:
                    for layer, delta in source.read(chosen):
                        self._add(of, layer, step, delta)
                except (
                    RuntimeError,
                    MemoryError,
                ) as error:  # memory, or a tuner that cannot be read now
                    self._notes.append(f"{of} at step {step}: {f'{error}'.splitlines()[0] if f'{error}' else error!r}")

    def _add(self, of: str, layer: str, step: int, delta: Delta) -> None:
        finite = all(bool(torch.isfinite(factor).all()) for factor in delta.factors)
        # the cheap way for all steps of a layer alike: what lies below 1e-8·σ₁ moves no rank that is shown
        way = "auto" if delta.factors[0].dtype == torch.float64 else "gram"
        values, how = delta.spectrum(how=way) if finite else (None, "factors" if delta.factors[1:] else "gram")
        self._put(of, layer, step, values, shape=delta.shape, how=how)

    def _put(self, of: str, layer: str, step: int, values: Tensor | None, **more: Any) -> None:
        if values is None:
            self._broken.setdefault((of, layer), step)
        self.spectra.add(of, layer, step, values, **more)
        self._unwritten = True

    def _features(self, moments: Moments) -> None:
        """Spectra of the activations since the snapshot before; of those of the first batch at step 0 too."""
        steps = [step for step, due in ((0, self._done == 1), (self._done, self._done in self.at)) if due]
        with self._timed():
            totals = moments.totals()
            for name in moments.modules if self._writes else ():
                total, rows = totals.get(name, (None, 0))
                if total is None or not rows:
                    self._absent(name)
                    continue
                values = spectrum(total, rows) if bool(torch.isfinite(total).all()) else None
                for step in steps:
                    shape = (len(total), len(total))
                    self._put("activations", name, step, values, shape=shape, how="covariance", rows=rows)
        if self._done in self.at or self._first(0) > 0:
            moments.clear()

    def _absent(self, name: str) -> None:
        note = f"activations of {name}: no training batch passed through it"
        self._notes += [note] * (note not in self._notes)

    def _write(self, *, now: bool) -> None:
        """Write the file, if there is something new and it is time."""
        if not self.spectra or not (now or (self._unwritten and time.monotonic() >= self._write_again)):
            return
        with self._timed():
            began = time.monotonic()
            try:
                store.write(self.file, self.spectra.spectra())
            except OSError as error:
                note = f"{self.file.name} could not be written: {error.strerror}"
                self._notes += [note] * (note not in self._notes)
            took = time.monotonic() - began
            self._write_again, self._unwritten = time.monotonic() + max(WRITE_S, took / WRITE_SHARE), False

    @contextmanager
    def _timed(self) -> Generator[None]:
        """Without gradients, and on the clock; one inside another counts once, and no tracking takes no time."""
        if self._busy or not self.at:
            yield
            return
        self._wait()
        self._busy, began = True, time.perf_counter()
        try:
            with torch.no_grad():
                yield
            self._wait()
        finally:
            self._busy = False
            self.tracking_s += time.perf_counter() - began

    def _wait(self) -> None:
        """A GPU's earlier work is no time of ours, and its work for us is."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


__all__ = ["SpectrumTracker"]
