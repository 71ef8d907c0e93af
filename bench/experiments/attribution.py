"""Networks whose ΔW is reduced to few directions, and attributions of their predictions to inputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Literal, cast

import torch
from torch import Tensor, nn

from bench.api.method import Method
from bench.core.errors import EnvironmentProblem

Attribution = Literal["integrated-gradients", "occlusion"]
STEPS = 32
"""Steps of the integral from the baseline to the input (Gauss–Legendre)."""
WINDOWS = 8
"""Occluding windows along each side of an image."""


class Directions:
    """The singular directions of one layer's ΔW = U·diag(σ)·Vᵀ, float64.

    Attributes:
        start: W(0) (m, n).
        u, sigma, v: (m, r), (r,) descending, (r, n), r = min(m, n).
    """

    def __init__(self, start: Tensor, delta: Tensor) -> None:
        self.start = start.detach().double()
        self.u, self.sigma, self.v = torch.linalg.svd(delta.detach().double(), full_matrices=False)

    def select(self, index: Tensor) -> Tensor:
        """Return Σ σ_i·u_i·v_iᵀ over the index."""
        return (self.u[:, index] * self.sigma[index]) @ self.v[index]

    def top(self, k: int) -> Tensor:
        """Return the k directions of largest σ: the nearest matrix of rank k."""
        return self.select(torch.arange(min(k, len(self.sigma))))

    def random_singular(self, k: int, generator: torch.Generator) -> Tensor:
        """Return k directions, drawn independently of σ."""
        return self.select(torch.randperm(len(self.sigma), generator=generator)[:k])

    def random(self, k: int, generator: torch.Generator) -> Tensor:
        """Return ΔW·Q·Qᵀ, Q (n, k) orthonormal, uniformly drawn: ΔW on k random directions of its input."""
        n = self.v.shape[1]
        q = torch.linalg.qr(torch.randn(n, min(k, n), dtype=torch.float64, generator=generator)).Q
        return ((self.u * self.sigma) @ (self.v @ q)) @ q.mT

    def energy(self, update: Tensor) -> float:
        """Return ‖update‖²_F relative to ‖ΔW‖²_F, which is 1 if ΔW is 0."""
        whole = self.sigma.square().sum()
        return float(update.square().sum() / whole) if bool(whole > 0) else 1.0


class Network(nn.Module):
    """A copy of a trained network as a function of its input x (B, …), whose updates ΔW can be replaced.

    `directions` are the singular directions of the ΔW of every adapted layer; each has its whole ΔW at first.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.backbone, self.head = copy.deepcopy(method.backbone), copy.deepcopy(method.head)
        self.directions: dict[str, Directions] = {}
        for name, start, delta in method.updates():
            self.directions[name] = Directions(start, delta.dense())
            base = getattr(self.backbone.get_submodule(name), "base", None)
            if base is not None:  # an adapter beside a frozen layer: keep the layer alone
                self.backbone.set_submodule(name, base)
        self.eval().requires_grad_(False)
        self.set_updates({name: layer.top(len(layer.sigma)) for name, layer in self.directions.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K)."""
        return self.head(self.backbone(x=x))

    def set_updates(self, updates: Mapping[str, Tensor]) -> Network:
        """Set the weight of every layer to W(0) plus its update (m, n); return this network."""
        for name, update in updates.items():
            weight = cast("Tensor", self.backbone.get_submodule(name).weight)
            weight.copy_((self.directions[name].start + update).view_as(weight))
        return self


def attribute(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, kind: Attribution) -> Tensor:
    """Return how much every input adds to the logit of the true class, relative to the baseline 0, the training mean.

    Integrated gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365), or occlusion (Zeiler and Fergus 2014,
    arXiv 1311.2901) of single numbers of a vector, or of windows of an eighth of an image's side, all channels at once.

    The network, for captum an nn.Module, maps x (B, …) to logits (B, K); attributions have the shape of x. Raises
    EnvironmentProblem if captum is not installed.
    """
    captum = import_captum()
    if kind == "integrated-gradients":
        method = captum.IntegratedGradients(network, multiply_by_inputs=True)
        return method.attribute(x, target=labels, n_steps=STEPS).detach()
    shape = tuple(x.shape[1:])
    window = (shape[0], *(max(1, side // WINDOWS) for side in shape[1:])) if len(shape) > 1 else (1,)
    with torch.no_grad():
        occlusion = captum.Occlusion(network)
        return occlusion.attribute(x, sliding_window_shapes=window, strides=window, target=labels, baselines=0)


def import_captum() -> ModuleType:
    """Import captum's attributions; raise EnvironmentProblem if captum is not installed."""
    try:
        import captum.attr
    except ImportError as error:
        what, todo = "attributions need captum, which is not installed", 'pip install "lowrank-bench[experiments]"'
        raise EnvironmentProblem(what, str(error), todo) from error
    return captum.attr


def cosine(first: Tensor, second: Tensor) -> float:
    """Return the cosine of two attributions (B, …), the mean over examples; 0 for one that is 0 everywhere."""
    return float(nn.functional.cosine_similarity(first.double().flatten(1), second.double().flatten(1)).mean())
