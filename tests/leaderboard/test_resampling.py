"""Scores of resampled examples against scikit-learn and scipy on the very examples that each draw has."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from leaderboard.tables import resampling
from leaderboard.tables.resampling import DRAWS, draws, resampled

N = 40
RNG = np.random.default_rng(0)
WEIGHTS = next(draws([1], N))[:25]
TWO = RNG.integers(2, size=N), RNG.normal(size=(N, 2))
FOUR = RNG.integers(3, size=N), RNG.normal(size=(N, 4)) + 0.5  # no label has the last class
NUMBERS = RNG.normal(size=N).round(1), RNG.normal(size=N).round(1)  # with ties


def macro(labels, named, _):
    there = sorted({*labels.tolist(), *named.tolist()})
    return metrics.f1_score(labels, named, average="macro", labels=there)


CLASSES = {
    "accuracy": lambda labels, named, _: metrics.accuracy_score(labels, named),
    "balanced_accuracy": lambda labels, named, _: np.mean([(named == k)[labels == k].mean() for k in set(labels)]),
    "macro_f1": macro,
    "matthews": lambda labels, named, _: metrics.matthews_corrcoef(labels, named),
    "f1": lambda labels, named, two: metrics.f1_score(labels, named) if two else macro(labels, named, two),
}
ERRORS = {
    "mse": metrics.mean_squared_error,
    "relative_error": lambda labels, outputs: np.linalg.norm(outputs - labels) / np.linalg.norm(labels),
}
CORRELATIONS = {
    "pearson": lambda labels, outputs: stats.pearsonr(labels, outputs).statistic,
    "spearman": lambda labels, outputs: stats.spearmanr(labels, outputs).statistic,
}


def drawn_examples():
    """The examples of each draw, as indices."""
    return [np.repeat(np.arange(N), draw.astype(int)) for draw in WEIGHTS]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("labels", "outputs"), [TWO, FOUR], ids=["two", "four"])
def test_metrics_of_classes_equal_sklearns(name, labels, outputs):
    named, two = outputs.argmax(1), outputs.shape[1] == 2
    expected = [CLASSES[name](labels[rows], named[rows], two) for rows in drawn_examples()]
    assert resampled([name], labels, outputs, WEIGHTS) == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 5, "draws differ"


@pytest.mark.parametrize("name", {**ERRORS, **CORRELATIONS})
def test_metrics_of_numbers_equal_scipys(name):
    labels, outputs = NUMBERS
    expected = [{**ERRORS, **CORRELATIONS}[name](labels[rows], outputs[rows]) for rows in drawn_examples()]
    assert resampled([name], labels, outputs, WEIGHTS) == pytest.approx(expected, abs=1e-6)


def test_the_mean_of_two_metrics_is_that_of_each_draw():
    both = [resampled([name], *TWO, WEIGHTS) for name in ("accuracy", "f1")]
    assert resampled(["accuracy", "f1"], *TWO, WEIGHTS) == pytest.approx(np.mean(both, axis=0))


def test_what_was_not_observed_is_left_out():
    labels = np.where(RNG.random((N, 2)) < 0.3, np.nan, RNG.normal(size=(N, 2)))
    outputs = RNG.normal(size=(N, 2))
    expected = [np.nanmean((outputs - labels)[rows] ** 2) for rows in drawn_examples()]
    assert resampled(["mse"], labels, outputs, WEIGHTS) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["matthews", "f1", "macro_f1"])
def test_one_class_alone_is_no_division_by_zero(name):
    outputs = np.tile([1.0, 0.0], (N, 1))
    assert resampled([name], TWO[0], outputs, WEIGHTS)[0] == (
        0 if name != "macro_f1" else pytest.approx(0.27, abs=0.15)
    )
    same = np.full(N, 0.1)
    assert resampled(["pearson"], NUMBERS[0], same, WEIGHTS).tolist() == [0] * len(WEIGHTS)
    assert resampled(["spearman"], same, NUMBERS[1], WEIGHTS).tolist() == [0] * len(WEIGHTS)


def test_a_metric_without_a_form_has_none():
    assert resampled(["map"], *TWO, WEIGHTS) is None
    assert resampled(["accuracy", "map"], *TWO, WEIGHTS) is None
    assert resampled(["pearson"], *TWO, WEIGHTS) is None
    assert resampled(["pearson"], TWO[1], TWO[1], WEIGHTS) is None, "of several numbers there is no one correlation"


def test_draws_are_of_as_many_examples_and_equal_for_equal_seeds(monkeypatch):
    whole = np.concatenate([*draws([1, 2], 300)])
    assert whole.shape == (DRAWS, 300) and set(whole.sum(axis=1).tolist()) == {300}
    assert whole.mean(axis=0) == pytest.approx(1, abs=0.2) and whole.var() == pytest.approx(1 - 1 / 300, rel=0.02)
    assert (whole == np.concatenate([*draws([1, 2], 300)])).all()
    assert (whole != np.concatenate([*draws([1, 3], 300)])).any()
    monkeypatch.setattr(resampling, "MOST_WEIGHTS", 70 * 300)
    blocks = [*draws([1, 2], 300)]
    assert [len(block) for block in blocks] == [70] * 7 + [10]
    assert (np.concatenate(blocks) == whole).all(), "blocks are for memory alone"


def test_the_deviation_of_the_draws_is_the_standard_error():
    solved = RNG.random(500) < 0.8
    outputs = np.stack([~solved, solved], axis=1)
    drawn = resampled(["accuracy"], np.ones(500, dtype=int), outputs, next(draws([0], 500)))
    assert drawn.std() == pytest.approx(np.sqrt(solved.mean() * (1 - solved.mean()) / 500), rel=0.1)
