"""A network of 2r×2r matrices tracks the d×d one within the bound of the theory (what Deep LoRA compresses)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.config.options import Config, option
from bench.core.errors import Diverged, UsageError
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.parsimony import one_thread, product
from bench.figures import Figure, Panel, Series

if TYPE_CHECKING:
    from torch import Tensor

MET = 1e-6
"""Allowed relative error of the predicted difference."""
ROUNDING = 1e-12
"""By how much rounding may exceed the bound."""
FIT = 0.1
"""Share of ‖Φ‖²_F that may remain as error; with more, training was too short for a verdict."""


@dataclass(frozen=True, kw_only=True)
class ParsimonyCompressedConfig(Config):
    """As in `parsimony`; the target is square and of rank r."""

    width: int = option(30, "d.")
    rank: int = option(3, "r, rank of the target; its singular values fall evenly from 1 to 1/r.", at_least=1)
    depth: int = option(3, "L.", at_least=2)
    init_scale: float = option(0.5, "ε.", above=0)
    lr: float = option(0.05, "η.", above=0)
    weight_decay: float = option(0.0, "λ.", at_least=0)
    steps: int = option(500, "Steps of full-batch training.", at_least=1)
    seed: int = option(0, "Seed of initial weights and target.", at_least=0)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.width <= 2 * self.rank:
            raise UsageError(
                f"width={self.width} leaves nothing to compress",
                f"the compressed matrices are {2 * self.rank}×{2 * self.rank}",
                f"Give a width above {2 * self.rank}.",
            )


class ParsimonyCompressed(Experiment[ParsimonyCompressedConfig]):
    """‖f − f_c‖²_F = (d − 2r)·∏ρ_l(t)² ≤ (d − 2r)·∏ε_l² (Deep LoRA, arXiv 2406.04112, on 2306.01154's theory).

    f = W_L·…·W_1 of d×d matrices, W_l(0) = ε·orthogonal, fits a target Φ of rank r by gradient descent. f_c =
    U·W̃_L·…·W̃_1·Vᵀ of 2r×2r matrices, W̃_l(0) = ε·I, with U and V fixed by the gradient of the target term at the
    start: V the top 2r right singular vectors of [G; Gᵀ·W₁(0)], U = f(0)·V/ε^L. The bulk follows
    ρ_l ← ρ_l·(1 − ηλ − η·∏_{k≠l}ρ_k²).
    Checks: the largest relative distance of ‖f − f_c‖² from its prediction over all steps, and whether the bound
    holds in all of them. The control has random outer factors and must exceed the bound.
    """

    Config = ParsimonyCompressedConfig
    place = "Section 3.2, Deep LoRA"

    def run(self) -> Outcome:
        """Train the full network, the compressed one, and one with random outer factors."""
        with one_thread(self.config.width):
            return self._outcome(*self._trained())

    def _trained(self) -> tuple[list[float], list[float], list[float], float]:
        """Return differences by step, those with random factors, the predicted ones, and the remaining share of Φ."""
        import torch

        from bench.backbones.dense_networks import initial_weight

        c = self.config
        source = torch.Generator().manual_seed(c.seed)
        begin = [initial_weight(c.width, c.width, "orthogonal", c.init_scale, source) for _ in range(c.depth)]
        left, right = (initial_weight(c.width, c.width, "orthogonal", 1.0, source)[:, : c.rank] for _ in range(2))
        target = left @ torch.diag(torch.arange(c.rank, 0, -1).double() / c.rank) @ right.mT
        f0 = product(begin)
        v = self._right(begin, target)
        random = initial_weight(c.width, 2 * c.rank, "orthogonal", 1.0, source)
        eye = torch.eye(c.width, dtype=torch.float64)
        scale = c.init_scale**c.depth
        full = self._descend(begin, eye, eye, target)
        errors = self._errors(full, f0 @ v / scale, v, target)
        wrong = self._errors(full, f0 @ random / scale, random, target)
        predicted = [(c.width - 2 * c.rank) * value for value in self._bulk()]
        left = float((full[-1] - target).square().sum() / target.square().sum())
        return errors, wrong, predicted, left

    def _outcome(self, errors: list[float], wrong: list[float], predicted: list[float], left: float) -> Outcome:
        c = self.config
        bound = (c.width - 2 * c.rank) * c.init_scale ** (2 * c.depth)
        distance = max(abs(e - p) / p if p else math.inf for e, p in zip(errors, predicted, strict=True))
        note = "" if left <= FIT else f"not trained long enough: {left:.0%} of the target remains; give more steps"
        checks = [
            Check.near("difference", 0.0, distance, MET),
            Check.at_most("bound", bound, max(errors), ROUNDING),
        ]
        checks = [replace(check, held=False, note=note) if note else check for check in checks]
        over = max(e - p for e, p in zip(wrong, predicted, strict=True))
        control = Control(
            name="random outer factors", expected="above the bound", measured=over, held=over > bound * MET + ROUNDING
        )
        small = 4 * c.rank * c.rank * c.depth
        summary = (
            f"d={c.width}, r={c.rank}, L={c.depth}: {small:,} parameters instead of {c.width**2 * c.depth:,}; "
            f"‖f − f_c‖² is at most {max(errors):.3g}, its bound {bound:.3g}."
        )
        return Outcome(
            checks=checks, controls=[control], figure=self._figure(errors, wrong, predicted, bound), summary=summary
        )

    def _right(self, begin: Sequence[Tensor], target: Tensor) -> Tensor:
        """Return V (d, 2r), from the gradient of the target term alone: the residual at the start has full rank."""
        import torch

        gradient = -product(begin[1:]).mT @ target
        return torch.linalg.svd(torch.cat([gradient, gradient.mT @ begin[0]])).Vh[: 2 * self.config.rank].mT

    def _errors(self, full: Sequence[Tensor], u: Tensor, v: Tensor, target: Tensor) -> list[float]:
        """Return ‖f − f_c‖²_F by step, with outer factors U and V of f_c."""
        import torch

        c = self.config
        inner = [torch.eye(2 * c.rank, dtype=torch.float64) * c.init_scale for _ in range(c.depth)]
        path = self._descend(inner, u, v, target)
        return [float((f - g).square().sum()) for f, g in zip(full, path, strict=True)]

    def _descend(self, begin: Sequence[Tensor], u: Tensor, v: Tensor, target: Tensor) -> list[Tensor]:
        """Return U·W_L·…·W_1·Vᵀ before each step of gradient descent on ½‖· − Φ‖²_F, and after the last."""
        import torch

        c = self.config
        weights = [weight.clone().requires_grad_() for weight in begin]
        optimizer = torch.optim.SGD(weights, lr=c.lr, weight_decay=c.weight_decay)
        path: list[Tensor] = []
        for _ in range(c.steps + 1):
            f = u @ product(weights) @ v.mT
            path.append(f.detach())
            optimizer.zero_grad()
            (0.5 * (f - target).square().sum()).backward()
            optimizer.step()
        if not bool(path[-1].isfinite().all()):
            raise Diverged("the network diverged", f"lr={c.lr:g}", "Give a smaller lr.")
        return path

    def _bulk(self) -> list[float]:
        """Return ∏ρ_l(t)² by step; every layer starts with the same ε, so all ρ_l are equal."""
        c, rho = self.config, self.config.init_scale
        values: list[float] = []
        for _ in range(c.steps + 1):
            values.append(rho ** (2 * c.depth))
            rho *= 1 - c.lr * c.weight_decay - c.lr * rho ** (2 * (c.depth - 1))
        return values

    def _figure(self, errors: list[float], wrong: list[float], predicted: list[float], bound: float) -> Figure:
        every = max(1, len(errors) // 100)
        steps = [*range(0, len(errors), every)]
        content = [
            Series(name="compressed, from the first gradient", x=steps, y=errors[::every]),
            Series(name="random outer factors", x=steps, y=wrong[::every]),
            Series(name="predicted (d−2r)·∏ρ²", x=steps, y=predicted[::every], form="dashed"),
            Series(name="bound (d−2r)·∏ε²", x=steps, y=[bound] * len(steps), form="dashed"),
        ]
        panel = Panel(title="compressed against full", x="step", y="‖f − f_c‖²_F", content=content, y_axis="log")
        return Figure(title="A network of 2r×2r matrices tracks the full one", panels=[panel], columns=1)
