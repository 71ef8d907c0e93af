"""Base of the low-rank methods: choose layers, give each a rank and a factored update, measure and export it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from bench.api.method import Batch, Method
from bench.spectra import Delta, matricize
from methods.common.allocation import gradient_rank, share_rank
from methods.common.factored import Base, FactoredLinear, matrix
from methods.common.targets import find_targets, replace_layer, split_fused


class LowRank(Method):
    """Freezes the backbone and replaces each target layer by the `FactoredLinear` that `layer` builds.

    Attributes:
        rank_step: ranks are multiples of it.
    """

    rank_step: int = 1
    _unspent = 0
    _notes: Sequence[str] = ()

    @abstractmethod
    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """Build the adapted layer that replaces `base` (m, n).

        Args:
            rank: what `ranks` gave this layer.
            generator: source of all randomness, seeded once for all layers.
        """

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt the target layers, in the order of the network."""
        if self.config.target == "qv":
            split_fused(self.backbone)
        self.backbone.requires_grad_(False)
        generator = torch.Generator().manual_seed(self.seed)
        targets = find_targets(self.backbone, self.config.target)
        self._notes = targets.notes
        ranks = self.ranks(targets.layers, batch)
        self.prepare(targets.layers, ranks, batch, generator)
        for name, base in targets.layers:
            replace_layer(self.backbone, name, self.layer(name, base, ranks[name], generator))

    def ranks(self, layers: Sequence[tuple[str, Base]], batch: Batch) -> dict[str, int | None]:
        """Return the rank of every target layer by name: `method.rank`, or as many parameters shared by `allocation`.

        Raises:
            UsageError: there is no rank to share, or the least ranks cost more than it.
        """
        config, rank = self.allocation, self.config.rank
        if config.policy == "uniform":
            return {name: rank for name, _ in layers}
        measured: dict[str, float] = {}
        if config.policy == "gradient":
            self.with_gradients(layers, batch, lambda name, g: measured.update({name: gradient_rank(config, g)}))
        shapes = {name: (len(matrix(base)), matrix(base).shape[1]) for name, base in layers}
        ranks, self._unspent = share_rank(config, shapes, measured, uniform=rank, cost=self.cost, step=self.rank_step)
        return {**ranks}

    def cost(self, m: int, n: int, rank: int) -> int:
        """Return the trained parameters of an adapted layer (m, n), up to what does not depend on its rank."""
        return rank * (m + n)

    def warnings(self) -> list[str]:
        """Say how layers were chosen that the target does not name, and how much the allocation could not spend."""
        policy, unspent = self.allocation.policy, self._unspent
        return [*self._notes] + [
            f"allocation.policy={policy} trains {unspent:,} parameters fewer than method.rank everywhere"
        ] * (unspent > 0)

    def prepare(
        self,
        layers: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """Compute what a method needs of all layers before it builds the first."""

    def with_gradients(
        self, layers: Sequence[tuple[str, Base]], batch: Batch, use: Callable[[str, Tensor], None]
    ) -> None:
        """Call `use(name, ∂loss/∂W (m, n))` for each layer, on `batch` in evaluation mode; ∂loss/∂W is also ∂loss/∂ΔW.

        The backward pass decides the order. One layer's gradient is held at a time.
        """
        handles: list[RemovableHandle] = []
        for name, base in layers:
            base.weight.requires_grad_(True)

            def hook(weight: Tensor, name: str = name) -> None:
                gradient, weight.grad = weight.grad, None
                assert gradient is not None
                use(name, matricize(gradient.detach()))

            handles.append(base.weight.register_post_accumulate_grad_hook(hook))
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
        for name, module in self.backbone.named_modules():
            if isinstance(module, FactoredLinear):
                yield name, module

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        return ((name, layer.delta()) for name, layer in self.layers())

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        return ((name, matrix(layer.base), layer.update()) for name, layer in self.layers())

    def export(self) -> dict[str, Tensor]:
        """Return what was trained, and the frozen factors, because ΔW needs all of them."""
        factors = {
            f"backbone.{n}.factors.{i}": f.detach() for n, layer in self.layers() for i, f in enumerate(layer.factors)
        }
        return {**factors, **super().export()}
