"""spectra.npz: what is written is read back, a crash leaves the old file, and whatever is broken is named."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import EnvironmentProblem
from bench.spectra.files.history import FILE, SpectrumHistory, read, write

ODD = ["a/b", "../../up", "model.0.weight", "", "名前", "x" * 500, "steps_0", "index", "a\x00b"]


def spectrum(layer: str = "layer", of: str = "updates", **changes: Any) -> SpectrumHistory:
    fields: dict[str, Any] = {
        "of": of,
        "layer": layer,
        "shape": (4, 3),
        "how": "gram",
        "steps": np.array([0, 5]),
        "values": np.array([[0.0, 0.0], [2.0, 1e-300]]),
    }
    return SpectrumHistory(**fields | changes)


def test_names_that_are_no_names_of_files_come_back(tmp_path: Path) -> None:
    given = [spectrum(layer) for layer in ODD]
    given += [spectrum(of="activations", how="covariance", rows=np.array([7, 9]))]
    write(tmp_path / FILE, given)
    found = read(tmp_path / FILE)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert {one.of for one in found.spectra} == {"updates", "activations"} and list(found.layers("updates")) == ODD
    for one, want in zip(found.spectra, given, strict=True):
        assert (one.of, one.layer, one.shape, one.how) == (want.of, want.layer, want.shape, want.how)
        assert np.array_equal(one.steps, want.steps) and np.array_equal(one.values, want.values)
    assert found.spectra[0].rows is None and found.spectra[-1].rows is not None
    assert found.spectra[-1].rows.tolist() == [7, 9]


def test_a_row_of_nan_and_nothing_at_all_come_back(tmp_path: Path) -> None:
    write(tmp_path / FILE, [spectrum(values=np.array([[np.nan, np.nan], [2.0, 1.0]]))])
    assert np.isnan(read(tmp_path / FILE).spectra[0].values).tolist() == [[True, True], [False, False]]
    write(tmp_path / FILE, [])
    assert read(tmp_path / FILE).spectra == ()


@pytest.mark.parametrize("crash", ["replace", "fsync"])
def test_a_crash_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str) -> None:
    write(tmp_path / FILE, [spectrum("old")])

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, crash, fail)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / FILE, [spectrum("new")])
    assert list(read(tmp_path / FILE).layers("updates")) == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_a_kill_left_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: None)  # the process died before the rename
        write(tmp_path / FILE, [spectrum("old")])
    assert not (tmp_path / FILE).exists() and len([*tmp_path.iterdir()]) == 1
    write(tmp_path / FILE, [spectrum("new")])
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def entry(**changes: Any) -> dict[str, Any]:
    return {"of": "updates", "layer": "a", "shape": [4, 3], "how": "gram"} | changes


def forged(path: Path, index: Any, **arrays: Any) -> None:
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    np.savez(path, index=np.frombuffer(text, dtype=np.uint8), **arrays)


GOOD: dict[str, Any] = {"steps_0": np.array([0, 1]), "values_0": np.ones((2, 3))}
BROKEN: dict[str, tuple[Any, dict[str, Any]]] = {
    "no JSON": (b"{", GOOD),
    "no text": (b"\xff\xfe", GOOD),
    "no object": ([1], GOOD),
    "version": ({"version": 2, "spectra": []}, {}),
    "no list": ({"version": 1, "spectra": 7}, GOOD),
    "entry": ({"version": 1, "spectra": [7]}, GOOD),
    "no layer": ({"version": 1, "spectra": [{"of": "updates"}]}, GOOD),
    "layer is a number": ({"version": 1, "spectra": [entry(layer=3)]}, GOOD),
    "shape": ({"version": 1, "spectra": [entry(shape=[4])]}, GOOD),
    "narrow shape": ({"version": 1, "spectra": [entry(shape=[4, 2])]}, GOOD),
    "way": ({"version": 1, "spectra": [entry(how="guess")]}, GOOD),
    "array missing": ({"version": 1, "spectra": [entry(), entry()]}, GOOD),
    "lengths": ({"version": 1, "spectra": [entry()]}, {**GOOD, "steps_0": np.array([0])}),
    "order": ({"version": 1, "spectra": [entry()]}, {**GOOD, "steps_0": np.array([1, 0])}),
    "texts": ({"version": 1, "spectra": [entry()]}, {**GOOD, "values_0": np.full((2, 3), "x")}),
    "rows": ({"version": 1, "spectra": [entry()]}, {**GOOD, "rows_0": np.array([1])}),
    "pickle": ({"version": 1, "spectra": [entry()]}, {**GOOD, "values_0": np.array([[print] * 3] * 2)}),
}


def test_the_forged_form_is_good_where_nothing_is_broken(tmp_path: Path) -> None:
    forged(tmp_path / FILE, {"version": 1, "spectra": [entry()]}, **GOOD)
    assert read(tmp_path / FILE).spectra[0].values.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_named(tmp_path: Path, case: str) -> None:
    index, arrays = BROKEN[case]
    forged(tmp_path / FILE, index, **arrays)
    problem(tmp_path / FILE)


def problem(path: Path) -> None:
    with pytest.raises(EnvironmentProblem) as caught:
        read(path)
    assert str(path) in caught.value.what and caught.value.known and caught.value.todo


class Touches:
    """An object whose unpickling leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    values = np.array([[Touches(tmp_path / "touched")] * 3] * 2)
    forged(tmp_path / FILE, {"version": 1, "spectra": [entry()]}, **{**GOOD, "values_0": values})
    problem(tmp_path / FILE)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 half"])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    problem(tmp_path / FILE)


def test_neither_there_nor_an_npz(tmp_path: Path) -> None:
    problem(tmp_path / FILE)
    problem(tmp_path)
    with zipfile.ZipFile(tmp_path / FILE, "w") as archive:
        archive.writestr("index.npy", b"no array")
    problem(tmp_path / FILE)
    np.save(buffer := io.BytesIO(), np.ones(3))
    (tmp_path / FILE).write_bytes(buffer.getvalue())
    problem(tmp_path / FILE)


def test_half_a_file_is_a_problem_wherever_it_ends(tmp_path: Path) -> None:
    write(tmp_path / FILE, [spectrum(layer) for layer in "abc"])
    whole = (tmp_path / FILE).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / FILE).write_bytes(whole[:length])
        problem(tmp_path / FILE)


def test_a_flipped_byte_is_seen_or_harmless(tmp_path: Path) -> None:
    write(tmp_path / FILE, [spectrum("a")])
    whole = (tmp_path / FILE).read_bytes()
    for place in range(len(whole)):
        (tmp_path / FILE).write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read(tmp_path / FILE)
        except EnvironmentProblem as error:
            assert str(tmp_path / FILE) in error.what
