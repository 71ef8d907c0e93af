"""Every metric against numpy's SVD, on 200 random and adversarial matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bench import spectra
from bench.spectra import Delta, matricize, spectrum

Oracle = Callable[[np.ndarray], float]


def entropy(p: np.ndarray) -> float:
    return float(-(p[p > 0] * np.log(p[p > 0])).sum())


def energy(share: float) -> Oracle:
    return lambda s: float(np.argmax(np.cumsum(s**2) >= share * np.cumsum(s**2)[-1]) + 1)


METRICS: dict[str, tuple[Callable[..., torch.Tensor], Oracle]] = {
    "stable": (spectra.stable_rank, lambda s: float((s**2).sum() / s[0] ** 2)),
    "effective": (spectra.effective_rank, lambda s: math.exp(entropy(s / s.sum()))),
    "RankMe": (spectra.rankme, lambda s: math.exp(entropy(s / s.sum() + 1e-7))),
    "participation": (spectra.participation_ratio, lambda s: float((s**2).sum() ** 2 / (s**4).sum())),
    "nuclear/Frobenius": (spectra.nuclear_to_frobenius, lambda s: float(s.sum() / np.sqrt((s**2).sum()))),
    "nuclear/spectral": (spectra.nuclear_to_spectral, lambda s: float(s.sum() / s[0])),
    "energy .5": (lambda m, **more: spectra.energy_rank(m, 0.5, **more), energy(0.5)),
    "energy .9": (spectra.energy_rank, energy(0.9)),
    "energy .99": (lambda m, **more: spectra.energy_rank(m, 0.99, **more), energy(0.99)),
}
SCALES = (1.0, 1e-6, 1e4)
TYPES: dict[str, Callable[[torch.Tensor], Any]] = {
    "float64": lambda m: m,
    "float32": lambda m: m.float(),
    "float16": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "numpy": lambda m: m.numpy(),
    "numpy float16": lambda m: m.half().numpy(),
    "trained": lambda m: m.float().requires_grad_(),
    "transposed": lambda m: m.float().T.contiguous().T,
    "strided": lambda m: torch.stack([m, -m], -1)[..., 0],
    "numpy reversed": lambda m: m.numpy()[::-1, ::-1],
}


def made() -> Iterator[tuple[str, torch.Tensor]]:
    """Twenty kinds of matrices (m, n), float64."""
    draw = np.random.default_rng(5)

    def normal(m: int, n: int) -> np.ndarray:
        return draw.normal(size=(m, n))

    def turned(sigma: np.ndarray, m: int, n: int) -> np.ndarray:
        u, v = (np.linalg.qr(normal(side, len(sigma)))[0] for side in (m, n))
        return (u * sigma) @ v.T

    many = {
        "square": normal(24, 24),
        "wide": normal(6, 50),
        "tall": normal(50, 6),
        "one row": normal(1, 33),
        "one column": normal(33, 1),
        "one entry": normal(1, 1),
        "rank 1": np.outer(normal(1, 20), normal(1, 30)),
        "rank 5": normal(40, 5) @ normal(5, 30),
        "rank 3 of whole numbers": (3 * normal(60, 3)).round() @ (3 * normal(3, 60)).round(),
        "all ones": np.ones((48, 40)),
        "spread 1e-12": turned(np.logspace(0, -12, 30), 40, 30),
        "spread 1e-6": turned(np.logspace(0, -6, 30), 30, 45),
        "one large": turned(np.array([1.0] + [1e-7] * 15), 20, 16),
        "ties": turned(np.repeat([4.0, 1.0], 8), 16, 20),
        "identity": np.eye(17),
        "a zero column": np.concatenate([normal(12, 9), np.zeros((12, 1))], 1),
        "one entry of many": np.eye(1, 90, 7).reshape(9, 10),
        "heavy tails": draw.standard_t(1.5, size=(30, 20)),
        "Hilbert": 1 / (1.0 + np.arange(12)[:, None] + np.arange(12)),
        "zero": np.zeros((7, 9)),
    }
    for name, matrix in many.items():
        yield name, torch.from_numpy(matrix)


KINDS = dict(made())
CASES = [(kind, form, SCALES[(i + j) % 3]) for i, kind in enumerate(KINDS) for j, form in enumerate(TYPES)]


def test_there_are_two_hundred() -> None:
    assert len(CASES) == 200


@pytest.mark.parametrize(("kind", "form", "scale"), CASES)
def test_metrics_are_those_of_numpys_svd(kind: str, form: str, scale: float) -> None:
    # float16 holds no 1e-6·x: its zero matrix is a case too; and 1e4·x overflows it
    matrix = TYPES[form](KINDS[kind] * (min(scale, 10.0) if "float16" in form else scale))
    plain = matrix.detach().double().numpy() if isinstance(matrix, torch.Tensor) else matrix.astype(np.float64)
    sigma = np.linalg.svd(plain, compute_uv=False)
    found, how = spectrum(matrix)
    assert found.dtype == torch.float64 and not found.requires_grad
    assert how == "svd" or (how == "gram" and matrix.dtype.itemsize < 8)
    # an SVD is good to n·eps of σ₁, the Gram matrix above 1e-5·σ₁ to some 1e-16·σ₁²/σ
    floor = max((1e-11 if how == "gram" else 1e-14) * sigma[0], 1e-300)
    assert found.numpy() == pytest.approx(sigma, rel=1e-12, abs=floor)
    for name, (metric, oracle) in METRICS.items():
        want = oracle(sigma) if sigma.any() else 0.0
        assert float(metric(matrix)) == pytest.approx(want, rel=1e-9), name
        assert float(metric(sigma[::-1], singular_values=True)) == pytest.approx(want, rel=1e-9), name
    # numpy's own rank of the matrix in its own type: bfloat16's and float16's eps, which numpy's SVD has not
    eps = np.finfo(matrix.dtype).eps if isinstance(matrix, np.ndarray) else torch.finfo(matrix.dtype).eps
    tolerance = max(plain.shape) * float(eps)
    rank = np.linalg.matrix_rank(plain, tol=sigma[0] * tolerance) if sigma.any() else 0
    assert int(spectra.numerical_rank(matrix)) == rank
    assert int(spectra.numerical_rank(sigma, singular_values=True, tolerance=tolerance)) == rank


@pytest.mark.parametrize("lead", [(3,), (2, 3), (1, 1, 2)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leading_axes_are_matrices_side_by_side(lead: tuple[int, ...], dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    batch = torch.randn(*lead, 30, 20, generator=draw, dtype=torch.float64).to(dtype)
    batch.view(-1, 30, 20)[0] = 0
    batch.view(-1, 30, 20)[-1, :, 3:] = 0  # rank 3, so that all of them take an SVD
    functions = {name: metric for name, (metric, _) in METRICS.items()}
    functions |= {"numerical": spectra.numerical_rank, "alpha": spectra.power_law_alpha}
    for name, function in functions.items():
        found = function(batch)
        assert found.shape == lead, name
        alone = [float(function(one)) for one in batch.view(-1, 30, 20)]
        assert found.double().view(-1).tolist() == pytest.approx(alone, rel=1e-9), name
        assert function(batch.numpy()).tolist() == found.tolist(), name
        assert alone[0] == 0, name
    assert spectrum(batch).values.shape == (*lead, 20)


def test_whole_numbers_are_matrices_too() -> None:
    matrix = np.arange(12).reshape(3, 4)  # of rank 2
    assert spectrum(matrix).how == "svd"
    assert int(spectra.numerical_rank(matrix)) == np.linalg.matrix_rank(matrix) == 2
    assert spectrum(matrix > 4).values.numpy() == pytest.approx(np.linalg.svd(matrix > 4.0, compute_uv=False))


def test_a_frozen_array_is_read_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    matrix = np.eye(3)
    matrix.flags.writeable = False
    assert float(spectra.stable_rank(matrix)) == 3
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0), (2, 0, 3)])
def test_an_empty_matrix_has_rank_zero(shape: tuple[int, ...]) -> None:
    empty = torch.zeros(*shape)
    for function in [metric for metric, _ in METRICS.values()] + [spectra.numerical_rank, spectra.power_law_alpha]:
        assert function(empty).tolist() == torch.zeros(shape[:-2]).tolist()


@pytest.mark.parametrize(
    ("matrix", "way", "how"),
    [
        (KINDS["square"], "auto", "svd"),
        (KINDS["square"].float(), "auto", "gram"),
        (KINDS["square"].bfloat16(), "auto", "gram"),
        (KINDS["square"].float(), "svd", "svd"),
        (KINDS["rank 5"].float(), "auto", "svd"),  # float32's rounding is all that its tail holds
        (KINDS["rank 5"].float(), "gram", "gram"),
        (KINDS["zero"].float(), "auto", "gram"),
        (torch.stack([KINDS["square"], 0 * KINDS["square"]]).float(), "auto", "gram"),
    ],
    ids=str,
)
def test_a_spectrum_says_how_it_was_computed(matrix: torch.Tensor, way: Any, how: str) -> None:
    assert spectrum(matrix, how=way).how == how


def test_given_and_factored_spectra_say_so() -> None:
    given = spectrum(np.array([1.0, 3.0, 2.0]), singular_values=True)
    assert (given.values.tolist(), given.how) == ([3, 2, 1], "given")
    a, b = KINDS["wide"][:, :4].float(), KINDS["wide"][:4].float()
    product, dense = Delta(factors=(a, b), nominal=4), Delta(factors=(a @ b,), nominal=4)
    assert product.spectrum().how == product.ranks().how == "factors"
    assert dense.spectrum().how == dense.ranks().how == "svd"  # four of its six singular values are not rounding
    assert Delta(factors=(KINDS["square"].float(),), nominal=4).ranks().how == "gram"


def test_the_gram_matrix_would_have_been_wrong() -> None:
    """Why `auto` looks at the smallest singular value: effective rank and RankMe feel noise of 1e-8·σ₁."""
    ones = torch.ones(256, 256)
    gram = spectrum(ones, how="gram").values
    assert float(spectra.effective_rank(gram, singular_values=True)) - 1 > 1e-6
    assert float(spectra.effective_rank(ones)) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_one_number_that_is_none_names_layer_and_place(bad: float, dtype: torch.dtype) -> None:
    matrix = torch.ones(3, 4, dtype=dtype)
    matrix[1, 2] = bad
    said = r"^encoder\.0\.query: .*finite.*1 of its 12 are NaN or infinite, the first at \[1, 2\]"
    good, other = torch.ones(5, 3, dtype=dtype), torch.ones(4, 2, dtype=dtype)
    deltas = [Delta(factors=factors, nominal=2) for factors in [(matrix,), (good, matrix), (good, matrix, other)]]
    calls: list[Callable[..., Any]] = [lambda name: spectrum(matrix, name=name)]
    calls += [lambda name: spectra.singular_values(matrix, name=name)]
    calls += [part for delta in deltas for part in (delta.ranks, delta.spectrum, delta.singular_values)]
    for call in calls:
        with pytest.raises(ValueError, match=said):
            call(name="encoder.0.query")
    every = [metric for metric, _ in METRICS.values()] + [spectra.numerical_rank, spectra.power_law_alpha]
    for function in [*every, lambda m, **_: spectra.principal_angles(m.mT, m.mT)]:
        with pytest.raises(ValueError, match="finite"):
            function(matrix)
    for function in every:
        with pytest.raises(ValueError, match=r"^a spectrum needs finite entries"):
            function(matrix[1], singular_values=True)


def test_what_has_no_spectrum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^head: .*matrix"):
        spectrum(np.ones(3), name="head")
    with pytest.raises(ValueError, match="real"):
        spectrum(np.ones((2, 2)) * 1j)
    with pytest.raises(ValueError, match="not negative"):
        spectra.stable_rank(np.array([2.0, -1.0]), singular_values=True)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_no_scale_overflows(scale: float) -> None:
    sigma = np.array([4.0, 3.0, 2.0, 1.0])
    for name, (metric, oracle) in METRICS.items():
        assert float(metric(sigma * scale, singular_values=True)) == pytest.approx(oracle(sigma), rel=1e-9), name
        assert float(metric(np.diag(sigma * scale))) == pytest.approx(oracle(sigma), rel=1e-9), name


@pytest.mark.parametrize("shape", [(6, 3, 3, 3), (6, 4, 5), (6, 5), (2, 3, 1, 2, 2)])
def test_a_convolution_is_a_matrix_on_patches(shape: tuple[int, ...]) -> None:
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    matrix = matricize(weight)
    assert matrix.shape == (shape[0], math.prod(shape[1:])) and matrix.requires_grad
    assert np.array_equal(matricize(weight.detach().numpy()), matrix.detach().numpy())
    if len(shape) == 4:
        image = torch.randn(1, shape[1], 7, 8)
        patches = torch.nn.functional.unfold(image, shape[2:])
        want = torch.nn.functional.conv2d(image, weight).flatten(2)
        assert torch.allclose(matrix @ patches, want, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="two axes"):
        matricize(torch.ones(3))
