"""`bench spectra --values`: raw singular values as files, against numpy's SVD, and the curves of the layers chosen."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from records import list_files
from safetensors.numpy import save_file

from bench.cli import main
from bench.cli.spectra import values
from bench.cli.spectra.values import LayerValues
from bench.core.errors import OK, USAGE
from bench.records import record

RUN = "1f3a9c0123456789"
LAYERS = [f"encoder.layer.{i}.attention.self.query" for i in range(2)]
"""Of the record that `make_record` makes."""
WITHIN = 1e-11
"""Largest difference from the SVD, of σ₁, that docs/metrics.md states."""
Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_id: None) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: Said, *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["spectra", *words])
    out, err = capsys.readouterr()
    return code, out, err


def tensors() -> dict[str, np.ndarray[Any, Any]]:
    """Tall, wide and square matrices, convolutions, experts, graded and low-rank ones, in three precisions."""
    rng = np.random.default_rng(3)
    left, right = np.linalg.qr(rng.normal(size=(40, 30)))[0], np.linalg.qr(rng.normal(size=(30, 30)))[0]
    made: dict[str, np.ndarray[Any, Any]] = {
        "blocks.0.tall.weight": rng.normal(size=(70, 30)),
        "blocks.1.wide.weight": rng.normal(size=(20, 90)),
        "conv.weight": rng.normal(size=(8, 4, 3, 3)),
        "graded.weight": (left * 10.0 ** np.linspace(0, -9, 30)) @ right,
        "floor.weight": _orthogonal(256, rng) * 10.0 ** np.linspace(0, -4.9, 256) @ _orthogonal(256, rng),
        "low.weight": rng.normal(size=(40, 3)) @ rng.normal(size=(3, 25)),
        "file": rng.normal(size=(6, 5)),
        "blocks.2.half.weight": rng.normal(size=(32, 24)).astype(np.float16),
        "blocks.2.double.weight": rng.normal(size=(12, 12)),
        "experts.up": rng.normal(size=(2, 24, 20)),
    }
    return {name: a if "double" in name or "half" in name else a.astype(np.float32) for name, a in made.items()}


def _orthogonal(size: int, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return np.linalg.qr(rng.normal(size=(size, size)))[0]


def expected(given: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """numpy's SVD of every matrix, in float64."""
    matrices = {name: a.reshape(len(a), -1) for name, a in given.items() if name != "experts.up"}
    matrices |= {f"experts.up[{i}]": a for i, a in enumerate(given.get("experts.up", ()))}
    return {name: np.linalg.svd(a.astype(np.float64), compute_uv=False) for name, a in matrices.items()}


def read(file: str) -> dict[str, np.ndarray[Any, Any]]:
    """Values by layer of a file of any format, in the order of their index."""
    if file.endswith(".npz"):
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    frame = pandas.read_csv(file) if file.endswith(".csv") else pandas.read_parquet(file)
    return {str(layer): rows.sort_values("index")["value"].to_numpy() for layer, rows in frame.groupby("layer")}


@pytest.mark.parametrize("file", ["v.npz", "v.csv", "v.parquet"])
def test_values_of_a_model_are_those_of_numpy(file: str, capsys: Said) -> None:
    given = tensors()
    save_file(given, "model.safetensors")
    code, out, _ = said(capsys, "model.safetensors", "--values", file)
    assert code == OK and f"singular values of 11 matrices: {file}" in out
    found, wanted = read(file), expected(given)
    assert found.keys() == wanted.keys()
    for name, sigma in wanted.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], sigma, rtol=0, atol=WITHIN * sigma[0], err_msg=name)


def test_the_long_form_has_shapes_and_indices(capsys: Said) -> None:
    save_file({"a": np.ones((4, 3, 2, 1), np.float32), "b": np.eye(2, 5, dtype=np.float32)}, "m.safetensors")
    said(capsys, "m.safetensors", "--values", "v.csv")
    frame = pandas.read_csv("v.csv")
    assert [*frame] == ["layer", "m", "n", "index", "value"]
    assert frame.drop(columns="value").to_numpy().tolist() == [
        *(["a", 4, 6, i] for i in (1, 2, 3, 4)),
        *(["b", 2, 5, i] for i in (1, 2)),
    ]


def test_values_of_a_difference_are_those_of_numpy(capsys: Said) -> None:
    after, before = tensors(), {name: a * 0.5 for name, a in tensors().items()}
    for name, given in (("base", before), ("tuned", after)):
        Path(name).mkdir()
        save_file(given, f"{name}/model.safetensors")
    code, _, _ = said(capsys, "tuned", "--base", "base", "--values", "v.npz")
    assert code == OK
    change = {name: a.astype(np.float64) - before[name].astype(np.float64) for name, a in after.items()}
    found = read("v.npz")
    for name, sigma in expected(change).items():
        np.testing.assert_allclose(found[name], sigma, rtol=0, atol=WITHIN * sigma[0], err_msg=name)


def test_values_of_an_adapter_are_as_many_as_its_rank(capsys: Said) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 7)).astype(np.float32), rng.normal(size=(5, 2)).astype(np.float32)
    folder = Path("adapter")
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6}))
    prefix = "base_model.model.h.0.q"
    save_file({f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    code, _, _ = said(capsys, "adapter", "--values", "v.npz")
    sigma = np.linalg.svd(3 * b.astype(float) @ a.astype(float), compute_uv=False)
    assert code == OK
    np.testing.assert_allclose(read("v.npz")["h.0.q"], sigma[:2], rtol=0, atol=WITHIN * sigma[0])
    assert sigma[2] < WITHIN * sigma[0]


def kept_run(here: Path, make_record: Callable[..., Any], *, tracked: int, adapter: bool) -> Path:
    """A run of LoRA with two layers, of which the first `tracked` were followed; the folder may have the factors."""
    from bench.spectra.files.history import FILE, SpectrumHistory, write

    folder = record.folder(here / "runs", RUN)
    record.write(make_record(run_id=RUN, spec={"method": "lora"}), folder)
    steps = np.array([0, 10, 40])
    if tracked:
        rows = np.array([[0.0, 0.0], [2.0, 1.0], [5.0, 4.0]])
        parts = {"shape": (384, 384), "how": "factors", "steps": steps}
        updates = [SpectrumHistory(of="updates", layer=name, values=rows, **parts) for name in LAYERS[:tracked]]
        lost = np.array([[1.0, 0.5], [np.nan, np.nan], [3.0, 0.25]])
        write(folder / FILE, [*updates, SpectrumHistory(of="gradients", layer="g", values=lost, **parts)])
    if adapter:
        factors = {f"backbone.{name}.factors.{i}": factor for name in LAYERS for i, factor in enumerate(thin())}
        save_file({**factors, "head.weight": np.ones((2, 384), np.float32)}, folder / record.ADAPTER)
    list_files(folder)
    return folder


def thin() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The factors A (8, 384) and B (384, 8) of a LoRA of rank 8."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(8, 384)).astype(np.float32), rng.normal(size=(384, 8)).astype(np.float32)


def test_values_of_a_run_are_by_step(here: Path, make_record: Callable[..., Any], capsys: Said) -> None:
    kept_run(here, make_record, tracked=2, adapter=False)
    assert said(capsys, RUN, "--values", "v.npz")[0] == OK
    found = read("v.npz")
    assert found.keys() == {f"{name}{end}" for name in LAYERS for end in ("", ":steps")}
    assert found[LAYERS[1]].tolist() == [[0, 0], [2, 1], [5, 4]]
    assert found[f"{LAYERS[1]}:steps"].tolist() == [0, 10, 40]
    assert said(capsys, RUN, "--values", "v.parquet", "--of", "gradients")[0] == OK
    frame = pandas.read_parquet("v.parquet")
    assert [*frame] == ["layer", "step", "m", "n", "index", "value"]
    assert frame.step.tolist() == [0, 0, 10, 10, 40, 40] and frame["index"].tolist() == [1, 2] * 3
    assert frame.value.isna().tolist() == [False, False, True, True, False, False]
    assert frame.value.dropna().tolist() == [1, 0.5, 3, 0.25]


@pytest.mark.parametrize("tracked", [0, 1])
def test_what_was_not_tracked_is_of_the_last_step(
    tracked: int, here: Path, make_record: Callable[..., Any], capsys: Said
) -> None:
    kept_run(here, make_record, tracked=tracked, adapter=True)
    code, _, err = said(capsys, RUN, "--values", "v.npz")
    assert code == OK
    assert f"singular values of {2 - tracked} layer" in err and "after the last step alone" in err
    found, run = read("v.npz"), record.read(here / "runs" / RUN / record.FILE)
    a, b = thin()
    scale = run.spec.options.method["alpha"] / run.spec.options.method["rank"]
    sigma = np.linalg.svd(scale * b.astype(float) @ a.astype(float), compute_uv=False)[:8]
    np.testing.assert_allclose(found[LAYERS[1]], sigma[None], rtol=0, atol=WITHIN * sigma[0])
    assert found[f"{LAYERS[1]}:steps"].tolist() == [run.cost.steps if run.cost else None]
    assert (found[LAYERS[0]].shape == (3, 2)) == bool(tracked)


def test_layers_without_singular_values_are_named(here: Path, make_record: Callable[..., Any], capsys: Said) -> None:
    kept_run(here, make_record, tracked=1, adapter=False)
    code, _, err = said(capsys, RUN, "--values", "v.npz")
    assert code == OK
    assert f"no singular values of 1 of 2 layers ({LAYERS[1]})" in err and "spectra.layers=all" in err
    assert read("v.npz").keys() == {LAYERS[0], f"{LAYERS[0]}:steps"}


def test_a_run_that_kept_none_says_so(here: Path, make_record: Callable[..., Any], capsys: Said) -> None:
    kept_run(here, make_record, tracked=0, adapter=False)
    code, _, err = said(capsys, RUN, "--values", "v.npz")
    assert code == USAGE and "kept no singular values" in err and "spectra.layers=all" in err
    assert not Path("v.npz").exists()


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (["--values", "v.json"], "known: .npz, .csv, .parquet"),
        (["--values", "v"], "known: .npz, .csv, .parquet"),
        (["--values", "no/v.npz"], "there is no folder no"),
    ],
)
def test_refusals_come_before_measuring(words: list[str], known: str, capsys: Said) -> None:
    code, out, err = said(capsys, "model-that-is-not-there", *words)
    assert code == USAGE and known in err and len(err.strip().splitlines()) == 3 and not out


def test_a_file_that_cannot_be_written_keeps_its_content(capsys: Said) -> None:
    save_file({"a": np.ones((2, 2), np.float32)}, "m.safetensors")
    Path("v.npz").mkdir()
    code, out, err = said(capsys, "m.safetensors", "--values", "v.npz")
    assert code == USAGE and "v.npz cannot be written" in err and "effective" in out
    assert [path.name for path in Path().iterdir() if path.name.endswith(".tmp")] == []


def test_an_archive_is_the_same_every_time(here: Path) -> None:
    layers = [LayerValues(layer="a/../b", shape=(2, 2), values=np.array([2.0, 1.0]))]
    for name in ("one.npz", "two.npz"):
        values.write(here / name, layers)
    assert (here / "one.npz").read_bytes() == (here / "two.npz").read_bytes()
    assert zipfile.ZipFile(here / "one.npz").testzip() is None
    assert read("one.npz")["a/../b"].tolist() == [2, 1]


def test_a_name_is_no_formula_in_a_spreadsheet(here: Path) -> None:
    one = LayerValues(layer="=cmd()", shape=(2, 2), values=np.array([2.0, 1.0]))
    values.write(here / "v.csv", [one])
    assert pandas.read_csv("v.csv").layer.tolist() == ["'=cmd()"] * 2


def curves(page: Path) -> dict[str, list[float]]:
    """The curves in the first plot of a page by their names."""
    text = page.read_text(encoding="utf-8")
    panels = json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    return {trace["name"]: trace["y"] for trace in panels[0]["traces"]}


def test_the_page_has_every_curve_and_shows_the_chosen_ones(capsys: Said) -> None:
    rng = np.random.default_rng(0)
    given = {f"h.{i}.{kind}.weight": rng.normal(size=(30, 8)).astype(np.float32) for i in range(6) for kind in "qv"}
    given["wte.weight"] = rng.normal(size=(50, 8)).astype(np.float32)
    save_file(given, "m.safetensors")
    code, out, _ = said(capsys, "m.safetensors", "--layer", "h.3", "--layer", "h.5.q", "--json")
    assert code == OK
    value = json.loads(out)
    assert value["drawn"] == ["h.3.q.weight", "h.3.v.weight", "h.5.q.weight"]
    page = Path("spectra/m.safetensors/spectra.html")
    drawn, wanted = curves(page), expected(given)
    assert drawn.keys() == given.keys()
    for name, y in drawn.items():
        np.testing.assert_allclose(y, wanted[name], rtol=1e-5)
    text = page.read_text(encoding="utf-8")
    pressed = [part.split("</button>")[0].rpartition(">")[2] for part in text.split('aria-pressed="true"')[1:]]
    assert [name for name in pressed if name in given] == value["drawn"]
    _, out, _ = said(capsys, "m.safetensors", "--json")
    value = json.loads(out)
    assert len(value["drawn"]) == 7 and "wte.weight" not in value["drawn"]


def test_a_layer_that_is_not_there_ends_before_measuring(capsys: Said) -> None:
    save_file(tensors(), "m.safetensors")
    code, out, err = said(capsys, "m.safetensors", "--layer", "blocks.0.tal.weight")
    assert code == USAGE and "no layers are called 'blocks.0.tal.weight'" in err and "Did you mean" in err and not out


def test_a_long_curve_keeps_its_ends() -> None:
    from bench.spectra.files.panels import ENDS, POINTS, _points

    points = _points(5000)
    assert points[:ENDS] == [*range(ENDS)] and points[-ENDS:] == [*range(5000 - ENDS, 5000)]
    assert len(points) <= POINTS + 2 * ENDS and max(np.diff(points)) < 5000 / POINTS + 2
    assert _points(7) == [*range(7)] and _points(0) == []
