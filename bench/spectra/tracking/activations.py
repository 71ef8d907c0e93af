"""Second moments of activations, summed batch by batch: their spectrum without keeping any features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bench.api.network import channel_axes
from bench.spectra.singular import finite, gram_spectrum

Timed = Callable[[], AbstractContextManager[None]]


class ActivationMoments:
    """Σ x·xᵀ (D, D), float64, over the feature vectors x that modules output while `counting`, and their number.

    In an output (B, D) every row is a vector, in (B, T, D) every token that the batch's attention mask keeps, and in an
    image (B, D, H, W) or (B, H, W, D) every position. Which of the two an image is, `channel_axes` shows, and where it
    does not, `channels_last`. Of a tuple the first tensor counts. A module whose output is replayed computes nothing
    and adds nothing.
    """

    def __init__(self, modules: Mapping[str, nn.Module], *, channels_last: bool, timed: Timed) -> None:
        """Args: modules by name, the usual layout of images, and a context manager that times all work."""
        self.modules, self.channels_last, self.timed = modules, channels_last, timed
        self.sums: dict[str, tuple[Tensor, int]] = {}
        self._mask: Tensor | None = None
        self._weighted = self.counting = False
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Register the forward hooks."""
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in self.modules.items()]

    def detach(self) -> None:
        """Remove the forward hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.counting = [], False

    def begin(self, *, attention_mask: Tensor | None, weighted: bool) -> None:
        """Count the outputs for the training batch that follows; one of weight 0 is a placeholder and adds nothing."""
        self._mask, self._weighted, self.counting = attention_mask, weighted, True

    def clear(self) -> None:
        """Reset the sums."""
        self.sums = {}

    def totals(self) -> dict[str, tuple[Tensor, int]]:
        """Move the sums of all devices to the first one and return them there; every device must call this."""
        if _distributed():
            for name in (name for name in self.modules if name in self.sums):
                total, count = self.sums[name]
                rows = torch.tensor(count, device=total.device)
                dist.all_reduce(total)
                dist.all_reduce(rows)
                self.sums[name] = total, int(rows)
            self.load(self.sums)
        return self.sums

    def state(self) -> dict[str, tuple[Tensor, int]]:
        """Return `totals` for a checkpoint."""
        return {name: (total.cpu(), rows) for name, (total, rows) in self.totals().items()}

    def load(self, state: Mapping[str, tuple[Tensor, int]]) -> None:
        """Start the first device at `totals`, and the others at zero."""
        first = not _distributed() or dist.get_rank() == 0
        self.sums = {n: (total, rows) if first else (torch.zeros_like(total), 0) for n, (total, rows) in state.items()}

    def _hook(self, name: str) -> Callable[[nn.Module, object, object], None]:
        # a function, not a method: a copy of a module copies its hooks, and a bound method would copy its object too
        def hook(module: nn.Module, args: object, output: object) -> None:
            if self.counting and module.training and "forward" not in vars(module):
                with self.timed():
                    self._add(name, module, output)

        return hook

    def _add(self, name: str, module: nn.Module, output: object) -> None:
        if isinstance(output, tuple | list):
            output = next(iter(cast("Sequence[object]", output)), None)
        if not isinstance(output, Tensor) or output.ndim < 2:
            return
        features = output.detach()
        if features.ndim == 4:
            axes = channel_axes(module, features.shape)
            features = features.movedim(axes[0] if len(axes) == 1 else -1 if self.channels_last else 1, -1)
        if self._mask is not None and self._mask.shape == features.shape[:-1]:
            features = features[self._mask.bool()]
        x = features.reshape(-1, features.shape[-1]).double()
        total, rows = self.sums.get(name) or (x.new_zeros(x.shape[1], x.shape[1]), 0)
        if self._weighted:
            total, rows = total.to(x.device).addmm_(x.mT, x), rows + len(x)
        self.sums[name] = total, rows


def moment_spectrum(total: Tensor, rows: int) -> Tensor:
    """Compute singular values (D,) of the features (N, D) divided by √N, descending, from Σ x·xᵀ (floor 1e-8·σ₁).

    Raises:
        ValueError: a NaN or an infinity.
    """
    return gram_spectrum(finite(total) / rows)


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
