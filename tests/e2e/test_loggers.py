"""`--track csv`, `tensorboard` and `mlflow`: a record is mirrored by Lightning's loggers."""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from bench import tracking

Bench = Callable[..., Any]


def test_csv_by_lightnings_logger(bench: Bench) -> None:
    outcome = bench("--method", "lora", "--task", "glue/cola", "--track", "csv")
    made = outcome.only()
    assert made.tracking.to_json() == {
        "kind": "csv", "mode": "offline", "id": made.run_id, "error": None, "directory": "csv",
    }  # fmt: skip
    with (outcome.folder / made.run_id / "csv" / "metrics.csv").open() as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    losses = {step: float(row["train/loss"]) for step, row in rows.items() if row["train/loss"]}
    assert losses == {point.step: pytest.approx(point.loss) for point in made.curve}
    assert float(rows[max(rows)]["primary"]) == pytest.approx(made.metrics.primary.value)
    assert "options/method/rank: 8" in (outcome.folder / made.run_id / "csv" / "hparams.yaml").read_text()


def test_a_logger_whose_package_is_absent_is_known_before_anything_is_trained(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    outcome = bench("--method", "lora", "--task", "glue/cola", "--track", "mlflow")
    assert outcome.code == 3 and "pip install mlflow" in outcome.err and not outcome.folder.exists()


def test_tensorboard_by_lightnings_logger(bench: Bench) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    outcome = bench("--method", "lora", "--task", "glue/cola", "--track", "tensorboard")
    made = outcome.only()
    assert made.tracking.error is None
    assert list((outcome.folder / made.run_id / "tensorboard").glob("events.out.*"))


def test_mlflow_by_lightnings_logger(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    outcome = bench("--method", "lora", "--task", "glue/cola", "--track", "mlflow")
    made = outcome.only()
    assert made.tracking.error is None
    with closing(sqlite3.connect(outcome.folder / made.run_id / "mlflow" / "mlflow.db")) as database:
        losses = dict(database.execute("select step, value from metrics where key = 'train/loss'").fetchall())
        [rank] = database.execute("select value from params where key = 'options/method/rank'").fetchall()
    assert losses == {point.step: pytest.approx(point.loss) for point in made.curve}
    assert rank == ("8",)
