"""GLUE in the forms that `datasets` writes, and from the hub: its two caches, a hub on this machine, and no hub."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants
from small_hub import served

from bench.core import hub
from bench.core.errors import DataProblem
from bench.records.data import DataRequest
from tasks.glue import files as glue_files
from tasks.glue.task import GLUE

ROWS = {
    "train": [("a\u2028 \u00e9", 'b "', 0), ("c", "d", 2), ("e", "f", 1)],
    "validation_matched": [("g", "h", 1)],
    "validation_mismatched": [("i", "j", 2), ("k", "l", 0)],
    "test_matched": [("m", "n", -1)],
}
NAMES = ["entailment", "neutral", "contradiction"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    """A cache folder and a process state of each test's own; whoever wants a network sets the endpoint."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(hub, "_failed", {})
    probe = hub.connection_error
    probe.cache_clear()
    yield
    probe.cache_clear()


def mnli(names: list[str] = NAMES):
    """MNLI as a DatasetDict whose class labels have the given order."""
    import datasets

    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
            "idx": datasets.Value("int32"),
        }
    )
    renumber = {-1: -1, **{index: names.index(name) for index, name in enumerate(NAMES)}}
    splits = {
        split: datasets.Dataset.from_list(
            [{"premise": a, "hypothesis": b, "label": renumber[y], "idx": i} for i, (a, b, y) in enumerate(rows)],
            features=features,
        )
        for split, rows in ROWS.items()
    }
    return datasets.DatasetDict(splits)


def check(dataset) -> None:
    assert dataset.train == ROWS["train"]
    assert dict(dataset.evaluation) == {
        "dev_matched": ROWS["validation_matched"],
        "dev_mismatched": ROWS["validation_mismatched"],
    }


def opened(folder: Path, member: str = "mnli"):
    return GLUE(member).open(DataRequest(dirs=((None, folder),)))


# what `datasets` writes


@pytest.mark.parametrize("below", ["MNLI", "MNLI/data", "mine", "mine/data", "glue/mnli"])
@pytest.mark.parametrize("ending", ["parquet", "jsonl", "json"])
def test_files_that_datasets_writes(tmp_path, below, ending):
    folder = tmp_path / below
    folder.mkdir(parents=True)
    for split, data in mnli().items():
        file = folder / f"{split}.{ending}"
        _ = data.to_parquet(file) if ending == "parquet" else data.to_json(file)
    check(opened(tmp_path / below.split("/")[0]))


def test_a_json_array_that_datasets_writes(tmp_path):
    (tmp_path / "MNLI").mkdir()
    for split, data in mnli().items():
        data.to_json(tmp_path / "MNLI" / f"{split}.json", lines=False)
    check(opened(tmp_path))


@pytest.mark.parametrize("suffix", ["", "-0a1b2c3d4e5f6071"])
def test_shards_in_their_order(tmp_path, suffix):
    for split, data in mnli().items():
        for index in range(len(data)):
            name = f"{split}-{index:05d}-of-{len(data):05d}{suffix}.parquet"
            data.shard(len(data), index, contiguous=True).to_parquet(tmp_path / name)
    check(opened(tmp_path))
    (tmp_path / f"train-00001-of-00003{suffix}.parquet").unlink()
    with pytest.raises(DataProblem, match=r"split 'train'(?s:.*)full set of shards: train-00000-of-00003"):
        opened(tmp_path)


def test_a_folder_of_save_to_disk(tmp_path):
    mnli().save_to_disk(str(tmp_path / "MNLI"))
    check(opened(tmp_path))
    check(opened(tmp_path / "MNLI"))
    (tmp_path / "MNLI" / "train" / "state.json").unlink()
    with pytest.raises(DataProblem, match="save_to_disk"):
        opened(tmp_path)


def test_a_saved_folder_without_a_split(tmp_path):
    data = mnli()
    del data["validation_mismatched"]
    data.save_to_disk(str(tmp_path / "MNLI"))
    with pytest.raises(DataProblem, match="split 'dev_mismatched' is missing"):
        opened(tmp_path)


def test_labels_follow_their_names_where_the_file_orders_them_otherwise(tmp_path):
    for split, data in mnli(sorted(NAMES)).items():
        data.to_parquet(tmp_path / f"{split}.parquet")
    check(opened(tmp_path))


def test_an_unlabelled_split_names_its_first_row(tmp_path):
    for split, data in mnli().items():
        data.to_parquet(tmp_path / f"{split}.parquet")
    mnli()["test_matched"].to_parquet(tmp_path / "validation_matched.parquet")
    with pytest.raises(DataProblem, match=r"(?s)found -1.*validation_matched.parquet, row 1"):
        opened(tmp_path)


# the hub's caches


def cached(folder: Path, ending: str) -> None:
    folder.mkdir(parents=True)
    for split, data in mnli().items():
        if ending == "parquet":
            data.to_parquet(folder / f"{split}-00000-of-00001.parquet")
        else:
            table = data.with_format("arrow")[:]
            with pa.ipc.new_stream(folder / f"glue-{split}.arrow", table.schema) as stream:
                stream.write_table(table)


@pytest.mark.parametrize(
    ("place", "ending"),
    [
        (f"hub/datasets--nyu-mll--glue/snapshots/{glue_files.REVISION}/mnli", "parquet"),
        (f"datasets/nyu-mll___glue/mnli/0.0.0/{glue_files.REVISION}", "arrow"),
        (f"datasets/glue/mnli/0.0.0/{glue_files.REVISION}", "arrow"),
    ],
)
def test_the_pinned_revision_is_taken_from_the_cache_without_asking_the_hub(monkeypatch, tmp_path, place, ending):
    monkeypatch.setattr(hub, "connection_error", lambda endpoint: pytest.fail("the hub was asked"))
    cached(tmp_path / "hf" / place, ending)
    for data in ("auto", "hub"):
        dataset = GLUE("mnli").open(DataRequest(data=data))
        check(dataset)
        assert (dataset.source, dataset.revision, dataset.notes) == ("hub", glue_files.REVISION, ())


def test_another_revision_in_the_cache_is_not_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    other = "0" * 40
    cached(tmp_path / f"hf/hub/datasets--nyu-mll--glue/snapshots/{other}/mnli", "parquet")
    cached(tmp_path / f"hf/datasets/nyu-mll___glue/mnli/0.0.0/{other}", "arrow")
    assert GLUE("mnli").open(DataRequest()).source == "embedded"


# no hub


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_mode_is_respected(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(hub, "connection_error", lambda endpoint: pytest.fail("the hub was asked"))
    dataset = GLUE("rte").open(DataRequest())
    assert dataset.source == "embedded"
    assert dataset.notes == (
        f"no network: {name} is set; using the embedded GLUE; --data-dir DIR for the real corpora",
    )


def test_a_refused_connection_falls_back_with_the_reason(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        dataset = GLUE("rte").open(DataRequest())
    assert dataset.source == "embedded"
    assert [note for note in dataset.notes if "no network: 127.0.0.1: Connection refused" in note]


def test_a_hub_that_never_answers_costs_seconds_once(monkeypatch):
    """Timed on purpose: the whole suite must fall back within ten seconds."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        corpora = [GLUE(member).open(DataRequest()) for member in GLUE.members]
        with pytest.raises(DataProblem, match=r"(?s)cannot be loaded from the hub.*no network.*--data-dir"):
            GLUE("rte").open(DataRequest(data="hub"))
        assert time.monotonic() - start < 10
    assert {dataset.source for dataset in corpora} == {"embedded"}
    assert all("no network" in dataset.notes[0] for dataset in corpora)


def test_a_name_lookup_that_hangs_is_left_behind(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kw: release.wait(20) and [])
    start = time.monotonic()
    dataset = GLUE("rte").open(DataRequest())
    release.set()
    assert time.monotonic() - start < 10
    assert "huggingface.co: no answer within 0.1 s" in dataset.notes[0]


def test_a_failed_download_is_told_and_not_repeated(monkeypatch):
    import datasets

    asked = []

    def fail(*args, **kw):
        asked.append(args)
        raise ConnectionError("it broke\nin two lines")

    monkeypatch.setattr(hub, "unreachable", lambda: "")
    monkeypatch.setattr(datasets, "load_dataset", fail)
    notes = {GLUE(member).open(DataRequest()).notes for member in ("rte", "cola")}
    assert asked == [("nyu-mll/glue", "rte")]
    assert notes == {
        ("the hub failed: ConnectionError: it broke; using the embedded GLUE; --data-dir DIR for the real corpora",)
    }
    with pytest.raises(DataProblem, match="it broke"):
        GLUE("rte").open(DataRequest(data="hub"))


# a hub on this machine: `datasets` itself loads from it


CARD = (
    """---
configs:
- config_name: mnli
  data_files:
"""
    + "".join(f"  - split: {split}\n    path: mnli/{split}-*\n" for split in ROWS)
    + "---\n"
)


SCRIPT = """
from bench.records.data import DataRequest
from tasks.glue.task import GLUE
dataset = GLUE("mnli").open(DataRequest(data="hub"))
print(dataset.hash, dataset.revision)
"""


def test_datasets_loads_the_pinned_revision_and_its_caches_are_found_again(tmp_path):
    files = {"README.md": CARD.encode()}
    for split, data in mnli().items():
        pq.write_table(data.with_format("arrow")[:], tmp_path / "part.parquet")
        files[f"mnli/{split}-00000-of-00001.parquet"] = (tmp_path / "part.parquet").read_bytes()
    where = {"repository": glue_files.REPOSITORY, "commit": glue_files.REVISION}
    with served(files, kind="datasets", **where) as (address, asked):
        # a process of its own, because the hub's libraries read their environment when they are imported
        environment = {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert any(path.endswith(".parquet") for path in asked)
    cache = tmp_path / "hf"
    for aside in ("", "hub"):  # both caches, then that of `datasets` alone
        if aside:
            (cache / aside).rename(tmp_path / aside)
        dataset = GLUE("mnli").open(DataRequest(data="hub"))
        check(dataset)
        assert done.stdout.split() == [dataset.hash, glue_files.REVISION]
