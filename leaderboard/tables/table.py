"""What a table is: columns, rows and their statistics, in plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from leaderboard.tables.grouping import Seed
from leaderboard.tables.intervals import Difference

State = Literal["done", "failed", "oom", "diverged", "cancelled", "preempted", "running"]


@dataclass(frozen=True, slots=True)
class Stat:
    """Mean of `n` seeds and their standard deviation (n − 1 in the denominator; None for one seed)."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Stat:
        """Statistics of at least one value; their order changes nothing, not even the last bit."""
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


class Scored(NamedTuple):
    """A finished run's score: `seed` tells repetitions apart, `value` is the primary metric."""

    seed: Seed
    value: float
    run_id: str


class Layer(NamedTuple):
    """The rank of one layer's ΔW, mean over a row's runs."""

    name: str
    nominal: float
    effective: float
    stable: float
    norm: float


class Mark(NamedTuple):
    """Why a row may mislead whoever compares it with the others: a word to tell such reasons apart, and the reason."""

    code: Literal["seeds", "steps", "batch", "selection"]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where the figures of a published row come from.

    Attributes:
        source: who reported them.
        arxiv: the paper.
        metrics: per column the metric that was reported; None where nothing was.
        note: how they differ from this suite's.
    """

    source: str
    arxiv: str
    metrics: tuple[str | None, ...]
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One task, on one version of its data.

    Attributes:
        task: name without the suite.
        cell: the whole name, such as glue/cola.
        metric: primary metric, empty where no run of this task is done.
        split: split the metric was measured on.
        higher_is_better: direction of the metric; None where it is unknown.
        data: version and first digits of the data's hash where two columns are of the same task, else empty.
        note: the task's caveat.
    """

    task: str
    cell: str
    metric: str
    split: str
    higher_is_better: bool | None
    data: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One configuration over all tasks and seeds of its table.

    Attributes:
        label: the method, with the settings that tell it from other rows of this method.
        settings: every setting, as text.
        cells: score per column; None where no run is done.
        runs: the runs behind each cell, by seed.
        average: over the seeds that have every task of the table; None where there is no such seed.
        iqm: interquartile mean of these scores.
        rank: place by average, 1 is best; None without an average over three seeds.
        average_rank: mean over tasks of the place among the ranked rows, ties sharing the mean of their places.
        difference: average minus the baseline's; None for the baseline itself and where they share no complete seed.
        differences: the same per column.
        trainable: trained parameters, mean over runs, as are all numbers below.
        share: trained share of all parameters, 0 to 1.
        stored_bytes: bytes of what was trained.
        peak_memory_bytes: None where no run knows it.
        rank_used: effective and nominal rank of ΔW over layers and runs; None without a ΔW.
        stable: stable rank of ΔW.
        norm: spectral norm of ΔW.
        layers: the same, layer by layer.
        lrs: learning rates really used, ascending.
        selected: whether they were chosen by validation.
        trials: runs that this choice took.
        train_s: seconds of training.
        devices: names of the devices it ran on.
        states: how many runs ended how; a done run counts where its score is shown.
        failures: runs that are not done, as `cola seed 1`, by state.
        failed_ids: their ids.
        warnings: how many runs carry a warning, by its text.
        superseded: older runs of the same task and seed, left out.
        marks: what makes a comparison suspicious.
        published: set where the figures are a paper's, not ours.
    """

    label: str
    method: str
    cells: tuple[Stat | None, ...]
    settings: Mapping[str, str]
    runs: tuple[tuple[Scored, ...], ...] = ()
    average: Stat | None = None
    iqm: float | None = None
    rank: int | None = None
    average_rank: float | None = None
    difference: Difference | None = None
    differences: tuple[Difference | None, ...] = ()
    trainable: float | None = None
    share: float | None = None
    stored_bytes: float | None = None
    peak_memory_bytes: float | None = None
    rank_used: tuple[float, float] | None = None
    stable: float | None = None
    norm: float | None = None
    layers: tuple[Layer, ...] = ()
    lrs: tuple[float, ...] = ()
    selected: bool = False
    trials: int = 0
    train_s: float | None = None
    devices: tuple[str, ...] = ()
    states: Mapping[str, int]
    failures: Mapping[str, tuple[str, ...]]
    failed_ids: tuple[str, ...] = ()
    warnings: Mapping[str, int]
    superseded: int = 0
    marks: tuple[Mark, ...] = ()
    published: Published | None = None

    @property
    def scores(self) -> list[dict[Seed, float]]:
        """Score by seed, per column."""
        return [{run.seed: run.value for run in cell} for cell in self.runs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows that may be compared: one suite, backbone, source, budget and precision, all of them in `heading`.

    Attributes:
        baseline: label of the row that the others are held against, if any.
        published: figures of papers for this backbone and these tasks; never ranked.
        notes: what a reader of the table must know.
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
    published: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
