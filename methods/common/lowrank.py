"""What low-rank methods share: layers chosen, given ranks and factored updates, measured, merged and exported."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.api.method import Batch, Method
from bench.spectra import Delta, matricize
from methods.common.allocation import gradient_rank, share_out
from methods.common.config import UpdateConfig
from methods.common.factored import Base, FactoredLinear, matrix
from methods.common.fused import split
from methods.common.targets import choose, targets


class LowRank(Method):
    """Freezes the backbone and gives each target layer the `FactoredLinear` that `layer` builds."""

    rank_step: int = 1
    """Ranks are multiples of it."""
    _unspent = 0
    _notes: Sequence[str] = ()

    @abstractmethod
    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The adapted layer that takes the place of `base` (m, n).

        Args:
            name: of the layer in the backbone.
            base: the frozen layer.
            rank: what `ranks` gave this layer.
            generator: source of all randomness, seeded once for all layers.
        """

    def adapt(self, batch: Batch) -> None:
        """Freeze the backbone and adapt the target layers, in the order of the network."""
        if self.config.target == "qv":
            split(self.backbone)
        self.backbone.requires_grad_(False)
        generator = torch.Generator().manual_seed(self.seed)
        choice = choose(self.backbone, self.config.target)
        found, self._notes = choice.layers, choice.notes
        ranks = self.ranks(found, batch)
        self.prepare(found, ranks, batch, generator)
        for name, base in found:
            replace(self.backbone, name, self.layer(name, base, ranks[name], generator))

    def ranks(self, found: Sequence[tuple[str, Base]], batch: Batch) -> dict[str, int | None]:
        """Rank of every target layer by name: `method.rank` for each, or as many parameters shared by `allocation`.

        Raises:
            UsageError: there is no rank to share out, or the least ranks cost more than it.
        """
        config, rank = self.allocation, self.config.rank
        if config.policy == "uniform":
            return {name: rank for name, _ in found}
        measured: dict[str, float] = {}
        if config.policy == "gradient":
            self.with_gradients(found, batch, lambda name, g: measured.update({name: gradient_rank(config, g)}))
        shapes = {name: (len(matrix(base)), matrix(base).shape[1]) for name, base in found}
        given, self._unspent = share_out(config, shapes, measured, uniform=rank, cost=self.cost, step=self.rank_step)
        return {**given}

    def cost(self, m: int, n: int, rank: int) -> int:
        """Trained parameters of an adapted layer (m, n) of that rank, up to what does not depend on it."""
        return rank * (m + n)

    def warnings(self) -> list[str]:
        """How layers were chosen that the target does not name, and what the allocation could not spend."""
        policy, rest = self.allocation.policy, self._unspent
        return [*self._notes] + [
            f"allocation.policy={policy} trains {rest:,} parameters fewer than method.rank everywhere"
        ] * (rest > 0)

    def prepare(
        self,
        found: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """What a method needs of all layers before it builds the first."""

    def with_gradients(
        self, found: Sequence[tuple[str, Base]], batch: Batch, use: Callable[[str, Tensor], None]
    ) -> None:
        """Call `use(name, ∂loss/∂W (m, n))` for each layer, on `batch` in evaluation mode; ∂loss/∂W is also ∂loss/∂ΔW.

        The backward pass decides the order. One layer's gradient is held at a time.
        """
        handles: list[Any] = []
        for name, base in found:
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
        """The adapted layers by name, in the order of the network."""
        for name, module in self.backbone.named_modules():
            if isinstance(module, FactoredLinear):
                yield name, module

    def deltas(self) -> Iterator[tuple[str, Delta]]:
        """ΔW of every adapted layer."""
        return ((name, layer.delta()) for name, layer in self.layers())

    def updates(self) -> Iterator[tuple[str, Tensor, Delta]]:
        """The frozen weight and ΔW, with its history, of every adapted layer."""
        return ((name, matrix(layer.base), layer.update()) for name, layer in self.layers())

    def export(self) -> dict[str, Tensor]:
        """What was trained, and the factors that were not: ΔW needs them all."""
        factors = {
            f"backbone.{n}.factors.{i}": f.detach() for n, layer in self.layers() for i, f in enumerate(layer.factors)
        }
        return {**factors, **super().export()}

    def merge(self) -> None:
        """Fold every update into its weight."""
        for _, layer in self.layers():
            layer.merge()

    def unmerge(self) -> None:
        """Take every update out again."""
        for _, layer in self.layers():
            layer.unmerge()


def replace(backbone: nn.Module, name: str, layer: nn.Module) -> None:
    """Put `layer` where `name` was."""
    parent, _, leaf = name.rpartition(".")
    setattr(backbone.get_submodule(parent), leaf, layer)


def orthogonal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A random matrix (rows, columns), float64, with orthonormal columns (or rows, if there are fewer of them)."""
    rows, columns = shape
    tall = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(tall)
    q = q * torch.sign(torch.diagonal(r))  # uniform over the orthogonal group (Mezzadri 2007)
    return q if rows >= columns else q.mT


__all__ = ["Base", "FactoredLinear", "LowRank", "UpdateConfig", "matrix", "orthogonal", "replace", "targets"]
