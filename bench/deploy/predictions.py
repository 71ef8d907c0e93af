"""Predictions of a finished run on new examples, a window at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from bench.api.batching import chunks
from bench.deploy.restore import FinishedRun

if TYPE_CHECKING:
    from bench.api.inputs import NewExamples, NewInputs


class Predictions(NamedTuple):
    """Predictions for some examples, in the order of their file.

    Attributes:
        names, kept: those of `NewExamples`.
        outputs: (N, outputs) of the head, float64; a number on a scale is on the user's scale.
    """

    names: Sequence[int | str]
    kept: Sequence[Sequence[str]]
    outputs: np.ndarray


def predict(run: FinishedRun, inputs: NewInputs, *, accelerator: str, batch_size: int) -> Iterator[Predictions]:
    """Yield predictions, in the precision of the run; batches change them by rounding alone.

    Raises:
        EnvironmentProblem: the run's weights do not fit its method and backbone.
    """
    one_process = LightningEnvironment()  # instead of a cluster's
    fabric = Fabric(accelerator=accelerator, devices=1, precision=run.spec.precision, plugins=one_process)
    network = fabric.setup_module(run.method())
    network.eval()
    for examples in inputs.windows():
        yield Predictions(examples.names, examples.kept, _outputs(run, fabric, network, examples, batch_size))


@torch.inference_mode()
def _outputs(
    run: FinishedRun, fabric: Fabric, network: torch.nn.Module, examples: NewExamples, batch_size: int
) -> np.ndarray:
    """Return (N, outputs); long examples come first, as in evaluation."""
    outputs = np.zeros((len(examples.names), run.task.num_classes or 1))
    for index in chunks(np.argsort(-examples.lengths, kind="stable"), batch_size):
        batch = fabric.to_device(examples.collate(index))
        outputs[index] = network(batch).double().cpu().numpy().reshape(len(index), -1)
    factor, shift = run.scale
    return outputs if run.task.num_classes else outputs * factor + shift
