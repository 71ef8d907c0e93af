"""`bench recommend` over runs of this process: the sentence, JSON, commands that plan the same runs, errors."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.records import record

Captured = pytest.CaptureFixture[str]
NETWORK = ["--task", "digits", "--backbone", "vit", "--accelerator", "cpu", "--batch-size", "16", "--max-steps", "2"]
NETWORK += ["--set", "backbone.width=16", "--set", "backbone.depth=1", "--set", "backbone.heads=1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRA and a linear probe, three seeds each, in a folder whose name has a space."""
    out = tmp_path_factory.mktemp("recommend") / "my runs"
    assert main(["run", "--method", "lora,linear", "--seeds", "0,1,2", *NETWORK, "--out", str(out)]) == 0
    return out


def test_what_it_prints(runs: Path, capsys: Captured) -> None:
    assert main(["recommend", "--runs", str(runs), "--margin", "1"]) == 0
    out = capsys.readouterr().out
    assert "method" in out and "standing" in out and ("Use linear." in out or "No recommendation" in out)


def test_the_commands_repeat_these_runs(runs: Path, capsys: Captured) -> None:
    """A command for more seeds plans the runs that are done, and others of the same groups."""
    main(["recommend", "--runs", str(runs), "--json", "--where", "seed<2"])
    [found] = json.loads(capsys.readouterr().out)
    assert found["recommended"] is None and "3 seeds" in found["why_none"]
    records, _ = record.load_all(runs)
    planned: set[str] = set()
    for command in map(shlex.split, found["commands"]):
        assert command[:2] == ["bench", "run"]
        assert main([*command[1:], "--dry-run", "--json"]) == 0
        planned |= {one["run_id"] for one in json.loads(capsys.readouterr().out)["runs"]}
    assert planned == {one.run_id for one in records}


@pytest.mark.parametrize("margin", ["0", "-1", "nan", "much", "inf"])
def test_a_margin_that_is_none(margin: str, capsys: Captured) -> None:
    assert main(["recommend", f"--margin={margin}"]) == 2
    assert f"--margin: '{margin}' is not a positive number" in capsys.readouterr().err


def test_a_folder_without_records(tmp_path: Path, capsys: Captured) -> None:
    assert main(["recommend", "--runs", str(tmp_path / "none")]) == 3
    assert "no records in" in capsys.readouterr().err


def test_nothing_is_done_yet(tmp_path: Path, make_record: Callable[..., Any], capsys: Captured) -> None:
    error = {"what": "it broke", "known": "", "todo": ""}
    made = make_record(state="failed", error=error, metrics=None)
    record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["recommend", "--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no finished run has a score yet\n"


def test_names_of_strangers_print_as_text(tmp_path: Path, make_record: Callable[..., Any], capsys: Captured) -> None:
    for seed in range(3):
        for method, value in (("full", 0.8), ("lora", 0.8)):
            command = ["bench", "run", "--method", method, "--seeds", str(seed), "--task", "a\x1b[31m; rm -rf x"]
            made = make_record(
                spec={"method": method, "seed": seed},
                backbone={"name": "x\x1b[2J"},
                metrics={"primary": {"value": value + seed / 100}},
                provenance={"command": command},
            )
            record.write(made, record.folder(tmp_path, made.run_id))
    assert main(["recommend", "--runs", str(tmp_path), "--margin", "0.001"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "Use" in out
