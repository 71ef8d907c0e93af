"""The leaderboard as GitHub Markdown tables, aligned for a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from bench.core.text import width
from bench.records.record import Record
from leaderboard.render import cells
from leaderboard.tables.build import build_tables
from leaderboard.tables.examples import Examples
from leaderboard.tables.table import Row, Table

_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPECIAL = re.compile(r"[\\`*\[\]<>&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_LEGEND = (
    "±: standard deviation over seeds. Effective rank: of ΔW, and the nominal rank; ‖ΔW‖₂: its spectral norm; both are "
    "means over layers and runs. Ranks are in parentheses where no score is above chance. Group: how the id begins "
    "that the runs of a row share on a task, as bench compare takes it."
)
_NEEDED = (
    "Rank needed: the smallest k at which the score, with every ΔW cut to its k largest singular directions, is within "
    "a standard error of the whole; median over runs."
)
_RANKED = (
    "Bold, and rank 1: the best row and those within noise of it, down to the first that is set apart; nothing is bold "
    "where none is. The best row is compared with each of the others, with intervals so wide that in 95 % of such "
    "columns the row that is truly best is not set apart."
)
_VERSUS = (
    "vs: average minus that of the baseline over paired seeds, with a 95 % confidence interval: Student's t over "
    "seeds and, where the runs kept their outputs, examples; on several tasks as wide as the bootstrap over tasks and "
    "seeds, if that is wider. The 95 % are those of each interval alone."
)
_COSTS = (
    "IQM: mean of the middle half of the scores, over tasks and seeds. Place: mean over tasks of the place among the "
    "ranked rows. Stable rank: of ΔW, mean over layers and runs. Peak memory: of the GPU; on a CPU, of the whole "
    "process, including earlier runs in it. Trials: runs that the selection of the learning rate took."
)


def render(records: Iterable[Record], folder: Path | None = None) -> str:
    """Render one table per suite, backbone, data source and budget, with a heading and footnotes.

    `folder` has the runs of the records, with what they kept of their outputs.
    """
    records = list(records)
    return render_tables(build_tables(records, examples=Examples(folder)), trials=trials(records))


def trials(records: Iterable[Record]) -> int:
    """Number of runs that only served to select a learning rate; no table shows them."""
    return sum(bool(record.spec.holdout) for record in records)


def render_tables(tables: Sequence[Table], *, trials: int = 0, costs: bool = False) -> str:
    """Render the tables; `costs` adds to each a second one with statistics, sizes, memory, trials and states."""
    parts = [part for table in tables for part in (_render_table(table), *([_render_costs(table)] if costs else []))]
    parts.append(_LEGEND if parts else "No scores yet.")
    parts += [_NEEDED] if any(map(cells.has_rank_needed, tables)) else []
    parts += [_RANKED] if any(row.rank for table in tables for row in table.rows) else []
    parts += [_VERSUS] if any(table.baseline for table in tables) else []
    parts += [_COSTS] if costs and tables else []
    if trials:
        parts.append(f"Not shown: {cells.runs(trials)} on held-out training examples that selected a learning rate.")
    return "\n\n".join(parts) + "\n"


def escape(raw: str) -> str:
    """Escape text as one line of Markdown: it cannot start a cell, code, a tag, a link or a terminal sequence."""
    return _SPECIAL.sub(lambda match: "\\" + match.group(), cells.one_line(raw))


RANK_NEEDED = "rank needed"
"""A column that only tables have in which it was measured."""
TRAIN_TIME = "train time"
"""A column with a note where devices differ."""
_COLUMNS: dict[str, Callable[[Row], str]] = {
    "trained": cells.parameters,
    RANK_NEEDED: lambda row: escape(cells.rank_needed(row)),
    "effective rank": cells.effective_rank,
    "‖ΔW‖₂": lambda row: cells.in_doubt(cells.number(row.norm, ".2g"), row),
    "seeds": lambda row: cells.NOTHING if row.published else cells.seeds([row]),
    "lr": cells.lr,
    TRAIN_TIME: lambda row: cells.duration(row.train_s),
    "group": cells.group,
}
_COST_COLUMNS: dict[str, Callable[[Row], str]] = {
    "method": lambda row: escape(row.label),
    "IQM": lambda row: cells.number(row.iqm, ".3f"),
    "place": lambda row: cells.number(row.average_rank, ".1f"),
    "stable rank": lambda row: cells.in_doubt(cells.number(row.stable, ".2f"), row),
    "stored": lambda row: cells.size(row.stored_bytes),
    "peak memory": lambda row: cells.size(row.peak_memory_bytes),
    "trials": lambda row: str(row.trials),
    "runs": cells.states,
}


def _render_table(table: Table) -> str:
    notes: dict[str, str] = {}

    def noted(cell: str, note: str) -> str:
        """A cell with a reference such as ` ²` to its note below the table; equal notes share a number."""
        number = str(len(notes) + 1).translate(_SUPERSCRIPTS)
        return f"{cell} {notes.setdefault(note, number)}" if note else cell

    ranked = any(row.rank for row in table.rows)
    several = len(table.columns) > 1
    direction = table.columns[0].higher_is_better
    header = ["rank"] * ranked + ["method"]
    for column in table.columns:
        header += [noted(escape(cells.header(column)), column.note)]
        header += [escape(cells.best_header(column))] * table.best
    header += [f"average ({len(table.columns)} tasks)"] * several + ["average of the best"] * (several and table.best)
    header += [f"vs {escape(table.baseline)}"] if table.baseline else []
    columns = {name: cell for name, cell in _COLUMNS.items() if name != RANK_NEEDED or cells.has_rank_needed(table)}
    header += [noted(name, cells.time_note(table)) if name == TRAIN_TIME else name for name in columns]
    body: list[list[str]] = []
    for row in (*table.rows, *table.published):
        name = escape(row.label) + (" *(published)*" if row.published else "")
        line = [str(row.rank or cells.NOTHING)] * ranked + [noted(name, cells.row_note(row, table))]
        for column, cell, best, leads in zip(table.columns, row.cells, row.best, row.leads, strict=True):
            line += [_bold(cells.score(cell, column.higher_is_better), leads)]
            line += [cells.score(best, column.higher_is_better)] * table.best
        line += [_bold(cells.average(row, direction), row.average_leads)] * several
        line += [cells.score(row.best_average, direction)] * (several and table.best)
        line += [cells.difference(row.difference)] if table.baseline else []
        body.append(line + [cell(row) for cell in columns.values()])
    below = [f"- {number} {escape(note)}" for note, number in notes.items()]
    below += [f"- {escape(note)}" for note in table.notes]
    return section(f"### {escape(table.heading)}", grid(header, body, left=[int(ranked)]), below)


def _bold(shown: str, leads: bool) -> str:
    return f"**{shown}**" if leads else shown


def _render_costs(table: Table) -> str:
    body = [[cell(row) for cell in _COST_COLUMNS.values()] for row in table.rows]
    return "\n".join(grid([*_COST_COLUMNS], body, left=[0]))


def grid(header: list[str], body: list[list[str]], *, left: Collection[int]) -> list[str]:
    """Lines of a table of escaped cells. Columns with an index in `left` are left-aligned, others right-aligned."""
    widths = [max(3, *(width(line[i]) for line in (header, *body))) for i in range(len(header))]
    rule = ["-" * (width - (i not in left)) + ":" * (i not in left) for i, width in enumerate(widths)]

    def padded(i: int, cell: str) -> str:
        gap = " " * (widths[i] - width(cell))
        return cell + gap if i in left else gap + cell

    return [f"| {' | '.join(map(padded, range(len(line)), line))} |" for line in (header, rule, *body)]


def section(title: str, *blocks: list[str]) -> str:
    """A title and blocks of lines, with an empty line between them."""
    return "\n\n".join([title, *("\n".join(lines) for lines in blocks if lines)])
