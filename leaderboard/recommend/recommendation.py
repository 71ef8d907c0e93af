"""The smallest method that is as good as the best: which it is, which rank it needs, and what is too uncertain to say.

Within noise of the best is not enough: with three seeds a probe that loses five points may be so. The chosen row is the
smallest one within noise whose mean also loses no more than a margin; those that lose more are named as unclear.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bench.records.record import DoneRecord, Record
from leaderboard.recommend.settling import Settling, settling
from leaderboard.tables.build import build_tables
from leaderboard.tables.cautions import SEEDS
from leaderboard.tables.examples import Examples
from leaderboard.tables.intervals import Difference
from leaderboard.tables.standing import Comparer
from leaderboard.tables.table import Column, Row, Scored, Table

MARGIN = 0.01
"""A loss of score that does not matter, unless the user says otherwise."""
Standing = Literal["best", "equal", "worse", "unclear", "few"]
"""best; within noise of it; set apart from it; with deviations too large for either; with too few seeds or tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A row with scores, and how it stands to the best.

    Attributes:
        loss: how much worse its mean is than that of the best; negative only where seeds of the best are missing here.
        loss_low, loss_high: the interval of that; None if there is none.
        settling: what would narrow it enough to say more; None where nothing is open, or nothing can be estimated.
    """

    row: Row
    standing: Standing
    loss: float | None = None
    loss_low: float | None = None
    loss_high: float | None = None
    settling: Settling | None = None

    @property
    def runs(self) -> list[Scored]:
        return [run for cell in self.row.runs for run in cell]

    @property
    def run_ids(self) -> list[str]:
        return [run.run_id for run in self.runs]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """The rank that the chosen row needed on dev.

    Attributes:
        needed: median over its runs, rounded up; `lowest` and `highest` of them. None where it is above what was tried.
        above: the largest rank that was tried and is too small, then; else None.
        nominal: the rank that its updates could have, mean over layers.
        option: whether the method has it as `method.rank`.
        parameters: trained ones at the rank needed; None where no formula is known.
    """

    needed: int | None
    lowest: float
    highest: float
    above: int | None
    nominal: float
    option: bool
    parameters: float | None

    @property
    def smaller(self) -> int | None:
        """A rank below the present one that is enough; None where there is none."""
        return self.needed if self.needed and self.needed < self.nominal else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What a table, or one of its tasks, says.

    Attributes:
        heading, columns: what was compared.
        candidates: all rows with a score, the one with the most trained parameters first.
        chosen: the one that is recommended; None for the reason `why_none`,
            which may be that no row has enough seeds: `few_seeds`.
        next_smaller: the largest one below it, and how much worse that is than the chosen.
        margin: the loss of score that does not matter.
    """

    heading: str
    columns: tuple[Column, ...]
    candidates: tuple[Candidate, ...]
    best: Candidate | None = None
    chosen: Candidate | None = None
    why_none: str = ""
    few_seeds: bool = False
    next_smaller: Candidate | None = None
    rank: Rank | None = None
    margin: float = MARGIN

    @property
    def unclear(self) -> list[Candidate]:
        """Smaller rows than the chosen one that might be good enough."""
        if self.chosen is None:
            return []
        at = self.candidates.index(self.chosen)
        return [one for one in self.candidates[at + 1 :] if one.standing in ("equal", "unclear", "few")]


def recommend(
    records: Iterable[Record], examples: Examples | None = None, *, margin: float = MARGIN
) -> Iterator[Recommendation]:
    """Yield a recommendation for each table of comparable rows and, where it has several tasks, for each of these."""
    records, examples = [*records], examples or Examples()
    compare = Comparer(records, examples)
    for table in build_tables(records, examples=examples):
        if not any(any(row.cells) for row in table.rows):
            continue
        yield _of_table(table, compare, margin)
        for i in range(len(table.columns) if len(table.columns) > 1 else 0):
            of_task = [run.record for row in table.rows for run in row.runs[i]]
            for alone in build_tables(of_task, examples=examples):
                yield _of_table(alone, compare, margin)


def _of_table(table: Table, compare: Comparer, margin: float) -> Recommendation:
    rows = [row for row in table.rows if any(row.cells) and row.trainable is not None]
    ranked = [row for row in rows if row.rank]
    best = ranked[0] if ranked else None
    comparisons = max(1, len(ranked) - 1)
    found = [_candidate(row, best, compare, _sign(table), margin, comparisons) for row in rows]
    found.sort(key=lambda one: -(one.row.trainable or 0))
    made = Recommendation(heading=table.heading, columns=table.columns, candidates=tuple(found), margin=margin)
    if best is None:
        most = max(min((cell.n for cell in row.cells if cell), default=0) for row in rows)
        return replace(made, why_none=_why_unranked(table, most), few_seeds=most < SEEDS)
    top = next(one for one in found if one.row is best)
    made = replace(made, best=top)
    if best.learned_nothing:
        return replace(made, why_none="no method is above the score of ignoring the input")
    if len(found) == 1:
        return replace(made, why_none="there is but one method, and nothing to compare it with")
    alike = [one for one in found if one.standing in ("best", "equal") and not one.row.learned_nothing]
    enough = [one for one in alike if one.standing == "best" or (one.loss is not None and one.loss <= margin)]
    chosen = enough[-1]
    smaller = [
        one for one in found[found.index(chosen) + 1 :] if (one.row.trainable or 0) < (chosen.row.trainable or 0)
    ]
    return replace(
        made,
        chosen=chosen,
        next_smaller=_against(smaller[0], chosen, compare, _sign(table)) if smaller else None,
        rank=_rank(chosen.row),
    )


def _sign(table: Table) -> int:
    return -1 if table.columns[0].higher_is_better is False else 1


def _why_unranked(table: Table, most: int) -> str:
    if len({column.higher_is_better for column in table.columns}) > 1:
        return "higher is better for some tasks and lower for others, so there is no average"
    if most >= SEEDS:
        return "no method has every task with the same seeds"
    return (
        f"a method counts with {SEEDS} seeds or more, and {most} {'is' if most == 1 else 'are'} the most that one has"
    )


def _candidate(row: Row, best: Row | None, compare: Comparer, sign: int, margin: float, comparisons: int) -> Candidate:
    if best is None:
        return Candidate(row=row, standing="few")
    if row is best:
        return Candidate(row=row, standing="best")
    difference = compare.difference(row.runs, best.runs, comparisons=comparisons)
    low, high = _losses(difference, sign)
    standing: Standing = "few"
    if row.rank:
        standing = "equal" if row.rank == 1 else "unclear" if difference and difference.holds_zero else "worse"
    loss = -sign * difference.mean if difference else None
    open_question = standing == "unclear" or (standing == "equal" and high is not None and high > margin)
    needs = None
    if open_question and difference and difference.tasks == 1 and difference.seeds > 1 and loss is not None:
        paired = compare.pair(row.runs, best.runs)
        # narrow enough that the interval leaves zero, or stays within the margin, whichever is nearer
        width = max(abs(loss), margin - loss)
        needs = settling(paired, width, comparisons=comparisons) if paired else None
    return Candidate(row=row, standing=standing, loss=loss, loss_low=low, loss_high=high, settling=needs)


def _against(smaller: Candidate, chosen: Candidate, compare: Comparer, sign: int) -> Candidate:
    """The smaller one with what it loses against the chosen one, not against the best."""
    difference = compare.difference(smaller.row.runs, chosen.row.runs)
    low, high = _losses(difference, sign)
    loss = -sign * difference.mean if difference else None
    return Candidate(row=smaller.row, standing=smaller.standing, loss=loss, loss_low=low, loss_high=high)


def _losses(difference: Difference | None, sign: int) -> tuple[float | None, float | None]:
    if difference is None or difference.low is None or difference.high is None:
        return None, None
    low, high = sorted((-sign * difference.low, -sign * difference.high))
    return low, high


def _rank(row: Row) -> Rank | None:
    done = [run.record for cell in row.runs for run in cell if run.record.truncation]
    if not done or row.nominal is None:
        return None
    found = [run.truncation.rank_needed for run in done if run.truncation]
    known = [math.inf if one is None else one for one in found]
    needed = None if row.needed is None else math.ceil(row.needed)
    return Rank(
        needed=needed,
        lowest=min(known),
        highest=max(known),
        above=row.needed_above,
        nominal=row.nominal,
        option="method.rank" in done[0].spec.options.flat(),
        parameters=None if needed is None else _parameters_at(done, needed),
    )


def _parameters_at(runs: Sequence[DoneRecord], rank: int) -> float | None:
    """Trained parameters with another rank, where they are r·(m + n) on each layer and the head, which is checked."""
    heads: list[int] = []
    for run in runs:
        factors = sum(layer.nominal * sum(layer.shape) for layer in run.ranks)
        if factors + run.params.head != run.params.trainable:
            return None
        heads.append(run.params.head)
    widths = sum(sum(layer.shape) for layer in runs[0].ranks)
    return rank * widths + sum(heads) / len(heads)
