"""Records as GitHub Markdown tables that also read well in a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

from bench.records.record import Record
from leaderboard.render import text
from leaderboard.tables.score import tables
from leaderboard.tables.table import Row, Table

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LEGEND = (
    "±: standard deviation over seeds. Rank used: effective rank of ΔW, of the nominal one. ‖ΔW‖₂: its spectral norm. "
    "Both are means over layers and runs."
)
_VERSUS = (
    "vs: average minus the baseline's over paired seeds, with a 95 % bootstrap interval over tasks and seeds; "
    "with few seeds it is too narrow."
)
_COSTS = (
    "IQM: mean of the middle half of the scores, over tasks and seeds. Place: mean over tasks of the place among the "
    "ranked rows. Stable rank: of ΔW, mean over layers and runs. Peak memory: of the GPU; on a CPU of the whole "
    "process, with what earlier runs left in it. Trials: runs that choosing the learning rate took."
)


def render(records: Iterable[Record]) -> str:
    """One table per suite, backbone, source and budget, each below a heading that says them, with its footnotes."""
    records = list(records)
    return render_tables(tables(records), trials=sum(bool(record.spec.holdout) for record in records))


def render_tables(made: Sequence[Table], *, trials: int = 0, costs: bool = False) -> str:
    """The tables; with `costs` each is followed by a second one: statistics, sizes, memory, trials, failures."""
    parts = [part for table in made for part in (_render_table(table), *([_render_costs(table)] if costs else []))]
    parts.append(_LEGEND if parts else "No scores yet.")
    parts += [_VERSUS] if any(table.baseline for table in made) else []
    parts += [_COSTS] if costs and made else []
    if trials:
        held_out = "evaluated on held-out training examples to choose a learning rate: not shown."
        parts.append(f"{text.runs(trials)} {held_out}")
    return "\n\n".join(parts) + "\n"


def escape(raw: str) -> str:
    """Text as one line that Markdown shows as it is: no cell, code, tag, link or terminal sequence begins in it."""
    plain = "".join(" " if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in raw)
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
    direction = table.columns[0].higher_is_better
    tasks = [escape(text.header(column)) + notes.mark(column.note) for column in table.columns]
    header = ["rank"] * ranked + ["method", *tasks] + [f"average ({len(tasks)} tasks)"] * several
    header += [f"vs {escape(table.baseline)}"] if table.baseline else []
    header += ["trained", "rank used", "‖ΔW‖₂", "seeds", "lr", f"train time{notes.mark(text.clock(table))}"]
    body: list[list[str]] = []
    for row in (*table.rows, *table.published):
        scores = [text.score(cell, c.higher_is_better) for cell, c in zip(row.cells, table.columns, strict=True)]
        name = escape(row.label) + (" *(published)*" if row.published else "")
        line = [str(row.rank or text.NOTHING)] * ranked + [name + notes.mark(text.note(row, table)), *scores]
        line += [text.average(row, direction)] * several
        line += [text.difference(row.difference)] if table.baseline else []
        line += [text.parameters(row), text.rank_used(row), text.plain(row.norm), text.seeds(row), text.lr(row)]
        body.append([*line, text.duration(row.train_s)])
    lines = [f"### {escape(table.heading)}", "", *grid(header, body, left=[int(ranked)])]
    below = notes.lines() + [f"- {escape(note)}" for note in table.notes]
    return "\n".join([*lines, "", *below] if below else lines)


def _render_costs(table: Table) -> str:
    header = ["method", "IQM", "place", "stable rank", "stored", "peak memory", "trials", "runs"]
    return "\n".join(grid(header, [_costs(row) for row in table.rows], left=[0]))


def _costs(row: Row) -> list[str]:
    return [
        escape(row.label),
        text.fixed(row.iqm, 3),
        text.fixed(row.average_rank, 1),
        text.fixed(row.stable, 2),
        text.size(row.stored_bytes),
        text.size(row.peak_memory_bytes),
        str(row.trials),
        text.states(row),
    ]


def grid(header: list[str], body: list[list[str]], *, left: Collection[int]) -> list[str]:
    """Lines of a table of escaped cells with equally wide columns; all are right-aligned but those at `left`."""
    widths = [max(3, *(_width(line[i]) for line in (header, *body))) for i in range(len(header))]
    rule = ["-" * (width - (i not in left)) + ":" * (i not in left) for i, width in enumerate(widths)]
    lines: list[str] = []
    for cells in (header, rule, *body):
        gaps = [" " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
        padded = [
            cell + gap if i in left else gap + cell for i, (cell, gap) in enumerate(zip(cells, gaps, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return lines


def _superscript(value: int) -> str:
    return str(value).translate(_SUPERSCRIPTS)


def _width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in {"W", "F"}) for c in text)
