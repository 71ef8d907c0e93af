"""Tables of the user: reading, guessed columns, labels, errors; splits and scores against scikit-learn's."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from table_files import NASTY, everything, opened, refused, rows, write

from bench.api import metrics
from bench.core.errors import DataProblem, UsageError
from bench.records.data import DataRequest
from tasks.glue.task import GLUE
from tasks.io.readers import Row, open_table
from tasks.table.labels import canonical, guess_kind, split
from tasks.table.task import Table

SIZES = (120, 60, 9, 2, 1)


# reading


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_what_was_written(tmp_path: Path, suffix: str) -> None:
    data = rows()
    task, dataset = opened(write(tmp_path / f"mine{suffix}", data))
    names = dataset.reading["labels"]
    assert names == sorted({label for _, label in data})
    assert sorted((row.text, names[row.label]) for row in everything(dataset)) == sorted(data)
    assert all(type(row.label) is int and row.text_pair is None for row in everything(dataset))
    assert (task.spec.name, task.spec.num_classes, dataset.source) == ("table/mine", 3, "file")


@pytest.mark.parametrize(
    "more",
    [{}, {"encoding": "utf-8-sig"}, {"lineterminator": "\r\n"}, {"quoting": csv.QUOTE_ALL}],
    ids=["plain", "bom", "crlf", "all quoted"],
)
def test_numbers_are_the_physical_lines_that_records_begin_at(tmp_path: Path, more: dict[str, Any]) -> None:
    file = write(tmp_path / "mine.csv", rows(), **more)
    found = [*open_table(file).rows(["label", "text"])]
    assert [row.values for row in found] == [[label, text] for text, label in rows()]
    # a record is the shortest run of whole lines in which quotes are balanced
    lines, begins, quotes = file.read_bytes().split(b"\n"), [], 0
    for number, line in enumerate(lines, 1):
        if quotes % 2 == 0 and line.strip():
            begins.append(number)
        quotes += line.count(b'"')
    assert [row.number for row in found] == begins[1:]
    assert begins[-1] > len(rows()) + 5, "records of several lines"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_what_csv_writes_is_what_is_read(tmp_path: Path, end: str, quoting: Any) -> None:
    draw, file = random.Random(0), tmp_path / "mine.csv"
    for _ in range(200):
        data = [["".join(draw.choices('a",\n\t é漢\u2028', k=draw.randint(0, 6))) for _ in "ab"] for _ in range(5)]
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream, lineterminator=end, quoting=quoting).writerows([("a", "b"), *data])
        assert [row.values for row in open_table(file).rows(["a", "b"]) if isinstance(row, Row)] == data


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("cell", "folder", "columns"),
    [
        ("sst2", "SST-2", {}),
        ("rte", "RTE", {}),
        ("stsb", "STS-B", {}),
        ("mrpc", "MRPC", {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}),
    ],
)
def test_glues_own_files_give_glues_examples(cell: str, folder: str, columns: dict[str, str]) -> None:
    parent = Path(os.environ.get("BENCH_DATA") or "absent")
    if not (parent / "glue").is_dir():
        pytest.skip("BENCH_DATA names no folder that holds glue/")
    files = {split: parent / "glue" / folder / f"{split}.tsv" for split in ("train", "dev")}
    _, mine = opened(files["train"], validation=str(files["dev"]), quotes=False, **columns)
    glue = GLUE(cell).open(DataRequest(parent=parent))
    scale = mine.reading["scale"] or {"mean": 0, "deviation": 1}
    for ours, theirs in ((mine.train, glue.train), (mine.evaluation["validation"], glue.evaluation["dev"])):
        assert [row[:2] for row in ours] == [row[:2] for row in theirs]
        back = [row.label * scale["deviation"] + scale["mean"] for row in ours]
        assert back == pytest.approx([row.label for row in theirs], abs=1e-9)


def test_what_is_no_quote_is_kept_and_quotes_may_be_off(tmp_path: Path) -> None:
    file = tmp_path / "mine.tsv"
    file.write_text('text\tlabel\n"so" it goes" \t0\n' + "a\t0\nb\t1\n" * 5 + '5" pipe\t1\n')
    assert "a quote" in refused(file).what
    texts = [row.text for row in everything(opened(file, quotes=False)[1])]
    assert '"so" it goes" ' in texts and '5" pipe' in texts


def test_blank_lines_are_no_rows_and_column_names_lose_their_spaces(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(
        "\ufeffid, text , label\n\n" + "".join(f"1,a{i},x\n2,b{i},y\n\n" for i in range(6)) + "\n", encoding="utf-8"
    )
    _, dataset = opened(file)
    assert Counter(row.text for row in everything(dataset)) == {f"{x}{i}": 1 for x in "ab" for i in range(6)}


def test_a_pair_of_texts(tmp_path: Path) -> None:
    data = [(f"q{i}", f"a{i}", i % 2) for i in range(20)]
    _, dataset = opened(write(tmp_path / "mine.jsonl", data, ("premise", "hypothesis", "label")))
    assert sorted((row.text, row.text_pair) for row in everything(dataset)) == sorted(row[:2] for row in data)


def test_parquet_by_batches_and_dictionaries(tmp_path: Path) -> None:
    texts = [f"{NASTY[i % len(NASTY)]} {i}" for i in range(9000)]
    labels = pa.array([f"class {i % 3}" for i in range(9000)]).dictionary_encode()
    pq.write_table(pa.table({"text": pa.array(texts, pa.large_string()), "label": labels}), tmp_path / "mine.parquet")
    found = [*open_table(tmp_path / "mine.parquet").rows(["text", "label"])]
    assert [row.number for row in found] == list(range(1, 9001))
    assert [tuple(row.values) for row in found] == [(text, f"class {i % 3}") for i, text in enumerate(texts)]


# columns


@pytest.mark.parametrize(
    ("header", "text", "pair", "label"),
    [
        ("id,text,label", "text", None, "label"),
        ("Label,Sentence", "Sentence", None, "Label"),
        ("sentence2,sentence1,score,sentence", "sentence1", "sentence2", "score"),
        ("question,answer,label", "question", "answer", "label"),
        ("title,review,stars,text", "text", None, "stars"),
    ],
)
def test_columns_are_guessed_by_name(tmp_path: Path, header: str, text: str, pair: str | None, label: str) -> None:
    names = header.split(",")
    data = [
        [str(i % 2) if name.lower() in ("label", "score", "stars") else f"{name} {i}" for name in names]
        for i in range(20)
    ]
    _, dataset = opened(write(tmp_path / "mine.csv", data, names))
    reading = dataset.reading
    assert (reading["text"], reading["text_pair"], reading["label"]) == (text, pair, label)
    assert set(reading["guessed"]) == {"text", "label"} | ({"text_pair"} if pair else set())
    assert f"text {text!r} (guessed)" in dataset.notes[0]
    assert all(row.text.startswith(f"{text} ") for row in dataset.train)


def test_columns_that_are_given_are_taken(tmp_path: Path) -> None:
    data = [(f"t{i}", f"s{i}", f"u{i}", i % 2, i % 3) for i in range(30)]
    file = write(tmp_path / "mine.csv", data, ("text", "sentence1", "sentence2", "label", "other"))
    _, dataset = opened(file, text="sentence2", label="other")
    assert dataset.reading["guessed"] == [] and dataset.reading["labels"] == ["0", "1", "2"]
    assert {(row.text[0], row.text_pair) for row in dataset.train} == {("u", None)}
    _, pairs = opened(file, text="text", text_pair="sentence1")
    assert {(row.text[0], (row.text_pair or "-")[0]) for row in pairs.train} == {("t", "s")}


@pytest.mark.parametrize(
    ("header", "options", "error", "said"),
    [
        ("a,b", {}, DataProblem, ("looks like the text", "'a', 'b'", "task.text=")),
        ("text,b", {}, DataProblem, ("looks like the label", "'text', 'b'", "task.label=")),
        ("text,text,label", {}, DataProblem, ("'text' appears twice", "'text', 'text', 'label'", "Rename")),
        ("text,label", {"text": "txt"}, UsageError, ("task.text=txt", "'text', 'label'", "Did you mean 'text'?")),
        ("text,label", {"label": "text", "text": "text"}, UsageError, ("named twice", "'text', 'text'", "others")),
    ],
)
def test_columns_that_are_not_there(
    tmp_path: Path, header: str, options: dict[str, Any], error: type[Exception], said: tuple[str, ...]
) -> None:
    (tmp_path / "mine.csv").write_text(header + "\nx,0\ny,1\n")
    with pytest.raises(error) as caught:
        opened(tmp_path / "mine.csv", **options)
    assert all(part in str(caught.value) for part in said)


# labels


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["a", "b"], "classification"),
        (["0", "1"], "classification"),
        (["0.0", "1.0", "2"], "classification"),
        ([str(i) for i in range(20)], "classification"),
        ([str(i) for i in range(21)], "regression"),
        (["0.5", "1"], "regression"),
        (["1e-3", "-2", "7.25"], "regression"),
        (["1", "2", "x"], "classification"),
        (["1_0.5", "2"], "classification"),
        (["inf", "1", "2"], "classification"),
    ],
)
def test_kind_is_found_from_the_labels(labels: list[str], kind: str) -> None:
    assert guess_kind(Counter(canonical(label) for label in labels)) == kind


def test_a_stray_word_does_not_make_numbers_names() -> None:
    numbers = {f"{i / 7:.3f}": 1 for i in range(1, 100)}
    assert guess_kind(numbers | {"n/a": 5}) == "regression"
    assert guess_kind(numbers | {"n/a": 50}) == "classification"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (1, "1"), (1.0, "1"), ("1.0", "1"), (" x ", "x"), (True, "true"), (False, "false"), (0.5, "0.5"), (-3, "-3"),
        ("none", "none"), ("v1.0", "v1.0"), ("2.00", "2"), ("2.50", "2.50"),
    ],
)  # fmt: skip
def test_labels_of_every_type_become_text(raw: Any, text: str) -> None:
    assert canonical(raw) == text


@pytest.mark.parametrize("raw", [None, "", "  ", math.nan, "NaN", "nan", b"x", [1], {}, "\ud800"])
def test_labels_that_are_none(raw: Any) -> None:
    with pytest.raises(ValueError, match="label"):
        canonical(raw)


def test_classes_are_ordered_by_value_or_by_name(tmp_path: Path) -> None:
    numbers = [(f"t{i}", (10, 9, -1)[i % 3]) for i in range(30)]
    assert opened(write(tmp_path / "a.csv", numbers))[1].reading["labels"] == ["-1", "9", "10"]
    names = [(f"t{i}", ("10", "9", "b")[i % 3]) for i in range(30)]
    assert opened(write(tmp_path / "b.csv", names))[1].reading["labels"] == ["9", "10", "b"]


@pytest.mark.parametrize("factor", [1e-6, 1, 1e9])
def test_numbers_are_learned_in_deviations_from_trains_mean(tmp_path: Path, factor: float) -> None:
    values = [factor * (math.sin(i) + 3) for i in range(50)]
    file = write(tmp_path / "mine.csv", [(f"t{i}", repr(value)) for i, value in enumerate(values)])
    task, dataset = opened(file)
    assert (task.spec.num_classes, task.spec.metrics, task.spec.primary) == (0, ("pearson", "spearman"), ("pearson",))
    labels = [row.label for row in dataset.train]
    assert (np.mean(labels), np.std(labels)) == pytest.approx((0, 1), abs=1e-9)
    scale = dataset.reading["scale"]
    back = {row.text: row.label * scale["deviation"] + scale["mean"] for row in everything(dataset)}
    assert [back[f"t{i}"] for i in range(50)] == pytest.approx(values, rel=1e-9)
    assert f"regression (task.kind=auto), mean {scale['mean']:.4g}" in dataset.notes[0]


def test_kind_can_be_forced(tmp_path: Path) -> None:
    few = write(tmp_path / "few.csv", [(f"t{i}", i % 5) for i in range(50)])
    assert opened(few)[0].spec.num_classes == 5
    assert opened(few, kind="regression")[0].spec.num_classes == 0
    many = write(tmp_path / "many.csv", [(f"t{i}", i % 25) for i in range(75)])
    assert opened(many, kind="regression")[0].spec.num_classes == 0
    assert opened(many, kind="classification")[0].spec.num_classes == 25


@pytest.mark.parametrize(
    ("labels", "options", "said"),
    [
        (["a"] * 9, {}, "all labels are equal: 'a'"),
        (["1.5"] * 9, {}, "all labels are equal"),
        ([f"id{i}" for i in range(9)], {}, "9 different labels in 9 rows"),
        (["a", "b"], {}, "2 different labels in 2 rows"),
        (["1.5", "2.5"], {}, "all labels are equal"),
        (["1e300", "-1e300", "1.5"] * 9, {}, "too large"),
    ],
)
def test_labels_that_say_nothing(tmp_path: Path, labels: list[str], options: dict[str, Any], said: str) -> None:
    file = write(tmp_path / "mine.csv", [(f"t{i}", label) for i, label in enumerate(labels)])
    assert said in refused(file, **options).what


# splits


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_split_is_stratified_as_scikit_learns(share: float, seed: int) -> None:
    labels = [f"class {c}" for c, size in enumerate(SIZES[:3]) for _ in range(size)]
    random.Random(seed).shuffle(labels)
    train, held = split(labels, share, seed=seed, stratify=True)
    assert sorted(train + held) == list(range(len(labels)))
    assert held == sorted(held) and train == sorted(train)
    theirs = train_test_split(labels, test_size=round(share * len(labels)), stratify=labels, random_state=seed)[1]
    assert len(held) == len(theirs)
    ours, want = Counter(labels[i] for i in held), Counter(theirs)
    # theirs breaks ties by chance
    assert all(abs(ours[name] - want[name]) <= 1 for name in set(labels))
    assert all(abs(ours[name] - share * count) < 1 for name, count in Counter(labels).items())


def test_every_class_keeps_a_row_to_train_on() -> None:
    labels = [f"class {c}" for c, size in enumerate(SIZES) for _ in range(size)]
    for share in (0.1, 0.5, 0.9, 0.99, 0.999):
        train, held = split(labels, share, seed=3, stratify=True)
        assert {labels[i] for i in train} == set(labels)
        assert held


def test_the_smallest_table(tmp_path: Path) -> None:
    _, dataset = opened(write(tmp_path / "mine.csv", [("a", 0), ("b", 1), ("c", 0), ("d", 1)]))
    assert (len(dataset.train), len(dataset.evaluation["validation"])) == (3, 1)
    assert {row.label for row in dataset.train} == {0, 1}


def test_without_strata_the_share_is_exact_and_the_seed_draws() -> None:
    labels = [str(i) for i in range(101)]
    one, other = (split(labels, 0.25, seed=seed, stratify=False)[1] for seed in (0, 1))
    assert len(one) == len(other) == 25
    assert one != other == split(labels, 0.25, seed=1, stratify=False)[1]
    assert max(one) > 60, "not the first ones"


def test_a_file_to_validate_on(tmp_path: Path) -> None:
    train, dev = write(tmp_path / "train.csv", rows(30)), write(tmp_path / "dev.jsonl", rows(12))
    task, dataset = opened(train, validation=str(dev))
    assert [row.text for row in dataset.train] == [text for text, _ in rows(30)]
    assert [row.text for row in dataset.evaluation["validation"]] == [text for text, _ in rows(12)]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (train, dev)]
    assert [file["sha256"] for file in dataset.reading["files"]] == hashes
    assert task.spec.version == hashlib.sha256("".join(hashes).encode()).hexdigest()
    assert (dataset.reading["validation"], dataset.reading["split_seed"]) == ("dev.jsonl", None)
    write(dev, rows(12), ("txt", "label"))
    problem = refused(train, validation=str(dev))
    assert "'text'" in problem.what and "dev.jsonl" in problem.known


def test_validating_on_train_itself_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", rows())
    assert "its scores do not count" in opened(file, validation=str(file))[1].notes[-1]
    assert len(opened(file)[1].notes) == 1


@pytest.mark.parametrize("value", ["0", "1", "-0.5", "20"])
def test_a_share_out_of_range(tmp_path: Path, value: str) -> None:
    with pytest.raises(UsageError, match=r"task\.validation"):
        opened(write(tmp_path / "mine.csv", rows()), validation=value)


# identity


def test_hash_and_version_follow_content_and_not_the_place(tmp_path: Path) -> None:
    first, copy = tmp_path / "mine.csv", tmp_path / "elsewhere" / "mine.csv"
    copy.parent.mkdir()
    write(first, rows())
    copy.write_bytes(first.read_bytes())
    (task, dataset), (other, same) = opened(first), opened(copy)
    assert (dataset.hash, task.spec) == (same.hash, other.spec)
    assert task.spec.version == hashlib.sha256(first.read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(dict(dataset.reading))
    assert opened(first, text="text", kind="classification", validation="0.10")[1].hash == dataset.hash
    assert opened(first, split_seed=1)[1].hash != dataset.hash
    assert opened(first, validation="0.2")[1].hash != dataset.hash
    copy.write_bytes(first.read_bytes() + b"\n")  # no example differs
    assert opened(copy)[1].hash != dataset.hash


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("a b.csv", "a-b"),
        ("..csv.csv", "csv"),
        ("données 漢.CSV", "donn-es"),
        ("漢.csv", "table"),
        ("x" * 99 + ".csv", "x" * 50),
    ],
)
def test_names_are_made_of_letters_that_harm_nobody(tmp_path: Path, name: str, slug: str) -> None:
    assert Table(str(tmp_path / name)).name == f"table/{slug}"


@pytest.mark.parametrize("name", ["", "mine", "mine.txt", "mine.csv.gz", "mine.json", "folder/"])
def test_other_suffixes_are_named_with_those_that_are_read(name: str) -> None:
    with pytest.raises(UsageError, match=r"\.csv, \.tsv, \.jsonl, \.parquet"):
        Table(name)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "no.parquet").write_bytes(b"PAR1 no")
    header = write(tmp_path / "bad.parquet", rows()).read_bytes().replace(b"label", b"\xff" * 5)
    (tmp_path / "bad.parquet").write_bytes(header)
    (tmp_path / "empty.csv").touch()
    (tmp_path / "empty.jsonl").touch()
    write(tmp_path / "header.csv", [])
    for name, said in (
        ("absent.csv", "no such file"),
        ("folder.csv", "cannot be read"),
        ("no.parquet", "not a Parquet file"),
        ("bad.parquet", "Parquet"),
        ("empty.csv", "looks like the text"),
        ("empty.jsonl", "looks like the text"),
        ("header.csv", "no row of it can be used"),
    ):
        problem = refused(tmp_path / name)
        assert said in problem.what
        assert str(tmp_path / name) in problem.what + problem.known
    assert "no such file" in refused(write(tmp_path / "mine.csv", rows()), validation=str(tmp_path / "gone.tsv")).what


# scores


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("seed", range(3))
def test_scores_of_classes_are_scikit_learns(tmp_path: Path, classes: int, seed: int) -> None:
    file = write(tmp_path / "mine.csv", [(f"t{i}", f"class {i % classes}") for i in range(40)])
    task, _ = opened(file)
    draw = np.random.default_rng(seed)
    truth, outputs = draw.integers(0, classes, 30), draw.normal(size=(30, classes))
    outputs[:, 0] += 1  # as if one class were guessed too often
    guess = outputs.argmax(1)
    found = metrics.evaluate(task.spec, torch.tensor(outputs), torch.tensor(truth))
    want = {
        "macro_f1": f1_score(truth, guess, average="macro"),
        "balanced_accuracy": balanced_accuracy_score(truth, guess),
        "accuracy": accuracy_score(truth, guess),
    }
    assert found == pytest.approx(want, abs=1e-6)
    assert metrics.mean([found[name] for name in task.spec.primary]) == pytest.approx(want["macro_f1"], abs=1e-6)


def test_a_class_that_validation_lacks_does_not_count() -> None:
    spec = metrics.TaskSpec(
        name="t/t", version="v", modality="text", num_classes=4, metrics=("macro_f1",), primary=("macro_f1",)
    )
    truth, guess = np.array([0, 1, 1, 0, 2, 2]), np.array([0, 1, 0, 0, 2, 1])
    found = metrics.evaluate(spec, torch.eye(4)[guess], torch.tensor(truth))
    assert found["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"), abs=1e-6)


def test_opening_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.records.data import DataRequest; from tasks.table.task import Table\n"
        "for name in sys.argv[1:]: Table(name).open(DataRequest())\n"
        "print(sorted({'torch', 'pandas', 'lightning', 'transformers', 'datasets'} & set(sys.modules)))"
    )
    files = [write(tmp_path / f"mine{suffix}", rows()) for suffix in (".csv", ".jsonl", ".parquet")]
    out = subprocess.run([sys.executable, "-c", code, *map(str, files)], capture_output=True, text=True, check=False)
    assert (out.stdout, out.stderr) == ("[]\n", "")
