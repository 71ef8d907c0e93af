"""Bad rows of a table: an error that names file and line, or left out and counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import everything, opened, refused, rows, write

from tasks.io.readers import BadRow, open_table

GOOD = "".join(f'"good,\n{i}",{"xy"[i % 2]}\n' for i in range(20))
"""Forty lines of twenty records."""
BROKEN: list[tuple[str, bytes, str, int]] = [
    ("missing label", b"bad,\n", "the label is missing", 1),
    ("NaN", b"bad,NaN\n", "the label is missing ('NaN')", 1),
    ("None", b"bad,None\n", "the label is missing ('None')", 1),
    ("too many fields", b"bad,x,y\n", "wrong number of fields (3, not 2)", 1),
    ("too few fields", b"bad\n", "wrong number of fields (1, not 2)", 1),
    ("empty text", b",x\n", "the text is empty", 1),
    ("blank text", b'" \n ",x\n', "the text is empty", 1),
    ("not UTF-8", b"caf\xe9,x\n", "bytes that are not UTF-8", 1),
    ("not UTF-8 label", b"bad,\xff\n", "bytes that are not UTF-8", 1),
    ("text behind a quote", b'"bad" x,x\n', "a quote that is not closed", 1),
    ("unclosed quote", b'"bad,x\n', "a quote that is not closed", 1),
    ("unclosed quote, then lines without", b'"bad,x\nplain,x\nplain,y\n', "a quote that is not closed", 1),
    ("carriage return", b"ba\rd,x\n", "a carriage return", 1),
    ("two of a kind", b"bad,\nworse,\n", "the label is missing", 2),
]


@pytest.mark.parametrize(("line", "said", "count"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_bad_row_is_named_with_its_line_or_left_out(
    tmp_path: Path, line: bytes, said: str, count: int, place: str
) -> None:
    before = {"first": 0, "middle": 10, "last": 20}[place]
    good = GOOD.encode().splitlines(keepends=True)
    file = tmp_path / "mine.csv"
    content = [b"\xef\xbb\xbftext,label\n", *good[: 2 * before], line, *good[2 * before :]]
    file.write_bytes(b"".join(content))
    problem = refused(file)
    assert said in problem.what and problem.what.startswith("malformed data in mine.csv: ")
    assert f"{file}, line {2 + 2 * before}" in problem.known
    assert "data.on_bad=skip" in problem.todo
    _, dataset = opened(file, on_bad="skip")
    texts = Counter(row.text for row in everything(dataset))
    assert {f"good,\n{i}" for i in range(20)} <= set(texts), "every good row is still there"
    assert set(texts) - {f"good,\n{i}" for i in range(20)} <= {"plain"}
    [note] = dataset.notes[1:]
    total = len(everything(dataset)) + count
    assert note.startswith(f"mine.csv: {count} of {total} rows left out: ") and f"first: line {2 + 2 * before})" in note
    assert sum(dataset.reading["files"][0]["left_out"].values()) == count


def test_bad_rows_of_several_kinds_are_counted_apart(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("text,label\n" + "".join(f"a{i},x\nb{i},y\n" for i in range(10)) + ",x\nc,\nd,x,y\n,y\n")
    _, dataset = opened(file, on_bad="skip")
    left_out = {"the text is empty": 2, "the label is missing": 1, "wrong number of fields": 1}
    assert dataset.reading["files"][0]["left_out"] == left_out
    assert "4 of 24 rows left out: 2 × the text is empty (first: line 22), 1 ×" in dataset.notes[1]
    assert len(everything(dataset)) == 20
    assert "3 more" in refused(file).known


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"text": "a", "label": }', "not JSON"),
        (b'{"text": "a"', "not JSON"),
        (b'["a", "x"]', "not a JSON object (list)"),
        (b'{"text": "a"}', "the label is missing"),
        (b'{"text": "a", "label": null}', "the label is missing"),
        (b'{"text": "a", "label": NaN}', "the label is missing"),
        (b'{"text": "a", "label": "null"}', "the label is missing ('null')"),
        (b'{"text": "a", "label": ["x"]}', "the label is a list, which only task.kind=multilabel reads"),
        (b'{"text": null, "label": "x"}', "the text is empty"),
        (b'{"text": [7], "label": "x"}', "the text is no text (list)"),
        (b'{"text": NaN, "label": "x"}', "the text is empty"),
        (b'{"text": "\\ud83d", "label": "x"}', "not UTF-8"),
        (b'{"text": "\xff", "label": "x"}', "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_of_json(tmp_path: Path, line: bytes, said: str) -> None:
    file = write(tmp_path / "mine.jsonl", rows(20))
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([b"\xef\xbb\xbf", b"\n", *lines[:10], line + b"\n", *lines[10:]]))
    problem = refused(file)
    assert said in problem.what and f"{file}, line 12" in problem.known
    assert len(everything(opened(file, on_bad="skip")[1])) == 20


def test_a_bad_row_of_parquet(tmp_path: Path) -> None:
    texts = [text.encode() for text, _ in rows(20)]
    labels: list[str | None] = [label for _, label in rows(20)]
    texts[6], labels[11] = b"caf\xe9", None
    column = pa.Array.from_buffers(pa.string(), 20, pa.array(texts, pa.binary()).buffers())
    pq.write_table(pa.table({"text": column, "label": labels}), tmp_path / "mine.parquet")
    problem = refused(tmp_path / "mine.parquet")
    assert "not UTF-8" in problem.what and f"{tmp_path / 'mine.parquet'}, row 7" in problem.known
    _, dataset = opened(tmp_path / "mine.parquet", on_bad="skip")
    assert dataset.reading["files"][0]["left_out"] == {"bytes that are not UTF-8": 1, "the label is missing": 1}
    lists = pa.table({"text": [[i] for i in range(20)], "label": list("xy") * 10})
    pq.write_table(lists, tmp_path / "lists.parquet")
    assert "the text is no text (list)" in refused(tmp_path / "lists.parquet").what


def test_broken_parquet_behind_a_good_footer(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.parquet", [(f"{i} " * 99, i % 2) for i in range(5000)])
    raw = bytearray(file.read_bytes())
    raw[1000:3000] = b"\xff" * 2000
    file.write_bytes(raw)
    assert "Parquet" in refused(file).what


def test_words_among_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.csv", [(f"t{i}", "high" if i == 7 else f"{i / 7:.3f}") for i in range(1, 40)])
    problem = refused(file)
    assert "the label is no number ('high')" in problem.what and f"{file}, line 8" in problem.known
    task, dataset = opened(file, on_bad="skip")
    assert task.spec.num_classes == 0
    assert len(everything(dataset)) == 38


def test_a_class_seen_only_in_validation(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", rows(30))
    dev = write(tmp_path / "dev.tsv", [*rows(9), ("odd\none", "new"), *rows(3)])
    begin = dev.read_bytes().split(b'"odd')[0].count(b"\n") + 1
    problem = refused(train, validation=str(dev))
    assert "the label is not one of train's ('new')" in problem.what and f"{dev}, line {begin}" in problem.known
    _, dataset = opened(train, validation=str(dev), on_bad="skip")
    assert len(dataset.evaluation["validation"]) == 12
    assert "dev.tsv: 1 of 13 rows left out" in dataset.notes[1]
    assert [file["left_out"] for file in dataset.reading["files"]] == [{}, {"the label is not one of train's": 1}]


def test_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,label\n,x\n,y\n")
    problem = refused(tmp_path / "mine.csv", on_bad="skip")
    assert "no row of it can be used" in problem.what and "2 × the text is empty" in problem.known


def test_names_of_columns_in_other_bytes_or_broken_quotes(tmp_path: Path) -> None:
    for header in (b"t\xe9xt,label\n", b'"text,label\n', "text,label\n".encode("utf-16")):
        (tmp_path / "mine.csv").write_bytes(header + b"a,x\n")
        for on_bad in ("error", "skip"):
            problem = refused(tmp_path / "mine.csv", on_bad=on_bad)
            assert "line 1" in problem.what and "names of the columns" in problem.known


def test_a_quote_that_swallows_much_is_given_up(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text('text,label\n"bad,x\n' + "a long line without any quote,x\nanother one,y\n" * 60_000)
    found = [*open_table(file).rows(["text"])]
    assert [row.number for row in found if isinstance(row, BadRow)] == [2]
    assert [row.number for row in found] == list(range(2, 120_003))
