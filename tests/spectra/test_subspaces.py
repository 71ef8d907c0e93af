"""Principal angles against scipy, neural collapse against numpy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.neighbors import NearestCentroid

from bench.spectra import collapse, principal_angles
from bench.spectra.collapse import frame_distance


@pytest.mark.parametrize("shape", [(30, 4, 4), (30, 6, 2), (30, 2, 6), (7, 7, 3), (5, 1, 1)])
def test_angles_are_scipys(shape: tuple[int, int, int]) -> None:
    rows, k, columns = shape
    draw = np.random.default_rng(0)
    one, other = draw.normal(size=(rows, k)), draw.normal(size=(rows, columns))
    want = np.sort(subspace_angles(one, other))
    assert principal_angles(one, other).numpy() == pytest.approx(want, abs=1e-12)
    assert principal_angles(torch.from_numpy(other), torch.from_numpy(one)).numpy() == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-4, 0.7, math.pi / 2])
def test_small_angles_are_told_apart(angle: float) -> None:
    one = np.eye(6)[:, :2]
    other = one.copy()
    other[:, 1] = math.cos(angle) * one[:, 1] + math.sin(angle) * np.eye(6)[:, 4]
    assert principal_angles(one, 3 * other).numpy() == pytest.approx([0, angle], rel=1e-6, abs=1e-15)


def test_angles_of_batches() -> None:
    draw = torch.randn(5, 9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = principal_angles(draw[:-1], draw[1:])
    assert found.shape == (4, 3)
    assert torch.allclose(found[2], principal_angles(draw[2], draw[3]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shapes", [((4, 2), (5, 2)), ((3, 4), (3, 2))])
def test_what_spans_no_subspace_of_one_space_is_refused(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="one space"):
        principal_angles(np.ones(shapes[0]), np.ones(shapes[1]))
    with pytest.raises(ValueError, match="NaN"):
        principal_angles(np.full((4, 1), np.nan), np.ones((4, 1)))


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.int64])
def test_angles_of_other_types_are_scipys(kind: type) -> None:
    draw = np.random.default_rng(2)
    one, other = (10 * draw.normal(size=(12, 3))).astype(kind), (10 * draw.normal(size=(12, 2))).astype(kind)
    want = np.sort(subspace_angles(one.astype(float), other.astype(float)))
    assert principal_angles(one, other).numpy() == pytest.approx(want, abs=1e-12)
    assert principal_angles(torch.from_numpy(one), other[::-1][::-1]).numpy() == pytest.approx(want, abs=1e-12)


def test_angles_of_badly_scaled_bases_are_those_of_their_spaces() -> None:
    """Columns of lengths 1 to 1e-12, nearly parallel or not: the spaces are those of the columns before."""
    draw = np.random.default_rng(3)
    one, other = draw.normal(size=(20, 4)), draw.normal(size=(20, 3))
    scaled = one * np.logspace(0, -12, 4)
    assert principal_angles(scaled, other).numpy() == pytest.approx(np.sort(subspace_angles(one, other)), abs=1e-10)


@pytest.mark.parametrize("matrix", [np.zeros((5, 2)), np.ones((5, 2)), np.ones((5, 1)) @ np.arange(3.0)[None]])
def test_dependent_columns_are_no_basis(matrix: np.ndarray) -> None:
    with pytest.raises(ValueError, match="linearly dependent"):
        principal_angles(matrix, np.eye(5)[:, :2])


def frame(classes: int) -> np.ndarray:
    return np.eye(classes) - 1 / classes


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_a_collapsed_network(classes: int) -> None:
    """Features on the vertices of a simplex, and the head along them: 0, 0, 0, 1."""
    labels = np.repeat(np.arange(classes), 5)
    found = collapse(3 * frame(classes)[labels] + 7, labels, 0.5 * frame(classes))
    assert found == pytest.approx((0, 0, 0, 1), abs=1e-7)


def test_an_orthonormal_basis_is_no_frame_until_it_is_centred() -> None:
    basis = torch.eye(4, dtype=torch.float64)
    assert frame_distance(basis, basis) == pytest.approx(0.5176380902, abs=1e-10)
    centred = basis - basis.mean(0)
    assert frame_distance(centred, centred) == pytest.approx(0, abs=1e-12)


def test_collapse_is_numpys() -> None:
    draw = np.random.default_rng(1)
    x, y, w, b = draw.normal(size=(60, 8)), draw.integers(0, 3, 60), draw.normal(size=(3, 8)), draw.normal(size=3)
    x += 0.3 * w[y]
    means = np.stack([x[y == k].mean(0) for k in range(3)])
    centred = means - means.mean(0)
    sigma_w = np.mean([np.outer(row - means[k], row - means[k]) for row, k in zip(x, y, strict=True)], axis=0)
    sigma_b = np.mean([np.outer(m, m) for m in centred], axis=0)
    nearest = np.argmin([[np.linalg.norm(row - m) for m in means] for row in x], axis=1)

    def distance(gram: np.ndarray) -> float:
        return float(np.linalg.norm(gram / np.linalg.norm(gram) - frame(3) / math.sqrt(2)))

    want = (
        np.trace(np.linalg.pinv(sigma_b, rcond=1e-10) @ sigma_w) / 3,
        distance(centred @ centred.T),
        distance(w @ centred.T),
        np.mean(np.argmax(x @ w.T + b, axis=1) == nearest),
    )
    assert collapse(x, y, w, b) == pytest.approx(want, rel=1e-9)
    assert collapse(torch.from_numpy(x).float(), y, w, b) == pytest.approx(want, rel=1e-5)
    assert 0 < want[3] < 1


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_spread_around_a_frame_in_closed_form(classes: int, offset: float) -> None:
    """Examples at μ_k ± s·e_j: Σ_W = (s²/K)·I and Σ_B = (c²/K)·(I − 11ᵀ/K), so that NC1 = (K − 1)·s²/(K·c²)."""
    size, spread = 3.0, 0.25
    steps = spread * np.concatenate([np.eye(classes), -np.eye(classes)])
    features = (size * frame(classes)[:, None] + steps + offset).reshape(-1, classes)
    found = collapse(features, np.repeat(np.arange(classes), 2 * classes), frame(classes))
    nc1 = (classes - 1) * spread**2 / (classes * size**2)
    assert found == pytest.approx((nc1, 0, 0, 1), rel=1e-9, abs=1e-10)


def test_the_nearest_mean_is_scikit_learns() -> None:
    draw = np.random.default_rng(4)
    x, y, w = draw.normal(size=(300, 20)), draw.integers(0, 5, 300), draw.normal(size=(5, 20))
    nearest = NearestCentroid().fit(x, y).predict(x)
    want = np.mean(np.argmax(x @ w.T, axis=1) == nearest)
    assert 0 < want < 1
    assert collapse(x, y, w).nc4 == pytest.approx(want, abs=1e-12)


def test_the_nearest_mean_is_near_however_far_the_origin() -> None:
    """Distances of 1 at an offset of 1e8, whose square float64 knows to 1 only."""
    labels = np.repeat(np.arange(4), 10)
    assert collapse(frame(4)[labels] + 1e8, labels, frame(4)).nc4 == 1


def test_features_without_any_difference_give_no_nan() -> None:
    found = collapse(np.zeros((6, 4)), np.repeat([0, 1, 2], 2), np.zeros((3, 4)))
    assert found[:3] == pytest.approx((0, 1, 1), abs=1e-12)  # the frame itself has length 1


def test_what_is_no_classification_is_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        collapse(np.ones((2, 3)), np.zeros(2), np.ones((1, 3)))
    with pytest.raises(ValueError, match=r"^features: .*finite"):
        collapse(np.full((2, 3), np.nan), np.array([0, 1]), np.ones((2, 3)))
    with pytest.raises(ValueError, match=r"^weight of the head: .*finite"):
        collapse(np.ones((2, 3)), np.array([0, 1]), np.full((2, 3), np.inf))


def test_a_class_without_examples_is_refused() -> None:
    with pytest.raises(ValueError, match=r"counts are \[2, 0\]"):
        collapse(np.ones((2, 3)), np.zeros(2), np.ones((2, 3)))
