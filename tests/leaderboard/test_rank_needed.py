"""The rank needed in every format: the median over runs, above what was tried, or nowhere."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest

from bench.records.record import Record
from bench.records.views import Restorer, slim
from leaderboard.render import csv_export, json_export, latex, markdown
from leaderboard.tables.build import build_tables

MakeRecord = Callable[..., Record]


def cut(needed: int | None) -> dict[str, Any]:
    """A curve that ends at 128 and needs this rank; None: more than 64."""
    tried = [0, *(k for k in (needed,) if k), 64, 128]
    values = [{"k": k, "value": 0.41 if k == 128 or (needed is not None and k >= needed) else 0.1} for k in tried]
    return {"split": "dev", "n": 200, "whole": 0.41, "se": 0.03, "points": values, "rank_needed": needed}


def board(make_record: MakeRecord, needed: list[int | None], **more: Any) -> list[Record]:
    """LoRA with one run for each rank needed, and a method without a ΔW."""
    runs = [make_record(spec={"seed": seed}, truncation=cut(k), **more) for seed, k in enumerate(needed)]
    return [*runs, make_record(spec={"method": "linear", "options": {"method": {}}}, ranks=[])]


@pytest.mark.parametrize(
    ("needed", "shown", "value", "above"),
    [
        ([2, 16, 3], "3", 3, None),
        ([2, 3], "2.5", 2.5, None),
        ([2, 3, None], "3", 3, None),
        ([2, None, None], ">64", None, 64),
        ([2, None], ">64", None, 64),
        ([0], "0", 0, None),
    ],
)
def test_the_median_over_runs(
    make_record: MakeRecord, needed: list[int | None], shown: str, value: float | None, above: int | None
) -> None:
    records = board(make_record, needed)
    [table] = build_tables(records)
    rows = {row.method: row for row in table.rows}
    assert (rows["lora"].needed, rows["lora"].needed_above) == (value, above)
    assert (rows["linear"].needed, rows["linear"].needed_above) == (None, None)

    lines = markdown.render(records).splitlines()
    header, *body = ([cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|"))
    column = header.index("rank needed")
    assert {line[header.index("method")].split()[0]: line[column].replace("\\", "") for line in body[1:]} == {
        "lora": shown,
        "linear": "–",
    }
    assert any(line.startswith("Rank needed: the smallest k") for line in lines)
    source = latex.render([table])
    assert "rank needed" in source and f" & {latex.escape(shown)} & " in source
    written = {line["quantity"]: line["value"] for line in csv.DictReader(io.StringIO(csv_export.render([table])))}
    assert written.get("rank_needed") == (None if value is None else str(value))
    assert written.get("rank_needed_above") == (None if above is None else str(above))
    made: Any = json_export.leaderboard_json([table], records)
    assert {(row["needed"], row["needed_above"]) for row in made["tables"][0]["rows"]} == {(value, above), (None, None)}
    curves = [run["truncation"] for run in made["runs"].values() if run["truncation"]]
    assert sorted(curve[-1][0] for curve in curves) == [128] * len(needed)


def test_no_column_without_any(make_record: MakeRecord) -> None:
    text = markdown.render([make_record()])
    assert "rank needed" not in text.lower() and "effective rank" in text
    assert "rank needed" not in latex.render(build_tables([make_record()]))


def test_an_index_keeps_it(make_record: MakeRecord) -> None:
    run = make_record(truncation=cut(2))
    assert run.truncation and Restorer().restore(slim(run)).truncation == run.truncation
