"""Tables of the leaderboard as plain values: columns, rows and their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from bench.records.course import Point
from bench.records.record import DoneRecord
from leaderboard.tables.grouping import Seed
from leaderboard.tables.intervals import Difference, common_keys, interquartile_mean


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean of `n` seeds and their standard deviation (n − 1 in the denominator; None for one seed)."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """Statistics of at least one value, exactly the same in every order."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


def by_seed(cells: Iterable[Iterable[Scored]]) -> list[dict[Seed, float]]:
    return [{run.seed: run.value for run in cell} for cell in cells]


def average_of(scores: Sequence[Mapping[Seed, float]], seeds: Iterable[Seed]) -> tuple[Stat, float]:
    """Average over tasks of scores by seed, and their interquartile mean, over `seeds`, which all tasks have."""
    complete = [[by_seed[seed] for by_seed in scores] for seed in seeds]
    return Stat.of([fmean(values) for values in complete]), interquartile_mean([*chain(*complete)])


def _bests(cell: Sequence[Scored]) -> dict[Seed, float]:
    """The best evaluation by seed; empty if one of the runs has none."""
    values = {run.seed: run.best.value for run in cell if run.best}
    return values if len(values) == len(cell) else {}


class Scored(NamedTuple):
    """The score of a finished run: `seed` distinguishes repetitions, `value` is the primary metric.

    `best` is the best evaluation during training; None if there was none. `record` is that of the run.
    """

    seed: Seed
    value: float
    run_id: str
    steps: int
    batch: float
    best: Point | None
    record: DoneRecord


@dataclass(frozen=True, slots=True)
class Layer:
    """The rank of one layer's ΔW, mean over a row's runs."""

    name: str
    nominal: float
    effective: float
    stable: float
    norm: float


@dataclass(frozen=True, slots=True)
class RowCaution:
    """A reason why comparing a row with the others may mislead: its kind, and a sentence."""

    code: Literal["seeds", "steps", "batch", "selection", "chance", "noise"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The source of a published row: who reported the scores, and in which paper.

    Attributes:
        metrics: the reported metric of each column; None where no score was reported.
        note: how these scores differ from those of this suite.
    """

    source: str
    arxiv: str
    metrics: tuple[str | None, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One measure of one task on one version of its data.

    Attributes:
        task: name without the suite; `task_id` has it, such as glue/cola.
        metric: primary metric; empty if no run of this task is done.
        split: split the metric was measured on.
        higher_is_better: direction of the metric; None if unknown.
        data: what distinguishes columns of the same task: version and first digits of the data hash, split, examples.
        note: caveat of the task; beside an accuracy the share of the largest class, where it is known.
    """

    task: str
    task_id: str
    metric: str
    split: str
    higher_is_better: bool | None
    data: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration, with its results on all tasks and seeds of a table.

    Attributes:
        label: the method, with the settings in which it differs from other rows of this method.
        cells: score per column; None if no run is done. `runs` has the runs behind each, by seed.
        average: over the seeds that have every task of the table; None if there is no such seed.
        iqm: interquartile mean of these scores.
        rank: place by average, 1 is best and what is within noise of it; None without an average over three seeds.
        average_rank: mean over tasks of the place among the ranked rows, ties sharing the mean of their places.
        difference: average minus that of the baseline; None for the baseline itself, or if they share no complete seed.
        differences: the same per column.
        leads: per column whether it is the best row of three seeds or within noise of it; False for all where no such
            row is set apart. `average_leads`: the same for the average.
        chance: per column the score of ignoring the input, if this row is not above it; else None.
        trainable: trained parameters; this and all numbers below are means over runs.
        share: trained share of all parameters, 0 to 1.
        peak_memory_bytes: None if no run measured it.
        needed: median over runs of the rank needed; None where it is unknown, or above what was tried.
        needed_above: the largest rank that was tried and is too small, where the median is above it; else None.
        nominal, effective, stable, norm: ranks of ΔW and its spectral norm, over layers and runs; None without a ΔW.
        lrs: learning rates used, ascending; `selected`: by validation, for which `trials` runs were made; `at_edge`:
            one of them is the smallest or the largest that was tried.
        candidates: how many trials a selection of learning rate or options was to make; 0 where nothing was selected.
        rates: candidate learning rates of a selection; with a number of trials the ends of their range.
        rates_alone: no option was selected, and nothing by a number of trials.
        states: number of runs by state.
        failures: runs that are not done, as `cola seed 1`, by state; `failed_ids` has their ids.
        warnings: number of runs with a warning, by its text.
        superseded: number of older runs of the same task and seed, which are left out.
        group_ids: of the runs with a score, those of each task in turn.
        published: set if the scores are from a paper.
    """

    label: str
    method: str
    cells: tuple[Stat | None, ...]
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    runs: tuple[tuple[Scored, ...], ...]
    average: Stat | None = None
    iqm: float | None = None
    rank: int | None = None
    average_rank: float | None = None
    difference: Difference | None = None
    differences: tuple[Difference | None, ...]
    leads: tuple[bool, ...] = ()
    average_leads: bool = False
    chance: tuple[float | None, ...] = ()
    trainable: float | None = None
    share: float | None = None
    stored_bytes: float | None = None
    peak_memory_bytes: float | None = None
    needed: float | None = None
    needed_above: int | None = None
    nominal: float | None = None
    effective: float | None = None
    stable: float | None = None
    norm: float | None = None
    layers: tuple[Layer, ...] = ()
    lrs: tuple[float, ...] = ()
    selected: bool = False
    at_edge: bool = False
    trials: int = 0
    candidates: int = 0
    rates: tuple[float, ...] = ()
    rates_alone: bool = True
    train_s: float | None = None
    devices: tuple[str, ...] = ()
    states: Mapping[str, int] = field(default_factory=dict[str, int])
    failures: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    failed_ids: tuple[str, ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict[str, int])
    superseded: int = 0
    group_ids: tuple[str, ...] = ()
    cautions: tuple[RowCaution, ...] = ()
    published: Published | None = None

    @property
    def best(self) -> tuple[Stat | None, ...]:
        """Best evaluation during training per column, over the seeds of `cells`; None if one of them has none."""
        bests = (_bests(cell) for cell in self.runs)
        return tuple(Stat.of([*values.values()]) if values else None for values in bests)

    @property
    def best_average(self) -> Stat | None:
        """The average of these over tasks, over the seeds of `average`; None where that or one of them is None."""
        bests = [_bests(cell) for cell in self.runs]
        if self.average is None or not all(bests):
            return None
        return average_of(bests, common_keys(bests))[0]

    @property
    def learned_nothing(self) -> bool:
        """Whether no score is above chance, so that the ranks of ΔW say nothing."""
        scored = [chance for cell, chance in zip(self.cells, self.chance, strict=False) if cell]
        return bool(scored) and None not in scored

    @property
    def run_ids(self) -> list[str]:
        """Ids of the runs: those with a score, then those that are not done."""
        return [*(run.run_id for cell in self.runs for run in cell), *self.failed_ids]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that may be compared: `heading` names their suite, backbone, source, budget and precision.

    Attributes:
        baseline: label of the row that the others are compared with, if any.
        best: whether the best evaluation during training is shown beside every score.
        published: scores from papers for this backbone and these tasks; they have no rank.
        notes: sentences for the reader of the table.
    """

    suite: str
    heading: str
    backbone: str
    source: str
    budget: str
    split: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    baseline: str | None = None
    best: bool = False
    published: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
