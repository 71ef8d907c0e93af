"""Images of the user: class folders and tars, how they are split, and what is refused."""

from __future__ import annotations

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from image_files import encoded, noise, tree, write_tar, write_tree
from PIL import Image

from bench.core.errors import DataProblem, UsageError
from bench.records.data import DataRequest
from tasks.images.own import Images, ImagesConfig


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def opened(place, on_bad="error", **options):
    task = Images(str(place))
    return task, task.open(DataRequest(config=ImagesConfig(**options), on_bad=on_bad))


def pixels(files, *names):
    return np.stack([np.asarray(Image.open(io.BytesIO(files[name]))) for name in names])


def test_splits_classes_and_pixels_are_those_of_the_files(tmp_path):
    files = tree()
    task, dataset = opened(write_tree(tmp_path / "pets", files))
    assert np.array_equal(dataset.train.inputs, pixels(files, *sorted(n for n in files if n.startswith("train"))))
    assert dataset.train.targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert list(dataset.evaluation) == ["test"]
    assert np.array_equal(
        dataset.evaluation["test"].inputs, pixels(files, *sorted(n for n in files if n[:4] == "test"))
    )
    assert (task.spec.name, task.spec.shape, task.spec.num_classes) == ("images/pets", (3, 6, 6), 2)
    assert dataset.reading["classes"] == ["cat", "dog"]


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
@pytest.mark.parametrize("above", ["", "./", "root/deeper/"])
def test_a_tar_is_read_like_the_folder(tmp_path, mode, above):
    files = tree()
    folder = write_tree(tmp_path / "pets", files)
    mixed = {f"{above}{name}": files[name] for name in reversed(files)} | {f"{above}README.md": b"text"}
    end = mode[2:] and f".{mode[2:]}"
    _, tar = opened(write_tar(tmp_path / f"pets.tar{end}", mixed, mode))
    _, plain = opened(folder)
    assert tar.train.digest() == plain.train.digest()
    assert tar.evaluation["test"].digest() == plain.evaluation["test"].digest()
    assert "images/pets: 1 files beside the classes are ignored" in tar.notes


@pytest.mark.parametrize(("name", "split"), [("val", "validation"), ("validation", "validation"), ("test", "test")])
def test_names_of_splits(tmp_path, name, split):
    _, dataset = opened(write_tree(tmp_path / "pets", tree(splits=("train", name))))
    assert list(dataset.evaluation) == [split]


def test_a_class_may_be_called_train(tmp_path):
    _, dataset = opened(write_tree(tmp_path / "vehicles", tree(classes=("car", "train"), splits=(), count=10)))
    assert dataset.reading["classes"] == ["car", "train"]


def test_numbers_are_classes_in_the_order_of_their_values(tmp_path):
    _, dataset = opened(write_tree(tmp_path / "a", tree(classes=("10", "9", "2"), splits=(), count=5)))
    assert dataset.reading["classes"] == ["2", "9", "10"]


def test_a_share_of_every_class_is_drawn_the_same_for_every_seed_of_a_run(tmp_path):
    folder = write_tree(tmp_path / "pets", tree(splits=(), count=20))
    task, dataset = opened(folder, validation="0.2")
    held = dataset.evaluation["validation"]
    assert np.bincount(held.targets).tolist() == [4, 4]
    assert len({row.tobytes() for row in (*dataset.train.inputs, *held.inputs)}) == 40
    assert opened(folder, validation="0.2")[1].hash == dataset.hash
    assert opened(folder, validation="0.2", split_seed=1)[1].hash != dataset.hash
    assert dataset.version == task.spec.version


def test_another_folder_to_score_on(tmp_path):
    train = write_tree(tmp_path / "a", tree(splits=()))
    held = write_tar(tmp_path / "b.tar", tree(splits=(), count=2), "w:")
    _, dataset = opened(train, validation=str(held))
    assert dataset.reading["sizes"] == {"train": 6, "validation": 4}
    assert dataset.reading["validation"] == "b.tar"
    _, same = opened(train, validation=str(train))
    assert "images/a: validation and train are the same images; the score means nothing" in same.notes


BAD = {
    "a broken image": encoded(noise(0, (40, 40)))[:200],
    "not an image file": b"text",
    "not of the first image's size": encoded(noise(0, (6, 7))),
    "not of the first image's mode": encoded(noise(0, channels=1)),
    "neither grey nor RGB": encoded(Image.fromarray(noise(0)).convert("RGBA")),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("reason", BAD)
def test_bad_images_are_named_or_left_out(tmp_path, reason, packed):
    files = {**tree(), "train/dog/9.png": BAD[reason]}
    place = write_tar(tmp_path / "pets.tar.xz", files) if packed else write_tree(tmp_path / "pets", files)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(DataProblem, match=rf"train/dog/9.png: {reason}") as caught:
            opened(place)
        assert str(place) in str(caught.value)
        assert caught.value.exit_code == 3
    _, dataset = opened(place, on_bad="skip")
    assert len(dataset.train) == 6
    [(found, count)] = dataset.reading["left_out"].items()
    assert (found.startswith(reason), count) == (True, 1)
    assert any("1 of 13 images left out" in note and "train/dog/9.png" in note for note in dataset.notes)


def test_what_is_left_out_later_is_counted_too(tmp_path):
    folder = write_tree(tmp_path / "pets", tree())
    for count, name in enumerate(("1.png", "2.png"), 1):
        (folder / "train" / name).write_bytes(encoded(noise(0)))
        assert opened(folder, on_bad="skip")[1].reading["left_out"] == {"in no class folder": count}


def test_a_class_folder_without_an_image_is_named_or_left_out(tmp_path):
    folder = write_tree(tmp_path / "pets", tree())
    (folder / "train" / "emu").mkdir()
    with pytest.raises(DataProblem, match="train/emu: a class folder without an image"):
        opened(folder)
    assert opened(folder, on_bad="skip")[1].reading["classes"] == ["cat", "dog"]


def test_a_class_that_train_does_not_have(tmp_path):
    folder = write_tree(tmp_path / "pets", {**tree(), "test/emu/1.png": encoded(noise(0))})
    with pytest.raises(DataProblem, match=r"test/emu/1.png: its class is not one of train's \(emu\)"):
        opened(folder)


def test_an_image_in_no_class(tmp_path):
    folder = write_tree(tmp_path / "pets", {**tree(), "train/1.png": encoded(noise(0))})
    with pytest.raises(DataProblem, match=r"train/1\.png: in no class folder"):
        opened(folder)


def test_what_other_programs_leave_is_not_looked_at(tmp_path):
    extra = dict.fromkeys(("train/cat/.DS_Store", "train/cat/Thumbs.db", "train/cat/._1.png"), b"x")
    assert opened(write_tree(tmp_path / "pets", {**tree(), **extra}))[1].reading["left_out"] == {}


def test_too_little(tmp_path):
    (tmp_path / "empty").mkdir()
    for place, words in [
        (tmp_path / "nowhere", "does not exist"),
        (write_tree(tmp_path / "x", {"f.zip": b""}) / "f.zip", "is no tar"),
        (tmp_path / "empty", "no images in"),
        (write_tree(tmp_path / "one", {f"cat/{i}.png": encoded(noise(i)) for i in range(4)}), "of one class"),
        (write_tree(tmp_path / "bad", {"a/1.png": b"", "b/1.png": b""}), "not an image file"),
    ]:
        with pytest.raises(DataProblem, match=words) as caught:
            opened(place)
        assert caught.value.exit_code == 3


def test_options_are_checked():
    for options in ({"validation": "1.5"}, {"validation": "0"}, {"split_seed": -1}, {"size": 5000}):
        with pytest.raises(UsageError):
            ImagesConfig(**options)


# hostile and broken tars


def hostile(tmp_path, name="train/cat/bad.png", **changes):
    file = write_tar(tmp_path / "pets.tar", tree(), "w:")
    with tarfile.open(file, "a") as tar:
        member = tarfile.TarInfo(name)
        for key, value in changes.items():
            setattr(member, key, value)
        tar.addfile(member)
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "../train/cat/bad.png"}, "leads out of the archive"),
        ({"name": "/train/cat/bad.png"}, "leads out of the archive"),
        ({"name": "train/../../bad.png"}, "leads out of the archive"),
        ({"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "a link"),
        ({"type": tarfile.LNKTYPE, "linkname": "train/cat/0.png"}, "a link"),
        ({"type": tarfile.FIFOTYPE}, "neither a file nor a folder"),
        ({"name": "train/cat/0.png"}, "twice in the archive"),
    ],
)
def test_members_that_are_not_read(tmp_path, changes, words):
    file = hostile(tmp_path, **changes)
    with pytest.raises(DataProblem, match=words) as caught:
        opened(file)
    assert "pets.tar" in caught.value.what
    _, dataset = opened(file, on_bad="skip")
    assert len(dataset.train) == 6
    assert sum(dataset.reading["left_out"].values()) == 1


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_a_truncated_tar_is_named(tmp_path, mode):
    file = write_tar(tmp_path / "pets.tar", tree(count=20), mode)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3 - 100])
    with pytest.raises(DataProblem, match="breaks off") as caught:
        opened(file)
    assert str(file) in str(caught.value)


# the cache


def test_images_are_decoded_once(tmp_path, cache, monkeypatch):
    folder = write_tree(tmp_path / "pets", tree())
    _, first = opened(folder)
    monkeypatch.setattr("tasks.images.reading.decode.Decoder.decode", lambda *_: pytest.fail("decoded again"))
    _, second = opened(folder)
    assert second.hash == first.hash
    assert isinstance(second.train.inputs, np.memmap)
    assert len([*cache.iterdir()]) == 1


def test_a_changed_image_is_other_data(tmp_path):
    files = tree()
    folder = write_tree(tmp_path / "pets", files)
    _, first = opened(folder)
    (folder / "train" / "cat" / "0.png").write_bytes(files["train/cat/1.png"])
    _, second = opened(folder)
    assert second.hash != first.hash
    assert np.array_equal(second.train.inputs[0], first.train.inputs[1])


@pytest.mark.parametrize("name", ["pixels.npy", "labels.npy", "facts.json"])
@pytest.mark.parametrize("left", [0, 100])
def test_a_cache_cut_short_is_made_again(tmp_path, cache, name, left):
    folder = write_tree(tmp_path / "pets", tree())
    before = opened(folder)[1].hash
    [kept] = cache.iterdir()
    (kept / name).write_bytes((kept / name).read_bytes()[:left])
    assert opened(folder)[1].hash == before


def test_readers_that_come_at_once_agree(tmp_path, cache):
    folder = write_tree(tmp_path / "pets", tree())
    with ThreadPoolExecutor(8) as pool:
        hashes = {dataset.hash for _, dataset in pool.map(lambda _: opened(folder), range(8))}
    assert len(hashes) == 1
    assert len([*cache.iterdir()]) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOWRANK_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataProblem, match="LOWRANK_BENCH_CACHE"):
        opened(write_tree(tmp_path / "pets", tree()))


def test_mean_and_deviation_are_those_of_train(tmp_path):
    _, dataset = opened(write_tree(tmp_path / "pets", tree()))
    values = np.asarray(dataset.train.inputs, dtype=np.float64) / 255
    assert np.allclose(dataset.reading["mean"], values.mean((0, 1, 2)), rtol=0, atol=1e-14)
    assert np.allclose(dataset.reading["std"], values.std((0, 1, 2)), rtol=0, atol=1e-14)
