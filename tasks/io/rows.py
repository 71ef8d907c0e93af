r"""CSV, TSV, JSON lines and Parquet, one row at a time: the wanted values, or what is wrong with the row and where.

Lines are physical ones, split at "\n" alone and counted from 1; a record is named by the line it begins at. Parquet has
no lines: there the number is the row's, from 1.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from bench.core.errors import DataProblem

LONGEST = 1 << 20
"""Characters of the longest field; a quote that nobody closes swallows no more than that."""
BATCH = 1024
"""Rows of Parquet in memory at a time."""
BOM = b"\xef\xbb\xbf"
UTF8 = "bytes that are not UTF-8"
QUOTES = "a quote that is not closed, or text behind a closing one"
RETURNS = "a carriage return outside quotes"


class Row(NamedTuple):
    """A row that could be read: its number, and its values in the order of the columns asked for."""

    number: int
    values: Sequence[Any]


class Bad(NamedTuple):
    """A row that could not: its number, the reason as it is counted, and what was found."""

    number: int
    reason: str
    detail: str = ""


Rows = Iterator[Row | Bad]


class Format(NamedTuple):
    """How files of one suffix are read.

    Attributes:
        unit: what a number counts.
        columns: names of the columns.
        rows: the values of some of them.
    """

    unit: str
    columns: Callable[[Path], Sequence[str]]
    rows: Callable[[Path, Sequence[str]], Rows]


def unusable(file: Path, what: str, known: str = "", todo: str = "Mend the file.") -> DataProblem:
    """The error for a file of which no row can be used."""
    return DataProblem(f"{file.name}: {what}", f"file: {file}" + (f"; {known}" if known else ""), todo)


# text files


class _Lines:
    """Physical lines as text; those of the present record can be read again from its second one."""

    def __init__(self, lines: BinaryIO) -> None:
        self.fresh, self.number = lines, 0
        self.kept: list[str] = []
        self.again: Iterator[str] = iter(())

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.again, None)
        if line is None:
            raw = next(self.fresh)
            raw = raw if self.number else raw.removeprefix(BOM)
            line = raw.decode(errors="surrogateescape")
        self.number += 1
        self.kept.append(line)
        return line

    def begin(self) -> int:
        """A record begins with the next line, whose number this is."""
        self.kept = []
        return self.number + 1

    def back(self) -> None:
        """Only the first line of the record was broken: the others may begin records of their own."""
        rest = self.kept[1:]
        self.number -= len(rest)
        self.again = chain(rest, self.again)


Dialect = dict[str, Any]


def _records(file: Path, dialect: Dialect) -> Iterator[tuple[int, list[str] | Bad]]:
    """Every record with its first line. Empty lines are none."""
    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))
    with file.open("rb") as stream:
        lines = _Lines(stream)
        reader = csv.reader(lines, strict=True, **dialect)
        while True:
            number = lines.begin()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.back()
                yield number, Bad(number, RETURNS if "new-line" in str(error) else QUOTES)
                continue
            if fields:
                yield number, fields


def _header(file: Path, dialect: Dialect) -> list[str]:
    number, fields = next(_records(file, dialect), (1, []))
    if isinstance(fields, Bad) or not all(map(is_unicode, fields)):
        reason = fields.reason if isinstance(fields, Bad) else UTF8
        raise unusable(file, f"line {number}: {reason}", f"line {number} holds the names of the columns")
    return [name.strip() for name in fields]


def _separated(delimiter: str, *, quotes: bool) -> Format:
    dialect = {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE}

    def rows(file: Path, names: Sequence[str]) -> Rows:
        header = _header(file, dialect)
        pick = [header.index(name) for name in names]
        records = _records(file, dialect)
        next(records)
        for number, fields in records:
            if isinstance(fields, Bad):
                yield fields
            elif len(fields) != len(header):
                yield Bad(number, "wrong number of fields", f"{len(fields)}, not {len(header)}")
            else:
                yield Row(number, [fields[i] for i in pick])

    return Format("line", lambda file: _header(file, dialect), rows)


def _objects(file: Path) -> Iterator[tuple[int, dict[str, Any] | Bad]]:
    with file.open("rb") as stream:
        for number, raw in enumerate(stream, 1):
            line = raw.removeprefix(BOM) if number == 1 else raw
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode())
            except UnicodeDecodeError:
                value = Bad(number, UTF8)
            except (ValueError, RecursionError) as error:
                value = Bad(number, "not JSON", str(error))
            if not isinstance(value, dict | Bad):
                value = Bad(number, "not a JSON object", type(value).__name__)
            yield number, value


def _keys(file: Path) -> Sequence[str]:
    """Keys of the first object."""
    return next((list(value) for _, value in _objects(file) if isinstance(value, dict)), [])


def _json_rows(file: Path, names: Sequence[str]) -> Rows:
    for number, value in _objects(file):
        yield value if isinstance(value, Bad) else Row(number, [value.get(name) for name in names])


def is_unicode(text: str) -> bool:
    """Whether every character is one."""
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that were not UTF-8, or half a surrogate pair that JSON escaped
        return False
    return True


# Parquet


def _parquet_columns(file: Path) -> Sequence[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            return parquet.schema_arrow.names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unusable(file, "no Parquet file", str(error).partition("\n")[0]) from error


def _parquet_rows(file: Path, names: Sequence[str]) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(BATCH, columns=list(names)):
                columns = [_values(batch.column(batch.schema.get_field_index(name))) for name in names]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield Row(number, values)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unusable(file, f"broken Parquet behind row {number}", str(error).partition("\n")[0]) from error


def _values(column: Any) -> list[Any]:
    """Python values; texts that are not UTF-8 keep their bytes as surrogates."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        raw = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="surrogateescape") for value in raw]
    return column.to_pylist()


SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


def format_of(file: Path, *, quotes: bool = True) -> Format:
    """How a file is read, by its suffix, which is one of `SUFFIXES`."""
    suffix = file.suffix.lower()
    if suffix == ".jsonl":
        return Format("line", _keys, _json_rows)
    if suffix == ".parquet":
        return Format("row", _parquet_columns, _parquet_rows)
    return _separated("\t" if suffix == ".tsv" else ",", quotes=quotes)
