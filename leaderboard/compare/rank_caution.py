"""Whether the ranks of two sides may be compared: only runs that learned the same say how a method gets there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from leaderboard.compare.ratios import LayerPair, Runs
from leaderboard.render import cells
from leaderboard.tables.examples import Examples
from leaderboard.tables.grouping import short_task
from leaderboard.tables.standing import Comparer

if TYPE_CHECKING:
    from leaderboard.compare.comparison import Score

MOST = 4
"""Tasks that are named."""


def rank_caution(scores: Sequence[Score], layers: Sequence[LayerPair], a: Runs, b: Runs, examples: Examples) -> str:
    """Return why the ranks of A and B say little about the methods; empty where they may be compared, or are not.

    They may not where a side has learned nothing, where scores differ beyond noise (the interval of the difference
    excludes zero, over seeds or over the examples of one), and where that is not known for any task.
    """
    if not any(pair.a for pair in layers) or not any(pair.b for pair in layers):
        return ""
    compare = Comparer([run for side in (a, b) for runs in side.values() for run in runs], examples)
    reasons: list[str] = []
    for name, side in (("A", a), ("B", b)):
        chance = {task: found for task, runs in side.items() if (found := compare.chance(runs)) is not None}
        if chance:
            tasks = _few([f"{short_task(task)} ({score:.3f})" for task, score in chance.items()])
            reasons.append(f"{name} is not above the score of ignoring the input on {tasks}")
    apart = [score for score in scores if score.difference and score.difference.holds_zero is False]
    if apart:
        tasks = _few([f"{short_task(score.task)} {cells.difference(score.difference)}" for score in apart])
        reasons.append(f"scores differ beyond noise (B minus A: {tasks})")
    if reasons:
        return f"{'; '.join(reasons)}: ranks of such runs say little about the methods"
    if not any(score.difference and score.difference.holds_zero for score in scores):
        return "whether scores differ beyond noise is not known; where they do, ranks say little about the methods"
    return ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST]) + (" …" if names[MOST:] else "")
