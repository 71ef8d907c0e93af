"""Statistics of a leaderboard of 200 records against rliable, scipy and numpy."""

from __future__ import annotations

import importlib.util
import random
import sys
import types

import numpy as np
import pytest
from records import build_rows
from scipy import stats

from leaderboard.tables.build import build_tables
from leaderboard.tables.cautions import row_cautions
from leaderboard.tables.intervals import (
    bootstrap,
    difference,
    interquartile_mean,
    interquartile_means,
    t_quantile,
)

METHODS = ("full", "lora", "deeplora", "adapter", "linear")
TASKS = ("cola", "mrpc", "rte", "sst2", "stsb")
SEEDS = 8


@pytest.fixture(scope="module")
def scores():
    """Scores (methods, tasks, seeds), with a tie between two methods on one task."""
    found = np.random.default_rng(1).uniform(0.2, 1, (len(METHODS), len(TASKS), SEEDS))
    found[3, 2] = found[1, 2]
    return found


@pytest.fixture
def records(make_record, scores):
    """200 records of these scores."""
    return [
        make_record(
            spec={"method": method, "task": f"glue/{task}", "seed": seed},
            source={"data_hash": task},
            metrics={"primary": {"name": "accuracy", "value": float(scores[i, j, seed])}},
        )
        for i, method in enumerate(METHODS)
        for j, task in enumerate(TASKS)
        for seed in range(SEEDS)
    ]


@pytest.fixture(scope="module")
def rliable():
    """Its library and metrics. The `arch` that it needs cannot be imported beside pandas 3.1, but its bootstrap can."""
    pytest.importorskip("absl")
    spec = importlib.util.find_spec("arch")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("rliable's arch is not installed")
    package = types.ModuleType("arch")
    package.__path__ = list(spec.submodule_search_locations)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "arch", package)
        library = pytest.importorskip("rliable.library")
        yield library, pytest.importorskip("rliable.metrics")


def by_label(records, **options):
    return {row.label: row for row in build_rows(records, **options)}


def test_the_fixture_is_of_200_records_in_one_table(records):
    [table] = build_tables(records)
    assert len(records) == 200
    assert [len(table.rows), len(table.columns)] == [5, 5]


def test_interquartile_mean_equals_rliable_and_scipy(records, scores, rliable):
    _, metrics = rliable
    found = by_label(records)
    for mine, method in zip(scores, METHODS, strict=True):
        assert found[method].iqm == pytest.approx(metrics.aggregate_iqm(mine.T), rel=1e-13)
        assert found[method].iqm == pytest.approx(stats.trim_mean(mine, 0.25, axis=None), rel=1e-13)


@pytest.mark.parametrize("count", range(1, 14))
def test_interquartile_mean_of_few_values_equals_scipy(count):
    values = np.random.default_rng(count).normal(size=(3, count))
    expected = stats.trim_mean(values, 0.25, axis=1)
    assert interquartile_means(values) == pytest.approx(expected, rel=1e-13)
    assert [interquartile_mean(row) for row in values.tolist()] == pytest.approx(expected, rel=1e-13)


def test_average_rank_equals_scipy(records, scores):
    printed = np.round(scores.mean(axis=2), 3)
    places = np.stack([stats.rankdata(-column, method="average") for column in printed.T]).mean(axis=0)
    found = by_label(records)
    assert [found[method].average_rank for method in METHODS] == pytest.approx(places.tolist(), rel=1e-13)


def test_a_difference_is_paired_by_task_and_seed(records, scores):
    found = by_label(records, baseline="full")
    assert found["full"].difference is None
    for mine, method in zip(scores[1:], METHODS[1:], strict=True):
        apart = found[method].difference
        assert apart.mean == pytest.approx((mine - scores[0]).mean(), rel=1e-12)
        assert apart.iqm == pytest.approx(stats.trim_mean(mine - scores[0], 0.25, axis=None), rel=1e-12)
        assert (apart.seeds, apart.tasks) == (SEEDS, len(TASKS))
        by_task = [one.mean for one in found[method].differences]
        assert by_task == pytest.approx((mine - scores[0]).mean(axis=1).tolist(), rel=1e-12)


def test_intervals_equal_rliables_stratified_bootstrap_over_tasks_and_seeds(records, scores, rliable):
    """Both are Monte Carlo: of 2000 and 4000 draws the ends differ by a few hundredths of the interval's width."""
    library, metrics = rliable
    found = by_label(records, baseline="full")

    def aggregate(values):
        return np.array([values.mean(), metrics.aggregate_iqm(values)])

    for mine, method in zip(scores[1:3], METHODS[1:3], strict=True):
        apart = found[method].difference
        with pytest.warns(FutureWarning):
            _, ends = library.get_interval_estimates(
                {method: (mine - scores[0]).T},
                aggregate,
                reps=4000,
                task_bootstrap=True,
                random_state=np.random.RandomState(0),
            )
        expected = ends[method]
        width = expected[1] - expected[0]
        student = stats.ttest_1samp((mine - scores[0]).mean(axis=0), 0).confidence_interval()
        low, high = (
            [min(expected[0, 0], student.low), expected[0, 1]],
            [max(expected[1, 0], student.high), expected[1, 1]],
        )
        assert np.abs(np.array([apart.low, apart.iqm_low]) - low).max() < 0.06 * width.max()
        assert np.abs(np.array([apart.high, apart.iqm_high]) - high).max() < 0.06 * width.max()


def paired(values):
    """The difference of scores (tasks, seeds) from scores of 0."""
    return difference([dict(enumerate(row)) for row in values], [dict.fromkeys(range(len(row)), 0.0) for row in values])


@pytest.mark.parametrize("seeds", [2, 3, 4, 8, 13])
def test_the_intervals_of_one_task_equal_scipys_t(seeds):
    values = np.random.default_rng(seeds).normal(size=seeds)
    apart = paired(values[None].tolist())
    assert (apart.low, apart.high) == pytest.approx(tuple(stats.ttest_1samp(values, 0).confidence_interval()))
    if seeds < 4:  # nothing to trim, which scipy cannot do
        assert (apart.iqm_low, apart.iqm_high) == (apart.low, apart.high)
        return
    cut = (seeds // 4 / seeds,) * 2
    assert (apart.iqm_low, apart.iqm_high) == pytest.approx(tuple(stats.mstats.trimmed_mean_ci(values, limits=cut)))


def test_quantiles_equal_scipys():
    degrees = [*range(1, 60), 999, 1000]
    assert [*map(t_quantile, degrees)] == pytest.approx(stats.t.ppf(0.975, degrees).tolist(), rel=1e-12)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_five_percent_of_comparisons_of_equals_exclude_zero_on_one_task(seeds):
    values = np.random.default_rng(0).normal(size=(2000, seeds))
    apart = [paired([row]) for row in values.tolist()]
    excluded = np.array([one.low > 0 or one.high < 0 for one in apart])
    assert (excluded == (stats.ttest_1samp(values, 0, axis=1).pvalue < 0.05)).all()
    assert 0.03 < excluded.mean() < 0.07


@pytest.mark.parametrize("shape", [(2, 2), (2, 3), (4, 3)])
def test_at_most_five_percent_of_comparisons_of_equals_exclude_zero_on_several_tasks(shape):
    values = np.random.default_rng(0).normal(size=(300, *shape))
    apart = [paired(one) for one in values.tolist()]
    assert np.mean([one.low > 0 or one.high < 0 for one in apart]) < 0.07


def test_one_seed_has_no_interval_and_no_common_seed_no_difference():
    one = difference([{0: 0.5}, {0: 0.7}], [{0: 0.25}, {0: 0.5}])
    assert (one.mean, one.low, one.high, one.iqm_low) == (pytest.approx(0.225), None, None, None)
    assert difference([{0: 0.5}], [{1: 0.5}]) is None
    assert difference([{0: 0.5}, {}], [{0: 0.5}, {0: 0.1}]) is None


def test_bootstrap_draws_tasks_and_then_seeds_for_each_of_them():
    values = np.arange(12.0).reshape(3, 4)
    drawn = bootstrap(values, 500).reshape(500, 3, 4)
    tasks = drawn % 4
    assert (tasks == tasks[:, :1]).all(), "a drawn task is one task for all its seeds"
    assert len({tuple(row) for row in tasks[:, 0].astype(int).tolist()}) > 100
    assert (drawn[:, 0] != drawn[:, 1]).any() and {0, 1, 2} == set((drawn // 4).astype(int).ravel())


def test_a_permutation_changes_nothing(records):
    expected = build_tables(records, baseline="full")
    for seed in range(3):
        random.Random(seed).shuffle(records)
        assert build_tables(records, baseline="full") == expected


def test_missing_cells_change_no_average_and_no_difference_of_others(records):
    before = by_label(records, baseline="full")
    kept = [r for r in records if (r.spec.method, r.spec.task) != ("lora", "glue/rte")]
    after = by_label(kept, baseline="full")
    for method in METHODS:
        if method != "lora":
            assert after[method].average == before[method].average
            assert after[method].difference == before[method].difference
            assert after[method].iqm == before[method].iqm
    lora = after["lora"]
    assert (lora.average, lora.difference, lora.iqm, lora.rank, lora.average_rank) == (None,) * 5
    assert [apart is None for apart in lora.differences] == [task == "rte" for task in TASKS]


def test_a_baseline_that_could_be_several_rows_is_none(records, make_record):
    other = make_record(spec={"method": "full", "task": "glue/cola", "lr": 0.5}, source={"data_hash": "cola"}, lr=0.5)
    [table] = build_tables([*records, other], baseline="full")
    assert table.baseline is None and "could be full" in " ".join(table.notes)
    [table] = build_tables([*records, other], baseline="full (lr=1e-3)")
    assert table.baseline == "full (lr=1e-3)"
    assert build_tables(records, baseline="absent")[0].baseline is None


def test_suspicious_rows_are_marked(make_record):
    def run(method, seed, **more):
        return make_record(spec={"method": method, "seed": seed, **more.pop("spec", {})}, **more)

    some = [run("lora", seed) for seed in range(3)] + [run("full", seed) for seed in range(2)]
    some += [run("early", seed, cost={"steps": 90, "samples": 2880}) for seed in range(3)]
    some += [run("wide", seed, cost={"steps": 150, "samples": 9600}) for seed in range(3)]
    some += [run("short last batch", seed, cost={"steps": 150, "samples": 4800 - 30 * seed}) for seed in range(2)]
    found = {label: {caution.code: caution.text for caution in row.cautions} for label, row in by_label(some).items()}
    assert found["lora"] == {}
    assert list(found["full"]) == ["seeds"] and "2 seeds" in found["full"]["seeds"]
    assert found["early"] == {"steps": "other optimiser steps: cola 90 (most: 150)"}
    assert "batch" not in found["short last batch"]
    assert found["wide"] == {"batch": "other examples a step: cola 64 (most: 32)"}
    chosen = {"spec": {"lr": None, "select": [1e-4, 1e-3, 1e-2]}}
    some += [run("chosen", seed, **chosen) for seed in range(3)]
    found = {label: {caution.code for caution in row.cautions} for label, row in by_label(some).items()}
    assert found["chosen"] == set() and found["lora"] == {"selection"}
    assert row_cautions([], []) == []


def test_a_table_names_those_of_other_budgets(records, make_record):
    longer = make_record(spec={"method": "lora", "max_steps": 900})
    first, second = build_tables([*records, longer])
    assert "900 steps" in first.notes[0] + second.notes[0] and "150 steps" in first.notes[0] + second.notes[0]
    other_source = make_record(spec={"method": "lora", "max_steps": 900}, source={"kind": "hub"})
    alone = build_tables([*records, other_source])
    assert not [note for table in alone for note in table.notes if "another budget" in note]


def test_selection_trials_count_once_for_all_runs_that_share_them(make_record):
    trials = [{"lr": lr, "value": 0.5, "run_id": f"{i:016x}", "state": "done"} for i, lr in enumerate((1e-3, 1e-2))]
    selection = {"trials": trials, "metric": "accuracy", "split": "holdout", "task": "glue/sst2", "chosen": 1e-3}
    spec = {"method": "lora", "lr": None, "select": [1e-3, 1e-2]}
    some = [make_record(spec=spec | {"seed": seed}, selection=selection) for seed in range(3)]
    [row] = build_rows(some)
    assert row.trials == 2
