"""Second moments of activations, summed up batch by batch: their spectrum without keeping a single feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Moments:
    """Σ x·xᵀ (D, D), float64, over the feature vectors x that modules give while `open`, and how many they were.

    Of an output (B, D) every row is a vector, of (B, T, D) every token that the batch's attention mask keeps, and of an
    image (B, D, H, W), or (B, H, W, D) with `channels_last`, every position. Of a tuple the first tensor counts. A
    module that does not compute, as its output is replayed, adds nothing.
    """

    def __init__(self, modules: Mapping[str, nn.Module], *, channels_last: bool, timed: Callable[[], Any]) -> None:
        """Args: the modules by name, and a context manager around all work."""
        self.modules, self.channels_last, self.timed = modules, channels_last, timed
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self._mask: Tensor | None = None
        self._counts = self.open = False
        self._handles: list[Any] = []

    def attach(self) -> None:
        """Begin to listen."""
        self._handles = [module.register_forward_hook(self._hook(name)) for name, module in self.modules.items()]

    def detach(self) -> None:
        """Leave the modules as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles, self.open = [], False

    def begin(self, batch: Mapping[str, Any]) -> None:
        """Count what follows, a training batch. One of weight 0 only stands in, and counts nothing."""
        self._mask, self._counts, self.open = batch["inputs"].get("attention_mask"), batch["weight"] != 0, True

    def clear(self) -> None:
        """Forget the sums."""
        self.sums, self.rows = {}, {}

    def totals(self) -> dict[str, tuple[Tensor, int]]:
        """Sum and number by module, over all devices, each of which must call this."""
        found: dict[str, tuple[Tensor, int]] = {}
        for name in self.modules:
            if name in self.sums:
                total, rows = self.sums[name].clone(), torch.tensor(self.rows[name], device=self.sums[name].device)
                if _several():
                    dist.all_reduce(total)
                    dist.all_reduce(rows)
                found[name] = total, int(rows)
        return found

    def state(self) -> dict[str, tuple[Tensor, int]]:
        """`totals`, which the first device goes on from, while the others begin at zero: so their sum stays."""
        found = self.totals()
        if _several() and dist.get_rank():
            self.load({name: (torch.zeros_like(total), 0) for name, (total, _) in found.items()})
        elif _several():
            self.load(found)
        return {name: (total.cpu(), rows) for name, (total, rows) in found.items()}

    def load(self, state: Mapping[str, tuple[Tensor, int]]) -> None:
        """Take up what `state` gave, on the first device; on the others, zeros."""
        first = not _several() or dist.get_rank() == 0
        self.sums = {name: total if first else torch.zeros_like(total) for name, (total, _) in state.items()}
        self.rows = {name: rows if first else 0 for name, (_, rows) in state.items()}

    def _hook(self, name: str) -> Callable[..., None]:
        # a function, not a method: who copies a module copies its hooks, and with a method everything behind it
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if self.open and module.training and "forward" not in vars(module):
                with self.timed():
                    self._add(name, output)

        return hook

    def _add(self, name: str, output: Any) -> None:
        first = next(iter(output), None) if isinstance(output, tuple | list) else output
        if not isinstance(first, Tensor) or first.ndim < 2:
            return
        features = first.detach()
        if features.ndim == 4 and not self.channels_last:
            features = features.movedim(1, -1)
        if self._mask is not None and self._mask.shape == features.shape[:-1]:
            features = features[self._mask.bool()]
        x = features.reshape(-1, features.shape[-1]).double()
        if name not in self.sums:
            self.sums[name], self.rows[name] = x.new_zeros(x.shape[1], x.shape[1]), 0
        if self._counts:
            self.sums[name] = self.sums[name].to(x.device).addmm_(x.mT, x)
            self.rows[name] += len(x)


def spectrum(total: Tensor, rows: int) -> Tensor:
    """Singular values (D,) of the features (N, D) divided by √N, descending, from Σ x·xᵀ; their floor is 1e-8·σ₁.

    Raises:
        ValueError: a NaN or an infinity.
    """
    if not bool(torch.isfinite(total).all()):
        raise ValueError("a spectrum needs finite entries; the activations hold a NaN or an infinity")
    return torch.linalg.eigvalsh(total / rows).clamp_min(0).sqrt().flip(-1)


def _several() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
