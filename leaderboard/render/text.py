"""Cells of a table as text: scores, counts, sizes and times as people read them."""

from __future__ import annotations

from bench.core.text import DECIMALS, SMALL, format_count, format_score, format_trained
from leaderboard.tables.grouping import number
from leaderboard.tables.intervals import Difference
from leaderboard.tables.table import Column, Row, Stat, Table

NOTHING = "–"
_WARNINGS_SHOWN = 3


def score(stat: Stat | None, higher_is_better: bool | None = True) -> str:
    """`0.813 ± 0.004`."""
    if stat is None:
        return NOTHING
    small = higher_is_better is False and abs(stat.mean) < SMALL
    spread = "" if stat.sd is None else f" ± {stat.sd:.2g}" if small else f" ± {stat.sd:.{DECIMALS}f}"
    return f"{format_score(stat.mean, higher_is_better)}{spread}"


def average(row: Row, higher_is_better: bool | None) -> str:
    """The average, or how many of the tasks are there."""
    done = sum(cell is not None for cell in row.cells)
    return f"{done}/{len(row.cells)}" if done < len(row.cells) else score(row.average, higher_is_better)


def difference(apart: Difference | None) -> str:
    """`+0.012 [-0.003, +0.020]`: the mean difference and its 95 % interval."""
    if apart is None:
        return NOTHING
    return interval(apart.mean, apart.low, apart.high)


def interval(value: float, low: float | None, high: float | None) -> str:
    """A difference with its interval, if it has one."""
    return signed(value) + ("" if low is None or high is None else f" [{signed(low)}, {signed(high)}]")


def signed(value: float) -> str:
    """A difference of scores."""
    return f"{value:+z.{DECIMALS}f}"


def parameters(row: Row) -> str:
    """Trained parameters of a row."""
    if row.trainable is None:
        return NOTHING
    return format_count(row.trainable) if row.share is None else format_trained(row.trainable, row.share)


def rank_used(row: Row) -> str:
    """`5.2 / 8`: effective and nominal rank of ΔW."""
    if row.rank_used is None:
        return NOTHING
    effective, nominal = row.rank_used
    return f"{effective:.1f} / {nominal:.{0 if nominal == round(nominal) else 1}f}"


def plain(value: float | None, digits: int = 2) -> str:
    """A number with so many significant digits."""
    return NOTHING if value is None else f"{value:.{digits}g}"


def fixed(value: float | None, decimals: int) -> str:
    """A number with so many decimals."""
    return NOTHING if value is None else f"{value:.{decimals}f}"


def seeds(row: Row) -> str:
    """`3`, or `2–3` where tasks differ."""
    if row.published:
        return NOTHING
    counts = sorted({cell.n for cell in row.cells if cell})
    return "–".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]])) if counts else "0"


def lr(row: Row) -> str:
    """Learning rates really used."""
    if not row.lrs:
        return NOTHING
    span = "…".join(number(rate) for rate in dict.fromkeys([row.lrs[0], row.lrs[-1]]))
    return f"{span} (selected)" if row.selected else span


def size(count: float | None) -> str:
    """Bytes: `0.29 MB`, `92 MB`."""
    if count is None:
        return NOTHING
    if count < 1e4:
        return f"{count / 1e3:.1f} kB"
    decimals = 2 if count < 1e6 else 1 if count < 1e7 else 0
    return f"{count / 1e6:.{decimals}f} MB" if count < 1e10 else f"{count / 1e9:.0f} GB"


def duration(seconds: float | None) -> str:
    """`38 s`, `3.3 min`, `2.1 h`."""
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def states(row: Row) -> str:
    """`12 done, 1 oom`."""
    order = sorted(row.states.items(), key=lambda item: (item[0] != "done", item[0]))
    return ", ".join(f"{count} {state}" for state, count in order) or NOTHING


def runs(count: int) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} run{'s' if count > 1 else ''}"


def header(column: Column) -> str:
    """`cola matthews ↑`."""
    arrow = {True: "↑", False: "↓", None: ""}[column.higher_is_better]
    return " ".join(part for part in (column.task, column.metric, column.data, arrow) if part)


def clock(table: Table) -> str:
    """What to know about the times of a table whose runs were on several devices."""
    devices = sorted({device for row in table.rows for device in row.devices})
    return f"train time: mean of a run; devices differ: {', '.join(devices)}" if len(devices) > 1 else ""


def note(row: Row, table: Table) -> str:
    """Failures, uneven seeds, marks, warnings: what a reader of this row must know."""
    columns, ranked = table.columns, any(other.rank for other in table.rows)
    if row.published:
        parts = [f"published, {row.published.source} (arXiv {row.published.arxiv})", row.published.note]
        return f"{row.label}: {'; '.join(parts)}"
    parts = [f"{len(names)} {state} ({', '.join(names)})" for state, names in row.failures.items()]
    counts = {column.task: cell.n for column, cell in zip(columns, row.cells, strict=True) if cell}
    if len(set(counts.values())) > 1:
        parts.append("seeds differ: " + ", ".join(f"{task} {n}" for task, n in counts.items()))
    if len(set(counts.values())) > 1 and row.average:
        parts.append(f"the average is over the {row.average.n} that have every task")
    if row.average is None and all(row.cells):
        parts.append("no average: no seed has every task, or the metrics differ in direction")
    parts += [
        mark.text for mark in row.marks if ranked or mark.code != "seeds"
    ]  # where all have few, the column says it
    parts += [f"{runs(count)}: {text}" for text, count in list(row.warnings.items())[:_WARNINGS_SHOWN]]
    if len(row.warnings) > _WARNINGS_SHOWN:
        parts.append(f"{len(row.warnings) - _WARNINGS_SHOWN} more warnings, in the records")
    if row.superseded:
        parts.append(f"{runs(row.superseded)} of the same task and seed left out, a newer one stands")
    return f"{row.label}: {'; '.join(parts)}" if parts else ""
