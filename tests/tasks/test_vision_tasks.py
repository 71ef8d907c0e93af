"""MNIST, CIFAR, VTAB and digits: which source answers, what is read, what is said."""

from __future__ import annotations

import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from image_files import encoded, noise, tree, write_idx, write_mnist, write_tar, write_tree
from PIL import Image

from bench.core import hub
from bench.core.errors import AbsentTask, DataProblem, UsageError
from bench.records.data import DataRequest
from tasks.images.base import ImageConfig
from tasks.images.digits import Digits
from tasks.images.vision import CIFAR10, CIFAR100, MNIST, FashionMNIST
from tasks.images.vtab import LOCATIONS, VTAB

NAMES = CIFAR10.classes


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub"))
    monkeypatch.setattr(hub, "connection_error", lambda endpoint: "huggingface.co: no such host")


def asked(*dirs, **more):
    return DataRequest(dirs=tuple(d if isinstance(d, tuple) else (None, d) for d in dirs), **more)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnist_is_found_from_above_and_by_itself(tmp_path, end):
    folder = write_mnist(tmp_path / "data" / "MNIST", end=end)
    hashes = set()
    for request in (
        asked(folder),
        asked(folder.parent),
        asked(("mnist", folder)),
        DataRequest(parent=folder.parent),
    ):
        task = MNIST()
        dataset = task.open(request)
        hashes.add(dataset.hash)
        assert (len(dataset.train), len(dataset.evaluation["test"]), dataset.source) == (20, 10, "directory")
        assert (task.spec.shape, task.spec.num_classes, task.spec.note) == ((1, 28, 28), 10, "")
        assert dataset.revision == "MNIST"
    assert len(hashes) == 1


def test_mnist_and_fashion_mnist_are_never_taken_for_each_other(tmp_path):
    folder = write_mnist(tmp_path / "data" / "MNIST")
    with pytest.raises(AbsentTask, match="no fashion-mnist in"):
        FashionMNIST().open(asked(folder))
    assert FashionMNIST().open(asked(("fashion-mnist", folder))).reading["classes"][9] == "Ankle boot"


def test_a_missing_and_a_bad_idx_file_are_named(tmp_path):
    folder = write_mnist(tmp_path / "mnist")
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataProblem, match="t10k-labels-idx1-ubyte"):
        MNIST().open(asked(folder))
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.array([0, 1, 2, 3, 77, 5, 6, 7, 8, 9]))
    with pytest.raises(DataProblem, match=r"t10k-images-idx3-ubyte.gz, image 5: its label is none .* \(77\)"):
        MNIST().open(asked(folder))
    dataset = MNIST().open(asked(folder, on_bad="skip"))
    assert len(dataset.evaluation["test"]) == 9
    assert dataset.evaluation["test"].targets.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_size_and_mode_are_no_part_of_the_run_but_of_the_data(tmp_path):
    folder = write_mnist(tmp_path / "mnist")
    plain, large = (MNIST().open(asked(folder, config=c)) for c in (ImageConfig(), ImageConfig(size=14, mode="rgb")))
    assert large.train.inputs.shape == (20, 14, 14, 3)
    assert large.hash != plain.hash
    assert {"size", "mode", "mean", "std", "classes", "sizes", "files", "left_out"} <= set(large.reading)
    assert "augment" not in large.reading


def cifar_files(kind="JPEG", train=2, test=1):
    return {
        f"{split}/{name}/{i:04}.{kind.lower()}": encoded(noise(100 * j + i, (32, 32)), kind)
        for split, count in (("train", train), ("test", test))
        for j, name in enumerate(NAMES)
        for i in range(count)
    }


@pytest.mark.parametrize(("kind", "note"), [("JPEG", "CIFAR-10 (JPEG)"), ("PNG", "")])
def test_lossy_cifar_says_so(tmp_path, kind, note):
    write_tar(tmp_path / "cifar10_jpeg" / "CIFAR-10-images.tar.xz", cifar_files(kind))
    task = CIFAR10()
    dataset = task.open(DataRequest(parent=tmp_path))
    assert task.spec.note == note
    assert dataset.train.targets.tolist() == [i // 2 for i in range(20)]


def test_cifar_must_have_cifars_classes(tmp_path):
    write_tree(tmp_path / "cifar10", tree(classes=("airplane", "emu")))
    with pytest.raises(DataProblem, match=r"test/emu/0.png: its class is not one of the task's"):
        CIFAR10().open(asked(tmp_path))


def test_the_binary_version_of_cifar(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    planes = rng.integers(0, 256, (6, 10, 3, 32, 32), dtype=np.uint8)
    for name, part in zip([*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"], planes, strict=True):
        (folder / name).write_bytes(b"".join(bytes([i]) + p.tobytes() for i, p in enumerate(part)))
    task = CIFAR10()
    dataset = task.open(asked(tmp_path))
    assert np.array_equal(dataset.train.inputs, planes[:5].reshape(50, 3, 32, 32).transpose(0, 2, 3, 1))
    assert dataset.train.targets.tolist() == [*range(10)] * 5
    (folder / "data_batch_3.bin").write_bytes(b"1" * 5000)
    with pytest.raises(DataProblem, match=r"data_batch_3.bin, record 1"):
        CIFAR10().open(asked(tmp_path))


def write_parquet(folder, splits, label="label", names=None, count=30):
    import datasets

    for k, split in enumerate(splits):
        names = names or list(NAMES)
        images = [{"bytes": encoded(noise(1000 * k + i, (8, 8))), "path": None} for i in range(count)]
        features = datasets.Features({"img": datasets.Image(), label: datasets.ClassLabel(names=names)})
        data = {"img": images, label: [i % len(names) for i in range(count)]}
        folder.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(data, features=features).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


def test_parquet_of_a_directory_and_of_the_hubs_cache(tmp_path):
    write_parquet(tmp_path / "cifar10" / "data", ("train", "test"))
    dataset = CIFAR10().open(asked(tmp_path))
    assert np.array_equal(dataset.train.inputs, np.stack([noise(i, (8, 8)) for i in range(30)]))
    revision = CIFAR10.hub.revision
    snapshot = tmp_path / "huggingface" / "hub" / "datasets--uoft-cs--cifar10" / "snapshots" / revision
    write_parquet(snapshot / "plain_text", ("train", "test"))
    cached = CIFAR10().open(DataRequest())
    assert (cached.source, cached.revision) == ("hub", revision[:7])
    assert np.array_equal(cached.train.inputs, dataset.train.inputs)


def test_a_repository_is_read_through_datasets(tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "owner"
    write_parquet(folder, ("train", "test"), label="fine_label", names=[f"class {i}" for i in range(5)])
    card = "---\nconfigs:\n- config_name: plain\n  data_files:\n  - {split: train, path: train-*}\n"
    (folder / "README.md").write_text(card + "  - {split: test, path: test-*}\n---\n")
    monkeypatch.setattr(CIFAR100, "hub", hub.HubDataset(name=str(folder), config="plain"))
    monkeypatch.setattr(CIFAR100, "classes", ())
    dataset = CIFAR100().open(DataRequest())
    assert dataset.source == "hub"
    assert dataset.reading["classes"] == [f"class {i}" for i in range(5)]
    assert np.array_equal(dataset.evaluation["test"].inputs, np.stack([noise(1000 + i, (8, 8)) for i in range(30)]))


@pytest.mark.parametrize("task", [MNIST(), FashionMNIST(), CIFAR10(), CIFAR100(), VTAB("dtd")])
def test_without_a_network_it_says_so_and_what_to_do(task):
    with pytest.raises(DataProblem) as caught:
        task.open(DataRequest())
    assert caught.value.exit_code == 3
    assert "is not available from the hub" in caught.value.what
    assert caught.value.known == "no network: huggingface.co: no such host"
    assert f"--data-dir {task.spec.name}=DIR" in caught.value.todo


def test_what_is_not_embedded_says_so():
    with pytest.raises(DataProblem, match="mnist is not embedded"):
        MNIST().open(DataRequest(data="embedded"))


# VTAB


def test_vtab_draws_a_thousand_where_there_are_more_and_notes_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.images.vtab.TRAIN", 10)
    write_tree(tmp_path / "vtab" / "dtd", tree(classes=("a", "b", "c"), count=8))
    task = VTAB("dtd")
    dataset = task.open(DataRequest(parent=tmp_path))
    assert sorted(np.bincount(dataset.train.targets)) == [3, 3, 4]
    assert len(dataset.evaluation["test"]) == 24
    assert "vtab/dtd: 10 of 24 training images drawn" in dataset.notes
    assert "not the paper's" in task.spec.note
    monkeypatch.setattr("tasks.images.vtab.TRAIN", 24)
    task = VTAB("dtd")
    assert task.open(DataRequest(parent=tmp_path)).notes == ()
    assert task.spec.note == ""


def test_vtab_takes_no_other_tasks_folder_from_bench_data(tmp_path):
    write_tree(tmp_path / "cifar100", tree())
    with pytest.raises(DataProblem, match="is not available from the hub"):
        VTAB("cifar100").open(DataRequest(parent=tmp_path))


def test_vtabs_lists(tmp_path):
    files = {f"images/{split}/{i}.png": encoded(noise(i)) for split in ("train800val200", "test") for i in range(4)}
    folder = write_tree(tmp_path / "vtab-1k" / "cifar", files)
    for split in ("train800val200", "test"):
        (folder / f"{split}.txt").write_text("".join(f"images/{split}/{i}.png {i % 2}\n" for i in (3, 1, 2, 0)))
    dataset = VTAB("cifar100").open(asked(tmp_path / "vtab-1k"))
    assert np.array_equal(dataset.train.inputs, np.stack([noise(i) for i in (3, 1, 2, 0)]))
    assert dataset.train.targets.tolist() == [1, 1, 0, 0]
    (folder / "train800val200.txt").write_text(
        "".join(f"images/train800val200/{i}.png {i % 2}\n" for i in (3, 3, 1, 0))
    )
    dataset = VTAB("cifar100").open(asked(tmp_path / "vtab-1k"))
    assert np.array_equal(dataset.train.inputs, np.stack([noise(i) for i in (3, 3, 1, 0)])), "one image named twice"
    bad = {"images/x.png one": "line 2", "images/x.png 20261124103000": "line 2"}
    for line, words in {**bad, "../../x.png 1": "leads out", "images/x.png 1": "read"}.items():
        (folder / "test.txt").write_text(f"images/test/0.png 0\n{line}\n")
        with pytest.raises(DataProblem, match=words):
            VTAB("cifar100").open(asked(tmp_path / "vtab-1k"))
    for split in ("train800val200", "test"):
        (folder / f"{split}.txt").write_text("\n")
    with pytest.raises(DataProblem, match="no images in"):
        VTAB("cifar100").open(asked(tmp_path / "vtab-1k"))


@pytest.mark.parametrize("labels", [["cat", "dog"], [20261124103000, 0], [0.5, 1.5]])
def test_a_column_of_something_else_is_no_class(tmp_path, labels):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "dtd"
    folder.mkdir()
    rows = pa.table({"image": [encoded(noise(i)) for i in range(2)], "label": labels})
    for split in ("train", "test"):
        pq.write_table(rows, folder / f"{split}.parquet")
    with pytest.raises(DataProblem, match="row 1: its label is no class"):
        VTAB("dtd").open(asked(folder))


def test_a_size_of_nothing_is_a_usage_error():
    with pytest.raises(UsageError, match=r"task\.size=0"):
        ImageConfig(size=0)


def test_an_unknown_member_is_a_usage_error():
    with pytest.raises(UsageError, match="Did you mean 'dtd'"):
        VTAB("dtdd")


def test_every_member_has_a_repository():
    assert set(LOCATIONS) == set(VTAB.members)
    assert len({VTAB(member).hub.name for member in VTAB.members}) == 19


# digits


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    theirs = load_digits()
    task = Digits()
    dataset = task.open(DataRequest())
    test = dataset.evaluation["test"]
    both = np.concatenate([dataset.train.inputs, test.inputs])[..., 0]
    labels = np.concatenate([dataset.train.targets, test.targets])
    ours = Counter((np.rint(p / 255 * 16).astype(int).tobytes(), int(t)) for p, t in zip(both, labels, strict=True))
    assert ours == Counter((p.astype(int).tobytes(), int(t)) for p, t in zip(theirs.images, theirs.target, strict=True))
    assert (len(dataset.train), len(test), task.spec.shape) == (1438, 359, (1, 8, 8))
    expected = np.bincount(theirs.target) * 359 / 1797
    assert np.abs(np.bincount(test.targets) - expected).max() < 1
    assert Digits().open(DataRequest()).hash == dataset.hash


def test_digits_are_never_elsewhere():
    for data in ("dir", "hub"):
        with pytest.raises(DataProblem, match="embedded only"):
            Digits().open(DataRequest(data=data))


# the real files


@pytest.fixture
def real() -> Path:
    parent = os.environ.get("BENCH_DATA")
    if not parent or not {"mnist", "cifar10_jpeg"} <= {path.name for path in Path(parent).glob("*")}:
        pytest.skip("BENCH_DATA names no folder that holds mnist/ and cifar10_jpeg/")
    return Path(parent)


@pytest.mark.realdata
def test_the_real_mnist(real):
    import gzip

    dataset = MNIST().open(DataRequest(parent=real))
    assert dataset.hash == MNIST().open(asked(real / "mnist")).hash
    assert (len(dataset.train), len(dataset.evaluation["test"])) == (60000, 10000)
    raw = gzip.decompress((real / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    counts = np.bincount(np.frombuffer(raw, dtype=np.uint8))
    assert np.bincount(dataset.train.targets).tolist() == counts.tolist()
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.allclose([*dataset.reading["mean"], *dataset.reading["std"]], [0.1307, 0.3081], atol=5e-5)


@pytest.mark.realdata
def test_the_real_cifar10_as_jpegs(real):
    task = CIFAR10()
    dataset = task.open(DataRequest(parent=real))
    test = dataset.evaluation["test"]
    assert (len(dataset.train), len(test), task.spec.note) == (50000, 10000, "CIFAR-10 (JPEG)")
    assert np.bincount(dataset.train.targets).tolist() == [5000] * 10
    wanted = {f"train/{name}/{i:04}.jpg": 5000 * k + i for k, name in enumerate(NAMES) for i in (0, 7, 4999)}
    seen = 0
    with tarfile.open(real / "cifar10_jpeg" / "CIFAR-10-images.tar.xz", "r|xz") as tar:
        for member in tar:
            if member.name in wanted:
                theirs = np.asarray(Image.open(tar.extractfile(member)))
                assert np.array_equal(dataset.train.inputs[wanted[member.name]], theirs)
                seen += 1
    assert seen == 30
