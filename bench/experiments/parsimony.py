"""Law of parsimony: gradient descent on a deep linear network moves 2K singular directions of each layer."""

from __future__ import annotations

import math
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
MET = 1e-6
"""Allowed relative error of the predicted difference."""
ROUNDING = 1e-12
"""By how much rounding may exceed the bound."""
FIT = 0.1
"""Share of ‖Φ‖²_F that may remain as error; with more, training was too short for a verdict."""


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
        super().__post_init__()
        if self.width <= (k2 := 2 * self.classes):
            what = f"width={self.width} leaves no singular value that does not move"
            raise UsageError(what, f"2·classes = {k2} of them move", f"Give a width above {k2}.")


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
        super().__post_init__()
        if self.width <= (r2 := 2 * self.rank):
            what = f"width={self.width} leaves nothing to compress"
            raise UsageError(what, f"the compressed matrices are {r2}×{r2}", f"Give a width above {r2}.")


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
    summary = (
        "A network of 2r×2r matrices tracks the d×d one within the bound of the theory (what Deep LoRA compresses)."
    )
    place = "Section 3.2, Deep LoRA"

    def run(self) -> Outcome:
        import torch

        from bench.backbones.dense_networks import initial_weight

        c, source = self.config, torch.Generator().manual_seed(self.config.seed)
        with one_thread(c.width):
            begin = [initial_weight(c.width, c.width, "orthogonal", c.init_scale, source) for _ in range(c.depth)]
            left, right = (initial_weight(c.width, c.width, "orthogonal", 1.0, source)[:, : c.rank] for _ in range(2))
            target = left @ torch.diag(torch.arange(c.rank, 0, -1).double() / c.rank) @ right.mT
            eye = torch.eye(c.width, dtype=torch.float64)
            full = self._descend(begin, eye, eye, target)
            # the gradient of the target term alone: the residual at the start has full rank
            gradient = -product(begin[1:]).mT @ target
            compressed = self._differences(full, _moving_directions(gradient, begin[0], 2 * c.rank), target)
            random_factors = initial_weight(c.width, 2 * c.rank, "orthogonal", 1.0, source)
            wrong = self._differences(full, random_factors, target)
            remaining = float((full[-1] - target).square().sum() / target.square().sum())
        predicted = self._predicted()
        bound = (c.width - 2 * c.rank) * c.init_scale ** (2 * c.depth)
        distance = max(abs(d - p) / p if p else math.inf for d, p in zip(compressed, predicted, strict=True))
        checks = [
            Check.near("difference", 0.0, distance, MET),
            Check.at_most("bound", bound, max(compressed), ROUNDING),
        ]
        if remaining > FIT:
            checks = too_short(checks, f"{remaining:.0%} of the target remains")
        over = max(d - p for d, p in zip(wrong, predicted, strict=True))
        control = Control("random outer factors", "above the bound", over, held=over > bound * MET + ROUNDING)
        small = 4 * c.rank * c.rank * c.depth
        summary = (
            f"d={c.width}, r={c.rank}, L={c.depth}: {small:,} parameters instead of {c.width**2 * c.depth:,}; "
            f"‖f − f_c‖² is at most {max(compressed):.3g}, its bound {bound:.3g}."
        )
        figure = _compressed_figure(compressed, wrong, predicted, bound)
        return Outcome(checks=checks, controls=[control], figure=figure, summary=summary)

    def _differences(self, full: Sequence[Tensor], v: Tensor, target: Tensor) -> list[float]:
        """Return ‖f − f_c‖²_F by step, with outer factors U = f(0)·V/ε^L and V (d, 2r) of f_c."""
        import torch

        c = self.config
        inner = [torch.eye(2 * c.rank, dtype=torch.float64) * c.init_scale for _ in range(c.depth)]
        path = self._descend(inner, full[0] @ v / c.init_scale**c.depth, v, target)
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

    def _predicted(self) -> list[float]:
        """Return (d − 2r)·∏ρ_l(t)² by step; every layer starts with the same ε, so all ρ_l are equal."""
        c, rho = self.config, self.config.init_scale
        values: list[float] = []
        for _ in range(c.steps + 1):
            values.append((c.width - 2 * c.rank) * rho ** (2 * c.depth))
            rho *= 1 - c.lr * c.weight_decay - c.lr * rho ** (2 * (c.depth - 1))
        return values


def _compressed_figure(compressed: list[float], wrong: list[float], predicted: list[float], bound: float) -> Figure:
    every = max(1, len(compressed) // 100)
    steps = [*range(0, len(compressed), every)]
    content = [
        Series(name="compressed, from the first gradient", x=steps, y=compressed[::every]),
        Series(name="random outer factors", x=steps, y=wrong[::every]),
        Series(name="predicted (d−2r)·∏ρ²", x=steps, y=predicted[::every], form="dashed"),
        Series(name="bound (d−2r)·∏ε²", x=steps, y=[bound] * len(steps), form="dashed"),
    ]
    panel = Panel(title="compressed against full", x="step", y="‖f − f_c‖²_F", content=content, y_axis="log")
    return Figure(title="A network of 2r×2r matrices tracks the full one", panels=[panel], columns=1)


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
    import torch

    from bench.spectra import principal_angles, singular_values

    path, updates, directions = train(config)
    k2, rho = 2 * config.classes, bulk_value(config, config.steps)
    bulks = [sigma[(sigma - rho).abs().argsort()[: config.width - k2]] for sigma in path[config.steps]]
    means = [float(values.mean()) for values in bulks]
    moved = [singular_values(update) for update in updates]
    ranks = [int((sigma > MOVED).sum()) for sigma in moved]
    moved_first = torch.linalg.svd(updates[0]).Vh[:k2].mT
    checks = [
        Check.near("rho", rho, max(means, key=lambda mean: abs(mean - rho)), EXACT),
        Check.near("bulk_deviation", 0.0, max(float((values - rho).abs().max()) for values in bulks), EXACT),
        Check.near("update_rank", k2, max(ranks, key=lambda rank: abs(rank - k2)), 0),
        Check.near("subspace", 0.0, float(principal_angles(moved_first, directions).max()), ANGLE),
    ]
    if min(float(sigma[k2 - 1]) for sigma in moved) <= TRAINED:
        checks = too_short(checks, f"direction {k2} of an update is below {TRAINED:g}")
    return path, checks


def train(config: ParsimonyConfig) -> tuple[Spectra, list[Tensor], Tensor]:
    """Train one network in float64 on ½‖W_L·…·W_1 − Φ‖²_F: whitened inputs, XXᵀ = I, up to a constant.

    Returns: spectra during training, W_l(t) − (1 − ηλ)^t·W_l(0) (d, d) at the end, and the 2K directions (d, 2K) that
    the first gradient predicts to move in the first layer.

    Raises:
        Diverged: a weight is not finite.
    """
    import torch

    from bench.backbones.dense_networks import initial_weight
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

    directions = torch.empty(0)
    for step in range(c.steps):
        if step % max(1, c.steps // POINTS) == 0:
            measure(step)
        optimizer.zero_grad()
        (0.5 * (product(weights) - target).square().sum()).backward()
        if step == 0:
            directions = _moving_directions(cast("Tensor", weights[0].grad), begin[0], 2 * c.classes)
        optimizer.step()
    measure(c.steps)
    shrunk = (1 - c.lr * c.weight_decay) ** c.steps
    updates = [weight.detach() - shrunk * start for weight, start in zip(weights[:-1], begin[:-1], strict=True)]
    return path, updates, directions


def product(weights: Sequence[Tensor]) -> Tensor:
    """Return W_L·…·W_1."""
    return reduce(lambda result, weight: weight @ result, weights)


def _moving_directions(gradient: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return the top right singular vectors (d, count) of [G; Gᵀ·W], with G and W of the first layer at the start."""
    import torch

    return torch.linalg.svd(torch.cat([gradient, gradient.mT @ weight])).Vh[:count].mT
