"""`Runs.spectra()`: a row per run, quantity, layer and step, against numpy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import list_files

import bench
from bench.records import record
from bench.records.results import LayerSpectrum, Spectra
from bench.spectra.files.history import FILE, SpectrumHistory, write

LAYERS = [f"encoder.layer.{i}.attention.self.query" for i in range(2)]
"""Of the record that `make_record` makes."""
SIGMA = np.array([[0.0, 0.0, 0.0], [3.0, 2.0, 0.5], [8.0, 0.25, 0.0]])
STEPS = np.array([0, 10, 40])


@pytest.fixture
def folder(tmp_path: Path, make_record: Callable[..., Any]) -> Path:
    """Two runs: one followed a layer's ΔW, and a gradient that was not finite once; the other stored nothing."""
    for seed in range(2):
        summary = LayerSpectrum(of="gradients", layer="g", step=39, stable=1.5, effective=2.5, energy90=3, norm=0.5)
        made = make_record(spec={"seed": seed}, spectra=Spectra(layers=(summary,), series=()).to_json())
        place = record.folder(tmp_path / "runs", made.run_id)
        record.write(made, place)
        if seed == 0:
            lost = np.where(np.arange(3)[:, None] == 1, np.nan, SIGMA + 1)
            parts = {"how": "factors", "steps": STEPS}
            update = SpectrumHistory(of="updates", layer=LAYERS[1], shape=(384, 300), values=SIGMA, **parts)
            write(
                place / FILE, [update, SpectrumHistory(of="gradients", layer="g", shape=(5, 3), values=lost, **parts)]
            )
            list_files(place)
    return tmp_path / "runs"


def by_numpy(sigma: np.ndarray[Any, Any]) -> list[float]:
    """Stable, effective and 90 % energy rank, and norm."""
    if not sigma.any():
        return [0, 0, 0, 0]
    p, squares = sigma[sigma > 0] / sigma.sum(), sigma**2
    energy = int(np.searchsorted(np.cumsum(squares) / squares.sum(), 0.9) + 1)
    return [squares.sum() / squares.max(), np.exp(-(p * np.log(p)).sum()), energy, sigma.max()]


METRICS = ["stable_rank", "effective_rank", "energy90_rank", "spectral_norm"]


def test_every_step_of_what_was_tracked(folder: Path) -> None:
    frame = bench.load(folder).spectra()
    frame = frame[frame.seed == 0]
    update = frame[frame.layer == LAYERS[1]]
    assert update.step.tolist() == [0, 10, 40] and set(update.of) == {"updates"}
    assert update[["m", "n", "nominal_rank"]].to_numpy().tolist() == [[384, 300, 8]] * 3
    for values, sigma in zip(update[METRICS].to_numpy(), SIGMA, strict=True):
        assert values == pytest.approx(by_numpy(sigma), rel=1e-12)
    gradient = frame[frame.of == "gradients"]
    assert gradient.nominal_rank.isna().all() and set(gradient.n) == {3}
    assert gradient[METRICS].isna().all(axis=1).tolist() == [False, True, False]
    assert gradient[METRICS].to_numpy()[2] == pytest.approx(by_numpy(SIGMA[2] + 1), rel=1e-12)


def test_what_was_not_tracked_is_of_the_last_step(folder: Path) -> None:
    runs = bench.load(folder)
    [run] = (run for run in runs if run.spec.seed == 0)
    frame = runs.spectra()
    frame = frame[(frame.run_id == run.run_id) & (frame.layer == LAYERS[0])]
    rank = next(rank for rank in run.ranks if rank.layer == LAYERS[0])
    assert frame.step.tolist() == [run.cost.steps if run.cost else None]
    assert frame[METRICS].to_numpy().tolist() == [[rank.stable, rank.effective, rank.energy90, rank.norm]]


def test_a_record_alone_tells_of_the_last_step(folder: Path) -> None:
    frame = bench.load(folder).spectra()
    frame = frame[frame.seed == 1]
    assert frame.of.tolist() == ["gradients", "updates", "updates"] and frame.layer.tolist() == ["g", *LAYERS]
    assert frame.step.tolist()[0] == 39 and frame.m.isna().tolist() == [True, False, False]
    assert frame[METRICS].to_numpy()[0].tolist() == [1.5, 2.5, 3, 0.5]


def test_a_broken_file_is_warned_of_and_the_record_counts(folder: Path) -> None:
    [file] = folder.glob(f"*/{FILE}")
    file.write_bytes(b"torn")
    with pytest.warns(UserWarning, match="was changed after the run had written it"):
        frame = bench.load(folder).spectra()
    assert frame.groupby("run_id").size().tolist() == [3, 3]


def test_no_runs_give_all_columns(folder: Path) -> None:
    runs = bench.load(folder)
    none, some = runs[:0].spectra(), runs.spectra()
    assert len(none) == 0 and [*none] == [*some]
    assert {"run_id", "method", "task", "seed"} < {*some} & {*runs.frame()}


def test_pandas_is_imported_only_then() -> None:
    code = "import sys, bench; bench.load('nowhere'); print({'pandas', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
