"""Published files of TSV, JSON and Parquet: what is read, and that every bad place is named by file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.core.errors import DataProblem
from bench.records.data import Example
from tasks.glue.files import SHORT_ROWS, Examples, read_examples
from tasks.io.readers import ArrowReader, Reader, Row, open_table

COLUMNS = ("sentence", "label")


def put(folder: Path, text: str | bytes, name: str = "train.tsv") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def rows(file: Path, *, header: tuple[str, ...] | None = None) -> list[tuple[int, list[object]]]:
    """Numbers and values of all rows, none of which may be bad."""
    found = [*open_table(file, quotes=False, header=header, strict=True).rows(COLUMNS)]
    assert all(isinstance(row, Row) for row in found)
    return [(row.number, list(row.values)) for row in found if isinstance(row, Row)]


def values(file: Path) -> list[list[object]]:
    return [row for _, row in rows(file)]


def read(file: Path, *, allow_short_rows: bool = False) -> Examples:
    table = open_table(file, quotes=False, strict=True)
    return read_examples(table, COLUMNS, ("no", "yes"), allow_short_rows=allow_short_rows)


def problem(do, *parts: str) -> None:
    """`do()` must raise a DataProblem whose text holds every part."""
    with pytest.raises(DataProblem) as caught:
        do()
    for part in parts:
        assert part in str(caught.value)


def test_columns_are_found_by_name(tmp_path):
    file = put(tmp_path, "label\tindex\tsentence\n1\t0\tone\n0\t1\ttwo\n")
    assert rows(file) == [(2, ["one", "1"]), (3, ["two", "0"])]


def test_a_file_without_a_header_is_read_from_its_first_line(tmp_path):
    file = put(tmp_path, "gj04\t1\t\tGood.\ngj04\t0\t*\tBad.\n")
    found = rows(file, header=("source", "label", "star", "sentence"))
    assert found == [(1, ["Good.", "1"]), (2, ["Bad.", "0"])]


@pytest.mark.parametrize(
    "sentence", ['an "unbalanced quote', "'", "a\u2028b", "a\x85b", "a\rb", "a\x0bb\x0cc\x1cd", " x "]
)
def test_only_tab_and_newline_separate(tmp_path, sentence):
    file = put(tmp_path, f"sentence\tlabel\n{sentence}\t1\nnext\t0\n")
    assert values(file) == [[sentence, "1"], ["next", "0"]]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_bom_and_line_ends(tmp_path, end):
    line = "\r\n" if end == "\r\n" else "\n"
    file = put(tmp_path, b"\xef\xbb\xbf" + f"sentence\tlabel{line}one\t1{end}".encode())
    assert values(file) == [["one", "1"]]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("sentence\tlabel\none\t1\ntwo\n", ["line 3", "wrong number of fields (1, not 2)"]),
        ("sentence\tlabel\none\ttwo\t1\n", ["line 2", "wrong number of fields (3, not 2)"]),
        ("sentence\tlabel\n\none\t1\n", ["line 2", "wrong number of fields"]),
        ("sentence\tgold\none\t1\n", ["line 1", "there is no column 'label'", "'gold'"]),
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
    problem(lambda: read(file), str(file), *parts)


def test_missing_file_and_folder_in_its_place(tmp_path):
    problem(lambda: read(tmp_path / "train.tsv"), str(tmp_path / "train.tsv"), "No such file")
    (tmp_path / "dev.tsv").mkdir()
    problem(lambda: read(tmp_path / "dev.tsv"), str(tmp_path / "dev.tsv"), "directory")


def test_few_short_rows_are_left_out_and_counted_where_allowed(tmp_path):
    rows = ["q\t1"] * (2 * SHORT_ROWS)
    rows[10] = rows[900] = "broken"
    file = put(tmp_path, "\n".join(["sentence\tlabel", *rows]))
    found = read(file, allow_short_rows=True)
    assert (len(found.rows), found.left_out) == (2 * SHORT_ROWS - 2, 2)
    numbers = [row.number for row in open_table(file, quotes=False).rows(COLUMNS) if isinstance(row, Row)]
    assert numbers[9:11] == [11, 13]
    problem(lambda: read(file), "line 12")


def test_many_short_rows_are_a_broken_file(tmp_path):
    rows = ["q\t1"] * (2 * SHORT_ROWS)
    rows[10] = rows[11] = rows[900] = "broken"
    file = put(tmp_path, "\n".join(["sentence\tlabel", *rows]))
    problem(lambda: read(file, allow_short_rows=True), "line 12", "(1, not 2)")


def test_too_long_rows_are_never_left_out(tmp_path):
    rows = ["q\t1"] * (2 * SHORT_ROWS)
    rows[10] = "a\tb\t1"
    file = put(tmp_path, "\n".join(["sentence\tlabel", *rows]))
    problem(lambda: read(file, allow_short_rows=True), "line 12", "(3, not 2)")


def test_json_lines_and_json_array(tmp_path):
    rows = [
        {"idx": 0, "label": 1, "sentence": "a\u2028b \u00e9 \U0001f600"},
        {"sentence": 'q"\n', "label": 0, "idx": 1},
    ]
    expected = [[row["sentence"], row["label"]] for row in rows]
    for escape in (True, False):
        lines = put(tmp_path, "\n".join(json.dumps(r, ensure_ascii=escape) for r in rows) + "\n", "train.jsonl")
        assert values(lines) == expected
        array = put(tmp_path, json.dumps(rows, ensure_ascii=escape, indent=1), "train.json")
        assert values(array) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"sentence": "a", "label": 1}\n{"sentence": \n', ["line 2", "not JSON"]),
        ('{"sentence": "a", "label": 1}\n[1]\n', ["line 2", "not a JSON object (list)"]),
        ('{"sentence": "a", "label": 1}\n{"sentence": "b"}\n', ["line 2", "no key 'label'", "'sentence'"]),
        ('{"sentence": "a", "label": 1}\n\n{"sentence": "b", "label": 1}\n', ["line 2", "not JSON"]),
        ('{"sentence": "\\ud800", "label": 1}\n', ["line 1", "UTF-8"]),
        ('[{"sentence": "a", "label": 1}, {"label": 1}]', ["row 2", "no key 'sentence'"]),
        ("[" * 100_000, ["not JSON"]),
        ("[]", ["the file is empty"]),
        ("", ["the file is empty"]),
        (b'{"sentence": "\xff", "label": 1}', ["line 1", "UTF-8"]),
    ],
)
def test_bad_json_names_file_and_line(tmp_path, text, parts):
    file = put(tmp_path, text, "train.jsonl")
    problem(lambda: read(file), str(file), *parts)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_of_every_text_type(tmp_path, kind):
    table = pa.table({"label": [1, 0], "sentence": pa.array(["a\u2028", "b"]).cast(kind), "idx": [0, 1]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert rows(tmp_path / "train.parquet") == [(1, ["a\u2028", 1]), (2, ["b", 0])]


def test_a_folder_named_like_a_partition_does_not_add_columns(tmp_path):
    (tmp_path / "label=7").mkdir()
    file = tmp_path / "label=7" / "train.parquet"
    pq.write_table(pa.table({"sentence": ["a"]}), file)
    problem(lambda: read(file), "there is no column 'label'", "'sentence'")


def test_bad_parquet_names_file_and_row(tmp_path):
    file = tmp_path / "train.parquet"
    problem(lambda: read(file), str(file), "No such file")
    for bytes_ in (b"", b"sentence\tlabel\n", b"PAR1" + bytes(40) + b"PAR1"):
        file.write_bytes(bytes_)
        problem(lambda: read(file), str(file), "not a Parquet file")
    pq.write_table(pa.table({"sentence": pa.array([], pa.string()), "label": pa.array([], pa.int64())}), file)
    problem(lambda: read(file), str(file), "at least one example")
    broken = pa.array([b"ok", b"\xff"]).view(pa.string())
    for column in (broken, broken.cast(pa.large_string()), broken.dictionary_encode()):
        pq.write_table(pa.table({"sentence": column, "label": [0, 1]}), file)
        problem(lambda: read(file), str(file), "row 2", "UTF-8")


def test_class_names_in_the_schema_win_over_the_order_of_the_numbers():
    features = {"label": {"names": ["contradiction", "entailment", "neutral"], "_type": "ClassLabel"}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    table = pa.table({"sentence": ["a", "b", "c"], "label": [0, 1, -1]}).replace_schema_metadata(metadata)
    labels = ("entailment", "neutral", "contradiction")
    found = read_examples(ArrowReader(table.slice(0, 2), "x"), COLUMNS, labels)
    assert found.rows == [("a", None, 2), ("b", None, 0)]
    problem(lambda: read_examples(ArrowReader(table, "x"), COLUMNS, labels), "row 3", "found -1")


class OneRow(Reader):
    """A table of one row, line 7 of a file."""

    def __init__(self, *row: object) -> None:
        super().__init__("glue/train.tsv")
        self.row = row

    def columns(self) -> list[str]:
        return ["sentence", "label"]

    def _read(self, columns: Sequence[str]) -> Iterator[Row]:
        yield Row(7, self.row)


def one(label: object, labels: tuple[str, ...], text: object = "text") -> list[Example]:
    return read_examples(OneRow(text, label), COLUMNS, labels).rows


@pytest.mark.parametrize("label", ["entailment", "0", 0, 0.0])
def test_a_label_is_a_name_or_an_index(label):
    assert one(label, ("entailment", "not_entailment")) == [("text", None, 0)]


@pytest.mark.parametrize(
    "label", ["2", "-1", -1, "", "Entailment", " 0", None, True, False, 0.5, float("nan"), [0], {}]
)
def test_any_other_label_is_an_error(label):
    problem(
        lambda: one(label, ("entailment", "not_entailment")),
        "glue/train.tsv, line 7",
        "0 or 1 (entailment, not_entailment)",
        f"found {label!r}",
    )


@pytest.mark.parametrize(
    ("score", "label"), [("3.800", 3.8), (3.8, 3.8), ("2.33333333333333", 2.33333333333333), (5, 5.0)]
)
def test_a_score_is_the_number_that_was_written(score, label):
    found = one(score, ())[0].label
    assert (found, type(found)) == (label, float)


@pytest.mark.parametrize("score", ["nan", "inf", "-0.1", "5.001", "", "high", None, True, float("nan"), -1, 6, [1]])
def test_any_other_score_is_an_error(score):
    problem(lambda: one(score, ()), "line 7", "a score from 0 to 5", f"found {score!r}")


@pytest.mark.parametrize("text", [None, 3, b"x", ["x"]])
def test_a_text_must_be_a_text(text):
    problem(lambda: one(1, ("a", "b"), text), "line 7", "expected a text", f"found {text!r}")
