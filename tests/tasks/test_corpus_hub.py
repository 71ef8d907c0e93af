"""Texts of the hub: a local data set, wikitext's layout from a hub on this machine, and no hub at all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_hub import served

from bench.core import hub
from bench.core.errors import DataProblem
from bench.records.data import DataRequest, Dataset
from tasks.corpus.task import CorpusConfig, TextCorpus

REPOSITORY, COMMIT = "Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3"
ROWS: dict[str, list[str | None]] = {
    "train": ["", " = Title = \n", "", *(f" Paragraph {i} of the article . \n" for i in range(20)), "two\n\nat once"],
    "validation": [" = Other = \n", "", " Held-out text é . \n"],
}
TRAIN = ["= Title =", *(f"Paragraph {i} of the article ." for i in range(20)), "two", "at once"]
DEV = ["= Other =", "Held-out text é ."]
CONFIG = "wikitext-2-raw-v1"
CARD = f"""---
configs:
- config_name: {CONFIG}
  data_files:
  - split: train
    path: {CONFIG}/train-*
  - split: validation
    path: {CONFIG}/validation-*
---
"""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_CACHE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    probe = hub.connection_error
    probe.cache_clear()
    yield
    probe.cache_clear()


def layout(folder: Path, rows: dict[str, list[str | None]] = ROWS) -> Path:
    """Wikitext's files, as the hub has them."""
    (folder / CONFIG).mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for split, texts in rows.items():
        table = pa.table({"text": pa.array(texts, pa.string())})
        pq.write_table(table, folder / CONFIG / f"{split}-00000-of-00001.parquet")
    return folder


def opened(name: str | Path, *, on_bad: Any = "error", **options: Any) -> Dataset:
    options = {"config": CONFIG, "validation": "validation", **options}
    return TextCorpus("").open(DataRequest(data="hub", config=CorpusConfig(hub=str(name), **options), on_bad=on_bad))


def texts(rows: Any) -> list[str]:
    return [row.text for row in rows]


def test_a_local_data_set(tmp_path: Path) -> None:
    dataset = opened(layout(tmp_path / "mine"))
    assert (texts(dataset.train), texts(dataset.evaluation["dev"])) == (TRAIN, DEV)
    assert (dataset.source, dataset.revision) == ("hub", "mine")
    drawn = opened(tmp_path / "mine", validation="0.2")
    assert sorted([*texts(drawn.train), *texts(drawn.evaluation["dev"])]) == sorted(TRAIN)
    assert len(drawn.evaluation["dev"]) == round(0.2 * len(TRAIN))
    assert str(tmp_path) not in json.dumps(drawn.notes)


def test_a_changed_local_data_set_is_read_again(tmp_path: Path) -> None:
    folder = layout(tmp_path / "mine")
    before = opened(folder).hash
    table = pa.table({"text": pa.array(["another one", "and two"], pa.string())})
    pq.write_table(table, folder / CONFIG / "train-00000-of-00001.parquet")
    assert texts(opened(folder).train) == ["another one", "and two"]
    assert opened(folder).hash != before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"column": "words"}, ("words", "'text'", "task.column")),
        ({"config": "wikitext-3"}, ("wikitext-3", CONFIG)),
        ({"split": "tain"}, ("tain", "train")),
    ],
)
def test_what_it_does_not_have_is_named_with_what_it_has(
    tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(DataProblem) as error:
        opened(layout(tmp_path / "mine"), **options)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not list((tmp_path / "cache").rglob("tmp*")), "and nothing half written stays"


def test_rows_without_text_are_named_or_left_out(tmp_path: Path) -> None:
    folder = layout(tmp_path / "mine", {**ROWS, "train": ["one", None, "two", None]})
    with pytest.raises(DataProblem, match=r"row 2: None(?s:.*)on_bad=skip"):
        opened(folder)
    for _ in range(2):  # streamed, and from the cache
        dataset = opened(folder, on_bad="skip")
        assert texts(dataset.train) == ["one", "two"]
        assert dataset.reading["texts"][0]["left_out"] == {"train": 2}
        assert any("2 left out" in note for note in dataset.notes)


SCRIPT = """
import json, sys
from bench.records.data import DataRequest
from tasks.corpus.task import CorpusConfig, TextCorpus
options = json.loads(sys.argv[1])
dataset = TextCorpus("").open(DataRequest(data="hub", config=CorpusConfig(**options)))
train, dev = ([row.text for row in rows] for rows in (dataset.train, dataset.evaluation["dev"]))
print(json.dumps([train, dev, dataset.revision, dataset.hash]))
"""


def test_datasets_streams_from_the_hub_at_a_commit_that_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = layout(tmp_path / "mine")
    files = {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    options = {"hub": REPOSITORY, "config": CONFIG, "validation": "validation"}
    with served(files, repository=REPOSITORY, commit=COMMIT, kind="datasets") as (address, asked):
        # a process of its own, because the hub's libraries read their environment when they are imported
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", SCRIPT, json.dumps(options)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + str(asked)
    train, dev, revision, digest = json.loads(done.stdout)
    assert (train, dev, revision) == (TRAIN, DEV, COMMIT)
    assert any(f"resolve/{COMMIT}/{CONFIG}/train" in path for path in asked)
    monkeypatch.setattr(hub, "connection_error", lambda endpoint: pytest.fail("the hub was asked"))
    pinned = opened(REPOSITORY, revision=COMMIT)
    assert (texts(pinned.train), pinned.revision) == (TRAIN, COMMIT)
    assert digest == pinned.hash


def test_no_network_is_said_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Timed on purpose: no library may wait and retry."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        for revision in ("main", "0" * 40):
            with pytest.raises(DataProblem) as error:
                opened(REPOSITORY, revision=revision)
            assert REPOSITORY in error.value.what
            assert "no network: 127.0.0.1" in error.value.known
            assert "--task corpus:PATH" in error.value.todo and error.value.exit_code == 3
        assert time.monotonic() - start < 10


def test_a_hub_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def fail(*args: Any, **options: Any) -> Any:
        raise ConnectionError("it broke\nin two lines")

    monkeypatch.setattr(hub, "connection_error", lambda endpoint: "")
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataProblem, match="it broke") as error:
        opened(REPOSITORY, revision=COMMIT)
    assert "\n" not in error.value.known
