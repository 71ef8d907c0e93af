"""Law of parsimony: gradient descent on a deep linear network moves 2K singular directions of each layer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from bench.config.options import Config, option
from bench.core.errors import Diverged, UsageError
from bench.experiments import Check, Control, Experiment, Outcome
from bench.figures import Figure, Panel, Series

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MOVED = 1e-8
"""Singular values of an update above this count as moved."""
TRAINED = 1e-6
"""The 2K-th singular value of the update must exceed this, or training was too short for a verdict."""
EXACT = 1e-12
"""Deviation of the bulk; 4000 steps in float64 leave about 5e-15."""
ANGLE = 1e-6
SMALL = 256
"""Width below which a second thread is slower: on a busy machine by a factor of twenty."""
POINTS = 50
"""Steps whose spectra are stored for the figure."""


@dataclass(frozen=True, kw_only=True)
class ParsimonyConfig(Config):
    """With ε = .5 all 2K directions have moved after 2000 steps; with ε = 1e-2 only K have."""

    width: int = option(30, "d, width of the hidden layers and number of inputs.")
    classes: int = option(3, "K, outputs.", at_least=1)
    depth: int = option(3, "L, number of matrices.", at_least=2)
    init_scale: float = option(0.5, "ε.", above=0)
    lr: float = option(0.05, "η.", above=0)
    weight_decay: float = option(0.0, "λ.", at_least=0)
    steps: int = option(2000, "Steps of full-batch training.", at_least=1)
    optimizer: Literal["gd", "momentum", "adam"] = option(
        "gd",
        "The law is about gradient descent; momentum without weight decay obeys it too, Adam does not.",
    )
    init: Literal["orthogonal", "gaussian"] = option("orthogonal", "Initial weights of every layer.")
    seed: int = option(0, "Seed of initial weights and target.", at_least=0, at_most=2**32 - 1)

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        if self.width <= 2 * self.classes:
            raise UsageError(
                f"width={self.width} leaves no singular value that does not move",
                f"2·classes = {2 * self.classes} of them move",
                f"Give a width above {2 * self.classes}.",
            )


class Parsimony(Experiment[ParsimonyConfig]):
    """W_l(t) = U_l·diag(W̃_l(t), ρ(t)·I)·V_lᵀ with W̃_l of 2K×2K and ρ(t) = ε(1 − ηλ)^t (arXiv 2306.01154, Theorem 1).

    f = W_L·…·W_1·x, whitened inputs, square hidden layers of width d, K outputs, W_l(0) = ε times orthogonal,
    full-batch gradient descent with step η and weight decay λ on ½‖f − Φ‖²_F, ‖Φ‖₂ = 1, all in float64.
    Checks, each on the worst of the layers l < L: `rho`, the mean of the d − 2K singular values nearest to ρ(t);
    `bulk_deviation`, the largest distance of one of them from it; `update_rank`, the singular values above 1e-8 of
    W_l(t) − (1 − ηλ)^t·W_l(0); `subspace`, the largest angle between the top 2K right singular vectors of the first
    layer's update and those of [G₁(0); G₁(0)ᵀ·W₁(0)], the gradient before the first step.
    Controls: training with Adam, and from Gaussian weights, must fail these checks.
    """

    Config = ParsimonyConfig
    place = "Section 3, Theorem 2"

    def run(self) -> Outcome:
        """Train the network and the two controls."""
        with one_thread(self.config.width):
            return self._outcome(self.config)

    def _outcome(self, config: ParsimonyConfig) -> Outcome:
        run, checks = self._checked(config)
        controls: list[Control] = []
        exact = replace(config, optimizer="gd", init="orthogonal")
        adam = replace(exact, optimizer="adam", lr=min(config.lr, 1e-2))
        for name, changed in {"adam": adam, "gaussian": replace(exact, init="gaussian")}.items():
            by_name = {check.name: check for check in self._checked(changed)[1]}
            rank = by_name["update_rank"]
            broken = not (rank.held or by_name["bulk_deviation"].held) and rank.measured > rank.predicted
            controls.append(
                Control(
                    name=name,
                    expected=f"update rank above {rank.predicted}, and a bulk that moves",
                    measured=rank.measured,
                    held=broken,
                )
            )
        return Outcome(checks=checks, controls=controls, figure=self._figure(run), summary=self._summary(checks))

    def _checked(self, config: ParsimonyConfig) -> tuple[Run, list[Check]]:
        run = train(config)
        rho = config.init_scale * (1 - config.lr * config.weight_decay) ** config.steps
        k2, note = 2 * config.classes, ""
        bulks = [bulk(layer, rho, config.width - k2) for layer in run.ends]
        means = [float(values.mean()) for values in bulks]
        moved = [spectrum(update) for update in run.updates]
        if min(float(sigma[k2 - 1]) for sigma in moved) <= TRAINED:
            note = f"not trained long enough: direction {k2} of an update is below {TRAINED:g}; give more steps"
        ranks = [int((sigma > MOVED).sum()) for sigma in moved]
        checks = [
            Check.near("rho", rho, max(means, key=lambda mean: abs(mean - rho)), EXACT),
            Check.near("bulk_deviation", 0.0, max(float((values - rho).abs().max()) for values in bulks), EXACT),
            Check.near("update_rank", k2, max(ranks, key=lambda rank: abs(rank - k2)), 0),
            Check.near("subspace", 0.0, angle(run.updates[0], run.first, k2), ANGLE),
        ]
        return run, [replace(check, held=False, note=note) if note else check for check in checks]

    def _summary(self, checks: Sequence[Check]) -> str:
        c = self.config
        return (
            f"d={c.width}, K={c.classes}, L={c.depth}, ε={c.init_scale:g}, η={c.lr:g}, λ={c.weight_decay:g}, "
            f"{c.steps} steps of {c.optimizer}: {checks[2].measured} directions of {c.width} moved."
        )

    def _figure(self, run: Run) -> Figure:
        c, panels = self.config, list[Panel]()
        for layer in range(c.depth - 1):
            sigma = [float(value) for _, values in run.path for value in values[layer]]
            steps = [step for step, values in run.path for _ in values[layer]]
            law = [c.init_scale * (1 - c.lr * c.weight_decay) ** step for step, _ in run.path]
            panels.append(
                Panel(
                    title=f"layer {layer + 1}",
                    x="step",
                    y="singular value",
                    content=[
                        Series(name="measured", x=steps, y=sigma, form="points"),
                        Series(name="ρ(t) = ε(1−ηλ)^t", x=[s for s, _ in run.path], y=law, form="dashed"),
                    ],
                )
            )
        caption = f"All {c.width} singular values of a layer; theory: {c.width - 2 * c.classes} of them follow ρ(t)."
        return Figure(title="Law of parsimony in a deep linear network", panels=panels, caption=caption)


@contextmanager
def one_thread(width: int) -> Generator[None]:
    """Compute with one thread if matrices are small."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1 if width < SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Weights and spectra of a training.

    Attributes:
        ends: W_l(t) (d, d) of the layers l < L.
        updates: W_l(t) − (1 − ηλ)^t·W_l(0).
        first: [G₁(0); G₁(0)ᵀ·W₁(0)] (2d, d).
        path: spectra of these layers during training, by step.
    """

    ends: list[Tensor]
    updates: list[Tensor]
    first: Tensor
    path: list[tuple[int, list[Tensor]]]


def train(config: ParsimonyConfig) -> Run:
    """Train one network in float64.

    Raises:
        Diverged: a weight is not finite.
    """
    import torch

    from bench.backbones.dense_networks import initial_weight

    c = config
    source = torch.Generator().manual_seed(c.seed)
    shapes = [*[(c.width, c.width)] * (c.depth - 1), (c.classes, c.width)]
    weights = [initial_weight(m, n, c.init, c.init_scale, source).requires_grad_() for m, n in shapes]
    target = torch.randn(c.classes, c.width, dtype=torch.float64, generator=source)
    target /= torch.linalg.matrix_norm(target, 2)
    begin = [weight.detach().clone() for weight in weights]
    optimizer = _optimizer(c, weights)
    path: list[tuple[int, list[Tensor]]] = []
    every, first = max(1, c.steps // POINTS), torch.empty(0)
    for step in range(c.steps):
        if step % every == 0:
            _check_finite(weights, c)
            path.append((step, [spectrum(weight) for weight in weights[:-1]]))
        optimizer.zero_grad()
        _loss(weights, target).backward()
        if step == 0:
            gradient = weights[0].grad
            assert gradient is not None
            first = torch.cat([gradient, gradient.mT @ begin[0]]).clone()
        optimizer.step()
    _check_finite(weights, c)
    path.append((c.steps, [spectrum(weight) for weight in weights[:-1]]))
    ends, shrunk = [weight.detach() for weight in weights[:-1]], (1 - c.lr * c.weight_decay) ** c.steps
    updates = [end - shrunk * before for end, before in zip(ends, begin, strict=False)]
    return Run(ends=ends, updates=updates, first=first, path=path)


def _check_finite(weights: list[Tensor], c: ParsimonyConfig) -> None:
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise Diverged("the network diverged", f"{c.optimizer} with lr={c.lr:g}", "Give a smaller lr.")


def _optimizer(c: ParsimonyConfig, weights: list[Tensor]) -> torch.optim.Optimizer:
    import torch

    if c.optimizer == "adam":
        return torch.optim.Adam(weights, lr=c.lr, weight_decay=c.weight_decay)
    momentum = 0.9 if c.optimizer == "momentum" else 0.0
    return torch.optim.SGD(weights, lr=c.lr, momentum=momentum, weight_decay=c.weight_decay)


def _loss(weights: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return ½‖W_L·…·W_1 − Φ‖²_F: squared error on whitened inputs, XXᵀ = I, up to a constant."""
    return 0.5 * (product(weights) - target).square().sum()


def product(weights: Sequence[Tensor]) -> Tensor:
    """Return W_L·…·W_1."""
    result = weights[0]
    for weight in weights[1:]:
        result = weight @ result
    return result


def spectrum(matrix: Tensor) -> Tensor:
    """Return the singular values of a float64 matrix, descending."""
    from bench.spectra import singular_values

    return singular_values(matrix.detach())


def bulk(weight: Tensor, rho: float, count: int) -> Tensor:
    """Return the `count` singular values nearest to ρ."""
    sigma = spectrum(weight)
    return sigma[(sigma - rho).abs().argsort()[:count]]


def angle(update: Tensor, first: Tensor, k: int) -> float:
    """Return the largest angle (radians) between the top k right singular subspaces of two matrices with d columns."""
    import torch

    from bench.spectra import principal_angles

    one, other = (torch.linalg.svd(matrix).Vh[:k].mT for matrix in (update, first))
    return float(principal_angles(one, other).max())
