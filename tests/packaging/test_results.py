"""The committed reference results: their rendered tables are those of their records, and nobody's folder is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main

RESULTS = Path(__file__).resolve().parents[2] / "leaderboard" / "results"


def test_rendered_tables_are_those_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--check", str(RESULTS)]) == 0, capsys.readouterr().err


def test_it_is_a_grid_of_four_tasks_six_methods_and_three_seeds_on_real_data() -> None:
    records = [json.loads(path.read_text()) for path in RESULTS.glob("runs/*/record.json")]
    cells = {(r["spec"]["method"], r["spec"]["task"], r["spec"]["seed"]) for r in records}
    methods, tasks, seeds = ({cell[i] for cell in cells} for i in range(3))
    assert len(methods) >= 6 and len(tasks) == 4 and len(seeds) == 3
    assert len(cells) == len(records) == len(methods) * len(tasks) * len(seeds)
    assert {r["source"]["kind"] for r in records} == {"directory"} and {r["state"] for r in records} == {"done"}


def test_records_name_no_folder_of_whoever_ran_them() -> None:
    for path in RESULTS.glob("runs/*/record.json"):
        text = path.read_text()
        assert '"/' not in text and "/home/" not in text, path
