"""Labels of rows: a method, or a row, under the name that a paper gives it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bench.core.errors import UsageError, did_you_mean
from leaderboard.tables.table import Row, Table


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Read `NAME=TEXT`, each name once; a name may have `=` in parentheses, as labels of rows do: `lora (rank=4)=Ours`.

    Raises:
        UsageError: a text is not of that form, or a name is given twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        inside = text.rfind(")=")
        name, equals, label = text.partition("=") if inside < 0 else (text[: inside + 1], "=", text[inside + 2 :])
        if not (name.strip() and equals and label.strip()) or name.strip() in labels:
            known = "given twice" if name.strip() in labels else "it is not of the form NAME=TEXT"
            raise UsageError(f"--label {text}", known, "Write for example --label 'lora=LoRA (ours)'.")
        labels[name.strip()] = label.strip()
    return labels


def with_labels(tables: Sequence[Table], labels: Mapping[str, str]) -> list[Table]:
    """Return the tables with new labels: those of rows by their label, else by their method, whose options stay.

    Raises:
        UsageError: no row has such a name, or two rows of a table would have one label.
    """
    rows = [row for table in tables for row in table.rows]
    known = sorted({name for row in rows for name in (row.method, row.label)})
    for name in labels:
        if name not in known:
            hint = did_you_mean(name, known) or "Give a method, or the label of a row as the table shows it."
            raise UsageError(f"--label: no row is '{name}'", f"rows: {', '.join(known[:20])}", hint)
    return [_relabelled(table, labels) for table in tables]


def label_of(row: Row, labels: Mapping[str, str]) -> str:
    """Return the new label of a row: that of its old one, or that of its method with the options behind it."""
    if row.label in labels:
        return labels[row.label]
    return labels.get(row.method, row.method) + row.label.removeprefix(row.method)


def titles(sides: Sequence[tuple[str, Sequence[str]]], labels: Mapping[str, str]) -> list[str]:
    """Return the names of the sides of a comparison: new labels of what was asked for, or of its only method.

    Args:
        sides: what was asked for, and the methods that it found.
        labels: name → label.

    Raises:
        UsageError: no side has such a name.
    """
    known = {name for asked, methods in sides for name in (asked, *methods)}
    for name in labels:
        if name not in known:
            todo = did_you_mean(name, known) or "Give a method of one side, or what the side was asked for by."
            raise UsageError(f"--label: no side is '{name}'", f"sides: {', '.join(sorted(known))}", todo)
    alone = [methods[0] if len(methods) == 1 else "" for _, methods in sides]
    differ = len({*alone}) == len(alone)
    return [
        labels.get(asked) or (labels.get(method, method) if method and differ else labels.get(method, asked))
        for (asked, _), method in zip(sides, alone, strict=True)
    ]


def _relabelled(table: Table, labels: Mapping[str, str]) -> Table:
    new = {row.label: label_of(row, labels) for row in table.rows}
    if twice := sorted(label for label in {*new.values()} if [*new.values()].count(label) > 1):
        raise UsageError(
            f"--label: two rows would be '{twice[0]}'",
            f"rows: {', '.join(old for old, label in new.items() if label == twice[0])}",
            "Give each another label.",
        )
    rows = tuple(replace(row, label=new[row.label]) for row in table.rows)
    return replace(table, rows=rows, baseline=new.get(table.baseline or "", table.baseline))
