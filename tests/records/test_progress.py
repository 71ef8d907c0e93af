"""Progress files: what their owner wrote, and nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bench.records import progress

GOOD: dict[str, Any] = {"owner": "me", "step": 30, "steps": 120, "loss": 0.5, "train_s": 60.0}


def write(folder: Path, text: str) -> None:
    (folder / progress.FILE).write_text(text)


def test_what_its_owner_wrote(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(GOOD))
    found = progress.read(tmp_path, "me")
    assert found and (found.step, found.steps, found.loss) == (30, 120, 0.5)
    assert found.left_s == 90 / 30 * 60, "the other 90 steps, as fast as the first 30"
    assert progress.read(tmp_path, "another") is None


@pytest.mark.parametrize("change", [{"steps": None}, {"step": 0}, {"train_s": 0.0}])
def test_time_left_may_be_unknown(tmp_path: Path, change: dict[str, Any]) -> None:
    write(tmp_path, json.dumps(GOOD | change))
    found = progress.read(tmp_path, "me")
    assert found and found.left_s is None


def test_a_run_beyond_its_last_step_has_no_time_left(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(GOOD | {"step": 121}))
    found = progress.read(tmp_path, "me")
    assert found and found.left_s == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        json.dumps(GOOD)[:20],
        "[]",
        "null",
        json.dumps(GOOD | {"step": -1}),
        json.dumps(GOOD | {"step": "30"}),
        json.dumps(GOOD | {"train_s": -1}),
        json.dumps(GOOD | {"loss": float("nan")}),
        json.dumps(GOOD).replace("0.5", "1e999"),
        json.dumps(GOOD).replace("60.0", "1e300"),
        json.dumps({name: value for name, value in GOOD.items() if name != "step"}),
        json.dumps(GOOD | {"more": "x" * progress.MOST_BYTES}),
    ],
)
def test_anything_else_is_unknown(tmp_path: Path, text: str) -> None:
    write(tmp_path, text)
    assert progress.read(tmp_path, "me") is None


def test_no_file_a_folder_and_a_pipe_are_unknown(tmp_path: Path) -> None:
    assert progress.read(tmp_path, "me") is None
    (tmp_path / "folder" / progress.FILE).mkdir(parents=True)
    assert progress.read(tmp_path / "folder", "me") is None
    os.mkfifo(tmp_path / progress.FILE)
    assert progress.read(tmp_path, "me") is None
