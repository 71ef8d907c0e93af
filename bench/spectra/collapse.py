"""Neural collapse of the last features: NC1 to NC4 of Papyan, Han and Donoho (2020)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bench.spectra.singular import Matrix, finite


class Collapse(NamedTuple):
    """Measures that are 0 at full collapse, but for the last, which is 1.

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

    The means are centred by the mean of the class means, which for classes of equal size is that of all features. The
    pseudo-inverse of Σ_B comes from an SVD of the means, so that their rank is seen. If all means are one, NC1 is 0.

    Raises:
        ValueError: fewer than two classes, a class without example, or a NaN or an infinity.
    """
    x, w = finite(features, name="features").double(), finite(weight, name="weight of the head").double()
    y, classes = torch.as_tensor(labels).long(), len(w)
    if classes < 2:
        raise ValueError(f"two classes or more are needed, the head has {classes}")
    counts = torch.bincount(y, minlength=classes)
    if len(counts) != classes or not bool(counts.all()):
        raise ValueError(f"every one of the {classes} classes needs an example; counts are {counts.tolist()}")
    means = torch.zeros_like(w).index_add_(0, y, x) / counts[:, None]
    within, centred = x - means[y], means - means.mean(0)
    logits = x @ w.mT + (0 if bias is None else finite(bias, name="bias of the head").double())
    nearest = torch.cdist(x, means, compute_mode="donot_use_mm_for_euclid_dist").argmin(-1)
    return Collapse(
        nc1=_within_to_between(within, centred),
        nc2=frame_distance(centred, centred),
        nc3=frame_distance(w, centred),
        nc4=float((logits.argmax(-1) == nearest).double().mean()),
    )


def _within_to_between(within: Tensor, centred: Tensor) -> float:
    """tr(Σ_B†·Σ_W)/K of deviations (N, D) and centred means (K, D).

    With Σ_B = V·diag(σ²/K)·Vᵀ that is Σ_i ‖within·v_i‖²/(N·σ_i²); centred means have rank K − 1 at most.
    """
    _, sigma, right = torch.linalg.svd(centred, full_matrices=False)
    kept = sigma > sigma[0] * max(centred.shape) * torch.finfo(sigma.dtype).eps
    kept[len(centred) - 1 :] = False
    along = (within @ right[kept].mT).square().mean(0)
    return float((along / sigma[kept].square()).sum())


def frame_distance(first: Tensor, second: Tensor) -> float:
    """‖G/‖G‖_F − (I − 11ᵀ/K)/√(K − 1)‖_F with G = first·secondᵀ, both (K, D): 0 for an equiangular tight frame."""
    gram = first @ second.mT
    size = len(gram)
    frame = torch.eye(size, dtype=gram.dtype) - 1 / size
    length = torch.linalg.matrix_norm(gram)
    scaled = gram / length if bool(length > 0) else gram
    return float(torch.linalg.matrix_norm(scaled - frame / (size - 1) ** 0.5))
