"""Pipes, devices, files without end and tars cut or blown up, in the place of data: refused at once, never read."""

from __future__ import annotations

import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image_files import tree, write_mnist, write_tar, write_tree
from table_files import opened, rows, write

from bench.core.errors import DataProblem, EnvironmentProblem
from bench.core.files import regular, sha256
from bench.records.data import DataRequest, Dataset
from tasks.corpus.task import TextCorpus
from tasks.glue.task import GLUE
from tasks.images.own import Images, ImagesConfig
from tasks.images.reading import files as image_files
from tasks.images.reading.dataset import source_in
from tasks.io import readers
from tasks.io.directories import files_below


@pytest.fixture(autouse=True)
def _no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A read without end fails."""

    def stop(*_: object) -> None:
        raise AssertionError("it hangs")

    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 20)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def pipe(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def device(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")
    return path


def hole(path: Path, size: int) -> Path:
    """A file of zeros that takes no space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)
    return path


ENDLESS = pytest.mark.parametrize("put", [pipe, device])


def images(place: Path, on_bad: Any = "error") -> Dataset:
    return Images(str(place)).open(DataRequest(config=ImagesConfig(), on_bad=on_bad))


@ENDLESS
def test_only_a_regular_file_is_hashed(tmp_path: Path, put: Any) -> None:
    with pytest.raises(EnvironmentProblem, match="no regular file") as caught:
        sha256(put(tmp_path / "file"))
    assert caught.value.known and caught.value.todo
    with pytest.raises(IsADirectoryError):
        regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "absent")
    file = hole(tmp_path / "zeros", 10)
    assert regular(file, most=10) == file
    with pytest.raises(EnvironmentProblem, match="too large"):
        regular(file, most=9)


@ENDLESS
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table(tmp_path: Path, put: Any, suffix: str) -> None:
    with pytest.raises(EnvironmentProblem, match="no regular file"):
        opened(put(tmp_path / f"mine{suffix}"))
    with pytest.raises(EnvironmentProblem, match="no regular file"):
        opened(write(tmp_path / "train.csv", rows()), validation=str(tmp_path / f"mine{suffix}"))


def test_a_table_or_a_line_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentProblem, match="too large"):
        opened(hole(tmp_path / "huge.csv", readers.LARGEST + 1))
    monkeypatch.setattr(readers, "LARGEST_LINE", 50)
    for quotes in (True, False):
        (tmp_path / "mine.csv").write_text("text,label\na,x\n" + "b" * 49 + ",y\n")
        with pytest.raises(DataProblem, match="line 3 has more than 50 bytes"):
            opened(tmp_path / "mine.csv", quotes=quotes)


@ENDLESS
@pytest.mark.parametrize("suffix", ["tsv", "jsonl", "parquet"])
def test_glue(tmp_path: Path, put: Any, suffix: str) -> None:
    for split in ("train", "dev"):
        put(tmp_path / "RTE" / f"{split if suffix == 'tsv' or split == 'train' else 'validation'}.{suffix}")
    with pytest.raises(EnvironmentProblem, match="no regular file"):
        GLUE("rte").open(DataRequest(data="dir", dirs=((None, tmp_path),)))


@ENDLESS
def test_a_folder_that_another_library_reads(tmp_path: Path, put: Any) -> None:
    (tmp_path / "b.txt").touch()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c.txt").touch()
    (tmp_path / "broken").symlink_to("absent")
    assert files_below(tmp_path) == [tmp_path / "a" / "c.txt", tmp_path / "b.txt"]
    put(tmp_path / "a" / "data-00000-of-00001.arrow")
    with pytest.raises(EnvironmentProblem, match="no regular file"):
        files_below(tmp_path)


def test_a_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree\n")
    device(tmp_path / "b.txt")
    with pytest.raises(EnvironmentProblem, match="no regular file"):
        TextCorpus(str(tmp_path)).open(DataRequest())


@ENDLESS
def test_an_image_is_named_or_left_out(tmp_path: Path, put: Any) -> None:
    put(write_tree(tmp_path / "pets", tree()) / "train" / "cat" / "9.png")
    with pytest.raises(DataProblem, match=r"train/cat/9\.png: neither a file nor a folder"):
        images(tmp_path / "pets")
    assert len(images(tmp_path / "pets", on_bad="skip").train) == 6


def test_an_image_that_is_too_large_is_named_or_left_out(tmp_path: Path) -> None:
    hole(write_tree(tmp_path / "pets", tree()) / "train" / "cat" / "9.png", image_files.LARGEST + 1)
    with pytest.raises(DataProblem, match=r"train/cat/9\.png: larger than 256 MiB"):
        images(tmp_path / "pets")
    assert images(tmp_path / "pets", on_bad="skip").reading["left_out"] == {"larger than 256 MiB": 1}


@ENDLESS
def test_images_in_other_layouts(tmp_path: Path, put: Any) -> None:
    classes = tuple("0123456789")
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (tmp_path / "cifar").mkdir(exist_ok=True)
        (tmp_path / "cifar" / name).write_bytes(bytes(3073))
    put(tmp_path / "cifar" / "data_batch_2.bin")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train800val200.txt").write_text("a.png 0\n")
    (tmp_path / "lists" / "test.txt").write_text("a.png 0\n")
    put(tmp_path / "lists" / "a.png")
    for split in ("train", "test"):
        put(tmp_path / "tables" / f"{split}.parquet")
    for folder in ("cifar", "lists", "tables"):
        with pytest.raises(EnvironmentProblem, match="no regular file"):
            source_in(tmp_path / folder, classes)
    put(write_mnist(tmp_path / "mnist") / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(EnvironmentProblem, match="is missing"):
        source_in(tmp_path / "mnist", classes)


# tars


def ends_of_members(file: Path) -> list[int]:
    with tarfile.open(file) as tar:
        return [(member.offset_data + member.size + 511) // 512 * 512 for member in tar.getmembers()]


@pytest.mark.parametrize("beyond", [0, 100, 511])
@pytest.mark.parametrize("pack", [False, True])
def test_a_tar_cut_at_a_members_end_is_not_whole(tmp_path: Path, beyond: int, pack: bool) -> None:
    import gzip

    file = write_tar(tmp_path / "pets.tar", tree(), "w:")
    for end in ends_of_members(file)[-2:]:
        cut = file.read_bytes()[: end + beyond]
        broken = tmp_path / f"cut.tar{'.gz' * pack}"
        broken.write_bytes(gzip.compress(cut) if pack else cut)
        with pytest.raises(DataProblem, match="the mark of its end is missing"):
            images(broken)
    whole = tmp_path / "whole.tar"
    whole.write_bytes(file.read_bytes()[: end + 1024])  # two blocks of zeros and no more
    assert len(images(whole).train) == 6


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_what_a_tar_unpacks_to_has_limits(tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "LARGEST", 1 << 20)
    bomb = write_tar(tmp_path / "one.tar", {**tree(), "train/cat/9.png": bytes((1 << 20) + 1)}, mode)
    with pytest.raises(DataProblem, match=r"train/cat/9\.png is larger than 1 MiB") as caught:
        images(bomb, on_bad="skip")
    assert str(bomb) in caught.value.known
    many = {f"train/cat/{i}.png": bytes(1 << 20) for i in range(10, 30)}
    bomb = write_tar(tmp_path / "many.tar", {**tree(), **many}, mode)
    if mode == "w:":
        assert len(images(bomb, on_bad="skip").train) == 6
    else:
        with pytest.raises(DataProblem, match="more than 100 times its own bytes and 1 MiB"):
            images(bomb, on_bad="skip")
