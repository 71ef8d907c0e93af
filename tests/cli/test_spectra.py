"""`bench spectra`: what it prints, writes and refuses, of runs, models and adapters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from records import list_files
from safetensors.numpy import save_file

from bench.cli import main
from bench.core.errors import ENVIRONMENT, OK, SOME_FAILED, USAGE
from bench.records import record

RUN = "1f3a9c0123456789"
LAYERS = [f"encoder.layer.{i}.attention.self.query" for i in range(2)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_id: None) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here: Path, make_record: Callable[..., dict[str, Any]]) -> Path:
    """A run's folder, without spectra."""
    made = make_record(run_id=RUN)
    folder = record.folder(here / "runs", RUN)
    record.write(made, folder)
    return folder


@pytest.fixture
def tracked(run: Path) -> Path:
    """The same with spectra: layer 1 moves farther; gradients end in a NaN."""
    from bench.spectra.files.history import FILE, SpectrumHistory, write

    steps = np.array([0, 10, 40])
    updates = [
        SpectrumHistory(
            of="updates",
            layer=layer,
            shape=(384, 384),
            how="factors",
            steps=steps,
            values=np.array([[0.0, 0.0], [2.0, 1.0], [4.0 + i, 4.0]]),
        )
        for i, layer in enumerate(LAYERS)
    ]
    values = np.array([[1.0, 0.5], [1.0, 0.5], [np.nan, np.nan]])
    gradient = SpectrumHistory(of="gradients", layer="g", shape=(4, 2), how="gram", steps=steps, values=values)
    write(run / FILE, [*updates, gradient])
    list_files(run)
    return run


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["spectra", *words])
    out, err = capsys.readouterr()
    return code, out, err


def parsed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any, str]:
    code, out, err = said(capsys, *words, "--json")
    return code, json.loads(out), err


def pictures(folder: Path) -> None:
    from PIL import Image

    assert Image.open(folder / "spectra.png").size[0] > 1000
    assert (folder / "spectra.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize("how", ["1f3a", f"runs/{RUN}"])
def test_a_run_is_its_trajectories(how: str, tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value, err = parsed(capsys, how)
    assert code == OK
    assert value["drawn"] == [LAYERS[1]], "the largest update"
    assert [t["steps"] for t in value["trajectories"]] == [[0, 10, 40]] * 2
    assert value["trajectories"][1]["singular_values"] == [[0.0, 0.0], [2.0, 1.0], [5.0, 4.0]]
    first, second = value["layers"]
    assert (first["layer"], first["effective"], first["norm"], first["nominal"]) == (LAYERS[0], 2.0, 4.0, 8)
    p = np.array([5, 4]) / 9
    assert second["effective"] == pytest.approx(float(np.exp(-(p * np.log(p)).sum())), rel=1e-12)
    assert second["stable"] == pytest.approx((25 + 16) / 25)
    assert "gradients" in err
    pictures(tracked)


def test_a_run_s_table(tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "1f3a", "--layer", "layer.0", "--output", "elsewhere")
    assert code == OK
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:3] == ["layer", "shape", "nominal"]
    assert [LAYERS[0], "384×384", "8", "2.00", "2.00", "2", "2.00", "4", "factors"] in rows
    pictures(Path("elsewhere"))
    assert not (tracked / "spectra.png").exists()
    assert "layer.0" in Path("elsewhere/spectra.html").read_text(encoding="utf-8")


def test_a_panel_for_each_layer_that_is_named(tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value, _ = parsed(capsys, "1f3a", "--layer", "layer.1", "--layer", "layer.0", "--layer", "layer.1")
    assert (code, value["drawn"]) == (OK, [LAYERS[1], LAYERS[0]])
    _, first, second, *_ = (tracked / "spectra.html").read_text(encoding="utf-8").split("<h2>")
    assert [title.split("<")[0] for title in (first, second)] == [f"Singular values of ΔW, {LAYERS[i]}" for i in (1, 0)]


def test_layers_not_followed_come_from_the_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from bench.spectra.files.history import FILE, SpectrumHistory, write

    one = SpectrumHistory(
        of="updates", layer=LAYERS[1], shape=(384, 384), how="gram", steps=np.array([0]), values=np.array([[1.0, 1.0]])
    )
    write(run / FILE, [one])
    list_files(run)
    _, value, _ = parsed(capsys, "1f3a")
    assert [(row["layer"], row["how"], row["effective"]) for row in value["layers"]] == [
        (LAYERS[0], "in the record", 2.0),
        (LAYERS[1], "gram", 2.0),
    ]


def test_a_matrix_that_was_not_finite_is_named(tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, value, err = parsed(capsys, "1f3a", "--of", "gradients")
    assert code == SOME_FAILED
    assert value["layers"][0]["error"] == "not finite after step 40"
    assert value["trajectories"][0]["singular_values"][2] == [None, None]
    assert "error: g: not finite" in err


def test_a_run_from_before_tracking_shows_its_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, "1f3a")
    assert code == OK
    assert [line.split()[4] for line in out.splitlines()[1:3]] == ["2.00", "3.00"]
    assert len(err.strip().splitlines()) == 3
    assert "stored no spectra" in err
    pictures(run)
    code, value, _ = parsed(capsys, "1f3a")
    assert (code, len(value["layers"]), value["trajectories"]) == (OK, 2, [])


def test_a_run_without_any_rank(
    here: Path, make_record: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    record.write(make_record(run_id=RUN, ranks=[]), record.folder(here / "runs", RUN))
    code, value, err = parsed(capsys, "1f3a")
    assert (code, value["layers"], value["files"]) == (OK, [], [])
    assert "no ranks" in err


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["1f3a", "--layer", "nothing"], USAGE, "no layers are called 'nothing'"),
        (["1f3a", "--layer", "encoder"], USAGE, "2 layers are called 'encoder'"),
        (["1f3a", "--of", "weights"], USAGE, "no weights were stored"),
        (["1f3a", "--of", "wights"], USAGE, "Did you mean 'weights'?"),
        (["1f3a", "--base", "x"], USAGE, "--base does not go with a run"),
        (["1f3a", "--truncation", "--of", "weights"], USAGE, "--of does not go with --truncation"),
        (["1f3a", "--truncation", "--values", "v.npz"], USAGE, "--values does not go with --truncation"),
        ([".", "--truncation"], USAGE, "--truncation does not go with a checkpoint"),
        (["1f3a", "--metrics", "all"], USAGE, "--metrics does not go with a run"),
        (["abc"], USAGE, "no run in runs begins with 'abc'"),
        (["./abc"], ENVIRONMENT, "there is no file or folder './abc'"),
        (["model.bin"], ENVIRONMENT, "there is no file or folder 'model.bin'"),
        (["."], ENVIRONMENT, "no safetensors file"),
    ],
)
def test_refusals(
    words: list[str], code: int, expected: str, tracked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = said(capsys, *words)
    assert found == code, err
    assert expected in err
    assert len(err.strip().splitlines()) == 3
    assert out == ""


def test_broken_spectra_are_named(tracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tracked / "spectra.npz").write_bytes(b"PK\x03\x04 torn")
    code, _, err = said(capsys, "1f3a")
    assert code == ENVIRONMENT
    assert "spectra.npz was changed after the run had written it" in err
    list_files(tracked)
    code, _, err = said(capsys, "1f3a")
    assert code == ENVIRONMENT
    assert "spectra.npz: cannot be read as spectra of a run" in err


def weights(**more: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    made = {f"h.{i}.{kind}.weight": rng.normal(size=(12, 8)).astype(np.float32) for i in range(11) for kind in "qv"}
    made["wte.weight"] = rng.normal(size=(40, 8)).astype(np.float32)
    return {**made, "h.0.q.bias": np.zeros(12, np.float32), **more}


def test_a_model_in_the_network_s_order(capsys: pytest.CaptureFixture[str]) -> None:
    given = weights()
    save_file(given, "model.safetensors")
    code, value, err = parsed(capsys, "model.safetensors")
    assert code == OK
    names = [row["layer"] for row in value["layers"]]
    assert names == ["wte.weight", *(f"h.{i}.{kind}.weight" for i in range(11) for kind in "qv")]
    assert [row["embedding"] for row in value["layers"][:2]] == [True, False]
    for row in value["layers"]:
        assert row["norm"] == pytest.approx(np.linalg.norm(given[row["layer"]].astype(float), 2), rel=1e-6)
    assert value["left_out"] == {"of one dimension": 1}
    assert "1 of one dimension" in err
    pictures(Path("spectra/model.safetensors"))


def test_stacks_are_measured_one_by_one_and_positions_listed(capsys: pytest.CaptureFixture[str]) -> None:
    stack = np.random.default_rng(0).normal(size=(3, 24, 20)).astype(np.float32)
    save_file({"experts.up": stack, "pos_embed": np.ones((1, 5, 8), np.float32)}, "model.safetensors")
    for base in ([], ["--base", "model.safetensors"]):
        code, value, err = parsed(capsys, "model.safetensors", *base)
        assert code == OK
        assert [row["layer"] for row in value["layers"]] == [f"experts.up[{i}]" for i in range(3)]
        assert all(row["shape"] == [24, 20] for row in value["layers"])
        assert "not measured, since they are no linear maps: pos_embed (1×5×8)" in err


def test_a_pruned_layer_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("adapter")
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "ADALORA", "init_r": 2, "lora_alpha": 4}))
    tensors = {
        f"base_model.model.h.{i}.q.lora_{part}": np.ones(shape, np.float32)
        for i, rank in enumerate((0, 2))
        for part, shape in {"A": (rank, 5), "B": (3, rank), "E": (rank, 1)}.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    for metrics in ("few", "all"):
        code, out, _ = said(capsys, "adapter", "--metrics", metrics)
        assert code == OK
        first, second = (line.split() for line in out.splitlines()[1:3])
        assert first[:4] == ["h.0.q", "3×5", "0", "0.00"]
        assert second[:3] == ["h.1.q", "3×5", "2"]


def test_all_metrics_are_a_flag_away(capsys: pytest.CaptureFixture[str]) -> None:
    save_file(weights(), "model.safetensors")
    _, few, _ = said(capsys, "model.safetensors")
    _, every, _ = said(capsys, "model.safetensors", "--metrics", "all")
    assert "numerical" not in few.splitlines()[0]
    assert "numerical" in every.splitlines()[0]


def test_a_nan_takes_its_layer_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    bad = np.full((3, 3), np.nan, np.float32)
    save_file(weights(bad=bad), "model.safetensors")
    code, value, err = parsed(capsys, "model.safetensors")
    assert code == SOME_FAILED
    errors = {row["layer"]: row["error"] for row in value["layers"]}
    assert [layer for layer, error in errors.items() if error] == ["bad"]
    assert len(errors) == 24
    assert "error: bad: " in err
    code, out, _ = said(capsys, "model.safetensors")
    assert code == SOME_FAILED
    assert next(line for line in out.splitlines() if line.startswith("bad")).endswith("NaN or an infinity")
    save_file({"bad": bad}, "bad.safetensors")
    assert said(capsys, "bad.safetensors")[0] == SOME_FAILED


def test_tuned_minus_base(capsys: pytest.CaptureFixture[str]) -> None:
    before = weights(gone=np.ones((2, 2), np.float32), turned=np.ones((2, 3), np.float32))
    rng = np.random.default_rng(1)
    update = (rng.normal(size=(12, 1)) @ rng.normal(size=(1, 8))).astype(np.float32)
    after = weights(new=np.ones((2, 2), np.float32), turned=np.ones((3, 2), np.float32))
    after["h.3.q.weight"] = after["h.3.q.weight"] + update
    for name, given in (("base", before), ("tuned", after)):
        Path(name).mkdir()
        save_file(given, f"{name}/model.safetensors")
    code, value, err = parsed(capsys, "tuned", "--base", "base")
    assert code == OK
    rows = {row["layer"]: row for row in value["layers"]}
    assert rows["h.3.q.weight"]["norm"] == pytest.approx(np.linalg.norm(update.astype(float), 2), rel=1e-5)
    assert rows["h.3.q.weight"]["energy90"] == 1
    assert [layer for layer, row in rows.items() if row["norm"] > 0] == ["h.3.q.weight"]
    assert value["missing"] == {"only in tuned": ["new"], "only in base": ["gone"], "of another shape": ["turned"]}
    assert all(name in err for name in ("new", "gone", "turned"))


def test_nothing_in_common_and_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": np.ones((2, 2), np.float32)}, "a.safetensors")
    save_file({"b": np.ones((2, 2), np.float32)}, "b.safetensors")
    save_file({"c": np.ones(2, np.float32)}, "c.safetensors")
    code, _, err = said(capsys, "a.safetensors", "--base", "b.safetensors")
    assert code == ENVIRONMENT
    assert "no layer in common" in err
    code, _, err = said(capsys, "c.safetensors")
    assert code == ENVIRONMENT
    assert "holds no matrix" in err
    assert "1 of one dimension" in err


def test_hostile_layer_names_reach_no_page_and_no_path(capsys: pytest.CaptureFixture[str]) -> None:
    name = "</script><script>alert(1)</script>../../x"
    folder = Path("..") / Path.cwd().name / "model"
    folder.mkdir()
    save_file({name: np.ones((3, 2), np.float32), f"{name}2": np.ones((3, 2), np.float32)}, folder / "a.safetensors")
    code, value, _ = parsed(capsys, str(folder))
    assert code == OK
    assert value["layers"][0]["layer"] == name
    assert all(Path(file).resolve().is_relative_to(Path.cwd() / "spectra") for file in value["files"])
    assert "<script>alert" not in Path(value["files"][1]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["a.safetensors", "m/model.safetensors", "m/model.safetensors.index.json"])
def test_a_pipe_holds_nobody_up(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / name).parent.mkdir(exist_ok=True)
    os.mkfifo(here / name)
    code, out, err = said(capsys, name.partition("/")[0])
    assert code == ENVIRONMENT and not out
    assert f"{name} is n" in err and ("pipe" in err or "not a regular file" in err)


def test_a_peft_adapter_with_a_pissa_start_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path("adapter")
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "init_lora_weights": "pissa_niter_4"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    a, b = np.eye(2, 5, dtype=np.float32), np.eye(3, 2, dtype=np.float32)
    prefix = "base_model.model.h.0.q"
    save_file({f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}, folder / "adapter_model.safetensors")
    for given in ("adapter", "adapter/adapter_model.safetensors"):
        code, value, _ = parsed(capsys, given)
        assert code == OK
        (row,) = value["layers"]
        assert (row["layer"], row["shape"], row["nominal"], row["norm"]) == ("h.0.q", [3, 5], 2, 2.0)
        assert any("init_lora_weights=pissa_niter_4" in note for note in value["notes"])
    code, _, err = said(capsys, "adapter", "--base", "adapter")
    assert code == USAGE
    assert "--base does not go with an adapter" in err


def test_the_table_is_there_where_the_pictures_cannot_be_written(
    here: Path, tracked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()
    code, out, err = said(capsys, tracked.name, "--output", str(here / "file" / "folder"))
    assert code == 2 and "cannot be written" in err
    assert "effective" in out and "pictures" not in out


CUT: dict[str, Any] = {
    "split": "dev",
    "n": 200,
    "whole": 0.41,
    "se": 0.04,
    "points": [{"k": k, "value": value} for k, value in ((0, 0.1), (1, 0.2), (2, 0.39), (8, 0.41))],
    "rank_needed": 2,
    "layers": [{"layer": f"{LAYERS[0]}\x1b[31m", "value": 0.4, "needed": False}],
}
WITHIN = "the smallest k within one standard error (0.0400) of the whole (0.4100) on 200 examples of dev"


ABOVE = {"points": [CUT["points"][0], CUT["points"][3]], "rank_needed": None}


@pytest.mark.parametrize(("change", "text"), [({}, "2 of 8"), (ABOVE, ">0 of 8")])
def test_the_rank_needed(
    change: dict[str, Any], text: str, make_record: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = record.folder(Path("runs"), RUN)
    record.write(make_record(run_id=RUN, truncation=CUT | change), folder)
    code, out, _ = said(capsys, RUN, "--truncation")
    assert code == OK and f"rank needed: {text}, {WITHIN}" in out and "\x1b" not in out
    assert f"{LAYERS[0]}" in out and "0.4000    not needed" in out
    assert {path.name for path in folder.iterdir()} >= {"truncation.png", "truncation.html"}
    assert (folder / "truncation.png").read_bytes()[:4] == b"\x89PNG"
    code, made, _ = parsed(capsys, RUN, "--truncation")
    assert code == OK and made["points"] == (CUT | change)["points"] and made["run_id"] == RUN
    main(["show", RUN])
    out = capsys.readouterr().out
    assert f"{text}, {WITHIN}" in out and "0: 0.1000, " in out and "8: 0.4100" in out


def test_no_rank_needed_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, RUN, "--truncation")
    assert code == USAGE and "has no scores with ΔW cut" in err and "runtime.truncation=network" in err
