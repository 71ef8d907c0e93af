"""Synthetic tasks: whitened inputs, the spectrum asked for, what is told and hidden, bytes, and refusals."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from bench.core.errors import UsageError
from bench.records.data import DataRequest, Dataset
from tasks.synthetic import matrices
from tasks.synthetic.task import MEMBERS, Synthetic, SyntheticConfig


def opened(member: str, **options: Any) -> tuple[Synthetic, Dataset]:
    task = Synthetic(member)
    return task, task.open(DataRequest(config=SyntheticConfig(**options)))


def arrays(member: str, **options: Any) -> Any:
    """Train and dev."""
    dataset = opened(member, **options)[1]
    return dataset.train, dataset.evaluation["dev"]


@pytest.mark.parametrize(("n", "samples"), [(2, 2), (8, None), (30, 32), (30, 96), (64, 128)])
def test_inputs_are_whitened_to_the_bit(n: int, samples: int | None) -> None:
    """In float32, which is what a network reads; XᵀX/N = I holds for any Φ, noise or not."""
    for rows in arrays("regression", size=n, outputs=3, rank=2, samples=samples, noise=0.3):
        assert np.array_equal(rows.inputs.T @ rows.inputs / np.float32(len(rows)), np.eye(n))
        assert len(np.unique(np.abs(rows.inputs))) == 1
    train, dev = arrays("regression", size=n, outputs=3, rank=2, samples=samples)
    assert len(train) == (samples or 8)
    assert not np.array_equal(train.inputs[: len(dev)], dev.inputs)


@pytest.mark.parametrize("basis", ["random", "diagonal"])
@pytest.mark.parametrize(
    ("asked", "values"), [({"rank": 4}, [1, 0.75, 0.5, 0.25]), ({"spectrum": "4,3,2,1"}, [4, 3, 2, 1])]
)
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_singular_values_are_those_asked_for(
    basis: Any, asked: dict[str, Any], values: list[float], shape: Any
) -> None:
    """By numpy's SVD: of the factorised matrix, and of the least-squares map of the regression."""
    given = {"outputs": shape[0], "size": shape[1], "basis": basis, **asked}
    matrix = arrays("factorization", **given)[0].targets.T
    assert matrix.shape == shape
    rows = arrays("regression", **given)[0]
    fitted = np.linalg.lstsq(rows.inputs, rows.targets, rcond=None)[0].T
    for found in (matrix, fitted):
        singular = np.linalg.svd(found.astype(np.float64), compute_uv=False)
        np.testing.assert_allclose(singular, [*values, 0, 0], atol=2e-6)
    np.testing.assert_allclose(fitted, matrix, atol=2e-6)
    assert (np.count_nonzero(matrix) == 4) == (basis == "diagonal")


def test_orthonormal_columns() -> None:
    """All of them too, where Gram–Schmidt loses digits unless each step is taken twice."""
    for n, r in [(7, 3), (60, 60)]:
        columns = matrices.orthonormal(matrices.stream(3, 0), n, r)
        np.testing.assert_allclose(columns.T @ columns, np.eye(r), atol=1e-14)


def test_normal_numbers_have_the_moments_of_one() -> None:
    drawn = matrices.normal(matrices.stream(1, 0), 400, 500)
    for power, moment, spread in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 2.9, 96)]:  # kurtosis 3 − 6/(5·12)
        assert abs((drawn**power).mean() - moment) < 5 * (spread / drawn.size) ** 0.5


def test_products_are_those_of_numpy() -> None:
    draw = matrices.stream(1, 0)
    left, right = matrices.normal(draw, 5, 7), matrices.normal(draw, 7, 3)
    np.testing.assert_allclose(matrices.product(left, right), left @ right, atol=1e-13)


def test_completion_hides_what_it_does_not_tell() -> None:
    whole = arrays("factorization", size=20, outputs=10, rank=2)[0]
    train, dev = arrays("completion", size=20, outputs=10, rank=2, fraction=0.35, repeats=3)
    assert np.array_equal(whole.inputs, np.eye(20)) and np.array_equal(dev.inputs, np.eye(20))
    assert len(train) == 60 and np.array_equal(train.targets[:20], train.targets[40:], equal_nan=True)
    told, hidden = ~np.isnan(train.targets[:20]), ~np.isnan(dev.targets)
    assert told.sum() == 70
    assert np.array_equal(told, ~hidden)
    assert np.array_equal(train.targets[:20][told], whole.targets[told])
    assert np.array_equal(dev.targets[hidden], whole.targets[hidden])


@pytest.mark.parametrize("member", MEMBERS)
def test_noise_is_of_its_size_and_spares_dev(member: str) -> None:
    plain, noisy = (arrays(member, size=64, rank=2, noise=noise) for noise in (0.0, 0.5))
    added = (noisy[0].targets - plain[0].targets)[~np.isnan(plain[0].targets)]
    assert abs(added.std() - 0.5) < 5 * 0.5 / (2 * added.size) ** 0.5
    assert np.array_equal(noisy[1].targets, plain[1].targets, equal_nan=True)


@pytest.mark.parametrize(
    ("member", "options", "digest"),
    [
        ("regression", {"noise": 0.1}, "901b673ac6804bea"),
        ("factorization", {}, "eabc89f2d24079c7"),
        ("completion", {"outputs": 30, "rank": 5}, "aa12d85123e2fb08"),
    ],
)
def test_the_same_bytes_everywhere(member: str, options: dict[str, Any], digest: str) -> None:
    """Of generator version 1: another version of numpy, another processor or BLAS must give these too."""
    assert opened(member, **options)[1].hash[:16] == digest


@pytest.mark.parametrize("member", MEMBERS)
def test_only_the_examples_count(member: str) -> None:
    """No option is part of a run's specification: the data's hash speaks for them. One of another task is named."""
    task, dataset = opened(member, size=8, rank=3)
    assert (task.spec.shape, task.spec.targets, task.spec.higher_is_better) == ((8,), 8, False)
    assert {option.name for option in fields(SyntheticConfig)} <= set(dataset.reading)
    same = opened(member, size=8, spectrum="1,0.66666666666666663,0.33333333333333331", outputs=8)[1]
    assert same.hash == dataset.hash and same.reading == dataset.reading
    assert opened(member, size=8, rank=3, seed=1)[1].hash != dataset.hash
    foreign = {"samples": 16} if member != "regression" else {"repeats": 2}
    other = opened(member, size=8, rank=3, **foreign)[1]
    assert other.hash == dataset.hash and other.reading == dataset.reading
    [name] = foreign
    assert any(f"task.{name}={foreign[name]} has no effect on synthetic/{member}" in note for note in other.notes)


def test_what_cannot_be_completed_is_said() -> None:
    few = opened("completion", size=20, rank=3, fraction=0.2)[1]
    assert few.notes == ("synthetic/completion: 80 entries are observed, and a matrix of rank 3 has 111 free numbers",)
    thin = opened("completion", size=20, rank=3, fraction=0.28, seed=7)[1]
    counts = ~np.isnan(thin.train.targets)  # type: ignore[attr-defined]
    assert [(counts.sum(axis) < 3).sum() for axis in (0, 1)] == [1, 3]
    assert thin.notes == ("synthetic/completion: 4 rows and columns have fewer than 3 observed entries",)
    assert opened("completion", size=100, rank=3, fraction=0.5)[1].notes == ()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 8, "rank": 9}, r"task\.rank=9"),
        ({"size": 1}, r"task\.size=1"),
        ({"outputs": 1}, r"task\.outputs=1"),
        ({"fraction": 1.5}, r"task\.fraction=1\.5"),
        ({"size": 30, "samples": 40}, r"task\.samples=40[\s\S]*multiples of 32"),
        ({"spectrum": "1,2"}, "decreasing"),
        ({"spectrum": "2,zero"}, "decreasing"),
        ({"spectrum": "2,nan"}, "decreasing"),
        ({"spectrum": "2,0"}, "decreasing"),
        ({"spectrum": "2,1", "rank": 3}, "contradicts"),
    ],
)
def test_options_that_fit_nothing_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        SyntheticConfig(**options)
    assert re.search(text, f"{caught.value.what} {caught.value.known}")
    assert caught.value.todo


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(UsageError, match="regresion"):
        Synthetic("regresion")
