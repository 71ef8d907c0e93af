"""The leaderboard as LaTeX: one booktabs table for each table."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import chain

from leaderboard.render import cells
from leaderboard.tables.table import Column, Row, Table

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
    """Render the tables. In each column the best row and those within noise of it are bold, if any is set apart."""
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
    header = [_heading(text) for column in table.columns for text in _headers(column, table)]
    size = "small" if len(header) < 4 else "footnotesize" if len(header) < 6 else "scriptsize"  # so that it fits a page
    header += ["average"] * several + [_heading("average of the best")] * (several and table.best)
    header = ["method", *header, *([f"vs {escape(table.baseline)}"] if table.baseline else []), "trained"]
    header += ["rank needed"] * cells.has_rank_needed(table) + ["effective rank"]
    lines = [_line(row, table) for row in table.rows]
    if table.published:
        lines += [r"\midrule", rf"\multicolumn{{{len(header)}}}{{l}}{{\emph{{published, not measured here}}}} \\"]
        lines += [_line(row, table) for row in table.published]
    of_rows = (cells.row_note(row, table) for row in (*table.rows, *table.published))
    notes = chain(of_rows, (column.note for column in table.columns), table.notes)
    below = "".join(f" {escape(note)}." for note in dict.fromkeys(notes) if note)
    seeds = cells.seeds(table.rows, "--")
    bold = any(any(row.leads) or row.average_leads for row in table.rows)
    bold = " Bold: the best row and those within noise of it." * bold
    caption = f"{escape(table.heading)}. Mean $\\pm$ standard deviation over {seeds} seeds.{bold}{below}"
    return "\n".join(
        [
            r"\begin{table}",
            rf"\centering\{size}\setlength{{\tabcolsep}}{{3pt}}",
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


def _headers(column: Column, table: Table) -> list[str]:
    return [cells.header(column), *[cells.best_header(column)] * table.best]


def _heading(text: str) -> str:
    lines = r" \\ ".join(map(escape, text.replace("+", "+ ").split(" ")))
    return rf"\shortstack[r]{{{lines}}}"


def _line(row: Row, table: Table) -> str:
    line: list[str] = [escape(row.label)]
    for cell, best, column, leads in zip(row.cells, row.best, table.columns, row.leads, strict=True):
        line.append(_score(cells.score(cell, column.higher_is_better), bold=leads))
        line += [_score(cells.score(best, column.higher_is_better))] * table.best
    if len(table.columns) > 1:
        direction = table.columns[0].higher_is_better
        line.append(_score(cells.average(row, direction), bold=row.average_leads))
        line += [_score(cells.score(row.best_average, direction))] * table.best
    if table.baseline:
        mean, _, interval = cells.difference(row.difference).partition(" ")
        line.append(number(mean) + (rf" {{\scriptsize{number(interval)}}}" if interval else ""))
    parameters = cells.parameters(row).partition(" (")[0]
    line += [escape(parameters), *([escape(cells.rank_needed(row))] if cells.has_rank_needed(table) else [])]
    return " & ".join([*line, escape(cells.effective_rank(row))]) + r" \\"


def _score(shown: str, *, bold: bool = False) -> str:
    """The mean, which may be bold, with its deviation in a smaller font."""
    mean, _, sd = shown.partition(" ± ")
    text = rf"\textbf{{{number(mean)}}}" if bold else number(mean)
    return text + (rf" {{\scriptsize$\pm$\,{number(sd)}}}" if sd else "")


def number(shown: str) -> str:
    """Numbers with minus signs instead of hyphens and with powers of ten: `5.53e-05` becomes 5.53·10⁻⁵."""
    text = escape(shown).replace("{[}", "[").replace("{]}", "]")
    text = _POWER.sub(lambda match: rf"$\cdot10^{{{int(match[1])}}}$", text)
    return _MINUS.sub("$-$", text)
