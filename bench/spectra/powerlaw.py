"""The power law in the tail of a spectrum: WeightWatcher's α (Martin and Mahoney 2021, arXiv 1810.01075)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bench.spectra.singular import Matrix, spectrum

EIGENVALUE_FLOOR = 1e-5
"""Eigenvalues σ² up to it are left out, as WeightWatcher does (`EVALS_THRESH`); absolute, so α sees a small scale."""
FEWEST = 8
"""With fewer eigenvalues there is no fit: WeightWatcher's `min_evals`, and the shortest tail it looks at in few."""
FEW = 20
"""Below this many eigenvalues the exponent is corrected for bias and a tail has `FEWEST` at least."""
_BLOCK = 1 << 22
"""Most numbers (candidate, eigenvalue) held at a time."""


class PowerLaw(NamedTuple):
    """p(λ) ∝ λ^−α for λ ≥ xmin, each (…), float64; all four are 0 where there is no fit.

    Attributes:
        distance: Kolmogorov–Smirnov distance of the tail from the law.
        tail: number of eigenvalues in the tail, int64.
    """

    alpha: Tensor
    xmin: Tensor
    distance: Tensor
    tail: Tensor


def power_law_alpha(matrix: Matrix, *, singular_values: bool = False, floor: float = EIGENVALUE_FLOOR) -> Tensor:
    """Exponent α of the power law in the tail of the eigenvalues (…), 0 where there is none: see `power_law_fit`."""
    return power_law_fit(matrix, singular_values=singular_values, floor=floor).alpha


def power_law_fit(matrix: Matrix, *, singular_values: bool = False, floor: float = EIGENVALUE_FLOOR) -> PowerLaw:
    """The power law of the eigenvalues λ = σ² of WᵀW, not normalised, as WeightWatcher 0.7 fits it.

    Every eigenvalue λ_i but the largest is tried as xmin: over the n in its tail α = 1 + n/Σ log(λ_j/λ_i) is the
    maximum of the likelihood (Clauset, Shalizi and Newman 2009, arXiv 0706.1062, eq. 3.1), and that xmin is taken
    whose law is nearest, by max_j |1 − (λ_j/λ_i)^(1−α) − j/n| with j from 0. With fewer than 20 eigenvalues n − 1
    replaces n in α, and tails shorter than 8 are passed over.

    A spectrum without fit has all zeros: that of a zero matrix, one with fewer than 8 eigenvalues above `floor`, and
    one whose eigenvalues are all equal. Small eigenvalues count through their logarithm, so the spectrum is always
    that of an SVD.

    Eigenvalues up to `floor` are left out: matrices that are small as a whole, such as updates, need a lower one.
    """
    values = spectrum(matrix, singular_values=singular_values, how="svd").values
    batch, count = values.shape[:-1], values.shape[-1]
    ascending = values.square().flip(-1).reshape(batch.numel(), count)
    fits = [_fit(eigenvalues[eigenvalues > floor]) for eigenvalues in ascending]
    table = torch.tensor(fits, dtype=torch.float64, device=values.device).reshape(*batch, 4)
    alpha, xmin, distance, tail = table.unbind(-1)
    return PowerLaw(alpha, xmin, distance, tail.long())


def _fit(eigenvalues: Tensor) -> tuple[float, float, float, int]:
    """Exponent, xmin, distance and tail of ascending positive eigenvalues (N,)."""
    count = len(eigenvalues)
    logs = eigenvalues.log()
    sizes = torch.arange(count, 0, -1, dtype=logs.dtype, device=logs.device)  # of the tail that each one begins
    spread = logs.flip(0).cumsum(0).flip(0) - sizes * logs
    fits = spread > 1e-12 * sizes  # a tail of equal eigenvalues is no power law
    few = count < FEW
    if few:
        fits &= sizes >= FEWEST
    candidates = fits.nonzero()[:, 0]
    if not len(candidates):
        return 0.0, 0.0, 0.0, 0
    n = sizes[candidates]
    alphas = 1 + (n - 1 if few else n) / spread[candidates]
    size = max(1, _BLOCK // count)
    parts = zip(candidates.split(size), alphas.split(size), strict=True)
    distances = torch.cat([_distances(logs, *part) for part in parts])
    best = int(distances.argmin())
    first = int(candidates[best])
    return float(alphas[best]), float(eigenvalues[first]), float(distances[best]), count - first


def _distances(logs: Tensor, candidates: Tensor, alphas: Tensor) -> Tensor:
    """Kolmogorov–Smirnov distances (C,) of the tails that `candidates` (C,) begin from the laws of `alphas` (C,)."""
    count = len(logs)
    place = torch.arange(count, dtype=logs.dtype, device=logs.device) - candidates[:, None]
    above = (logs - logs[candidates][:, None]).clamp_min(0)
    law = -torch.expm1((1 - alphas)[:, None] * above)
    steps = place / (count - candidates)[:, None]
    return torch.where(place >= 0, (law - steps).abs(), 0).amax(-1)
