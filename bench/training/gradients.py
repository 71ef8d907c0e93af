"""A check after the first step: every trained tensor must have a gradient, or a reader of the score must know."""

from __future__ import annotations

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from bench.api.method import Method
from bench.core.errors import UsageError

SHOWN = 3
"""Most names in a message."""


class GradientCheck(Callback):
    """Compares what trains with what has a gradient, once, before the first optimiser step.

    A network may read the weight of a layer instead of calling it (timm's BEiT), so that what a method put in the
    layer's place has no effect; or never use a layer (ESM's contact head).

    Attributes:
        warnings: for the record; none if every trained tensor has a gradient.
    """

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self._done = False

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if not self._done:
            assert isinstance(pl_module, Method)
            self.warnings += missing_gradients(pl_module)
        self._done = True


def missing_gradients(method: Method) -> list[str]:
    """Return a warning that names trained tensors without a gradient; call it after the first backward pass.

    Raises:
        UsageError: outside the head nothing that trains has one.
    """
    trained = {name: p for name, p in method.named_parameters() if p.requires_grad}
    missing = [name for name, parameter in trained.items() if parameter.grad is None]
    if not missing or method.skips_parameters:
        return []
    names = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
    inside = [name for name in trained if not name.startswith("head.")]
    if inside and all(name in missing for name in inside):
        raise UsageError(
            "nothing that the method trains in the backbone has a gradient",
            f"the network does not call these layers, or reads their weights elsewhere: {names}",
            "Choose other layers with --set method.target=…, or another method.",
        )
    return [f"{len(missing)} of {len(trained)} trained tensors have no gradient and keep their start: {names}"]
