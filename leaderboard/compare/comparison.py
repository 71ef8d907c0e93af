"""Comparison of two sides: specifications, scores seed by seed, costs and ranks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from bench.records.record import DoneRecord, is_done
from leaderboard.compare.ratios import LayerPair, Ratio, layer_pairs, ratios
from leaderboard.compare.selection import Side
from leaderboard.compare.specifications import Caution, FieldDifference, compare_specs
from leaderboard.render.cells import span
from leaderboard.tables.cautions import SEEDS
from leaderboard.tables.grouping import seed_key, short_task
from leaderboard.tables.intervals import Difference, common_keys, difference, interquartile_mean
from leaderboard.tables.table import Stat

Verdict = Literal["better", "worse", "equal"]
Key = tuple[int, str]
"""Seed, and hash of the initial weights; the hash is empty if the sides never started from the same weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Summary of a side.

    Attributes:
        label: description of the selection.
        methods, tasks, seeds: of its runs.
        states: number of runs by state.
        superseded: number of older runs of the same specification, which are left out.
    """

    name: str
    label: str
    runs: int
    methods: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    states: Mapping[str, int]
    superseded: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Scores of both sides on one task, or their average over tasks.

    Attributes:
        metric: empty for the average.
        higher_is_better: None if unknown or different.
        a, b: over all seeds of the side; for the average, over the seeds that every task has on both sides.
        difference: B minus A over the common seeds; None if there are none, or if the scores are not comparable.
        verdict: on B; None without a difference or a direction.
        sure: the confidence interval of the difference excludes zero.
        alone: seeds of A, and of B, that the other side lacks; they are not part of the difference.
        note: why there is no difference.
    """

    task: str
    metric: str
    higher_is_better: bool | None
    a: Stat | None
    b: Stat | None
    difference: Difference | None = None
    verdict: Verdict | None = None
    sure: bool = False
    alone: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overall(Score):
    """The average over tasks; `iqm_a` and `iqm_b`: interquartile means over tasks and seeds."""

    iqm_a: float | None = None
    iqm_b: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything in which B differs from A.

    Attributes:
        fields: fields of the specifications that differ.
        equal: number of equal fields.
        cautions: reasons why the comparison may be unfair.
        scores: one per task of either side.
        overall: over the tasks with a difference; None for fewer than two.
        ratios: B/A of sizes, times and ranks.
        layers: in the order of the side that adapts more, then those that only the other side adapts.
    """

    a: Summary
    b: Summary
    fields: tuple[FieldDifference, ...]
    equal: int
    cautions: tuple[Caution, ...]
    scores: tuple[Score, ...]
    overall: Overall | None
    ratios: tuple[Ratio, ...]
    layers: tuple[LayerPair, ...]


def compare(a: Side, b: Side) -> Comparison:
    """Compare `b` with `a`."""
    mine, theirs = _by_task(a), _by_task(b)
    fields, equal, cautions = compare_specs(a, b)
    keys = _Keys(mine, theirs)
    scores = [_score(task, mine.get(task, []), theirs.get(task, []), keys) for task in sorted({*mine, *theirs})]
    common = sorted(mine.keys() & theirs.keys())
    return Comparison(
        a=_summary(a),
        b=_summary(b),
        fields=fields,
        equal=equal,
        cautions=(*cautions, *_few_seeds(scores)),
        scores=tuple(scores),
        overall=_overall([one for one in scores if one.difference], mine, theirs, keys),
        ratios=ratios(mine, theirs, common),
        layers=layer_pairs(mine, theirs, common),
    )


class _Keys:
    """Keys of repetitions: the seed, with the initial weights if both sides started a seed of a task from the same."""

    def __init__(self, mine: Mapping[str, list[DoneRecord]], theirs: Mapping[str, list[DoneRecord]]) -> None:
        self.by_weights = any(
            {seed_key(run) for run in mine[task]} & {seed_key(run) for run in theirs[task]}
            for task in mine.keys() & theirs.keys()
        )

    def scores(self, runs: Iterable[DoneRecord]) -> dict[Key, float]:
        """Score by seed; the mean if a side has several runs of a seed."""
        found: defaultdict[Key, list[float]] = defaultdict(list)
        for run in runs:
            seed, weights = seed_key(run)
            found[seed, weights if self.by_weights else ""].append(run.metrics.primary.value)
        return {key: fmean(values) for key, values in sorted(found.items())}

    @staticmethod
    def named(keys: Iterable[Key], among: Iterable[Key]) -> tuple[str, ...]:
        """Seeds as text, with their weights if `among` has the seed twice."""
        count = Counter(seed for seed, _ in set(among))
        return tuple(f"{seed} (weights {w[:7]})" if count[seed] > 1 else str(seed) for seed, w in sorted(keys))


def _summary(side: Side) -> Summary:
    runs = side.records
    return Summary(
        name=side.name,
        label=side.label,
        runs=len(runs),
        methods=tuple(sorted({run.spec.method for run in runs})),
        tasks=tuple(sorted({run.spec.task for run in runs})),
        seeds=tuple(sorted({run.spec.seed for run in runs})),
        states=dict(sorted(Counter(run.state for run in runs).items())),
        superseded=side.superseded,
    )


def _by_task(side: Side) -> dict[str, list[DoneRecord]]:
    found: defaultdict[str, list[DoneRecord]] = defaultdict(list)
    for run in side.records:
        if is_done(run):
            found[run.spec.task].append(run)
    return dict(found)


def _score(task: str, mine: list[DoneRecord], theirs: list[DoneRecord], keys: _Keys) -> Score:
    one, two = keys.scores(mine), keys.scores(theirs)
    metrics = {_metric(run) for run in (*mine, *theirs)}
    names, directions = {name for name, *_ in metrics}, {higher for _, _, higher, _ in metrics}
    direction = directions.pop() if len(directions) == 1 else None
    found = Score(
        task=task,
        metric=" / ".join(sorted(names)),
        higher_is_better=direction,
        a=Stat.of([*one.values()]) if one else None,
        b=Stat.of([*two.values()]) if two else None,
    )
    reason = _incomparable(mine, theirs, metrics)
    change = None if reason else difference([two], [one])
    if not change:
        return replace(found, note=reason or "no common seed")
    every = {*one, *two}
    alone = keys.named(one.keys() - two.keys(), every), keys.named(two.keys() - one.keys(), every)
    return replace(found, difference=change, verdict=_verdict(change.mean, direction), sure=_sure(change), alone=alone)


def _metric(run: DoneRecord) -> tuple[str, str, bool, str]:
    primary = run.metrics.primary
    return primary.name, primary.split, primary.higher_is_better, primary.of


def _incomparable(mine: list[DoneRecord], theirs: list[DoneRecord], metrics: set[tuple[str, str, bool, str]]) -> str:
    """Why the scores of a task are not comparable; empty if they are."""
    if not mine or not theirs:
        return f"only {'A' if mine else 'B'} has it"
    data = {(str(run.task.version), run.source.data_hash) for run in (*mine, *theirs)}
    if len(data) > 1:
        return "the data differ: not compared"
    if len(metrics) > 1:
        names = sorted(f"{name} on {split}{f' of the {of}' * (of != 'task')}" for name, split, _, of in metrics)
        return f"the metrics differ ({', '.join(names)}): not compared"
    return ""


def _verdict(mean: float, higher: bool | None) -> Verdict | None:
    if higher is None:
        return None
    return "equal" if mean == 0 else "better" if (mean > 0) == higher else "worse"


def _sure(change: Difference) -> bool:
    return change.low is not None and change.high is not None and (change.low > 0 or change.high < 0)


def _overall(
    scores: Sequence[Score], mine: Mapping[str, list[DoneRecord]], theirs: Mapping[str, list[DoneRecord]], keys: _Keys
) -> Overall | None:
    if len(scores) < 2:
        return None
    directions = {one.higher_is_better for one in scores}
    direction = directions.pop() if len(directions) == 1 else None
    found = Overall(task=f"average of {len(scores)} tasks", metric="", higher_is_better=direction, a=None, b=None)
    if directions:
        return replace(found, note="no average: higher is better for some tasks, lower for others")
    one, two = ([keys.scores(runs[score.task]) for score in scores] for runs in (mine, theirs))
    change = difference(two, one)
    if change is None:
        return replace(found, note="no common seed with every task")
    shared = sorted(common_keys((*one, *two)))
    grids = [[[cell[key] for cell in cells] for key in shared] for cells in (one, two)]
    a, b = (Stat.of([fmean(row) for row in grid]) for grid in grids)
    iqm_a, iqm_b = (interquartile_mean([value for row in grid for value in row]) for grid in grids)
    every = {key for cell in (*one, *two) for key in cell}
    alone = [keys.named({key for cell in cells for key in cell}.difference(shared), every) for cells in (one, two)]
    return replace(
        found,
        a=a,
        b=b,
        difference=change,
        verdict=_verdict(change.mean, direction),
        sure=_sure(change),
        alone=(alone[0], alone[1]),
        iqm_a=iqm_a,
        iqm_b=iqm_b,
    )


def _few_seeds(scores: Sequence[Score]) -> list[Caution]:
    few = [one for one in scores if one.difference and one.difference.seeds < SEEDS]
    if not few:
        return []
    counts = sorted({one.difference.seeds for one in few if one.difference})
    tasks = ", ".join(short_task(one.task) for one in few)
    plural = "s" if counts[-1] > 1 else ""
    text = f"only {span(counts)} common seed{plural} on {tasks}: fewer than three say little about random variation"
    return [Caution("seeds", text)]
