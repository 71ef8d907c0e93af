"""Base of the low-rank methods: choose layers, give each a rank and a factored update, measure and export it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.api.lowrank.allocation import gradient_rank, share_rank
from bench.api.lowrank.factored import Base, FactoredLinear
from bench.api.lowrank.fused import join_fused, split_fused
from bench.api.lowrank.targets import find_targets, replace_layer
from bench.api.method import Batch, Method
from bench.api.network import Network
from bench.spectra import Delta, matricize

Layers = Sequence[tuple[str, Base]]
"""Target layers by name, in the order of the network."""


class LowRank(Method):
    """Freezes the backbone and replaces each target layer by the `FactoredLinear` that `layer` builds.

    Attributes:
        rank_step: ranks are multiples of it.
        ranks: rank of every target layer by name; 0 with `rank=none`.
    """

    frozen_exports = (r"\.factors\.\d+$",)
    rank_step = 1
    ranks: dict[str, int]
    _unspent = 0
    _notes: Sequence[str] = ()

    @abstractmethod
    def layer(self, name: str, base: Base, rank: int, generator: torch.Generator) -> FactoredLinear:
        """Build the adapted layer that replaces `base` (m, n); the generator is seeded once for all layers."""

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt the target layers, in the order of the network."""
        if self.config.target == "qv":
            split_fused(self.backbone, batch["inputs"])
        self.backbone.requires_grad_(False)
        generator = torch.Generator().manual_seed(self.seed)
        layers, self._notes = find_targets(self.backbone, self.config.target)
        self.ranks = self._choose_ranks(layers, batch)
        self.prepare(layers, batch, generator)
        for name, base in layers:
            replace_layer(self.backbone, name, self.layer(name, base, self.ranks[name], generator))

    def _choose_ranks(self, layers: Layers, batch: Batch) -> dict[str, int]:
        """Return `method.rank` for every layer, or ranks shared by `allocation` that cost as many parameters."""
        config, rank = self.allocation, self.config.rank
        if config.policy == "uniform":
            return {name: rank or 0 for name, _ in layers}
        if config.policy == "gradient" and self.exported:  # the batch that decided is not there any more
            return {name: self.rank_of(self.exported[f"backbone.{name}.factors.0"]) for name, _ in layers}
        measured: dict[str, float] = {}
        if config.policy == "gradient":
            self.with_gradients(layers, batch, lambda name, g: measured.update({name: gradient_rank(config, g)}))
        shapes = {name: matricize(base.weight).shape for name, base in layers}
        ranks, self._unspent = share_rank(
            config, shapes, measured, uniform=rank, cost=self.layer_parameters, step=self.rank_step
        )
        return ranks

    def rank_of(self, first: Tensor) -> int:
        """Return the rank that was chosen for a layer with this F_1."""
        return len(first)

    def layer_parameters(self, m: int, n: int, rank: int) -> int:
        """Return how many parameters of an adapted layer (m, n) train; an allocation of rank spends these."""
        return rank * (m + n)

    def expected_parameters(self) -> int | None:
        """Return the sum of `layer_parameters` over the adapted layers."""
        shapes = {name: matricize(layer.base.weight).shape for name, layer in self.layers()}
        return sum(self.layer_parameters(m, n, self.ranks[name]) for name, (m, n) in shapes.items())

    def warnings(self) -> list[str]:
        """Say how layers were chosen that the target does not name, how much the allocation could not spend, and where
        dropout did not act.
        """
        policy, unspent = self.allocation.policy, self._unspent
        layers = [layer for _, layer in self.layers()]
        called = sum(layer.called for layer in layers)
        notes = {
            f"allocation.policy={policy} trains {unspent:,} parameters fewer than method.rank everywhere": unspent > 0,
            f"method.dropout acted in {called} of {len(layers)} adapted layers: the network reads the weights of the "
            "others instead of calling them": called < len(layers) and any(layer.dropout for layer in layers),
        }
        return [*self._notes, *(note for note, applies in notes.items() if applies)]

    def prepare(self, layers: Layers, batch: Batch, generator: torch.Generator) -> None:
        """Compute what a method needs of all layers before it builds the first."""

    def with_gradients(self, layers: Layers, batch: Batch, use: Callable[[str, Tensor], None]) -> None:
        """Call `use(name, ∂loss/∂W (m, n))` for each layer, on `batch` in evaluation mode; ∂loss/∂W is also ∂loss/∂ΔW.

        The backward pass decides the order. One layer's gradient is held at a time.
        """

        def pass_on(name: str, weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            assert gradient is not None
            use(name, matricize(gradient.detach()))

        weights = [(name, base.weight.requires_grad_(True)) for name, base in layers]
        handles = [weight.register_post_accumulate_grad_hook(partial(pass_on, name)) for name, weight in weights]
        was_training = self.training
        self.eval()
        self.loss(batch).backward()
        self.train(was_training)
        for handle in handles:
            handle.remove()
        self.zero_grad(set_to_none=True)
        self.backbone.requires_grad_(False)

    def layers(self) -> Iterator[tuple[str, FactoredLinear]]:
        """Yield the adapted layers by name, in the order of the network."""
        return ((name, m) for name, m in self.backbone.named_modules() if isinstance(m, FactoredLinear))

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """Yield name and ΔW of every adapted layer, as factors."""
        return ((name, layer.delta()) for name, layer in self.layers())

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """Yield the frozen weight and ΔW, with gradients, of every adapted layer."""
        return ((name, matricize(layer.base.weight), layer.update()) for name, layer in self.layers())

    def merged(self) -> Network:
        """Return the backbone with ΔW added to its weights and the factors taken away."""
        for name, layer in [*self.layers()]:
            replace_layer(self.backbone, name, layer.merge())
        join_fused(self.backbone)
        return self.backbone

    def export(self) -> dict[str, Tensor]:
        """Return what was trained, and the frozen factors, because ΔW needs all of them."""
        layers = [(name, enumerate(layer.factors)) for name, layer in self.layers()]
        factors = {f"backbone.{name}.factors.{i}": f.detach() for name, factors in layers for i, f in factors}
        return {**factors, **super().export()}
