"""A recommendation as text, and as JSON values."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bench.core.text import format_count, printable, table
from leaderboard.recommend.commands import commands
from leaderboard.recommend.recommendation import Candidate, Rank, Recommendation
from leaderboard.recommend.settling import MOST_SEEDS, MOST_TIMES, Settling
from leaderboard.render import cells

_STANDING = {
    "best": "best",
    "equal": "within noise",
    "worse": "worse",
    "unclear": "varies too much",
    "few": "too few seeds or tasks",
}


def render(found: Recommendation, runs: Path) -> str:
    """Write one recommendation with its reasons, all rows, and the next commands for the folder `runs`."""
    lines = [found.heading if len(found.columns) > 1 else f"{found.heading} · {_tasks(found)}", ""]
    lines += [f"  {line}".rstrip() for line in [*_advice(found), *_doubts(found)]]
    header = ("method", "score", "trained", "rank needed", "loss against the best", "standing", "runs")
    lines += ["", table(header, [_row(one, found) for one in found.candidates], indent="  ")]
    if following := commands(found, runs):
        lines += ["", "  next:", *(f"    {printable(shlex.join(command))}" for command in following)]
    return "\n".join(lines) + "\n"


def _tasks(found: Recommendation) -> str:
    return ", ".join(column.task for column in found.columns)


def _advice(found: Recommendation) -> list[str]:
    chosen, best, rank = found.chosen, found.best, found.rank
    if chosen is None or best is None:
        return [f"No recommendation: {found.why_none}."]
    at = f" at rank {rank.smaller}" if rank and rank.smaller and rank.option else ""
    lines = [f"Use {_name(chosen)}{at}.", ""]
    scores = f"{_name(chosen)} scores {_score(chosen, found)} with {cells.parameters(chosen.row)} trained parameters"
    if chosen is best:
        lines.append(f"{scores}: the best mean of all rows.")
    else:
        lines.append(f"{scores}, within noise of the best,")
        lines.append(
            f"{_name(best)} with {_score(best, found)} and {cells.parameters(best.row)}: it loses {_loss(chosen)}."
        )
    if rank:
        lines += _of_rank(rank, chosen)
    if smaller := found.next_smaller:
        costs = f"costs {_loss(smaller)}" if smaller.loss is not None else "has no seed in common with it"
        lines.append(f"The next smaller, {_name(smaller)} with {cells.parameters(smaller.row)}, {costs}.")
    return lines


def _of_rank(rank: Rank, chosen: Candidate) -> list[str]:
    if rank.needed is None:
        return [f"Rank: its update needs more than {rank.above} directions, the most that were tried alone."]
    span = "" if rank.lowest == rank.highest else f" ({rank.lowest:g} to {rank.highest:g} over its runs)"
    nominal = f"{rank.nominal:.1f}".removesuffix(".0")
    if rank.needed == 0:
        return [f"Rank: its score stays without the update{span}: the head alone may do, which is --method linear."]
    if not rank.smaller:
        return [f"Rank: its update needs all of its {nominal} directions{span}: a larger rank may score higher."]
    text = f"Rank: {rank.needed} of the {nominal} directions of its update score as well on these examples{span}."
    if not rank.option:
        return [text, f"A low-rank method of rank {rank.needed} may be enough."]
    count = f" it would train {format_count(rank.parameters)};" if rank.parameters is not None else ""
    return [
        text,
        f"At rank {rank.needed}{count} trained so from the start it may score otherwise: run the command below.",
    ]


def _doubts(found: Recommendation) -> list[str]:
    lines: list[str] = []
    chosen, best = found.chosen, found.best
    if chosen and best and chosen is not best and chosen.loss_high is not None:
        if chosen.loss_high <= found.margin:
            lines.append(f"It loses at most {chosen.loss_high:.3f}, which is less than {found.margin:g}.")
        else:
            text = f"Not certain: it may lose up to {chosen.loss_high:.3f}, and {found.margin:g} would not matter."
            lines.append(f"{text}{_needs(chosen.settling)}")
    for one in found.unclear:
        if one.standing == "few":
            lines.append(f"Unclear: {_name(one)}, which is smaller, has too few seeds, or lacks tasks.")
        elif one.loss is not None:
            text = f"Unclear: {_name(one)}, which is smaller, loses {_loss(one)}."
            lines.append(f"{text}{_needs(one.settling)}")
    cautions = {caution.text: None for one in (chosen, best) if one for caution in one.row.cautions}
    return [*lines, *(f"Mind: {text}." for text in cautions)]


def _needs(settling: Settling | None) -> str:
    """What would tell, as a sentence after another."""
    if settling is None:
        return ""
    parts = [f"{settling.seeds} seeds in all"] if settling.seeds else []
    parts += [f"{settling.examples:,} examples with the same seeds"] if settling.examples else []
    if parts:
        return f" About {', or '.join(parts)}{',' * (len(parts) > 1)} would tell."
    return f" Neither {MOST_SEEDS} seeds nor {MOST_TIMES} times the examples would tell."


def _row(one: Candidate, found: Recommendation) -> tuple[str, ...]:
    mark = "→ " if one is found.chosen else "  "
    ids = [run_id[: cells.SHORT] for run_id in one.run_ids]
    shown = " ".join(ids[:3]) + (f" +{len(ids) - 3}" if len(ids) > 3 else "")
    loss = _loss(one) if one.loss is not None else cells.NOTHING
    return (
        mark + _name(one),
        _score(one, found),
        cells.parameters(one.row),
        cells.rank_needed(one.row),
        loss,
        _STANDING[one.standing],
        shown,
    )


def _name(one: Candidate) -> str:
    return cells.one_line(one.row.label)


def _score(one: Candidate, found: Recommendation) -> str:
    direction = found.columns[0].higher_is_better
    return cells.average(one.row, direction) if len(found.columns) > 1 else cells.score(one.row.cells[0], direction)


def _loss(one: Candidate) -> str:
    """`0.012 [-0.003, 0.027]`: the loss and its interval."""
    if one.loss is None:
        return cells.NOTHING
    if one.loss_low is None or one.loss_high is None:
        return f"{one.loss:z.3f}"
    return f"{one.loss:z.3f} [{one.loss_low:z.3f}, {one.loss_high:z.3f}]"


def to_json(found: Recommendation, runs: Path) -> Mapping[str, object]:
    """The same as JSON values."""
    return {
        "heading": found.heading,
        "tasks": [column.task_id for column in found.columns],
        "metrics": [column.metric for column in found.columns],
        "recommended": found.chosen.row.label if found.chosen else None,
        "rank": asdict(found.rank) | {"smaller": found.rank.smaller} if found.rank else None,
        "best": found.best.row.label if found.best else None,
        "why_none": found.why_none or None,
        "margin": found.margin,
        "next_smaller": _candidate_json(found.next_smaller, found) if found.next_smaller else None,
        "rows": [_candidate_json(one, found) for one in found.candidates],
        "commands": [shlex.join(command) for command in commands(found, runs)],
        "text": [*filter(None, [*_advice(found), *_doubts(found)])],
    }


def _candidate_json(one: Candidate, found: Recommendation) -> Mapping[str, object]:
    row = one.row
    score = row.average if len(found.columns) > 1 else row.cells[0]
    return {
        "row": row.label,
        "method": row.method,
        "standing": one.standing,
        "score": asdict(score) if score else None,
        "trained": row.trainable,
        "rank_needed": row.needed,
        "loss": one.loss,
        "loss_interval": None if one.loss_low is None else [one.loss_low, one.loss_high],
        "settled_by": one.settling._asdict() if one.settling else None,
        "run_ids": one.run_ids,
    }
