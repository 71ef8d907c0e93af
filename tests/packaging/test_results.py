"""The committed reference results: their rendered tables are those of their records, and nobody's folder is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main

RESULTS = Path(__file__).resolve().parents[2] / "leaderboard" / "results"


def test_rendered_tables_are_those_of_the_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--check", str(RESULTS)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(("steps", "methods", "tasks"), [(200, 8, 2), (300, 7, 4), (1000, 8, 1)])
def test_each_is_a_whole_grid_of_three_seeds_on_real_data(steps: int, methods: int, tasks: int) -> None:
    every = [json.loads(path.read_text()) for path in RESULTS.glob("runs/*/record.json")]
    records = [r for r in every if r["spec"]["max_steps"] == steps]
    cells = {(r["spec"]["method"], r["spec"]["task"], r["spec"]["seed"]) for r in records}
    assert [len({cell[i] for cell in cells}) for i in range(3)] == [methods, tasks, 3]
    assert len(cells) == len(records) == methods * tasks * 3
    assert {r["source"]["kind"] for r in records} == {"directory"} and {r["state"] for r in records} == {"done"}


def test_every_rate_lies_between_others_and_full_and_lora_learned_cola() -> None:
    every = [json.loads(path.read_text()) for path in RESULTS.glob("runs/*/record.json")]
    for record in (r for r in every if r["spec"]["max_steps"] in (200, 1000)):
        selection = record["selection"]
        rates = [trial["lr"] for trial in selection["trials"]]
        assert min(rates) < selection["chosen"] < max(rates), record["run_id"]
        if record["spec"]["task"] != "glue/cola":
            continue
        assert record["metrics"]["primary"]["value"] > 0.15 or record["spec"]["method"] not in ("full", "lora")


def test_records_name_no_folder_of_whoever_ran_them() -> None:
    for path in RESULTS.glob("runs/*/record.json"):
        text = path.read_text()
        assert '"/' not in text and "/home/" not in text, path
