"""Networks whose ΔW is cut to few directions, and which inputs they look at."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from bench.api.method import Method
from bench.core.errors import EnvironmentProblem

Attribution = Literal["integrated-gradients", "occlusion"]
Cut = Callable[["Directions", int], Tensor]
"""ΔW (m, n) of a layer as it is with k directions, float64."""
STEPS = 32
"""Of the integral from the baseline to the input, by Gauss and Legendre."""
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

    def chosen(self, index: Tensor) -> Tensor:
        """Σ σ_i·u_i·v_iᵀ over the index."""
        return (self.u[:, index] * self.sigma[index]) @ self.v[index]

    def top(self, k: int) -> Tensor:
        """The k directions of largest σ: the nearest matrix of rank k."""
        return self.chosen(torch.arange(min(k, len(self.sigma))))

    def random_singular(self, k: int, generator: torch.Generator) -> Tensor:
        """k of its directions, drawn without looking at σ."""
        return self.chosen(torch.randperm(len(self.sigma), generator=generator)[:k])

    def random(self, k: int, generator: torch.Generator) -> Tensor:
        """ΔW·Q·Qᵀ, Q (n, k) orthonormal, uniformly drawn: what ΔW does on k random directions of its input."""
        n = self.v.shape[1]
        q = torch.linalg.qr(torch.randn(n, min(k, n), dtype=torch.float64, generator=generator)).Q
        return ((self.u * self.sigma) @ (self.v @ q)) @ q.mT

    def energy(self, update: Tensor) -> float:
        """‖update‖²_F relative to ‖ΔW‖²_F; 1 of a ΔW that is 0."""
        whole = self.sigma.square().sum()
        return float(update.square().sum() / whole) if bool(whole > 0) else 1.0


class Network(nn.Module):
    """A copy of a trained network as a function of its input x (B, …), whose adapted layers take any weight.

    It starts with the whole ΔW.

    Attributes:
        directions: of the ΔW of every adapted layer, by its name.
    """

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.backbone, self.head = copy.deepcopy(method.backbone), copy.deepcopy(method.head)
        self.directions: dict[str, Directions] = {}
        self._layers: dict[str, nn.Module] = {}
        for name, start, delta in method.updates():
            self.directions[name] = Directions(start, delta.dense())
            layer = self.backbone.get_submodule(name)
            if (base := getattr(layer, "base", None)) is not None:  # an update beside a frozen layer, which is enough
                parent, _, leaf = name.rpartition(".")
                setattr(self.backbone.get_submodule(parent), leaf, base)
                layer = base
            self._layers[name] = layer
        self.eval().requires_grad_(False)
        self.cut({name: one.chosen(torch.arange(len(one.sigma))) for name, one in self.directions.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.backbone(x=x))

    def cut(self, updates: Mapping[str, Tensor]) -> Network:
        """Give every layer W(0) plus its update (m, n); itself, for chaining."""
        for name, update in updates.items():
            weight = cast("Tensor", self._layers[name].weight)
            weight.copy_((self.directions[name].start + update).view_as(weight))
        return self


def attribute(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, kind: Attribution) -> Tensor:
    """How much every input adds to the logit of the true class, against a baseline of 0: the mean of the training data.

    Integrated gradients (Sundararajan, Taly and Yan 2017, arXiv 1703.01365), or occlusion (Zeiler and Fergus 2014,
    arXiv 1311.2901) of single numbers of a vector, or of windows of an eighth of an image's side, all channels at once.

    Args:
        network: gives logits (B, K); nn.Module.
        x: (B, …).
        labels: (B,).
        kind: of the two.

    Returns: shaped as x.

    Raises:
        EnvironmentProblem: captum is not installed.
    """
    captum = library()
    if kind == "integrated-gradients":
        method = captum.IntegratedGradients(network, multiply_by_inputs=True)
        return method.attribute(x, target=labels, n_steps=STEPS).detach()
    shape = tuple(x.shape[1:])
    window = (shape[0], *(max(1, side // WINDOWS) for side in shape[1:])) if len(shape) > 1 else (1,)
    with torch.no_grad():
        return captum.Occlusion(network).attribute(
            x, sliding_window_shapes=window, strides=window, target=labels, baselines=0
        )


def library() -> Any:
    """captum's attributions.

    Raises:
        EnvironmentProblem: captum is not installed.
    """
    try:
        import captum.attr
    except ImportError as error:
        raise EnvironmentProblem(
            "attributions need captum, which is not installed", str(error), 'pip install "lowrank-bench[experiments]"'
        ) from error
    return captum.attr


def cosine(first: Tensor, second: Tensor) -> float:
    """Mean over examples of the cosine of two attributions (B, …); of one that is 0 everywhere it is 0."""
    return float(nn.functional.cosine_similarity(first.double().flatten(1), second.double().flatten(1)).mean())
