"""Rank metrics against numpy's SVD and the formulas, on matrices of every kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.spectra import (
    Delta,
    effective_rank,
    energy_rank,
    nuclear_to_frobenius,
    nuclear_to_spectral,
    numerical_rank,
    participation_ratio,
    rankme,
    singular_values,
    stable_rank,
)

RATIOS: list[Callable[..., Tensor]] = [rankme, participation_ratio, nuclear_to_frobenius, nuclear_to_spectral]
FUNCTIONS: list[Callable[..., Tensor]] = [stable_rank, effective_rank, energy_rank, *RATIOS]


def svd(matrix: Tensor) -> np.ndarray:
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False)


def stable(sigma: np.ndarray) -> float:
    return float((sigma**2).sum() / sigma.max() ** 2)


def effective(sigma: np.ndarray) -> float:
    p = sigma[sigma > 0] / sigma.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def energy(sigma: np.ndarray, share: float) -> int:
    total = np.sort(sigma**2)[::-1].cumsum()
    return int(np.argmax(total >= share * total[-1])) + 1


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MATRICES = {
    "square": random(20, 20),
    "wide": random(5, 40),
    "tall": random(40, 5),
    "one row": random(1, 12),
    "one column": random(12, 1),
    "one entry": random(1, 1),
    "rank 3": random(30, 3) @ random(3, 25, seed=1),
    "graded": torch.diag(0.5 ** torch.arange(12.0, dtype=torch.float64)) @ random(12, 12),
    "identity": torch.eye(9, dtype=torch.float64),
    "tiny": random(8, 6) * 1e-9,
    "huge": random(8, 6) * 1e3,
}
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-7, torch.float16: 1e-7, torch.bfloat16: 1e-7}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MATRICES)
def test_metrics_are_those_of_numpys_spectrum(name: str, dtype: torch.dtype) -> None:
    matrix = MATRICES[name].to(dtype)
    sigma = svd(matrix)
    found = singular_values(matrix)
    assert found.dtype == torch.float64 and found.shape == (min(matrix.shape),)
    assert (found[:-1] >= found[1:]).all(), "descending"
    assert found.numpy() == pytest.approx(sigma, rel=1e-7, abs=max(DTYPES[dtype] * sigma[0], 1e-300))
    if not sigma.any():
        return  # float16 has no number so small
    # a spectrum of rank 3 in float32 has rounding in its tail, which 1e-8·σ₁ of floor may change
    assert float(stable_rank(matrix)) == pytest.approx(stable(sigma), rel=1e-9)
    assert float(effective_rank(matrix)) == pytest.approx(effective(sigma), rel=1e-5)
    for share in (0.5, 0.9, 0.99):
        assert int(energy_rank(matrix, share)) == energy(sigma, share)


@pytest.mark.parametrize(
    ("sigma", "want"),
    [([4, 3, 2, 1], (1.875, 3.5961154666)), ([2.0**-i for i in range(8)], (1.3333129883, 3.8986668755))],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_reference_table(sigma: list[float], want: tuple[float, float], dtype: torch.dtype) -> None:
    """Stable and effective rank of two spectra, given as spectra (in any order) and as rotated matrices."""
    spectrum = torch.tensor(sigma, dtype=dtype)
    n = len(sigma)
    u, v = (np.linalg.qr(random(rows, n).numpy())[0] for rows in (n + 3, n + 1))
    matrix = torch.from_numpy(u @ np.diag(sigma) @ v.T).to(dtype)
    for given in (spectrum, spectrum.flip(0)):
        assert float(stable_rank(given, singular_values=True)) == pytest.approx(want[0], abs=1e-9)
        assert float(effective_rank(given, singular_values=True)) == pytest.approx(want[1], abs=1e-9)
    precise = 1e-9 if dtype == torch.float64 else 1e-6  # what rounding the matrix itself to float32 changes
    assert float(stable_rank(matrix)) == pytest.approx(want[0], abs=precise)
    assert float(effective_rank(matrix)) == pytest.approx(want[1], abs=precise)


def test_energy_rank_counts_the_least_number_that_reaches_the_share() -> None:
    sigma = torch.tensor([3.0, 1.0, 2.0, 0.0])  # squares 9, 4, 1 of 14
    for share, want in [(0.5, 1), (9 / 14 - 1e-6, 1), (9 / 14 + 1e-6, 2), (0.9, 2), (0.95, 3), (1.0, 3)]:
        assert int(energy_rank(sigma, share, singular_values=True)) == want
    assert energy_rank(sigma, singular_values=True).dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(4, 6), (1, 5), (3, 3)])
def test_a_zero_matrix_has_rank_zero(shape: tuple[int, int], dtype: torch.dtype) -> None:
    zero = torch.zeros(*shape, dtype=dtype)
    for function in FUNCTIONS:
        assert float(function(zero)) == 0.0
        assert float(function(torch.zeros(shape[0]), singular_values=True)) == 0.0
    ranks = Delta(factors=(zero,), nominal=2).ranks()
    how = "svd" if dtype == torch.float64 else "gram"
    zeros = {"stable": 0, "effective": 0, "energy90": 0, "norm": 0}
    assert ranks.to_json() == {"layer": "", "shape": [*shape], "nominal": 2, **zeros, "how": how}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_batches_are_matrices_side_by_side(function: Callable[..., Tensor]) -> None:
    batch = torch.stack([random(4, 7), torch.zeros(4, 7, dtype=torch.float64), MATRICES["rank 3"][:4, :7]])
    assert torch.allclose(function(batch).double(), torch.stack([function(one) for one in batch]).double())


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1e8])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_ranks_do_not_depend_on_scale(function: Callable[..., Tensor], scale: float) -> None:
    matrix = random(6, 9)
    assert float(function(matrix * scale)) == pytest.approx(float(function(matrix)), rel=1e-9)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_what_is_not_finite_is_refused(bad: float, dtype: torch.dtype) -> None:
    matrix = torch.ones(3, 4, dtype=dtype)
    matrix[1, 2] = bad
    for function in [singular_values, *FUNCTIONS]:
        with pytest.raises(ValueError, match="finite"):
            function(matrix)
    with pytest.raises(ValueError, match="finite"):
        Delta(factors=(matrix,), nominal=3).ranks()
    with pytest.raises(ValueError, match="finite"):
        Delta(factors=(matrix, torch.ones(4, 5, dtype=dtype)), nominal=3).ranks()


FACTORS = {
    "lora": [(30, 4), (4, 20)],
    "three": [(30, 4), (4, 4), (4, 20)],
    "wide inside": [(12, 40), (40, 40), (40, 8)],
    "five": [(30, 6), (6, 6), (6, 6), (6, 6), (6, 50)],
    "rank above a side": [(3, 8), (8, 20)],
    "one row": [(1, 5), (5, 9)],
    "bottleneck inside": [(20, 10), (10, 2), (2, 10), (10, 15)],
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", FACTORS)
def test_a_deltas_spectrum_needs_no_dense_matrix(name: str, dtype: torch.dtype) -> None:
    factors = tuple(random(*shape, seed=i).to(dtype) for i, shape in enumerate(FACTORS[name]))
    delta = Delta(factors=factors, nominal=4)
    dense = np.linalg.multi_dot([f.double().numpy() for f in factors])
    sigma = np.linalg.svd(dense, compute_uv=False)
    assert delta.shape == dense.shape
    assert delta.dense().double().numpy() == pytest.approx(
        dense, rel=1e-4, abs=1e-3 if dtype == torch.float32 else 1e-9
    )
    found = delta.singular_values().numpy()
    assert len(found) <= len(sigma)
    assert sigma[len(found) :] == pytest.approx(0, abs=1e-10 * sigma[0])
    assert found == pytest.approx(sigma[: len(found)], rel=1e-10, abs=1e-12 * sigma[0])
    ranks = delta.ranks()
    assert ranks.norm == pytest.approx(np.linalg.norm(dense, 2), rel=1e-10)
    assert ranks.stable == pytest.approx(stable(sigma), rel=1e-9)
    assert ranks.effective == pytest.approx(effective(sigma[: len(found)]), rel=1e-6)
    assert ranks.energy90 == energy(sigma, 0.9)
    assert ranks.shape == dense.shape and ranks.nominal == 4


def test_a_dense_delta_is_its_own_product() -> None:
    matrix = random(7, 5)
    delta = Delta(factors=(matrix,), nominal=5)
    assert torch.equal(delta.dense(), matrix)
    assert delta.singular_values().numpy() == pytest.approx(svd(matrix), rel=1e-12)


TABLE = {
    (4.0, 3.0, 2.0, 1.0): (3.5961161975, 2.5423728814, 1.8257418584),
    tuple(2.0**-i for i in range(8)): (3.8986734728, 1.6666158048, 1.7252981471),
}
"""Spectrum → RankMe, participation ratio, nuclear norm over Frobenius norm, to ten digits."""


@pytest.mark.parametrize("sigma", TABLE)
def test_reference_table_of_the_other_metrics(sigma: tuple[float, ...]) -> None:
    given = np.array(sigma)[::-1].copy()
    functions = (rankme, participation_ratio, nuclear_to_frobenius)
    assert [float(f(given, singular_values=True)) for f in functions] == pytest.approx(TABLE[sigma], abs=1e-9)
    u, v = (np.linalg.qr(random(rows, len(sigma)).numpy())[0] for rows in (20, len(sigma)))  # RankMe counts zeros too
    assert [float(f((u * given) @ v.T)) for f in functions] == pytest.approx(TABLE[sigma], abs=1e-9)
    assert float(nuclear_to_spectral(given, singular_values=True)) == pytest.approx(sum(sigma) / sigma[0], abs=1e-12)


@pytest.mark.parametrize("name", MATRICES)
def test_the_other_metrics_are_numpys(name: str) -> None:
    matrix = MATRICES[name]
    sigma = svd(matrix)
    p = sigma / sigma.sum() + 1e-7
    wanted = {
        rankme: np.exp(-(p * np.log(p)).sum()),
        participation_ratio: (sigma**2).sum() ** 2 / (sigma**4).sum(),
        nuclear_to_frobenius: np.linalg.norm(matrix.numpy(), "nuc") / np.linalg.norm(matrix.numpy()),
        nuclear_to_spectral: np.linalg.norm(matrix.numpy(), "nuc") / np.linalg.norm(matrix.numpy(), 2),
    }
    for function, want in wanted.items():
        for given in (matrix, matrix.numpy()):
            assert float(function(given)) == pytest.approx(want, rel=1e-9), function.__name__


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MATRICES)
def test_numerical_rank_is_numpys(name: str, dtype: torch.dtype) -> None:
    matrix = MATRICES[name].to(dtype)
    tolerance = svd(matrix).max() * max(matrix.shape) * np.finfo(matrix.numpy().dtype).eps
    want = np.linalg.matrix_rank(matrix.double().numpy(), tol=tolerance)
    assert int(numerical_rank(matrix)) == int(numerical_rank(matrix.numpy())) == want
    if dtype == torch.float64:
        assert want == np.linalg.matrix_rank(matrix.numpy())


def test_numerical_rank_sees_below_the_gram_matrix() -> None:
    """A float64 matrix of rank 5: the square roots of its Gram matrix's eigenvalues end at 1e-8·σ₁, and count more."""
    matrix = random(64, 5) @ random(5, 64, seed=1)
    gram = torch.linalg.eigvalsh(matrix @ matrix.mT).clamp_min(0).sqrt()
    assert int(numerical_rank(matrix)) == 5 < int((gram > gram.max() * 64 * 2.2e-16).sum())
    batch = torch.stack([matrix, torch.zeros(64, 64, dtype=torch.float64)])
    assert numerical_rank(batch).tolist() == [5, 0]
    assert numerical_rank(batch).dtype == torch.int64
