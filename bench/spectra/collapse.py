"""Neural collapse of the last features: NC1 to NC4 of Papyan, Han and Donoho (2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bench.spectra.ranks import Matrix


class Collapse(NamedTuple):
    """Each is 0 at full collapse, but the last, which is 1.

    Attributes:
        nc1: tr(Σ_B†·Σ_W)/K, variation within classes relative to that between them.
        nc2: distance of the centred class means from an equiangular tight frame, `frame_distance`.
        nc3: the same of the head's weights against the centred class means.
        nc4: share of examples on which the head agrees with the nearest class mean.
    """

    nc1: float
    nc2: float
    nc3: float
    nc4: float


def collapse(features: Matrix, labels: Matrix, weight: Matrix, bias: Matrix | None = None) -> Collapse:
    """Neural collapse of features (N, D) with labels (N,) under the head `weight` (K, D), `bias` (K,).

    The means are centred by the mean of the class means, which for classes of equal size is that of all features.

    Raises:
        ValueError: a class of the K has no example.
    """
    x, w = torch.as_tensor(features).double(), torch.as_tensor(weight).double()
    y, classes = torch.as_tensor(labels).long(), len(w)
    counts = torch.bincount(y, minlength=classes)
    if len(counts) != classes or not bool(counts.all()):
        raise ValueError(f"every one of the {classes} classes needs an example; counts are {counts.tolist()}")
    means = torch.zeros_like(w).index_add_(0, y, x) / counts[:, None]
    within, centred = x - means[y], means - means.mean(0)
    sigma_w, sigma_b = within.mT @ within / len(x), centred.mT @ centred / classes
    logits = x @ w.mT + (0 if bias is None else torch.as_tensor(bias).double())
    nearest = torch.cdist(x, means).argmin(-1)
    return Collapse(
        nc1=float(torch.trace(torch.linalg.pinv(sigma_b, hermitian=True) @ sigma_w) / classes),
        nc2=frame_distance(centred, centred),
        nc3=frame_distance(w, centred),
        nc4=float((logits.argmax(-1) == nearest).double().mean()),
    )


def frame_distance(first: Tensor, second: Tensor) -> float:
    """‖G/‖G‖_F − (I − 11ᵀ/K)/√(K − 1)‖_F with G = first·secondᵀ, both (K, D): 0 for an equiangular tight frame."""
    gram = first @ second.mT
    size = len(gram)
    frame = torch.eye(size, dtype=gram.dtype) - 1 / size
    length = torch.linalg.matrix_norm(gram)
    scaled = gram / length if bool(length > 0) else gram
    return float(torch.linalg.matrix_norm(scaled - frame / (size - 1) ** 0.5))
