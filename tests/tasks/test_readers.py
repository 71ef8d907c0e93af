"""TSV, JSON and Parquet readers: what is read, and that every bad place is named by file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.errors import DataProblem
from tasks.glue.examples import examples
from tasks.io.readers import SHORT_ROWS, Records, read_json, read_parquet, read_table, read_tsv

COLUMNS = ("sentence", "label")


def put(folder: Path, text: str | bytes, name: str = "train.tsv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def values(records: Records) -> list[list[object]]:
    return [list(row) for _, row in records.rows]


def problem(read, *parts: str) -> None:
    """`read()` must raise a DataProblem whose text holds every part."""
    with pytest.raises(DataProblem) as caught:
        read()
    for part in parts:
        assert part in str(caught.value)


def test_columns_are_found_by_name(tmp_path):
    file = put(tmp_path, "label\tindex\tsentence\n1\t0\tone\n0\t1\ttwo\n")
    assert read_tsv(file, COLUMNS).rows == [(2, ("one", "1")), (3, ("two", "0"))]


def test_a_file_without_a_header_is_read_from_its_first_line(tmp_path):
    file = put(tmp_path, "gj04\t1\t\tGood.\ngj04\t0\t*\tBad.\n")
    records = read_tsv(file, COLUMNS, header=("source", "label", "star", "sentence"))
    assert records.rows == [(1, ("Good.", "1")), (2, ("Bad.", "0"))]


@pytest.mark.parametrize(
    "sentence", ['an "unbalanced quote', "'", "a\u2028b", "a\x85b", "a\rb", "a\x0bb\x0cc\x1cd", " x "]
)
def test_only_tab_and_newline_separate(tmp_path, sentence):
    file = put(tmp_path, f"sentence\tlabel\n{sentence}\t1\nnext\t0\n")
    assert values(read_tsv(file, COLUMNS)) == [[sentence, "1"], ["next", "0"]]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_bom_and_line_ends(tmp_path, end):
    line = "\r\n" if end == "\r\n" else "\n"
    file = put(tmp_path, b"\xef\xbb\xbf" + f"sentence\tlabel{line}one\t1{end}".encode())
    assert values(read_tsv(file, COLUMNS)) == [["one", "1"]]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sentence\tlabel\none\t1\ntwo\n", ["line 3", "expected 2 columns, found 1"]),
        ("sentence\tlabel\none\ttwo\t1\n", ["line 2", "expected 2 columns, found 3"]),
        ("sentence\tlabel\n\none\t1\n", ["line 2", "expected 2 columns"]),
        ("sentence\tgold\none\t1\n", ["line 1", "expected a column 'label'", "'gold'"]),
        ("", ["the file is empty"]),
        ("\n\n", ["the file is empty"]),
        ("sentence\tlabel\n", ["at least one example"]),
        (b"sentence\tlabel\none\t1\ncaf\xe9\t1\n", ["line 3", "UTF-8"]),
        (b"\xef\xbb\xbfsentence\tlabel\n\xe9\t1\n", ["line 2", "UTF-8"]),
        (b"\xef\xbb\xbf\xff", ["line 1", "UTF-8"]),
        ("sentence\tlabel\n".encode("utf-16"), ["line 1", "UTF-8"]),
    ],
)
def test_bad_tsv_names_file_and_line(tmp_path, text, parts):
    file = put(tmp_path, text)
    problem(lambda: read_tsv(file, COLUMNS), str(file), *parts)


def test_missing_file_and_folder_in_its_place(tmp_path):
    problem(lambda: read_tsv(tmp_path / "train.tsv", COLUMNS), str(tmp_path / "train.tsv"), "No such file")
    problem(lambda: read_tsv(tmp_path, COLUMNS), str(tmp_path), "directory")


def test_few_short_rows_are_left_out_and_counted_where_allowed(tmp_path):
    rows = ["q\t1"] * (2 * SHORT_ROWS)
    rows[10] = rows[900] = "broken"
    file = put(tmp_path, "\n".join(["sentence\tlabel", *rows]))
    records = read_tsv(file, COLUMNS, short_rows=True)
    assert (len(records.rows), records.skipped) == (2 * SHORT_ROWS - 2, 2)
    assert [number for number, _ in records.rows[9:11]] == [11, 13]
    problem(lambda: read_tsv(file, COLUMNS), "line 12")


def test_many_short_rows_are_a_broken_file(tmp_path):
    rows = ["q\t1"] * (2 * SHORT_ROWS)
    rows[10] = rows[11] = rows[900] = "broken"
    file = put(tmp_path, "\n".join(["sentence\tlabel", *rows]))
    problem(lambda: read_tsv(file, COLUMNS, short_rows=True), "line 12", "found 1")


def test_too_long_rows_are_never_left_out(tmp_path):
    rows = ["q\t1"] * (2 * SHORT_ROWS)
    rows[10] = "a\tb\t1"
    file = put(tmp_path, "\n".join(["sentence\tlabel", *rows]))
    problem(lambda: read_tsv(file, COLUMNS, short_rows=True), "line 12", "found 3")


def test_json_lines_and_json_array(tmp_path):
    rows = [
        {"idx": 0, "label": 1, "sentence": "a\u2028b \u00e9 \U0001f600"},
        {"sentence": 'q"\n', "label": 0, "idx": 1},
    ]
    expected = [[row["sentence"], row["label"]] for row in rows]
    for escape in (True, False):
        lines = put(tmp_path, "\n".join(json.dumps(r, ensure_ascii=escape) for r in rows) + "\n", "train.jsonl")
        assert values(read_json(lines, COLUMNS)) == expected
        array = put(tmp_path, json.dumps(rows, ensure_ascii=escape, indent=1), "train.json")
        assert values(read_json(array, COLUMNS)) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"sentence": "a", "label": 1}\n{"sentence": \n', ["line 2", "expected JSON"]),
        ('{"sentence": "a", "label": 1}\n[1]\n', ["line 2", "expected a JSON object, found list"]),
        ('{"sentence": "a", "label": 1}\n{"sentence": "b"}\n', ["line 2", "expected a key 'label'", "'sentence'"]),
        ('{"sentence": "a", "label": 1}\n\n{"sentence": "b", "label": 1}\n', ["line 2", "expected JSON"]),
        ('{"sentence": "\\ud800", "label": 1}\n', ["line 1", "surrogate"]),
        ('[{"sentence": "a", "label": 1}, {"label": 1}]', ["row 2", "expected a key 'sentence'"]),
        ("[" * 100_000, ["expected JSON"]),
        ("[]", ["at least one example"]),
        ("", ["the file is empty"]),
        (b'{"sentence": "\xff", "label": 1}', ["line 1", "UTF-8"]),
    ],
)
def test_bad_json_names_file_and_line(tmp_path, text, parts):
    file = put(tmp_path, text, "train.jsonl")
    problem(lambda: read_json(file, COLUMNS), str(file), *parts)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_of_every_text_type(tmp_path, kind):
    table = pa.table({"label": [1, 0], "sentence": pa.array(["a\u2028", "b"]).cast(kind), "idx": [0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert read_parquet(tmp_path / "train.parquet", COLUMNS).rows == [(1, ("a\u2028", 1)), (2, ("b", 0))]


def test_a_folder_named_like_a_partition_does_not_add_columns(tmp_path):
    (tmp_path / "label=7").mkdir()
    file = tmp_path / "label=7" / "train.parquet"
    pq.write_table(pa.table({"sentence": ["a"]}), file)
    problem(lambda: read_parquet(file, COLUMNS), "expected a column 'label'", "'sentence'")


def test_bad_parquet_names_file_and_row(tmp_path):
    file = tmp_path / "train.parquet"
    problem(lambda: read_parquet(file, COLUMNS), str(file), "No such file")
    for bytes_ in (b"", b"sentence\tlabel\n", b"PAR1" + bytes(40) + b"PAR1"):
        file.write_bytes(bytes_)
        problem(lambda: read_parquet(file, COLUMNS), str(file), "expected a Parquet file")
    pq.write_table(pa.table({"sentence": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), file)
    problem(lambda: read_parquet(file, COLUMNS), str(file), "at least one example")
    broken = pa.array([b"ok", b"\xff"]).view(pa.string())
    for column in (broken, broken.cast(pa.large_string()), broken.dictionary_encode()):
        pq.write_table(pa.table({"sentence": column, "label": [0, 1]}), file)
        problem(lambda: read_parquet(file, COLUMNS), str(file), "row 2", "UTF-8")


def test_class_names_in_the_schema_win_over_the_order_of_the_numbers():
    features = {"label": {"names": ["contradiction", "entailment", "neutral"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"sentence": ["a", "b", "c"], "label": [0, 1, -1]}).replace_schema_metadata(metadata)
    assert values(read_table(table, COLUMNS, file="x")) == [["a", "contradiction"], ["b", "entailment"], ["c", -1]]


def one(label: object, text: object = "text", *, unit: str = "line") -> Records:
    return Records(file="glue/train.tsv", unit=unit, rows=[(7, (text, label))])  # type: ignore[arg-type]


@pytest.mark.parametrize("label", ["entailment", "0", 0, 0.0])
def test_a_label_is_a_name_or_an_index(label):
    assert examples(one(label), ("entailment", "not_entailment")) == [("text", None, 0)]


@pytest.mark.parametrize(
    "label", ["2", "-1", -1, "", "Entailment", " 0", None, True, False, 0.5, float("nan"), [0], {}]
)
def test_any_other_label_is_an_error(label):
    problem(
        lambda: examples(one(label), ("entailment", "not_entailment")),
        "glue/train.tsv, line 7",
        "0 or 1 (entailment, not_entailment)",
        f"found {label!r}",
    )


@pytest.mark.parametrize(
    ("score", "label"), [("3.800", 3.8), (3.8, 3.8), ("2.33333333333333", 2.33333333333333), (5, 5.0)]
)
def test_a_score_is_the_number_that_was_written(score, label):
    read = examples(one(score), ())[0].label
    assert (read, type(read)) == (label, float)


@pytest.mark.parametrize("score", ["nan", "inf", "-0.1", "5.001", "", "high", None, True, float("nan"), -1, 6, [1]])
def test_any_other_score_is_an_error(score):
    problem(lambda: examples(one(score), ()), "line 7", "a score from 0 to 5", f"found {score!r}")


@pytest.mark.parametrize("text", [None, 3, b"x", ["x"]])
def test_a_text_must_be_a_text(text):
    problem(lambda: examples(one(1, text, unit="row"), ("a", "b")), "row 7", "expected a text", f"found {text!r}")
