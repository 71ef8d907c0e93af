"""`bench run --task table:FILE`: from the user's file to a record, with every word that may be wrong on the way."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safetensors.numpy import load_file

import bench.training.trainer as fitting
from bench.config.overrides import Overrides
from bench.core.errors import BenchError
from bench.harness import planner, worker
from bench.harness.request import Request

Bench = Callable[..., Any]
LINEAR = ("--method", "linear")


def write(file: Path, n: int = 41, *, regression: bool = False) -> Path:
    """Texts of letters whose label is how they begin; some hold quotes, line breaks and letters beyond ASCII."""
    rows = [
        (f'{"ab"[i % 2]}{"é"[: i % 3]} "quoted", {i}\nand on', i / 7 if regression else "xy"[i % 2]) for i in range(n)
    ]
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    elif file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"text": [row[0] for row in rows], "label": [row[1] for row in rows]}), file)
    else:
        with file.open("w", newline="", encoding="utf-8-sig") as stream:
            csv.writer(stream, delimiter="\t" if file.suffix == ".tsv" else ",").writerows([("text", "label"), *rows])
    return file


def task(file: Path) -> tuple[str, str]:
    return ("--task", f"table:{file}")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_run_of_every_format(bench: Bench, command: Any, tmp_path: Path, suffix: str) -> None:
    outcome = bench("--method", "lora", *task(write(tmp_path / f"mine{suffix}")), data=None)
    assert outcome.code == 0, outcome.err
    assert "table/mine: classification (task.kind=auto), 2 classes: 'x', 'y'" in outcome.err
    made = outcome.only()
    assert (made.task.name, made.spec.task, made.source.kind) == ("table/mine", "table/mine", "file")
    assert made.source.train_examples == 37
    assert made.source.evaluation_examples == {"validation": 4} == {"validation": made.metrics.primary.n}
    assert made.metrics.primary.name == "macro_f1"
    assert set(made.metrics.all["validation"]) == {"macro_f1", "balanced_accuracy", "accuracy"}
    assert made.source.reading["labels"] == ["x", "y"]
    assert made.spec.options.task == {"max_length": 24, "class_weights": "none"}
    head = load_file(outcome.folder / made.run_id / "adapter.safetensors")["head.weight"]
    assert head.shape[0] == 2
    shown = command("show", made.run_id, "--runs", str(outcome.folder), folder=outcome.folder).out
    assert "'x' → 0, 'y' → 1" in shown and made.task.version in shown
    assert "mine macro_f1 ↑" in outcome.out


def test_a_scale_is_learned(bench: Bench, tmp_path: Path) -> None:
    outcome = bench(*LINEAR, *task(write(tmp_path / "mine.csv", regression=True)), data=None)
    made = outcome.only()
    assert "table/mine: regression" in outcome.err
    assert (made.metrics.primary.name, made.task.num_classes) == ("pearson", 0)
    assert 0.5 < made.curve[0].loss < 2, "squared error in deviations"


def test_one_run_wherever_the_file_lies_and_another_when_it_changes(
    bench: Bench, fitted: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "mine.csv")
    first = bench(*LINEAR, *task(file), data=None).only()
    (tmp_path / "moved").mkdir()
    file = file.rename(tmp_path / "moved" / "mine.csv")
    monkeypatch.chdir(tmp_path / "moved")
    named = ("--set", "task.text=text", "--set", "task.validation=0.1")
    assert bench(*LINEAR, *task(Path("mine.csv")), *named, data=None).only().run_id == first.run_id
    assert len(fitted) == 1, "it is done"
    file.write_bytes(file.read_bytes().replace(b"and on", b"and off", 1))
    both = bench(*LINEAR, *task(file), data=None).records
    assert len({made.run_id for made in both}) == len({made.task.version for made in both}) == 2
    assert len(fitted) == 2


def test_rows_that_train_has_too_are_a_warning_of_the_run(bench: Bench, tmp_path: Path) -> None:
    train, dev = write(tmp_path / "mine.csv"), write(tmp_path / "dev.csv", 9)
    outcome = bench(*LINEAR, *task(train), "--set", f"task.validation={dev}", data=None)
    line = "table/mine: 9 of 9 rows to validate are also in train: their scores say nothing about new ones"
    assert line in outcome.only().warnings
    assert line in outcome.err


def test_texts_that_are_cut_are_counted_in_a_warning(bench: Bench, tmp_path: Path) -> None:
    for name, every in (("mine.csv", 10), ("dev.csv", 101)):
        texts = [("a " if i % every else "a b c d e " * 5) + "f" * (i // 20 + 1) for i in range(199)]
        rows = "".join(f"{text},{i % 2}\n" for i, text in enumerate(texts))
        (tmp_path / name).write_text(f"text,label\n{rows}")
    more = ("--set", f"task.validation={tmp_path / 'dev.csv'}", "--train-samples", "199")
    outcome = bench(*LINEAR, *task(tmp_path / "mine.csv"), *more, "--seeds", "0,1", data=None)
    made = outcome.records[0]
    cut = [text for text in made.warnings if "cut" in text]
    assert cut == [
        "20 of 199 texts of train are longer than task.max_length=24 and are cut",
        "2 of 199 texts of validation are longer than task.max_length=24 and are cut",
    ]
    lines = outcome.err.splitlines()
    said = [lines.index(f"table/mine: {text}") for text in cut]  # before training, once for both seeds
    assert max(said) < next(number for number, line in enumerate(lines) if line.startswith("1/2 "))
    assert not [line for line in lines[max(said) + 1 :] if line.startswith("table/mine: ")]
    (tmp_path / "dev.csv").write_text(f"text,label\n{'a ' * 30},1\n" + "b,0\nc,1\n" * 60)
    made = bench(*LINEAR, *task(tmp_path / "mine.csv"), *more, data=None, out=tmp_path / "out").only()
    assert [text for text in made.warnings if "cut" in text] == cut[:1], "one of 121 is less than a hundredth"


@pytest.mark.parametrize(("known", "unknown"), [(3, 0), (3, 1), (2, 1), (1, 1), (1, 2)])
def test_unknown_tokens_are_recorded_warned_of_and_refused(
    bench: Bench, tmp_path: Path, known: int, unknown: int
) -> None:
    share, file = unknown / (known + unknown), tmp_path / "mine.csv"
    text = " ".join(["a"] * known + ["漢"] * unknown)
    file.write_text("text,label\n" + "".join(f"{text},{i % 2}\n" for i in range(10)))
    outcome = bench(*LINEAR, *task(file), "--set", f"task.validation={file}", data=None)
    made = outcome.only()
    if share > 0.5:
        assert (made.state, made.error.what) == ("failed", "the tokenizer does not know these texts")
        assert "67% of the tokens of table/mine" in made.error.known
        return
    assert made.report == ({"unknown_tokens": pytest.approx(share)} if share else {})
    said = [line for line in made.warnings if "unknown" in line]
    assert said == ([f"{share:.0%} of the tokens of train are unknown to the tokenizer"] if share > 0.2 else [])


def test_one_split_for_all_seeds(bench: Bench, tmp_path: Path) -> None:
    outcome = bench(*LINEAR, *task(write(tmp_path / "mine.csv")), "--seeds", "0,1", data=None)
    one, other = outcome.records
    assert one.source == other.source
    assert one.group_id == other.group_id
    assert one.curve != other.curve
    drawn = bench(*LINEAR, *task(tmp_path / "mine.csv"), "--set", "task.split_seed=1", data=None, out=tmp_path / "o")
    assert drawn.only().source.data_hash != one.source.data_hash


def test_files_share_a_table_and_two_of_one_name_are_two_columns(bench: Bench, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a/mine.csv", "b/mine.csv", "other.tsv")]
    for i, file in enumerate(files):
        file.parent.mkdir(exist_ok=True)
        write(file, 41 + i)
    outcome = bench(*LINEAR, "--task", ",".join(f"table:{file}" for file in files), data=None)
    assert outcome.out.count("### table ·") == 1
    one, other = [made for made in outcome.records if made.task.name == "table/mine"]
    header = next(line for line in outcome.out.splitlines() if line.startswith("| method"))
    assert header.count("mine") == 2
    assert all(made.source.data_hash[:7] in header for made in (one, other))
    assert "(3 tasks)" in header


def test_select_holds_out_of_train_and_few_shot_draws_from_it(bench: Bench, tmp_path: Path) -> None:
    words = ("--select", "lr", "--lr", "1e-3,1e-1", "--widen", "0", "--train-samples", "16")
    outcome = bench(*LINEAR, *task(write(tmp_path / "mine.csv")), *words, data=None)
    made = outcome.only()
    assert [trial.state for trial in made.selection.trials] == ["done", "done"]
    assert (made.selection.task, made.selection.split) == ("table/mine", "holdout")
    assert made.source.train_examples == 16
    assert made.source.reading["sizes"] == {"train": 37, "validation": 4}


def test_a_table_beside_glue_and_choosing_for_it(bench: Bench, tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv")
    words = ("--task", f"glue/cola,table:{file}", "--set", "task.text=text", "--select", "lr")
    outcome = bench(*LINEAR, *words, "--select-on", f"table:{file}", "--lr", "1e-3,1e-2")
    assert outcome.code == 0, outcome.err
    assert {made.selection.task for made in outcome.records} == {"table/mine"}
    assert {made.spec.task for made in outcome.records} == {"glue/cola", "table/mine"}
    assert {json.dumps(made.spec.options.task) for made in outcome.records} == {
        '{"max_length": 24}',
        '{"max_length": 24, "class_weights": "none"}',
    }


def test_a_process_of_its_own_opens_the_same_files(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dev").mkdir()
    write(tmp_path / "mine.csv"), write(tmp_path / "dev" / "dev.tsv", 13)
    with (tmp_path / "mine.csv").open("a") as stream:
        stream.write("no label,\n")
    overrides = Overrides.parse(["task.validation=dev/dev.tsv", "data.on_bad=skip", "task.max_length=24"])
    asked = Request(methods=("linear",), tasks=("table:mine.csv",), backbones=(str(tiny_bert),), overrides=overrides)
    [run] = planner.make_plan(asked).runs
    seen: list[Any] = []
    monkeypatch.setattr(fitting, "fit", lambda *given, **more: seen.append(given))
    worker._fit(msgspec.json.decode(msgspec.json.encode(worker.job(run)), type=worker.Job), tmp_path)
    [(spec, task, dataset, backbone)] = seen
    assert (spec, task.spec, backbone) == (run.spec, run.task.spec, run.backbone)
    assert (dataset.hash, dataset.reading) == (run.dataset.hash, run.dataset.reading)
    (tmp_path / "mine.csv").write_text("text,label\n" + "a,x\nb,y\n" * 20)
    with pytest.raises(BenchError, match="the data changed"):
        worker._fit(msgspec.json.decode(msgspec.json.encode(worker.job(run)), type=worker.Job), tmp_path)


@pytest.mark.slow
def test_two_devices_equal_one(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "dev.tsv", 13)
    monkeypatch.chdir(tmp_path)  # both files by relative paths, the second among the options
    words = ("--method", "lora", *task(write(Path("mine.csv"))), "--set", "task.validation=dev.tsv")
    one = bench(*words, data=None, out=tmp_path / "one").only()
    outcome = bench(*words, "--devices", "2", data=None, out=tmp_path / "two")
    assert outcome.code == 0, outcome.err
    two = outcome.only()
    assert two.run_id == one.run_id and two.cost.devices == 2
    assert [p.loss for p in two.curve] == pytest.approx([p.loss for p in one.curve], abs=1e-6)
    assert two.metrics.primary.n == 13


# what is wrong


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("--task table:FILE.txt", 2, ("'FILE.txt' is not the name of a table", ".parquet")),
        ("--task table", 2, ("'' is not the name of a table", "Write --task table:")),
        ("--task tabel:FILE", 2, ("unknown task 'tabel'", "Did you mean 'table'?")),
        (
            "--task table:FILE --set task.txt=x",
            2,
            ("unknown option 'task.txt'", "Did you mean 'task.text'?", "show table"),
        ),
        (
            "--task glue/cola --set task.text=x",
            2,
            ("unknown option 'task.text'", "an option of table", "task.max_length"),
        ),
        ("--task table:FILE --set task.text=x", 2, ("no such column", "'text', 'label'")),
        ("--task table:FILE --set task.kind=ranking", 2, ("task.kind", "classification", "of that type")),
        ("--task table:FILE --set task.validation=2", 2, ("task.validation=2", "between 0 and 1")),
        ("--task table:FILE --set task.split_seed=-1", 2, ("task.split_seed=-1", "at least 0")),
        ("--task table:FILE --set data.on_bad=ignore", 2, ("data.on_bad", "error", "skip")),
        ("--task table:FILE --set data.onbad=skip", 2, ("unknown option 'data.onbad'", "Did you mean 'data.on_bad'?")),
        ("--task table:FILE --set task.validation=gone.csv", 3, ("gone.csv: no such file",)),
        ("--task table:gone.csv", 3, ("gone.csv: no such file",)),
        ("--task table:FILE --train-samples 38", 2, ("table/mine has 37 training examples",)),
    ],
)
def test_wrong_words(
    bench: Bench, fitted: list[Any], tmp_path: Path, words: str, code: int, said: tuple[str, ...]
) -> None:
    file = write(tmp_path / "mine.csv")
    outcome = bench(*LINEAR, *words.replace("FILE", str(file)).split())
    assert outcome.code == code
    assert outcome.err.startswith("error: ")
    assert not [part for part in said if part.replace("FILE", str(file)) not in outcome.err], outcome.err
    assert not fitted and not outcome.folder.exists()


def test_a_bad_row_is_exit_3_alone_exit_1_beside_others_and_none_when_left_out(
    bench: Bench, fitted: list[Any], tmp_path: Path
) -> None:
    bad, good = write(tmp_path / "bad.csv"), write(tmp_path / "good.csv")
    lines = bad.read_bytes().count(b"\n")
    with bad.open("ab") as stream:
        stream.write(b"no label,\n")
    alone = bench(*LINEAR, *task(bad), data=None)
    assert alone.code == 3
    for part in (
        "error: malformed data in bad.csv: the label is missing",
        f"{bad}, line {lines + 1}",
        "data.on_bad=skip",
    ):
        assert part in alone.err
    assert not fitted
    beside = bench(*LINEAR, "--task", f"table:{bad},table:{good}", data=None)
    assert beside.code == 1
    assert beside.states() == {("linear", "table/good"): "done"}
    assert f"cannot run table:{bad}: malformed data" in beside.err
    left_out = bench(*LINEAR, *task(bad), "--set", "data.on_bad=skip", data=None, out=tmp_path / "skip")
    assert left_out.code == 0
    assert f"bad.csv: 1 of 42 rows left out: 1 × the label is missing (first: line {lines + 1})" in left_out.err
    [file] = left_out.only().source.reading["files"]
    assert file["left_out"] == {"the label is missing": 1}


def test_dry_run_says_kind_classes_and_sizes(bench: Bench, fitted: list[Any], tmp_path: Path) -> None:
    words = (*LINEAR, *task(write(tmp_path / "mine.csv")), "--dry-run")
    plan = bench(*words, data=None)
    assert plan.code == 0 and not fitted
    for part in ("classification", "2 classes: 'x', 'y'", "37 rows to train, 4 to validate (share 0.1, split seed 0)"):
        assert part in plan.out
    [cell] = json.loads(bench(*words, "--json", data=None).out)["runs"]
    assert cell["source"]["reading"]["sizes"] == {"train": 37, "validation": 4}
