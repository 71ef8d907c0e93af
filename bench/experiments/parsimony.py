"""Law of parsimony: gradient descent on a deep linear network moves 2K singular directions of each layer."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Literal, cast

from bench.config.options import Config, option
from bench.core.errors import Diverged, UsageError
from bench.experiments import Check, Control, Experiment, Outcome, too_short
from bench.figures import Figure, Panel, Series

if TYPE_CHECKING:
    from torch import Tensor

    Spectra = dict[int, list[Tensor]]
    """Singular values (d,) of the layers l < L, by step."""

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
        "gd", "The law is about gradient descent; momentum without weight decay obeys it too, Adam does not."
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
        c = self.config
        exact = replace(c, optimizer="gd", init="orthogonal")
        broken = {
            "adam": replace(exact, optimizer="adam", lr=min(c.lr, 1e-2)),
            "gaussian": replace(exact, init="gaussian"),
        }
        controls: list[Control] = []
        with one_thread(c.width):
            path, checks = _train_and_check(c)
            for name, config in broken.items():
                _, bulk, rank, _ = _train_and_check(config)[1]
                held = not (rank.held or bulk.held) and rank.measured > rank.predicted
                expected = f"update rank above {rank.predicted}, and a bulk that moves"
                controls.append(Control(name, expected, rank.measured, held))
        summary = (
            f"d={c.width}, K={c.classes}, L={c.depth}, ε={c.init_scale:g}, η={c.lr:g}, λ={c.weight_decay:g}, "
            f"{c.steps} steps of {c.optimizer}: {checks[2].measured} directions of {c.width} moved."
        )
        return Outcome(checks=checks, controls=controls, figure=self._figure(path), summary=summary)

    def _figure(self, path: Spectra) -> Figure:
        c = self.config
        law = Series(name="ρ(t) = ε(1−ηλ)^t", x=[*path], y=[bulk_value(c, step) for step in path], form="dashed")
        panels: list[Panel] = []
        for layer in range(c.depth - 1):
            x = [step for step, spectra in path.items() for _ in spectra[layer]]
            y = [float(value) for spectra in path.values() for value in spectra[layer]]
            measured = Series(name="measured", x=x, y=y, form="points")
            panels.append(Panel(title=f"layer {layer + 1}", x="step", y="singular value", content=[measured, law]))
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


def bulk_value(config: ParsimonyConfig, step: int) -> float:
    """Return ρ(t)."""
    return config.init_scale * (1 - config.lr * config.weight_decay) ** step


def _train_and_check(config: ParsimonyConfig) -> tuple[Spectra, list[Check]]:
    """Return spectra during training, and the checks `rho`, `bulk_deviation`, `update_rank` and `subspace`."""
    from bench.spectra import singular_values

    path, updates, first_gradient = train(config)
    k2, rho = 2 * config.classes, bulk_value(config, config.steps)
    bulks = [sigma[(sigma - rho).abs().argsort()[: config.width - k2]] for sigma in path[config.steps]]
    means = [float(values.mean()) for values in bulks]
    moved = [singular_values(update) for update in updates]
    ranks = [int((sigma > MOVED).sum()) for sigma in moved]
    checks = [
        Check.near("rho", rho, max(means, key=lambda mean: abs(mean - rho)), EXACT),
        Check.near("bulk_deviation", 0.0, max(float((values - rho).abs().max()) for values in bulks), EXACT),
        Check.near("update_rank", k2, max(ranks, key=lambda rank: abs(rank - k2)), 0),
        Check.near("subspace", 0.0, _angle(updates[0], first_gradient, k2), ANGLE),
    ]
    if min(float(sigma[k2 - 1]) for sigma in moved) <= TRAINED:
        checks = too_short(checks, f"direction {k2} of an update is below {TRAINED:g}")
    return path, checks


def train(config: ParsimonyConfig) -> tuple[Spectra, list[Tensor], Tensor]:
    """Train one network in float64 on ½‖W_L·…·W_1 − Φ‖²_F: whitened inputs, XXᵀ = I, up to a constant.

    Returns: spectra during training, W_l(t) − (1 − ηλ)^t·W_l(0) (d, d) at the end, and [G₁(0); G₁(0)ᵀ·W₁(0)] (2d, d).

    Raises:
        Diverged: a weight is not finite.
    """
    import torch

    from bench.backbones.dln_network import initial_weight
    from bench.spectra import singular_values

    c = config
    source = torch.Generator().manual_seed(c.seed)
    shapes = [*[(c.width, c.width)] * (c.depth - 1), (c.classes, c.width)]
    weights = [initial_weight(m, n, c.init, c.init_scale, source).requires_grad_() for m, n in shapes]
    target = torch.randn(c.classes, c.width, dtype=torch.float64, generator=source)
    target /= torch.linalg.matrix_norm(target, 2)
    begin = [weight.detach().clone() for weight in weights]
    if c.optimizer == "adam":
        optimizer = torch.optim.Adam(weights, lr=c.lr, weight_decay=c.weight_decay)
    else:
        momentum = 0.9 if c.optimizer == "momentum" else 0.0
        optimizer = torch.optim.SGD(weights, lr=c.lr, momentum=momentum, weight_decay=c.weight_decay)
    path: Spectra = {}

    def measure(step: int) -> None:
        if not all(bool(weight.isfinite().all()) for weight in weights):
            raise Diverged("the network diverged", f"{c.optimizer} with lr={c.lr:g}", "Give a smaller lr.")
        path[step] = [singular_values(weight.detach()) for weight in weights[:-1]]

    first_gradient = torch.empty(0)
    for step in range(c.steps):
        if step % max(1, c.steps // POINTS) == 0:
            measure(step)
        optimizer.zero_grad()
        (0.5 * (product(weights) - target).square().sum()).backward()
        if step == 0:
            gradient = cast("Tensor", weights[0].grad)
            first_gradient = torch.cat([gradient, gradient.mT @ begin[0]])
        optimizer.step()
    measure(c.steps)
    shrunk = (1 - c.lr * c.weight_decay) ** c.steps
    updates = [weight.detach() - shrunk * start for weight, start in zip(weights[:-1], begin[:-1], strict=True)]
    return path, updates, first_gradient


def product(weights: Sequence[Tensor]) -> Tensor:
    """Return W_L·…·W_1."""
    return reduce(lambda result, weight: weight @ result, weights)


def _angle(update: Tensor, first: Tensor, k: int) -> float:
    """Return the largest angle (radians) between the top k right singular subspaces of two matrices with d columns."""
    import torch

    from bench.spectra import principal_angles

    one, other = (torch.linalg.svd(matrix).Vh[:k].mT for matrix in (update, first))
    return float(principal_angles(one, other).max())
