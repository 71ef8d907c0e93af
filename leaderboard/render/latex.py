"""The leaderboard as LaTeX: one booktabs table for each table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

from bench.core.text import format_score
from leaderboard.render import cells
from leaderboard.tables.cautions import SEEDS
from leaderboard.tables.table import Row, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", "[": "{[}", "]": "{]}", "*": "{*}",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "‖": r"$\Vert$", "₂": r"$_2$",
    "·": r"$\cdot$", "×": r"$\times$", "σ": r"$\sigma$", "α": r"$\alpha$", "ε": r"$\varepsilon$",
    "–": "--", "—": "---", "…": r"\dots{}",
}  # fmt: skip
"""`[` and `*` are escaped because LaTeX reads them as arguments of a line break before them."""
_POWER = re.compile(r"(?<=\d)e([+-]\d+)")
_MINUS = re.compile(r"(?<![\w{^])-(?=[\d.])")
HEAD = "% needs \\usepackage{booktabs}\n"


def render(tables: Sequence[Table]) -> str:
    """Render the tables. Among rows of three seeds the best printed score of a column is bold, the next underlined."""
    return HEAD + "\n".join(_table(table, number) for number, table in enumerate(tables, 1))


def escape(raw: str) -> str:
    """Escape text for any LaTeX engine; a character without an ASCII or LaTeX form becomes a question mark."""
    return "".join(map(_character, cells.one_line(raw)))


def _character(c: str) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if c.isascii():
        return c
    return re.sub(r"[^ -~]", "", unicodedata.normalize("NFKD", c)).translate(str.maketrans(_SPECIAL)) or "?"


def _table(table: Table, number: int) -> str:
    several = len(table.columns) > 1
    header = [_heading(cells.header(column)) for column in table.columns] + ["average"] * several
    header = ["method", *header, *([f"vs {escape(table.baseline)}"] if table.baseline else []), "trained", "rank used"]
    emphasis = _emphasis(table)
    lines = [_line(row, table, emphasis) for row in table.rows]
    if table.published:
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{published, not measured here}}}} \\"]
        lines += [_line(row, table, {}) for row in table.published]
    of_rows = (cells.row_note(row, table) for row in (*table.rows, *table.published))
    notes = chain(of_rows, (column.note for column in table.columns), table.notes)
    below = "".join(f" {escape(note)}." for note in dict.fromkeys(notes) if note)
    seeds = cells.seeds(table.rows, "--")
    caption = f"{escape(table.heading)}. Mean $\\pm$ standard deviation over {seeds} seeds.{below}"
    return "\n".join(
        [
            r"\begin{table}",
            rf"\centering\{_size(len(table.columns))}\setlength{{\tabcolsep}}{{3pt}}",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:lowrank-bench-{number}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            " & ".join(header) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _size(tasks: int) -> str:
    """Font size with which the table fits a page."""
    return "small" if tasks < 4 else "footnotesize" if tasks < 6 else "scriptsize"


def _heading(text: str) -> str:
    lines = r" \\ ".join(map(escape, text.replace("+", "+ ").split(" ")))
    return rf"\shortstack[r]{{{lines}}}"


def _line(row: Row, table: Table, emphasis: dict[tuple[str, int], str]) -> str:
    line: list[str] = [escape(row.label)]
    for i, (cell, column) in enumerate(zip(row.cells, table.columns, strict=True)):
        line.append(_emphasised(cells.score(cell, column.higher_is_better), emphasis.get((row.label, i))))
    if len(table.columns) > 1:
        shown = cells.average(row, table.columns[0].higher_is_better)
        line.append(_emphasised(shown, emphasis.get((row.label, len(table.columns)))))
    if table.baseline:
        mean, _, interval = cells.difference(row.difference).partition(" ")
        line.append(_number(mean) + (rf" {{\scriptsize{_number(interval)}}}" if interval else ""))
    parameters = cells.parameters(row).partition(" (")[0]
    return " & ".join([*line, escape(parameters), escape(cells.rank_used(row))]) + r" \\"


def _emphasised(shown: str, command: str | None) -> str:
    """The mean, in bold or underlined, with its deviation in a smaller font."""
    mean, _, sd = shown.partition(" ± ")
    small = rf" {{\scriptsize$\pm$\,{_number(sd)}}}" if sd else ""
    return (rf"\{command}{{{_number(mean)}}}" if command else _number(mean)) + small


def _number(shown: str) -> str:
    """Numbers with minus signs instead of hyphens and with powers of ten: `5.53e-05` becomes 5.53·10⁻⁵."""
    text = escape(shown).replace("{[}", "[").replace("{]}", "]")
    text = _POWER.sub(lambda match: rf"$\cdot10^{{{int(match[1])}}}$", text)
    return _MINUS.sub("$-$", text)


def _emphasis(table: Table) -> dict[tuple[str, int], str]:
    """Command for the best and the second score, by row label and column; the average is the last column."""
    commands: dict[tuple[str, int], str] = {}
    directions = [column.higher_is_better for column in table.columns]
    for i, higher in enumerate([*directions, directions[0]]):
        stats = {row.label: row.average if i == len(directions) else row.cells[i] for row in table.rows}
        printed = {name: float(format_score(s.mean, higher)) for name, s in stats.items() if s and s.n >= SEEDS}
        best = sorted(set(printed.values()), reverse=higher is not False)[:2]
        for name, value in printed.items():
            if value in best:
                commands[name, i] = ("textbf", "underline")[best.index(value)]
    return commands
