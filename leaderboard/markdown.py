"""Records as GitHub Markdown tables that also read well in a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.errors import BenchError
from bench.record import Record, load_all
from leaderboard.grouping import number
from leaderboard.score import DECIMALS, SMALL, Column, Row, Stat, Table, tables

NOTHING = "–"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_WARNINGS_SHOWN = 3
_LEGEND = (
    "±: standard deviation over seeds. Rank used: effective rank of ΔW, of the nominal one. ‖ΔW‖₂: its spectral norm. "
    "Both are means over layers and runs."
)


def render_folder(out: Path) -> tuple[str, list[BenchError]]:
    """The tables of a folder's records, and a problem for each file that is none."""
    records, problems = load_all(out)
    return render(records), problems


def render(records: Iterable[Record]) -> str:
    """One table per suite, backbone, source and budget, each below a heading that says them, with its footnotes."""
    records = list(records)
    parts = [_render_table(table) for table in tables(records)]
    parts.append(_LEGEND if parts else "No scores yet.")
    trials = sum(bool(record["spec"]["holdout"]) for record in records)
    if trials:
        parts.append(f"{_runs(trials)} evaluated on held-out training examples to choose a learning rate: not shown.")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text as one line that Markdown shows as it is: no cell, code, tag, link or terminal sequence begins in it."""
    plain = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text)
    return _SPECIAL.sub(lambda match: "\\" + match.group(), " ".join(plain.split()))


class _Footnotes:
    """Numbered notes below a table; a text noted twice keeps its number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        """` ²` for the cell that the text is about, or nothing where there is no text."""
        if not text:
            return ""
        if text not in self.texts:
            self.texts.append(text)
        return " " + _superscript(self.texts.index(text) + 1)

    def lines(self) -> list[str]:
        return [f"- {_superscript(number)} {escape(text)}" for number, text in enumerate(self.texts, 1)]


def _render_table(table: Table) -> str:
    notes = _Footnotes()
    ranked = any(row.rank for row in table.rows)
    several = len(table.columns) > 1
    tasks = [_task_header(column) + notes.mark(column.note) for column in table.columns]
    devices = sorted({device for row in table.rows for device in row.devices})
    clock = notes.mark(f"train time: mean of a run; devices differ: {', '.join(devices)}") if len(devices) > 1 else ""
    header = ["rank"] * ranked + ["method", *tasks] + [f"average ({len(tasks)} tasks)"] * several
    header += ["trained", "rank used", "‖ΔW‖₂", "seeds", "lr", f"train time{clock}"]
    body = [
        [str(row.rank or NOTHING)] * ranked
        + [escape(row.label) + notes.mark(_row_note(row, table.columns))]
        + [_score(cell, column.higher_is_better) for cell, column in zip(row.cells, table.columns, strict=True)]
        + [_average(row, table.columns[0].higher_is_better)] * several
        + [_trained(row), _rank_used(row), _norm(row), _seeds(row), _lr(row), _duration(row.train_s)]
        for row in table.rows
    ]
    lines = [f"### {escape(table.heading)}", "", *_grid(header, body, left=int(ranked))]
    return "\n".join([*lines, "", *notes.lines()] if notes.texts else lines)


def _grid(header: list[str], body: list[list[str]], *, left: int) -> list[str]:
    """Lines of a table with equally wide columns; all are right-aligned but the one at `left`."""
    widths = [max(3, *(_width(line[i]) for line in (header, *body))) for i in range(len(header))]
    rule = ["-" * (width - (i != left)) + ":" * (i != left) for i, width in enumerate(widths)]
    lines: list[str] = []
    for cells in (header, rule, *body):
        gaps = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        padded = [
            cell + gap if i == left else gap + cell for i, (cell, gap) in enumerate(zip(cells, gaps, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return lines


def _task_header(column: Column) -> str:
    arrow = {True: "↑", False: "↓", None: ""}[column.higher_is_better]
    return escape(" ".join(part for part in (column.task, column.metric, column.data, arrow) if part))


def _row_note(row: Row, columns: Sequence[Column]) -> str:
    """Failures, uneven seeds, warnings: what a reader of this row must know."""
    parts = [f"{len(runs)} {state} ({', '.join(runs)})" for state, runs in row.failures.items()]
    seeds = {column.task: cell.n for column, cell in zip(columns, row.cells, strict=True) if cell}
    if len(set(seeds.values())) > 1:
        parts.append("seeds differ: " + ", ".join(f"{task} {n}" for task, n in seeds.items()))
    if len(set(seeds.values())) > 1 and row.average:
        parts.append(f"the average is over the {row.average.n} that have every task")
    if row.average is None and all(row.cells):
        parts.append("no average: no seed has every task, or the metrics differ in direction")
    parts += [f"{_runs(count)}: {text}" for text, count in list(row.warnings.items())[:_WARNINGS_SHOWN]]
    if len(row.warnings) > _WARNINGS_SHOWN:
        parts.append(f"{len(row.warnings) - _WARNINGS_SHOWN} more warnings, in the records")
    if row.superseded:
        parts.append(f"{_runs(row.superseded)} of the same task and seed left out, a newer one stands")
    return f"{row.label}: {'; '.join(parts)}" if parts else ""


def _score(stat: Stat | None, higher_is_better: bool | None = True) -> str:
    if stat is None:
        return NOTHING
    small = higher_is_better is False and abs(stat.mean) < SMALL
    spread = "" if stat.sd is None else f" ± {stat.sd:.2g}" if small else f" ± {stat.sd:.{DECIMALS}f}"
    return f"{figure(stat.mean, higher_is_better)}{spread}"


def figure(value: float, higher_is_better: bool | None = True) -> str:
    """A score with three decimals; an error so small that they would be zeros with three digits: `5.53e-05`."""
    small = higher_is_better is False and 0 < abs(value) < SMALL
    return f"{value:.3g}" if small else f"{value:z.{DECIMALS}f}"


def _average(row: Row, higher_is_better: bool | None) -> str:
    """The average, or how many of the tasks are there."""
    done = sum(cell is not None for cell in row.cells)
    return f"{done}/{len(row.cells)}" if done < len(row.cells) else _score(row.average, higher_is_better)


def _trained(row: Row) -> str:
    return NOTHING if row.trainable is None or row.share is None else trained(row.trainable, row.share)


def trained(parameters: float, share: float) -> str:
    """`0.07 M (0.3 %)`: how many parameters, and their share of all."""
    percent = 100 * share
    digits = f"{percent:.0f}" if percent >= 99.95 else f"{percent:.1f}" if percent >= 0.1 else f"{percent:.2g}"
    return f"{_count(parameters)} ({digits} %)"


def _count(parameters: float) -> str:
    """`22.7 M`, `0.07 M`, `1.2 k`, `770`."""
    if parameters >= 9_995:
        return f"{parameters / 1e6:.{1 if parameters >= 9.995e6 else 2}f} M"
    return f"{parameters / 1e3:.1f} k" if parameters >= 1_000 else f"{parameters:.0f}"


def _rank_used(row: Row) -> str:
    if row.rank_used is None:
        return NOTHING
    effective, nominal = row.rank_used
    return f"{effective:.1f} / {nominal:.{0 if nominal == round(nominal) else 1}f}"


def _norm(row: Row) -> str:
    return NOTHING if row.norm is None else f"{row.norm:.2g}"


def _seeds(row: Row) -> str:
    counts = sorted({cell.n for cell in row.cells if cell})
    return "–".join(str(n) for n in dict.fromkeys([counts[0], counts[-1]])) if counts else "0"


def _lr(row: Row) -> str:
    if not row.lrs:
        return NOTHING
    span = "…".join(number(lr) for lr in dict.fromkeys([row.lrs[0], row.lrs[-1]]))
    return f"{span} (selected)" if row.selected else span


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return NOTHING
    if seconds < 120:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _runs(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def _superscript(value: int) -> str:
    return str(value).translate(_SUPERSCRIPTS)


def _width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in {"W", "F"}) for c in text)
