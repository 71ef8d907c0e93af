"""What a run keeps beside its record is held against the hashes in the record, wherever it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from bench.backbones.image_networks import Timm, TimmConfig
from bench.backbones.text_encoders import BERT, BERTConfig, HuggingFace
from bench.config.sections import BackboneConfig
from bench.core.errors import BenchError, EnvironmentProblem
from bench.records import record
from bench.records.files import check_named, checked, hashes
from bench.records.record import Record
from bench.spectra.files.weights import contents

CONTENT = {"adapter.safetensors": b"adapter", "net/config.json": b"{}", "net/sub/pool.json": b"[]"}


@pytest.fixture
def run(tmp_path: Path, make_record: Callable[..., Record]) -> tuple[Record, Path]:
    """A done run that kept a file and a folder, and its own folder, which also has hidden files and one of the user."""
    made = make_record()
    folder = record.folder(tmp_path / "runs", made.run_id)
    for name, content in {**CONTENT, "net/.hidden": b"1", "net/.cache/file": b"2", "mine.txt": b"3"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    made = structs.replace(made, files=hashes(folder, ["adapter.safetensors", "net", "not there"]))
    record.write(made, folder)
    return record.read(folder / record.FILE), folder


def refused(call: Callable[[], object], *said: str) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        call()
    problem = caught.value
    assert problem.what and problem.known and problem.todo
    assert all(part in str(problem) for part in said), str(problem)


def test_the_record_has_the_sha256_of_every_file(run: tuple[Record, Path]) -> None:
    assert run[0].files == {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


def test_what_is_as_it_was_written_is_found(run: tuple[Record, Path]) -> None:
    for name in ("adapter.safetensors", "net", "net/config.json", "net/sub"):
        assert checked(*run, name) == run[1] / name


def test_a_changed_file_is_named_with_both_hashes(run: tuple[Record, Path]) -> None:
    made, folder = run
    for name, asked in (("adapter.safetensors", "adapter.safetensors"), ("net/sub/pool.json", "net")):
        (folder / name).write_bytes(b"other")
        short = [hashlib.sha256(content).hexdigest()[:12] for content in (b"other", CONTENT[name])]
        refused(lambda asked=asked: checked(made, folder, asked), str(folder / name), *short, f"remove {folder}")
        with pytest.raises(EnvironmentProblem, match="was changed"):
            check_named(folder / asked)


def test_a_file_too_many_or_too_few_in_a_folder_is_named(run: tuple[Record, Path]) -> None:
    made, folder = run
    (folder / "net" / "more.json").touch()
    refused(lambda: checked(made, folder, "net"), str(folder / "net" / "more.json"), "does not list it", "Remove it")
    (folder / "net" / "more.json").unlink()
    (folder / "net" / "config.json").unlink()
    refused(lambda: checked(made, folder, "net"), str(folder / "net" / "config.json"), "is not there")


def test_a_file_that_the_record_does_not_list_is_not_the_run_s(run: tuple[Record, Path]) -> None:
    made, folder = run
    (folder / "spectra.npz").write_bytes(b"of an earlier attempt")
    refused(lambda: checked(made, folder, "spectra.npz"), str(folder / "spectra.npz"), "does not list it")


def test_a_record_that_was_copied_alone_is_enough(run: tuple[Record, Path], tmp_path: Path) -> None:
    assert checked(run[0], tmp_path / "copy", "net") == tmp_path / "copy" / "net"


def test_what_a_running_run_wrote_so_far_is_taken_as_it_is(run: tuple[Record, Path]) -> None:
    made, folder = run
    (folder / "spectra.npz").write_bytes(b"so far")
    going = structs.replace(made, state="running", files={})
    assert checked(going, folder, "spectra.npz").read_bytes() == b"so far"


def test_a_named_path_is_checked_only_where_a_run_kept_it(
    run: tuple[Record, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = run
    (tmp_path / "elsewhere.txt").touch()
    for fine in (tmp_path / "elsewhere.txt", folder / "mine.txt", folder / "net", folder, tmp_path / "nowhere"):
        check_named(fine)
    (tmp_path / "link").symlink_to(folder)
    (folder / "net" / "config.json").write_bytes(b"[]")
    monkeypatch.chdir(folder / "net")
    for other in (Path("config.json"), Path(), Path("../net"), tmp_path / "link" / "net"):
        refused(lambda other=other: check_named(other), "net/config.json was changed")


def test_a_name_in_a_record_leads_nowhere(run: tuple[Record, Path], tmp_path: Path) -> None:
    """Records of strangers may list `net/../../secret`; only files that are in the folder are read."""
    made, folder = run
    (tmp_path / "secret").write_bytes(b"secret")
    made = structs.replace(made, files={**made.files, "net/../../../secret": "0" * 64})
    with pytest.raises(EnvironmentProblem, match="is not there") as caught:
        checked(made, folder, "net")
    assert hashlib.sha256(b"secret").hexdigest()[:12] not in str(caught.value)


READERS: dict[str, Callable[[Path], object]] = {
    "--backbone DIR": lambda net: HuggingFace().open(str(net), BackboneConfig()),
    "backbone.tokenizer": lambda net: BERT().open("bert", BERTConfig(tokenizer=str(net))),
    "backbone.weights": lambda net: Timm().open("timm:resnet18", TimmConfig(weights=str(net))),
    "bench spectra": lambda net: contents([net / "config.json"]),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_a_named_path_checks_it(run: tuple[Record, Path], reader: str) -> None:
    net = run[1] / "net"
    with pytest.raises(BenchError) as caught:
        READERS[reader](net)
    assert "was changed" not in caught.value.what, "it is no network, but as it was written"
    (net / "config.json").write_bytes(b"[]")
    refused(lambda: READERS[reader](net), "net/config.json was changed")


def test_a_hash_that_is_none_is_no_record(record_json: Any) -> None:
    with pytest.raises(record.BrokenRecord, match="not a valid record") as caught:
        record.validate(record_json(files={"adapter.safetensors": "abc"}), Path("x"))
    assert "files" in caught.value.known
