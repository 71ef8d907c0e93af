"""Spectra of whole commands: killed in the middle, on two devices, and looked at beside the record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import kill_at_step

from bench.config.sections import QUANTITIES, SpectraConfig
from bench.core.errors import BenchError
from bench.records import record
from bench.spectra.files import history

Bench = Callable[..., Any]
LOOK = ("--set", f"spectra.of={','.join(QUANTITIES)}", "--set", "spectra.every=1", "--set", "spectra.layers=*query*")
AT_EVERY_STEP = """
from bench.spectra.tracking import tracker
tracker.WRITE_S, tracker.WRITE_SHARE = 0.0, float("inf")  # else a fast machine is killed before the second write
"""
SMALL = ("--batch-size", "8", "--set", "task.max_length=24", "--accelerator", "cpu")


def test_a_run_leaves_spectra_beside_its_record(bench: Bench, command: Callable[..., Any]) -> None:
    outcome = bench("--method", "lora", "--task", "glue/cola", budget=("--max-steps", "10"))
    made = outcome.only()
    assert made.spec.options.spectra == SpectraConfig().to_json()
    assert 0 < made.cost.tracking_s < made.cost.train_s
    found = history.read(outcome.folder / made.run_id / history.FILE).layers("updates")
    assert list(found) == [rank.layer for rank in made.ranks]
    [series] = made.spectra.series
    assert series.steps == (0, 2, 4, 6, 8, 10) and series.effective[0] == 0 < series.effective[1]

    same = bench("--method", "lora", "--task", "glue/cola", "--set", "spectra.of=updates", budget=("--max-steps", "10"))
    assert same.only().run_id == made.run_id
    off = bench(
        "--method", "lora", "--task", "glue/cola", "--set", "spectra.of=none", budget=("--max-steps", "10")
    ).records
    [other] = [one for one in off if one.run_id != made.run_id]
    assert other.spec.options.spectra["of"] == "none" and other.spectra is None
    assert [path.name for path in sorted((outcome.folder / other.run_id).iterdir())] == [
        "adapter.safetensors",
        "predictions.parquet",
        "record.json",
    ]
    assert (other.curve, other.metrics) == (made.curve, made.metrics)


@pytest.mark.parametrize(
    ("setting", "what"),
    [("spectra.of=grads", "'grads' is none of them"), ("spectra.evry=3", "unknown option 'spectra.evry'")],
)
def test_a_wrong_option_is_refused_before_anything_runs(bench: Bench, setting: str, what: str) -> None:
    outcome = bench("--method", "lora", "--task", "glue/cola", "--set", setting)
    assert outcome.code == 2 and what in outcome.err and outcome.records == []


def test_kill_9_leaves_readable_spectra_and_the_same_command_ends_them(
    bench: Bench, glue: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    out, steps = tmp_path / "runs", 60
    words = ["run", "--backbone", str(tiny_bert), "--data-dir", str(glue), "--out", str(out), *SMALL, *LOOK]
    words += ["--method", "lora", "--task", "glue/cola", "--set", "runtime.checkpoint_s=0", "--max-steps", str(steps)]
    kill_at_step(words, 50, first=AT_EVERY_STEP)
    [path] = out.glob(f"*/{history.FILE}")
    found = history.read(path)
    assert {one.of for one in found.spectra} == {*QUANTITIES}
    for one in found.spectra:
        assert one.steps.tolist() == [*range(len(one.steps))] and 49 <= len(one.steps) <= 51
        assert np.isfinite(one.values).all()
    [made], problems = record.load_all(out)
    assert not problems and made.state == "running"

    outcome = bench(
        *("--method", "lora", "--task", "glue/cola", "--set", "runtime.checkpoint_s=0", *LOOK),
        budget=("--max-steps", str(steps)),
    )
    assert outcome.code == 0
    for one in history.read(path).spectra:
        ends = steps + (one.of not in ("gradients", "steps"))
        assert one.steps.tolist() == [*range(ends)], f"no step of {one.of} is missing or twice"
    assert not [*path.parent.glob(".spectra*")]


def test_two_devices_see_what_one_sees(bench: Bench, tmp_path: Path) -> None:
    """33 examples in batches of 8: a last batch of one, at which the second device has nothing but a stand-in."""
    words = ("--method", "lora", "--task", "glue/stsb", "--train-samples", "33", *LOOK, "--precision", "64-true")
    folders: list[Path] = []
    for devices in ("1", "2"):
        outcome = bench(*words, "--devices", devices, budget=("--epochs", "1"), out=tmp_path / devices)
        assert outcome.code == 0, outcome.err
        made = outcome.only()
        assert made.cost.devices == int(devices) and made.cost.tracking_s > 0
        assert not [line for line in made.warnings if "activations" in line or "spectr" in line]
        folders.append(outcome.folder / made.run_id)
    one, two = (history.read(folder / history.FILE).spectra for folder in folders)
    assert [(s.of, s.layer, s.how) for s in one] == [(s.of, s.layer, s.how) for s in two]
    assert {s.of for s in one} == set(QUANTITIES)
    for mine, other in zip(one, two, strict=True):
        assert mine.steps.tolist() == other.steps.tolist()
        assert np.allclose(mine.values, other.values, rtol=1e-6, atol=1e-7 * mine.values.max()), (mine.of, mine.layer)
        if mine.of == "activations":
            assert mine.rows is not None and other.rows is not None
            assert mine.rows.tolist() == other.rows.tolist() and len({*mine.rows.tolist()}) > 2


@pytest.mark.slow
def test_two_devices_go_on_with_their_activations(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between the batches that count: the sums of both devices were kept, and none counts twice."""
    import os
    import signal

    from bench.harness.progress import Progress

    looks = ("--set", "spectra.of=activations,gradients", "--set", "spectra.every=5", "--set", "spectra.window=5")
    words = ("--method", "lora", "--task", "glue/stsb", *looks, "--set", "runtime.checkpoint_s=0", "--devices", "2")
    whole = bench(*words, budget=("--max-steps", "5"), out=Path("whole"))
    with monkeypatch.context() as patch:
        patch.setattr(
            Progress, "step", lambda self, step, loss: os.kill(os.getpid(), signal.SIGINT) if step == 3 else None
        )
        assert bench(*words, budget=("--max-steps", "5"), out=Path("parts")).code == 130
    parts = bench(*words, budget=("--max-steps", "5"), out=Path("parts"))
    assert parts.only().cost.resumed_at[0] in (2, 3, 4)
    one, two = (history.read(o.folder / o.only().run_id / history.FILE).spectra for o in (whole, parts))
    for mine, other in zip(one, two, strict=True):
        assert (mine.of, mine.layer, mine.steps.tolist()) == (other.of, other.layer, other.steps.tolist())
        assert np.allclose(mine.values, other.values, rtol=1e-9, atol=1e-12)
        assert mine.of != "activations" or (mine.rows == other.rows).all()  # type: ignore[union-attr]


def test_what_cannot_be_read_is_an_error_in_three_parts(tmp_path: Path) -> None:
    with pytest.raises(BenchError) as caught:
        history.read(tmp_path / history.FILE)
    assert caught.value.exit_code == 3
