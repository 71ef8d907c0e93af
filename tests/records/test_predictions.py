"""The outputs of a run in `predictions.parquet`: what is written is read, and nothing else passes for it."""

from __future__ import annotations

import os

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from bench.core.errors import EnvironmentProblem
from bench.records import predictions
from bench.records.files import hashes
from bench.records.predictions import FILE, Predictions, load, write

N = 7
DRAW = np.random.default_rng(0)
KINDS = {
    "classes": (DRAW.integers(3, size=N), DRAW.normal(size=(N, 3)).astype(np.float32)),
    "numbers": (DRAW.normal(size=N).astype(np.float32), DRAW.normal(size=N).astype(np.float32)),
    "several numbers": (np.where(np.eye(N, 2) > 0, np.nan, 1.5), DRAW.normal(size=(N, 2)).astype(np.float32)),
    "several classes": (DRAW.integers(2, size=(N, 4)), DRAW.normal(size=(N, 4)).astype(np.float32)),
}


def splits(labels, outputs):
    whole = Predictions(np.arange(N), labels, outputs)
    return {"dev": whole, "dev_mismatched": Predictions(np.arange(3), labels[:3], outputs[:3])}


@pytest.fixture
def kept(make_record, tmp_path):
    """`kept(labels, outputs)`: a record and the folder of its run, with the outputs of two splits beside it."""

    def make(labels, outputs):
        write(tmp_path / FILE, splits(labels, outputs))
        return listed(make_record(metrics={"primary": {"name": "accuracy", "value": 0.5, "n": N}}), tmp_path)

    return make


def listed(run, folder):
    source = structs.replace(run.source, evaluation_examples={"dev": N, "dev_mismatched": 3})
    return structs.replace(run, source=source, files=hashes(folder, [FILE])), folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_for_the_split_of_the_score(kept, kind):
    labels, outputs = KINDS[kind]
    found = load(*kept(labels, outputs))
    assert found.index.tolist() == [*range(N)]
    assert found.labels.dtype == labels.dtype and found.outputs.dtype == np.float32
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.outputs, outputs)


def test_equal_values_give_equal_bytes_that_pandas_reads(kept, tmp_path):
    labels, outputs = KINDS["classes"]
    _, folder = kept(labels, outputs)
    write(tmp_path / "again.parquet", splits(labels, outputs))
    assert (folder / FILE).read_bytes() == (tmp_path / "again.parquet").read_bytes()
    frame = pandas.read_parquet(folder / FILE)
    assert list(frame) == ["split", "index", "label", "outputs"] and len(frame) == N + 3
    assert np.stack(frame.outputs[:N]).tolist() == outputs.tolist()


def test_without_the_file_there_is_nothing(kept):
    run, folder = kept(*KINDS["classes"])
    (folder / FILE).unlink()
    assert load(run, folder) is None


def test_a_file_that_was_changed_is_refused(kept):
    run, folder = kept(*KINDS["classes"])
    content = bytearray((folder / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / FILE).write_bytes(content)
    with pytest.raises(EnvironmentProblem, match="was changed after the run had written it"):
        load(run, folder)


def rows(**changes):
    whole = {"split": ["dev"] * N, "index": [*range(N)], "label": [0] * N, "outputs": [0.5] * N} | changes
    rest = {name: whole[name][:1] * 3 for name in whole} | {"split": ["dev_mismatched"] * 3}
    return pa.table({name: whole[name] + rest[name] for name in whole})


@pytest.mark.parametrize(
    ("wrong", "known"),
    [
        (rows(split=["test"] * N), "0 examples of dev, of which the record has 7"),
        (rows().slice(1), "9 rows"),
        (rows().rename_columns(["split", "index", "label", "other"]), "other"),
        (rows(index=[0, 0, 2, 3, 4, 5, 6]), "does not ascend"),
        (rows(index=[0.5] * N), "does not ascend"),
        (rows(outputs=[float("nan")] * N), "not finite"),
        (rows(outputs=["a"] * N), "holds string, not numbers"),
        (rows(outputs=[None] + [0.5] * (N - 1)), "missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_content_is_refused_even_if_the_record_lists_it(make_record, tmp_path, wrong, known):
    pq.write_table(wrong, tmp_path / FILE)
    run, folder = listed(make_record(metrics={"primary": {"name": "accuracy", "value": 0.5, "n": N}}), tmp_path)
    with pytest.raises(EnvironmentProblem) as refused:
        load(run, folder)
    assert "does not hold the outputs of its run" in refused.value.what and known in refused.value.known


def test_no_file_is_read_that_is_too_large_or_none(kept, monkeypatch, tmp_path, make_record):
    run, folder = kept(*KINDS["classes"])
    monkeypatch.setattr(predictions, "MOST_BYTES", 300)
    with pytest.raises(EnvironmentProblem, match="too large"):
        load(run, folder)
    (folder / FILE).write_text("not parquet")
    with pytest.raises(EnvironmentProblem, match="does not hold"):
        load(*listed(run, folder))
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)
    with pytest.raises(EnvironmentProblem, match="regular"):
        load(run, folder)
