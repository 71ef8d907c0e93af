"""The benchmarks run and report every variant; what they measure is not asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.benchmarks import adapterdrop, store, tracker
from bench.benchmarks.adapterdrop import Seconds
from bench.benchmarks.page import copies
from bench.records.consistency import contradictions
from bench.records.record import is_done, load_all


def test_adapterdrop_times_every_n_with_and_without_cache(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--backbone", str(tiny_bert), "--data", "embedded", "--train-samples", "20", "--accelerator", "cpu"]
    runs: list[tuple[object, int]] = []
    import bench.training.trainer as fitting

    real = fitting.fit

    def fit(spec, *args, **options):
        result = real(spec, *args, **options)
        runs.append((spec.options.method.n, result.cost.cache_bytes))
        return result

    monkeypatch.setattr(fitting, "fit", fit)
    assert adapterdrop.main([*argv, "--rounds", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in shown] == ["variant", "n=0", "n=1", "n=1 cached"]
    assert len(runs) == 1 + 2 * 3
    assert sorted((n, kept > 0) for n, kept in runs[1:]) == [(0, False)] * 2 + [(1, False)] * 2 + [(1, True)] * 2
    assert adapterdrop.main([*argv, "--train-samples", "10000000"]) != 0
    assert "training examples" in capsys.readouterr().err


def test_a_ratio_compares_runs_of_one_round() -> None:
    found = {"n=0": [Seconds(1.0, 0.0), Seconds(4.0, 0.0), Seconds(2.0, 0.0)]}
    found["n=1"] = [Seconds(0.5, 1.0), Seconds(3.0, 2.0), Seconds(0.5, 4.0)]
    row = adapterdrop.report(found).splitlines()[2]
    assert row.split() == ["n=1", "0.50", "0.50", "(0.25", "…", "0.75)", "+2.00"]


def test_tracker_times_runs_with_spectra_and_without(
    tiny_bert: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--data", "embedded", "--train-samples", "20", "--max-steps", "6", "--accelerator", "cpu"]
    own = {"methods": "lora", "tasks": "glue/rte", "backbones": str(tiny_bert)}
    monkeypatch.setitem(tracker.CASES, "minilm lora", own)
    runs: list[tuple[object, int]] = []
    import bench.training.trainer as fitting

    real = fitting.fit

    def fit(spec, *args, **options):
        result = real(spec, *args, **options)
        runs.append((spec.options.spectra.of, len(result.spectra.layers) if result.spectra else 0))
        return result

    monkeypatch.setattr(fitting, "fit", fit)
    assert tracker.main([*argv, "--rounds", "2", "--case", "minilm lora"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split("  ")[0] == "run" and shown[-1].startswith("minilm lora")
    assert runs[0] == ("none", 0) and sorted(runs[1:], key=str) == [("none", 0)] * 2 + [("updates", 4)] * 2


def test_a_share_is_of_the_run_with_spectra() -> None:
    off = [tracker.Seconds(10.0, 0.0), tracker.Seconds(20.0, 0.0), tracker.Seconds(40.0, 0.0)]
    on = [tracker.Seconds(11.0, 0.55), tracker.Seconds(20.0, 0.2), tracker.Seconds(42.0, 0.42)]
    row = tracker.report({"it": {"off": off, "on": on}}).splitlines()[-1]
    cells = [cell.strip() for cell in row.split("  ") if cell.strip()]
    assert cells == ["it", "20.00", "20.00", "1.050 (1.000 … 1.100)", "0.42", "1.0 % (most 5.0 %)"]


def test_the_store_times_both_commands_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    folder = tmp_path / "copies"
    assert store.main(["--count", "500", "--folder", str(folder)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "command" and len(rows) == 4
    assert all("  500  " in row and float(row.split()[-2]) > 0 for row in rows), "records, and the size of their index"
    assert load_all(folder)[1] == []
    assert store.main(["--runs", str(tmp_path / "none")]) == 3


def test_copies_of_records_are_valid_records() -> None:
    """A record that contradicts itself is left out of the table, and there would be nothing to time."""
    runs = Path(__file__).resolve().parents[2] / "leaderboard" / "results" / "runs"
    real = [record for record in load_all(runs)[0] if is_done(record)]
    made = [*copies(real, 3 * len(real))]
    assert len({record.run_id for record in made}) == len(made)
    assert not [reason for record in made for reason in contradictions(record)]
