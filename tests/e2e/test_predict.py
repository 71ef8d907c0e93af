"""`bench predict RUN FILE`: the run's own outputs for every format and batch, and every word that may be wrong."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from records import list_files
from sklearn.metrics import f1_score
from torch import Tensor

from bench.api.method import Method
from bench.core.errors import ENVIRONMENT, OK, USAGE
from bench.deploy.restore import open_run
from bench.records.record import locate

Bench = Callable[..., Any]
LORA = ("--method", "lora", "--lr", "0.01", "--set", "method.target=all-linear")
Seen = list[tuple[dict[str, Tensor], Tensor]]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Inputs and outputs of every batch that a run is scored on."""
    seen: Seen = []
    real = Method.validation_step

    def step(self: Method, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        outputs = real(self, batch, batch_idx, dataloader_idx)
        seen.append((dict(batch["inputs"]), outputs.clone()))
        return outputs

    monkeypatch.setattr(Method, "validation_step", step)
    return seen


def table(file: Path, n: int = 31, *, start: int = 0) -> list[tuple[str, str]]:
    """Texts of several lengths, some with quotes and line breaks, and their labels."""
    rows = [(f'{"ab"[i % 2]} "q" {i}\n{"c " * (i % 7)}é', ("no", "yes")[i % 2]) for i in range(start, start + n)]
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    elif file.suffix == ".parquet":
        pd.DataFrame(rows, columns=["text", "label"]).to_parquet(file)
    else:
        with file.open("w", newline="") as stream:
            csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",").writerows([("text", "label"), *rows])
    return rows


@pytest.fixture
def made(bench: Bench, lively_bert: Path, tmp_path: Path) -> Any:
    """A run on a table, scored on dev.csv."""
    table(tmp_path / "train.csv", 60)
    table(tmp_path / "dev.csv", start=100)
    where = ("--task", str(tmp_path / "train.csv"), "--set", f"task.validation={tmp_path / 'dev.csv'}")
    return bench(*LORA, *where, "--max-steps", "20", data=None, backbone=str(lively_bert), budget=())


def test_the_rows_that_a_run_was_scored_on_get_its_score_and_its_outputs(
    evaluated: Seen, made: Any, command: Any, tmp_path: Path
) -> None:
    run, where = made.only().run_id, ("--runs", str(made.folder))
    outputs = torch.cat([outputs for _, outputs in evaluated]).double()
    assert len(outputs) == 31
    expected = sorted(outputs.softmax(-1)[:, 1].tolist())  # batches are sorted by length
    tables: list[pd.DataFrame] = []
    formats = ((".csv", "jsonl", 64), (".tsv", "csv", 1), (".jsonl", "parquet", 5), (".parquet", "csv", 3))
    for suffix, out, size in formats:
        file = tmp_path / f"dev{suffix}"
        rows = table(file, start=100)
        words = ("--batch-size", str(size), "--keep", "text", *where, "--out", str(tmp_path / f"out.{out}"))
        found = command("predict", run, str(file), *words, folder=tmp_path)
        assert found.code == OK, found.err
        read = {"jsonl": lambda f: pd.read_json(f, lines=True), "csv": pd.read_csv, "parquet": pd.read_parquet}[out]
        frame = read(tmp_path / f"out.{out}")
        assert [*frame.columns] == ["row", "text", "label", "p_no", "p_yes"]
        assert [*frame.row] == list(range(31)) and [*frame.text] == [text for text, _ in rows]
        tables.append(frame)
        assert np.allclose(sorted(frame.p_yes), expected, atol=1e-6)
        assert np.allclose(frame.p_no + frame.p_yes, 1, atol=1e-6)
        assert [*frame.label] == ["yes" if yes > 0.5 else "no" for yes in frame.p_yes]
        score = f1_score([label for _, label in rows], frame.label, average="macro")
        assert made.only().metrics.primary.value == pytest.approx(score, abs=1e-6)
    assert np.allclose(tables[0].p_yes, [frame.p_yes for frame in tables[1:]], atol=1e-6), "batches do not matter"
    assert tables[0].label.nunique() == 2


def test_csv_goes_to_stdout(made: Any, tmp_path: Path, capfdbinary: Any) -> None:
    from bench.cli import main

    words = ["predict", made.only().run_id, str(tmp_path / "dev.csv"), "--runs", str(made.folder)]
    assert main(words) == OK
    out, err = capfdbinary.readouterr()
    rows = [*csv.DictReader(io.StringIO(out.decode()))]
    assert len(rows) == 31 and rows[3]["row"] == "3" and rows[3]["label"] in ("no", "yes")
    assert b"31 rows predicted by" in err


def test_a_bad_row_is_named_or_left_out(made: Any, command: Any, tmp_path: Path) -> None:
    file, out = tmp_path / "new.csv", tmp_path / "out.csv"
    file.write_text('id,text\n1,good\n2,"  "\n3,fine\n4\n5,"open\n')
    words = ("predict", made.only().run_id, str(file), "--out", str(out), "--runs", str(made.folder))
    found = command(*words, folder=tmp_path)
    assert found.code == ENVIRONMENT and not out.exists()
    assert "the text is empty" in found.err and "line 3; 2 more bad rows" in found.err
    assert "data.on_bad=skip" in found.err
    found = command(*words, "--keep", "id", "--set", "data.on_bad=skip", "--json", folder=tmp_path)
    assert found.code == OK and json.loads(found.out) | {"seconds": 0} == {
        "file": str(out),
        "rows": 2,
        "left_out": 3,
        "seconds": 0,
    }
    assert [(row["row"], row["id"]) for row in csv.DictReader(out.open())] == [("0", "1"), ("2", "3")]
    assert "3 of 5 rows left out" in found.err and "first: line 5" in found.err
    file.write_text("id,text\n1,\n")
    assert "no row of it can be used" in command(*words, "--set", "data.on_bad=skip", folder=tmp_path).err


def test_words_that_are_wrong(made: Any, command: Any, tmp_path: Path) -> None:
    run, where = made.only().run_id, ("--runs", str(made.folder))
    new = tmp_path / "new.csv"
    new.write_text("id,review\n1,good\n")

    def refused(*words: str, code: int = USAGE) -> str:
        found = command("predict", *words, *where, folder=tmp_path)
        assert found.code == code, found.err
        assert len(found.err.strip().splitlines()) == 3 and not found.out
        return found.err

    assert "no run" in refused("abcd", str(new))
    assert "no such file" in refused(run, "absent.csv", code=ENVIRONMENT)
    assert "is no table" in refused(run, str(tmp_path))
    assert "not one table" in refused(run, str(new), str(new))
    assert "Did you mean 'review'?" in refused(run, str(new), "--set", "task.text=reviews")
    assert "trained on one text a row" in refused(run, str(new), *("--set", "task.text_pair=id"))
    assert "Did you mean 'task.text'?" in refused(run, str(new), "--set", "task.txt=review")
    assert "are written as .csv, .jsonl, .parquet" in refused(run, str(new), "--out", "p.xlsx")
    assert "--json needs --out" in command("predict", run, str(new), "--json", *where, folder=tmp_path).err
    assert "has no such column" in refused(run, str(new), "--keep", "ids")
    new.write_text("row,review\n1,good\n")
    assert "has a column of that name already" in refused(run, str(new), "--keep", "row")
    found = command("predict", run, str(new), "--out", str(tmp_path / "p.csv"), *where, folder=tmp_path)
    assert found.code == OK, "review is a name that is guessed"


def test_the_backbone_must_be_that_of_training(
    made: Any, command: Any, lively_bert: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    run, where = made.only().run_id, ("--runs", str(made.folder), "--out", str(tmp_path / "p.csv"))
    words = ("predict", run, str(tmp_path / "dev.csv"), *where)
    other = command(*words, "--backbone", str(tiny_bert), folder=tmp_path)
    assert other.code == ENVIRONMENT and "is not the one that run" in other.err
    absent = command(*words, "--backbone", "./nowhere", folder=tmp_path)
    assert absent.code == ENVIRONMENT and "--backbone DIR or ID" in absent.err
    shutil.copytree(lively_bert, tmp_path / "moved")
    assert command(*words, "--backbone", str(tmp_path / "moved"), folder=tmp_path).code == OK
    weights = made.folder / run / "adapter.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    (tmp_path / "p.csv").unlink()
    changed = command(*words, folder=tmp_path)
    assert changed.code == ENVIRONMENT and "was changed after the run had written it" in changed.err
    list_files(weights.parent)
    assert command(*words, folder=tmp_path).code == OK, "a changed last byte of a weight is not seen without its hash"
    weights.unlink()
    gone = command(*words, folder=tmp_path)
    assert gone.code == ENVIRONMENT or "kept no trained weights" in gone.err


RESTORED: dict[str, tuple[str, ...]] = {
    "gradient allocation": ("--method", "lora", "--set", "allocation.policy=gradient", "--set", "method.rank=4"),
    "adalora, gradient": ("--method", "adalora", "--set", "allocation.policy=gradient", "--set", "method.rank=3"),
    "compressed": ("--method", "deeplora", "--set", "method.form=compressed"),
    "pissa": ("--method", "lora", "--set", "method.init=pissa", "--set", "method.rank=4"),
    "standardised": ("--method", "linear", "--set", "method.standardise=true"),
    "lowrank": ("--method", "lowrank", "--set", "method.rank=4", "--set", "runtime.save=all"),
    "full": ("--method", "full", "--set", "runtime.save=all"),
    "ia3": (
        "--method",
        "peft:ia3",
    ),
    "adapterdrop": ("--method", "adapterdrop", "--set", "method.n=1"),
    "64 bits": ("--method", "bitfit", "--precision", "64-true"),
}


@pytest.mark.parametrize("name", RESTORED)
def test_every_method_is_restored(evaluated: Seen, bench: Bench, lively_bert: Path, tmp_path: Path, name: str) -> None:
    words = ("--task", "glue/mrpc", "--lr", "0.01", "--max-steps", "4")
    done = bench(*RESTORED[name], *words, backbone=str(lively_bert), budget=())
    check_restored(done, evaluated)


@pytest.mark.parametrize(
    "words", [("--method", "lora", "--backbone", "vit"), ("--method", "bitfit", "--backbone", "resnet18")]
)
def test_fused_projections_and_running_statistics_are_restored(
    evaluated: Seen, command: Any, tmp_path: Path, words: tuple[str, ...]
) -> None:
    small = ("--set", "backbone.depth=1", "--set", "backbone.width=16", "--set", "backbone.heads=2")
    flags = (
        *words,
        *(small if "vit" in words else ()),
        "--max-steps",
        "2",
        "--batch-size",
        "8",
        "--lr",
        "0.01",
        *("--set", "runtime.truncation=off"),  # those are scores of a ΔW that is cut
    )
    where = ("--out", str(tmp_path / "runs"), "--accelerator", "cpu")
    check_restored(command("run", "--task", "digits", *flags, *where, folder=tmp_path / "runs"), evaluated)


def check_restored(done: Any, evaluated: Seen) -> None:
    """The method that is built from record and weights gives what the run gave when it was scored."""
    assert done.code == OK, done.err
    record, folder = locate(done.folder, done.only().run_id)
    run = open_run(record, folder, runs=done.folder)
    method = run.method()
    method = method.double() if run.spec.precision == "64-true" else method
    assert evaluated
    for inputs, outputs in evaluated:
        with torch.inference_mode():
            again = method(inputs)
        assert torch.allclose(again, outputs, rtol=1e-6, atol=1e-6)
    assert torch.cat([outputs for _, outputs in evaluated]).std(0).max() > 1e-4, "outputs depend on the inputs"


def test_pairs_of_glue_are_read_by_the_names_of_its_files(bench: Bench, command: Any, tmp_path: Path) -> None:
    done = bench("--method", "linear", "--task", "glue/mrpc")
    for header in ("#1 String,#2 String", "sentence1,sentence2", "question1,question2"):
        (tmp_path / "new.csv").write_text(f"{header}\nann sees bob,bob sees ann\n")
        words = ("--out", str(tmp_path / "p.jsonl"), "--runs", str(done.folder))
        assert command("predict", done.only().run_id, str(tmp_path / "new.csv"), *words, folder=tmp_path).code == OK
        assert json.loads((tmp_path / "p.jsonl").read_text())["label"] in ("equivalent", "not_equivalent")
    (tmp_path / "new.csv").write_text("text\nann\n")
    alone = command(
        "predict", done.only().run_id, str(tmp_path / "new.csv"), "--runs", str(done.folder), folder=tmp_path
    )
    assert alone.code == ENVIRONMENT and "'#1 String' and '#2 String'" in alone.err


def test_a_run_without_weights_or_labels_is_refused(bench: Bench, command: Any, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\nann\n")
    for number, (words, what) in enumerate(
        (
            (("--method", "full", "--task", "glue/cola"), "kept no trained weights"),
            (("--method", "mlm", "--task", "glue/cola"), "learned to recover what was masked"),
        )
    ):
        done = bench(*words, out=tmp_path / f"runs{number}")
        found = command("predict", done.only().run_id, "new.csv", "--runs", str(done.folder), folder=tmp_path)
        assert found.code == USAGE and what in found.err
