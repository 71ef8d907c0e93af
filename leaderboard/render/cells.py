"""Text of table cells: scores, counts, sizes, times and notes."""

from __future__ import annotations

from collections.abc import Iterable

from bench.core.text import DECIMALS, SMALL, format_count, format_score, format_trained
from bench.figures import style
from leaderboard.tables.grouping import format_number
from leaderboard.tables.intervals import Difference
from leaderboard.tables.table import Column, Row, Stat, Table

NOTHING = "–"
ARROWS = {True: "↑", False: "↓", None: ""}
"""Direction of a metric, by `higher_is_better`."""
_WARNINGS_SHOWN = 3
SHORT = 6
"""Digits of an id that are shown; a longer beginning is asked for where they are not enough."""


def one_line(raw: str) -> str:
    """Text on one line, without control and direction characters."""
    return " ".join(style.plain(raw, len(raw)).split())


def number(value: float | None, form: str) -> str:
    """A number in a format such as `.2f`."""
    return NOTHING if value is None else format(value, form)


def score(stat: Stat | None, higher_is_better: bool | None = True) -> str:
    """`0.813 ± 0.004`."""
    if stat is None:
        return NOTHING
    small = higher_is_better is False and abs(stat.mean) < SMALL
    spread = "" if stat.sd is None else f" ± {stat.sd:.2g}" if small else f" ± {stat.sd:.{DECIMALS}f}"
    return f"{format_score(stat.mean, higher_is_better)}{spread}"


def average(row: Row, higher_is_better: bool | None) -> str:
    """The average, or `2/4`: how many of the tasks have a score."""
    done = sum(cell is not None for cell in row.cells)
    return f"{done}/{len(row.cells)}" if done < len(row.cells) else score(row.average, higher_is_better)


def difference(paired: Difference | None) -> str:
    """`+0.012 [-0.003, +0.020]`: the mean difference and its 95 % confidence interval."""
    return NOTHING if paired is None else interval(paired.mean, paired.low, paired.high)


def interval(value: float, low: float | None, high: float | None) -> str:
    """A difference of scores with its confidence interval, if it has one."""
    shown = [f"{number:+z.{DECIMALS}f}" for number in (value, low, high) if number is not None]
    return shown[0] if len(shown) < 3 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def parameters(row: Row) -> str:
    """`0.15 M (0.7 %)`: trained parameters and their share."""
    if row.trainable is None:
        return NOTHING
    return format_count(row.trainable) if row.share is None else format_trained(row.trainable, row.share)


def effective_rank(row: Row) -> str:
    """`5.2 / 8`: effective and nominal rank of ΔW; in parentheses where no score is above chance."""
    if row.effective is None or row.nominal is None:
        return NOTHING
    return in_doubt(f"{row.effective:.1f} / {row.nominal:.{0 if row.nominal == round(row.nominal) else 1}f}", row)


def rank_needed(row: Row) -> str:
    """`3`, or `>64` where it is above what was tried; in parentheses where no score is above chance."""
    if row.needed_above is not None:
        return in_doubt(f">{row.needed_above}", row)
    return in_doubt(NOTHING if row.needed is None else f"{row.needed:g}", row)


def in_doubt(shown: str, row: Row) -> str:
    """A number on the rank of ΔW, in parentheses where nothing was learned."""
    return f"({shown})" if row.learned_nothing and shown != NOTHING else shown


def has_rank_needed(table: Table) -> bool:
    return any(rank_needed(row) != NOTHING for row in table.rows)


def group(row: Row) -> str:
    """`1f3a9c`, or `1f3a9c +3` with more tasks: the group of the runs, as `bench compare` takes it."""
    if not row.group_ids:
        return NOTHING
    first, *others = row.group_ids
    return first[:SHORT] + (f" +{len(others)}" if others else "")


def seeds(rows: Iterable[Row], dash: str = "–") -> str:
    """Number of seeds of the cells: `3`, or `2–3` if they differ."""
    return span((cell.n for row in rows for cell in row.cells if cell), dash)


def span(counts: Iterable[int], dash: str = "–") -> str:
    """Lowest and highest of some counts: `3`, `2–3`; `0` if there are none."""
    ordered = sorted({*counts}) or [0]
    return dash.join(map(str, dict.fromkeys([ordered[0], ordered[-1]])))


def lr(row: Row) -> str:
    """Lowest and highest learning rate used."""
    if not row.lrs:
        return NOTHING
    rates = "…".join(map(format_number, dict.fromkeys([row.lrs[0], row.lrs[-1]])))
    return f"{rates} (selected{', at the edge' if row.at_edge else ''})" if row.selected else rates


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
    return " ".join(filter(None, (column.task, column.metric, column.data, ARROWS[column.higher_is_better])))


def best_header(column: Column) -> str:
    """`best on dev`: over the best evaluations beside a column of scores."""
    return f"best on {column.split}" if column.split else "best"


def time_note(table: Table) -> str:
    """A note on train times if the runs of a table used several devices."""
    devices = sorted({device for row in table.rows for device in row.devices})
    return f"train time: mean of a run; devices differ: {', '.join(devices)}" if len(devices) > 1 else ""


def row_note(row: Row, table: Table) -> str:
    """A note on a row: failures, uneven seeds, cautions, warnings; or the source of a published row."""
    if row.published:
        return f"{row.label}: published, {row.published.source} (arXiv {row.published.arxiv}); {row.published.note}"
    parts = [f"{len(names)} {state} ({', '.join(names)})" for state, names in row.failures.items()]
    counts = {column.task: cell.n for column, cell in zip(table.columns, row.cells, strict=True) if cell}
    if len(set(counts.values())) > 1:
        parts.append("seeds differ: " + ", ".join(f"{task} {n}" for task, n in counts.items()))
        parts += [f"the average is over the {row.average.n} seeds with every task"] if row.average else []
    if row.average is None and all(row.cells):
        parts.append("no average: no seed has every task, or the metrics differ in direction")
    # if no row has enough seeds for a rank, the column of seeds says so
    ranked = any(other.rank for other in table.rows)
    parts += [caution.text for caution in row.cautions if ranked or caution.code != "seeds"]
    parts += [f"{runs(count)}: {text}" for text, count in list(row.warnings.items())[:_WARNINGS_SHOWN]]
    if len(row.warnings) > _WARNINGS_SHOWN:
        parts.append(f"{len(row.warnings) - _WARNINGS_SHOWN} more warnings, in the records")
    if row.superseded:
        parts.append(f"{runs(row.superseded)} of the same task and seed left out: there is a newer one")
    return f"{row.label}: {'; '.join(parts)}" if parts else ""
