"""One flipped byte in any file of a run is refused, or it changes nothing; never does it change a result in silence."""

from __future__ import annotations

from pathlib import Path

from damage import cases, count


def test_no_flipped_byte_changes_a_result_in_silence(tmp_path: Path) -> None:
    """At few places a file; `python tests/support/damage.py` takes 50 and prints a table."""
    found = {(case.run.name, case.name, case.reader): count(case, 4) for case in cases(tmp_path)}
    assert {name for _, name, _ in found} >= {
        "record.json",
        "adapter.safetensors",
        "spectra.npz",
        "predictions.parquet",
        "checkpoint-1x1.ckpt",
        "backbone/network.json",
        "backbone/config.json",
        "backbone/tokenizer.json",
        "backbone/model.safetensors",
    }
    assert {key: fates for key, fates in found.items() if fates["silent"] or fates["crashed"]} == {}
    assert all(fates["refused"] for fates in found.values()), "a reader that refuses nothing reads nothing"
