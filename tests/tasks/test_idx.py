"""idx files: equal to what torchvision reads, and every way in which one can be broken."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from image_files import write_idx, write_mnist

from bench.core.errors import DataProblem
from tasks.images.reading.arrays import read_idx, read_pair


@pytest.mark.parametrize("end", ["", ".gz"])
def test_arrays_come_back_as_they_were_written(tmp_path, end):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    file = write_idx(tmp_path / f"a-idx3-ubyte{end}", pixels)
    assert np.array_equal(read_idx(file, 3), pixels)


def test_equal_to_torchvisions_reader(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    folder = write_mnist(tmp_path / "MNIST" / "raw", end="")
    theirs = torchvision.datasets.MNIST(str(tmp_path), train=False)
    images, labels = read_pair(folder / "t10k-images-idx3-ubyte", folder / "t10k-labels-idx1-ubyte")
    assert np.array_equal(images, theirs.data.numpy())
    assert np.array_equal(labels, theirs.targets.numpy())


def broken(tmp_path, change):
    file = write_idx(tmp_path / "x-idx1-ubyte", np.arange(10))
    file.write_bytes(change(file.read_bytes()))
    return file


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data[:-1], "truncated: 9 bytes of data where its header says 10"),
        (lambda data: data + b"1", "more bytes than that: its header says 10"),
        (lambda data: data[:6], "truncated within its header"),
        (lambda _: b"", "wrong magic number: expected 00000801, found nothing"),
        (lambda data: b"\0\0\x0d\1" + data[4:], "expected 00000801, found 00000d01"),
        (lambda data: b"\0\0\x08\3" + data[4:], "expected 00000801, found 00000803"),
        (lambda data: data[:4] + b"\0\0\0\0", "impossible sizes: 0"),
        (lambda data: data[:4] + b"\xff\xff\xff\xff" + data[8:], "truncated"),
        (lambda data: gzip.compress(data)[:-9], "cannot be read"),
        (lambda data: gzip.compress(data)[:12] + b"\0" * 40, "cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path, change, words):
    file = broken(tmp_path, change)
    with pytest.raises(DataProblem, match=words) as caught:
        read_idx(file, 1)
    assert str(file) in str(caught.value)
    assert caught.value.exit_code == 3


def test_impossible_sizes_ask_for_no_memory(tmp_path):
    file = write_idx(tmp_path / "x-idx3-ubyte", np.zeros((1, 2, 2)))
    file.write_bytes(file.read_bytes()[:4] + b"\xff" * 12)
    with pytest.raises(DataProblem, match="impossible sizes"):
        read_idx(file, 3)


def test_labels_and_images_must_be_as_many(tmp_path):
    images = write_idx(tmp_path / "images", np.zeros((3, 2, 2)))
    labels = write_idx(tmp_path / "labels", np.zeros(4))
    with pytest.raises(DataProblem, match="4 labels for the 3 images of images"):
        read_pair(images, labels)
