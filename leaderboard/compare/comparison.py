"""Comparison of two sides: specifications, scores seed by seed, costs and ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Literal, TypeVar

from bench.records.record import DoneRecord, is_done
from leaderboard.compare.rank_caution import rank_caution
from leaderboard.compare.ratios import LayerPair, Ratio, Runs, layer_pairs, ratios
from leaderboard.compare.selection import Side
from leaderboard.compare.specifications import Caution, FieldDifference, compare_specs
from leaderboard.render.cells import span
from leaderboard.tables.cautions import SEEDS
from leaderboard.tables.examples import Examples
from leaderboard.tables.grouping import Seed, group_by, seed_key, short_task
from leaderboard.tables.intervals import Difference, Drawn, common_keys, difference
from leaderboard.tables.table import Stat, average_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Verdict = Literal["better", "worse", "equal"]
S = TypeVar("S", bound="Score")


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Summary of a side: its `label`, and what is in its runs; `superseded` counts those that a newer one replaces."""

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
        higher_is_better: None if unknown or different.
        a, b: over all seeds of the side, None if its runs measure different things; for the average, over the seeds
            that every task has on both sides.
        difference: B minus A over the common seeds; None if there are none, or with a `note` that says why.
        verdict: on B; it is `sure` if the confidence interval of the difference excludes zero and is over
            several seeds: one over the examples of one seed says nothing of another seed.
        alone: seeds of A, and of B, that the other side lacks; they are not part of the difference.
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
    """Everything in which B differs from A: `fields` of the specifications, `scores` by task, costs and ranks.

    Attributes:
        equal: number of equal fields.
        rank_caution: why ranks, also in `layers`, say little about the methods; empty where they may be compared.
        overall: over the tasks with a difference; None for fewer than two.
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
    rank_caution: str = ""


def compare(a: Side, b: Side, examples: Examples | None = None) -> Comparison:
    """Compare two sides; with `examples`, what their runs kept of their outputs, intervals are over these too."""
    examples = examples or Examples()
    drawn = _Drawer(examples)
    runs_a, runs_b = (group_by(filter(is_done, side.records), lambda run: run.spec.task) for side in (a, b))
    common = sorted(runs_a.keys() & runs_b.keys())
    fields, equal, cautions = compare_specs(a, b)
    by_weights = any({*map(seed_key, runs_a[task])} & {*map(seed_key, runs_b[task])} for task in common)
    tasks = sorted({*runs_a, *runs_b})
    scores = [_score(task, runs_a.get(task, []), runs_b.get(task, []), drawn, by_weights=by_weights) for task in tasks]
    paired = [score for score in scores if score.difference]
    measured_a, measured_b = ({task: runs[task] for task in common or runs} for runs in (runs_a, runs_b))
    layers = layer_pairs(measured_a, measured_b)
    return Comparison(
        a=_summary(a),
        b=_summary(b),
        fields=fields,
        equal=equal,
        cautions=(*cautions, *_few_seeds(paired)),
        scores=tuple(scores),
        overall=_overall(paired, runs_a, runs_b, drawn, by_weights=by_weights) if len(paired) > 1 else None,
        ratios=ratios(measured_a, measured_b),
        layers=layers,
        rank_caution=rank_caution(scores, layers, measured_a, measured_b, examples),
    )


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


def _groups(runs: Iterable[DoneRecord], *, by_weights: bool) -> dict[Seed, list[DoneRecord]]:
    """Runs by seed, with its initial weights if both sides started from the same."""
    groups = group_by(runs, lambda run: seed_key(run) if by_weights else (run.spec.seed, ""))
    return {seed: groups[seed] for seed in sorted(groups)}


def _by_seed(runs: Iterable[DoneRecord], *, by_weights: bool) -> dict[Seed, float]:
    """Score by seed; the mean of several runs."""
    groups = _groups(runs, by_weights=by_weights)
    return {seed: fmean(run.metrics.primary.value for run in group) for seed, group in groups.items()}


class _Drawer:
    """Draws the examples of a task, for both sides alike."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples

    def __call__(self, a: list[DoneRecord], b: list[DoneRecord], *, by_weights: bool) -> Drawn[Seed]:
        """B against A, as their difference is; the mean of several runs of a seed."""
        mine, others = (self._by_seed(runs, by_weights=by_weights) for runs in (b, a))
        return Drawn(mine, others, b[0].metrics.primary.n if b else 0)

    def _by_seed(self, runs: list[DoneRecord], *, by_weights: bool) -> dict[Seed, NDArray[np.floating]]:
        import numpy as np

        groups = _groups(runs, by_weights=by_weights)
        found = {seed: [*map(self._examples.of, group)] for seed, group in groups.items()}
        return {
            seed: np.mean([one.drawn for one in group if one], axis=0)
            for seed, group in found.items()
            if None not in group
        }


def _score(task: str, runs_a: list[DoneRecord], runs_b: list[DoneRecord], drawn: _Drawer, *, by_weights: bool) -> Score:
    a, b = (_by_seed(runs, by_weights=by_weights) for runs in (runs_a, runs_b))
    primaries = [run.metrics.primary for run in (*runs_a, *runs_b)]
    score = Score(
        task=task,
        metric=" / ".join(sorted({primary.name for primary in primaries})),
        higher_is_better=_common({primary.higher_is_better for primary in primaries}),
        a=Stat.of([*a.values()]) if len(_measures(runs_a)) == 1 else None,
        b=Stat.of([*b.values()]) if len(_measures(runs_b)) == 1 else None,
    )
    if reason := _incomparable(runs_a, runs_b):
        return replace(score, note=reason)
    return _paired(score, [a], [b], [drawn(runs_a, runs_b, by_weights=by_weights)], "no common seed")


def _paired(
    score: S, a: list[dict[Seed, float]], b: list[dict[Seed, float]], drawn: list[Drawn[Seed]], missing: str
) -> S:
    """`score` with the difference of the scores by seed of each task; without a common seed, `missing` says so."""
    change = difference(b, a, drawn)
    if change is None:
        return replace(score, note=missing)
    verdict: Verdict | None = None
    if score.higher_is_better is not None:
        better = (change.mean > 0) == score.higher_is_better
        verdict = "equal" if change.mean == 0 else "better" if better else "worse"
    seeds_a, seeds_b = ({seed for by_seed in side for seed in by_seed} for side in (a, b))
    shared, twice = common_keys((*a, *b)), Counter(seed for seed, _ in seeds_a | seeds_b)

    def alone(seeds: set[Seed]) -> tuple[str, ...]:
        """Seeds as text, with their weights if a seed occurs twice."""
        only = sorted(seeds - shared)
        return tuple(f"{seed} (weights {weights[:7]})" if twice[seed] > 1 else str(seed) for seed, weights in only)

    return replace(
        score,
        difference=change,
        verdict=verdict,
        sure=change.holds_zero is False and change.seeds > 1,
        alone=(alone(seeds_a), alone(seeds_b)),
    )


def _common(directions: set[bool | None]) -> bool | None:
    """The direction that all metrics have; None if they differ."""
    return directions.pop() if len(directions) == 1 else None


def _incomparable(a: list[DoneRecord], b: list[DoneRecord]) -> str:
    """Why the scores of a task are not comparable; empty if they are."""
    if not a or not b:
        return f"only {'A' if a else 'B'} has it"
    if len({(str(run.task.version), run.source.data_hash) for run in (*a, *b)}) > 1:
        return "the data differ: not compared"
    if len(measures := _measures((*a, *b))) > 1:
        return f"the metrics differ ({', '.join(measures)}): not compared"
    return ""


def _measures(runs: Iterable[DoneRecord]) -> list[str]:
    """What was measured, in words; scores of several measures have no mean."""
    primaries = (run.metrics.primary for run in runs)
    return sorted(
        {
            f"{one.name} on {one.n} of {one.split}{f', of the {one.of}' * (one.of != 'task')}"
            f"{', lower is better' * (not one.higher_is_better)}"
            for one in primaries
        }
    )


def _overall(scores: Sequence[Score], runs_a: Runs, runs_b: Runs, drawn: _Drawer, *, by_weights: bool) -> Overall:
    direction = _common({score.higher_is_better for score in scores})
    name = f"average of {len(scores)} tasks"
    overall = Overall(task=name, metric="", higher_is_better=direction, a=None, b=None)
    if direction is None:
        return replace(overall, note="no average: higher is better for some tasks, lower for others")
    a, b = ([_by_seed(runs[score.task], by_weights=by_weights) for score in scores] for runs in (runs_a, runs_b))
    if shared := common_keys((*a, *b)):
        (mean_a, iqm_a), (mean_b, iqm_b) = average_of(a, shared), average_of(b, shared)
        overall = replace(overall, a=mean_a, b=mean_b, iqm_a=iqm_a, iqm_b=iqm_b)
    tasks = [drawn(runs_a[score.task], runs_b[score.task], by_weights=by_weights) for score in scores]
    return _paired(overall, a, b, tasks, "no common seed with every task")


def _few_seeds(paired: Sequence[Score]) -> list[Caution]:
    seeds = {score.task: score.difference.seeds for score in paired if score.difference}
    few = {task: count for task, count in seeds.items() if count < SEEDS}
    if not few:
        return []
    text = f"only {span(few.values())} common seed{'s' if max(few.values()) > 1 else ''}"
    text += f" on {', '.join(map(short_task, few))}: fewer than three say little about random variation"
    return [Caution("seeds", text)]
