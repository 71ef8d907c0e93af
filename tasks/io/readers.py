r"""Read CSV, TSV, JSON lines, Parquet and Arrow tables one row at a time, and name the place of every row that is bad.

What cannot be read as a whole is a `DataProblem` that names the file.

Lines are physical ones, split at "\n" alone and counted from 1; a record of several lines is named by its first. Texts
hold U+2028, U+0085 and stray carriage returns; only "\r" at the end of a line belongs to the line break. Parquet, Arrow
and a JSON array have no lines: their rows are counted from 1.

Quoted files are read by Python's csv module. pyarrow.csv and pandas give no line numbers of bad rows, and let a quote
that is never closed take the rest of the file with it.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NamedTuple, NoReturn, cast

from bench.core.errors import DataProblem
from bench.core.files import regular

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LONGEST = 1 << 26
"""Characters of the longest field of a quoted file; a quote that is never closed is given up after that many."""
LARGEST = 1 << 33
"""Most bytes of a file: its rows are kept in memory."""
LARGEST_LINE = 1 << 28
"""Most bytes of a line, which is in memory as a whole."""
BATCH = 1024
"""Rows of a Parquet file in memory at a time."""
BOM = b"\xef\xbb\xbf"
NOT_UTF8 = "bytes that are not UTF-8"
BAD_QUOTES = "a quote that is not closed, or text behind a closing one"
TOO_LONG = f"a field of more than {LONGEST:,} characters, or a quote that is not closed"
BAD_RETURN = "a carriage return outside quotes"
FIX = "Fix the file, or name another one."
FIX_DATASET = "Fix or download the file again, or give another directory with --data-dir."


class Row(NamedTuple):
    """A row that could be read: its number, and its values in the order of the columns asked for."""

    number: int
    values: Sequence[object]


class BadRow(NamedTuple):
    """A row that could not be read: the reason, equal for all rows of its kind, and what was found in this one.

    `is_short` tells that all that is wrong is that fields are missing.
    """

    number: int
    reason: str
    detail: str = ""
    is_short: bool = False


def malformed(file: str | Path, where: str, problem: str, todo: str = FIX_DATASET) -> DataProblem:
    """Make the error for one bad place, such as `line 7`; an empty `where` is the whole file."""
    place = f"{file}, {where}" if where else f"{file}"
    return DataProblem(f"malformed data in {Path(file).name}: {problem}", f"file: {place}", todo)


@contextmanager
def errors_naming(file: str | Path, todo: str = FIX_DATASET) -> Generator[None]:
    """Turn errors of reading a file, gzipped or not, into a `DataProblem` that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise malformed(file, "", f"cannot be read ({reason})", todo) from error


def unreadable(error: OSError) -> NoReturn:
    """Raise a `DataProblem` that names the file or folder of an error, as `os.walk` takes it."""
    raise DataProblem(f"{error.filename} cannot be read", str(error), "Fix its permissions.") from error


class Reader(ABC):
    """A table in one file, or in memory; errors name it `file`. `strict` is as for `open_table`."""

    unit: Literal["line", "row"] = "line"
    """What the number of a row counts."""
    header_place = ""
    """Where the names of the columns are, for errors; empty where they are in no line."""

    def __init__(self, file: str | Path, *, strict: bool = False) -> None:
        self.file, self.strict = file, strict
        self.todo = FIX_DATASET if strict else FIX

    @abstractmethod
    def columns(self) -> Sequence[str]:
        """Return the names of the columns; none of a file that is empty."""

    @abstractmethod
    def _read(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the values of these columns, which exist; texts may hold surrogates in place of bytes."""

    def rows(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        """Yield the values of these columns, row by row; the table must have each exactly once."""
        header = self.columns()
        for name in columns:
            if header.count(name) != 1:
                known = "; ".join(filter(None, (self.header_place, list_columns(header))))
                if not header:
                    raise self.malformed(known, "the file is empty")
                what = f"the column {name!r} appears twice" if name in header else f"there is no column {name!r}"
                raise self.malformed(known, what, f"Rename or add a column. {self.todo}")
        for row in self._read(columns):
            if isinstance(row, Row) and not all(is_unicode(v) for v in row.values if isinstance(v, str)):
                yield BadRow(row.number, NOT_UTF8)
            else:
                yield row

    def class_names(self) -> Mapping[str, Sequence[str]]:
        """Return the class names that the file itself gives for columns of class indices."""
        return {}

    def malformed(self, where: str, problem: str, todo: str = "") -> DataProblem:
        """Make the error for a bad place; an empty `where` is the whole table."""
        return malformed(self.file, where, problem, todo or self.todo)

    def error(self, row: BadRow, more: str = "", todo: str = "") -> DataProblem:
        """Make the error for a bad row; `more` follows its number."""
        detail = f" ({row.detail})" if row.detail else ""
        return self.malformed(f"{self.unit} {row.number}{more}", row.reason + detail, todo)


def open_table(file: Path, *, quotes: bool = True, header: Sequence[str] | None = None, strict: bool = False) -> Reader:
    """Open a table by the suffix of its name: .parquet, .jsonl, .json, .tsv or (anything else) CSV.

    Parquet is read a few rows at a time, a JSON array as a whole. Names in the header of CSV and TSV lose the spaces
    around them.

    Args:
        quotes: whether fields of CSV and TSV may be quoted; else quotes are characters like others.
        header: names of all columns, where a CSV or TSV file has no line of them.
        strict: whether it is published data, where a blank line between others and a missing JSON key are bad rows; in
            a user's own file blank lines are skipped, and a missing key gives None.
    """
    match file.suffix.lower():
        case ".parquet":
            return ParquetReader(file, strict=strict)
        case ".jsonl" | ".json":
            return _JsonReader(file, strict=strict)
        case suffix:
            delimiter = "\t" if suffix == ".tsv" else ","
            return _SeparatedReader(file, delimiter, quotes=quotes, header=header, strict=strict)


def is_complete_set(files: Sequence[Path]) -> bool:
    """Tell whether the files are one file, or every shard of one set (`-00000-of-00002`)."""
    totals = {(re.search(r"-of-(\d+)", file.name) or ["", "1"])[1] for file in files}
    return len(totals) == 1 and int(totals.pop()) == len(files)


def is_unicode(text: str) -> bool:
    """Tell whether a text can be encoded: it holds no byte that was not UTF-8, and no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def list_columns(header: Sequence[str]) -> str:
    """List the columns of a table, for errors."""
    shown = ", ".join(map(repr, header[:50])) + (" …" if len(header) > 50 else "")
    return f"columns: {shown or '(none)'}"


# text files


def _opened(file: str | Path) -> BinaryIO:
    return regular(Path(file), most=LARGEST).open("rb")


def _decoded(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines with their ends, without BOM; bytes that are not UTF-8 become surrogates."""
    for number in count():
        raw = stream.readline(LARGEST_LINE + 1)
        if len(raw) > LARGEST_LINE:
            raise OSError(f"line {number + 1} has more than {LARGEST_LINE:,} bytes")
        if not raw:
            return
        yield (raw if number else raw.removeprefix(BOM)).decode(errors="surrogateescape")


def _numbered(stream: BinaryIO, *, spaces: str | None, strict: bool) -> Iterator[tuple[int, str]]:
    """Yield lines without their ends, with their numbers; blank ones only if `strict`, and never at the end."""
    blank: list[int] = []
    for number, line in enumerate(_decoded(stream), 1):
        if not line.strip(spaces):
            blank.append(number)
            continue
        if strict:
            yield from ((earlier, "") for earlier in blank)
        blank = []
        yield number, line.removesuffix("\n").removesuffix("\r")


class _SeparatedReader(Reader):
    def __init__(self, file: Path, delimiter: str, *, quotes: bool, header: Sequence[str] | None, strict: bool) -> None:
        super().__init__(file, strict=strict)
        self.delimiter, self.quotes, self.header = delimiter, quotes, header

    def columns(self) -> Sequence[str]:
        if self.header is not None:
            return self.header
        number, fields = next(self._records(), (1, []))
        self.header_place = f"line {number}"
        if isinstance(fields, BadRow) or not all(map(is_unicode, fields)):
            reason = fields.reason if isinstance(fields, BadRow) else NOT_UTF8
            known = f"{self.header_place}, which holds the names of the columns"
            raise self.malformed(known, f"line {number}: {reason}")
        names = [name.strip() for name in fields]
        other = next((sign for sign in ";\t|," if sign in "".join(names)), "")
        if len(names) == 1 and other and not self.strict:
            what = f"{other!r} separates the columns, not {self.delimiter!r}"
            raise self.malformed(self.header_place, what, "Save it with commas as .csv, or with tabs as .tsv.")
        return names

    def _read(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        header = self.columns()
        chosen = [header.index(name) for name in columns]
        records = self._records()
        if self.header is None:
            next(records)
        for number, fields in records:
            if isinstance(fields, BadRow):
                yield fields
            elif len(fields) != len(header):
                is_short = len(fields) < len(header)
                yield BadRow(number, "wrong number of fields", f"{len(fields)}, not {len(header)}", is_short)
            else:
                yield Row(number, [fields[i] for i in chosen])

    def _records(self) -> Iterator[tuple[int, list[str] | BadRow]]:
        """Yield every record with the number of its first line."""
        with errors_naming(self.file, self.todo), _opened(self.file) as stream:
            if self.quotes:
                yield from _quoted(stream, self.delimiter)
            else:
                for number, line in _numbered(stream, spaces="\r\n", strict=self.strict):
                    yield number, line.split(self.delimiter)


def _quoted(stream: BinaryIO, delimiter: str) -> Iterator[tuple[int, list[str] | BadRow]]:
    """Yield records. Of a broken one only the first line is given up: those after it may start records."""
    csv.field_size_limit(max(LONGEST, csv.field_size_limit()))
    fresh, again, record = _decoded(stream), deque[str](), list[str]()

    def lines() -> Iterator[str]:
        while line := again.popleft() if again else next(fresh, ""):
            record.append(line)
            yield line

    start_reader = partial(csv.reader, strict=True, delimiter=delimiter)
    reader, number = start_reader(lines()), 1
    while True:
        record.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reasons = {"new-line": BAD_RETURN, "limit": TOO_LONG}
            yield number, BadRow(number, next((r for word, r in reasons.items() if word in str(error)), BAD_QUOTES))
            again.extendleft(reversed(record[1:]))
            reader = start_reader(lines())  # the old one has seen the end of the file where a quote is never closed
            number += 1
            continue
        if fields:
            yield number, fields
        number += len(record)


class _JsonReader(Reader):
    @cached_property
    def keys(self) -> list[str]:
        """The keys of all objects; of published data those of the first, as all must have the same."""
        first_bad: BadRow | None = None
        keys: dict[str, None] = {}
        for _, value in self._objects():
            if isinstance(value, BadRow):
                first_bad = first_bad or value
                continue
            keys.update(dict.fromkeys(value))
            if self.strict:
                break
        if first_bad and not keys:
            raise self.error(first_bad)
        return list(keys)

    def columns(self) -> Sequence[str]:
        return self.keys

    def _read(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        for number, value in self._objects():
            if isinstance(value, BadRow):
                yield value
            elif self.strict and (missing := [name for name in columns if name not in value]):
                yield BadRow(number, f"no key {missing[0]!r}", f"keys: {', '.join(map(repr, value))}")
            else:
                yield Row(number, [value.get(name) for name in columns])

    def _objects(self) -> Iterator[tuple[int, dict[str, object] | BadRow]]:
        with errors_naming(self.file, self.todo), _opened(self.file) as stream:
            lines = _numbered(stream, spaces=None, strict=self.strict)
            first = next(lines, None)
            if not first:
                return
            lines = chain([first], lines)
            if not first[1].startswith("["):
                for number, line in lines:
                    yield number, _parse(number, line)
                return
            self.unit = "row"
            try:
                values: list[object] = json.loads("\n".join(line for _, line in lines))
            except (ValueError, RecursionError) as error:
                raise self.malformed("", f"not JSON ({error})") from error
            for number, value in enumerate(values, 1):
                yield number, _as_object(number, value)


def _parse(number: int, line: str) -> dict[str, object] | BadRow:
    if not is_unicode(line):
        return BadRow(number, NOT_UTF8)
    try:
        return _as_object(number, json.loads(line))
    except (ValueError, RecursionError) as error:
        return BadRow(number, "not JSON", str(error))


def _as_object(number: int, value: object) -> dict[str, object] | BadRow:
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    return BadRow(number, "not a JSON object", type(value).__name__)


# Parquet and Arrow


class _ColumnarReader(Reader):
    unit = "row"

    @abstractmethod
    def schema(self) -> pa.Schema: ...

    @abstractmethod
    def _batches(self, columns: list[str]) -> Iterable[pa.RecordBatch]: ...

    def columns(self) -> Sequence[str]:
        return self.schema().names

    def class_names(self) -> Mapping[str, Sequence[str]]:
        # `datasets` keeps them in the metadata of the schema
        try:
            features = json.loads((self.schema().metadata or {})[b"huggingface"])["info"]["features"]
            labels = {name: f for name, f in features.items() if f.get("_type") == "ClassLabel"}
            return {name: list(f["names"]) for name, f in labels.items() if f["names"]}
        except (KeyError, TypeError, ValueError, AttributeError):
            return {}

    def _read(self, columns: Sequence[str]) -> Iterator[Row | BadRow]:
        numbers = count(1)
        for batch in self._batches(list(columns)):
            values = [_values(batch.column(name)) for name in columns]
            for row in zip(*values, strict=True):
                yield Row(next(numbers), row)


class ParquetReader(_ColumnarReader):
    """A Parquet file, a few rows at a time."""

    def schema(self) -> pa.Schema:
        with self._parquet("not a Parquet file") as parquet:
            return parquet.schema_arrow

    def _batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        with self._parquet("broken Parquet") as parquet:
            yield from parquet.iter_batches(BATCH, columns=columns)

    @contextmanager
    def _parquet(self, problem: str) -> Generator[pq.ParquetFile]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(regular(Path(self.file), most=LARGEST)) as parquet:
                yield parquet
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self.malformed("", f"{problem} ({str(error).partition(chr(10))[0]})") from error


class ArrowReader(_ColumnarReader):
    """An Arrow table in memory, which errors call `name`."""

    def __init__(self, table: pa.Table, name: str) -> None:
        super().__init__(name)
        self.table = table

    def schema(self) -> pa.Schema:
        return self.table.schema

    def _batches(self, columns: list[str]) -> Iterable[pa.RecordBatch]:
        return self.table.select(columns).to_batches(BATCH)


def _values(column: pa.Array) -> list[object]:
    """Return Python values; texts that are not UTF-8 keep their bytes as surrogates."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        raw: list[bytes | None] = column.cast(pa.large_binary()).to_pylist()
        return [None if value is None else value.decode(errors="surrogateescape") for value in raw]
    return column.to_pylist()
