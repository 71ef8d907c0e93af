"""TSV, JSON lines and Parquet into records: the wanted columns of every row, with the place it came from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.core.errors import DataProblem

if TYPE_CHECKING:
    import pyarrow as pa

SHORT_ROWS = 1000
"""One row in so many may be short where a published file is known for such rows; more are a broken file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Rows of one file.

    Attributes:
        file: the file, as errors name it.
        unit: what a row's number counts: lines of the file from 1, or rows of the table from 1.
        rows: number of the row, and its values in the order of the columns asked for.
        skipped: rows left out because they were too short.
    """

    file: str
    unit: Literal["line", "row"]
    rows: Sequence[tuple[int, Sequence[Any]]]
    skipped: int = 0


def malformed(file: str | Path, where: str, problem: str) -> DataProblem:
    """The error for one bad place, such as `line 7`; an empty `where` is the whole file."""
    place = f"{file}, {where}" if where else f"{file}"
    return DataProblem(
        f"malformed data in {Path(file).name}: {problem}",
        f"file: {place}",
        "Mend or fetch the file again, or give another directory with --data-dir.",
    )


def read_text(file: Path) -> list[str]:
    r"""Lines of a UTF-8 file, with or without BOM, split on "\n" only.

    Texts hold U+2028, U+0085 and stray carriage returns; only "\r" at the end of a line belongs to the line break.

    Raises:
        DataProblem: not readable, not UTF-8 (names the line), or empty.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise malformed(file, "", f"cannot be read ({error.strerror or error})") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the BOM, whose three bytes hold no line break
        line = raw.count(b"\n", 0, error.start + 3 * raw.startswith(b"\xef\xbb\xbf")) + 1
        raise malformed(file, f"line {line}", "expected UTF-8, found other bytes") from error
    lines = text.replace("\r\n", "\n").removesuffix("\r").rstrip("\n").split("\n")
    if lines == [""]:
        raise malformed(file, "", "the file is empty")
    return lines


def read_tsv(
    file: Path, columns: Sequence[str], *, header: Sequence[str] | None = None, short_rows: bool = False
) -> Records:
    """Columns of a tab-separated file without quoting.

    Args:
        file: the file.
        columns: names of the wanted columns.
        header: names of all columns where the file has no header line.
        short_rows: leave out rows with too few columns, as long as they are few, and count them.

    Raises:
        DataProblem: a column is missing, a row has too few or too many columns, no row.
    """
    lines = read_text(file)
    names = list(header) if header else lines[0].split("\t")
    if missing := [name for name in columns if name not in names]:
        raise malformed(file, "line 1", f"expected a column '{missing[0]}', found {', '.join(map(repr, names))}")
    pick = itemgetter(*(names.index(name) for name in columns))
    first = 0 if header else 1
    width = len(names)
    rows: list[tuple[int, Sequence[str]]] = []
    short: list[DataProblem] = []
    for number, line in enumerate(lines[first:], first + 1):
        fields = line.split("\t")
        if len(fields) == width:
            rows.append((number, pick(fields)))
            continue
        problem = malformed(file, f"line {number}", f"expected {width} columns, found {len(fields)}")
        if not short_rows or len(fields) > width:
            raise problem
        short.append(problem)
    if len(short) * SHORT_ROWS > len(lines):
        raise short[0]
    return _filled(Records(file=str(file), unit="line", rows=rows, skipped=len(short)))


def read_json(file: Path, columns: Sequence[str]) -> Records:
    """Columns of a file of JSON objects, one a line, or of one JSON array of objects.

    Raises:
        DataProblem: not JSON, not an object, a key is missing, text that is no Unicode, no row.
    """
    lines = read_text(file)
    if not lines[0].startswith("["):
        parsed = ((number, _parse(file, f"line {number}", line)) for number, line in enumerate(lines, 1))
        rows = [(number, _values(file, f"line {number}", row, columns)) for number, row in parsed]
        return _filled(Records(file=str(file), unit="line", rows=rows))
    array = _parse(file, "", "\n".join(lines))
    rows = [(number, _values(file, f"row {number}", row, columns)) for number, row in enumerate(array, 1)]
    return _filled(Records(file=str(file), unit="row", rows=rows))


def _parse(file: Path, where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise malformed(file, where, f"expected JSON, found something else ({error})") from error


def _values(file: Path, where: str, row: Any, columns: Sequence[str]) -> list[Any]:
    if not isinstance(row, dict):
        raise malformed(file, where, f"expected a JSON object, found {type(row).__name__}")
    for name in columns:
        if name not in row:
            raise malformed(file, where, f"expected a key '{name}', found {', '.join(map(repr, row))}")
        if isinstance(row[name], str):
            _check_unicode(file, where, row[name])
    return [row[name] for name in columns]


def _check_unicode(file: Path, where: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON can escape half a surrogate pair
        raise malformed(file, where, "expected Unicode text, found half a surrogate pair") from error


def read_parquet(file: Path, columns: Sequence[str]) -> Records:
    """Columns of a Parquet file; see `read_table`.

    Raises:
        DataProblem: no Parquet file, a column is missing, text that is not UTF-8, no row.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            present = parquet.schema_arrow.names
            table = parquet.read(columns=[name for name in columns if name in present])
    except (pa.ArrowException, OSError) as error:
        raise malformed(file, "", f"expected a Parquet file ({str(error).splitlines()[0]})") from error
    return read_table(table, columns, file=str(file), present=present)


def read_table(table: pa.Table, columns: Sequence[str], *, file: str, present: Sequence[str] | None = None) -> Records:
    """Columns of an Arrow table. Class labels that the table's own schema names become those names.

    Args:
        table: the table.
        columns: names of the wanted columns.
        file: what errors call it.
        present: names of all columns of the file, where `table` is a part of them.

    Raises:
        DataProblem: a column is missing, text that is not UTF-8, no row.
    """
    for name in columns:
        if name not in table.column_names:
            found = ", ".join(map(repr, present or table.column_names))
            raise malformed(file, "", f"expected a column '{name}', found {found}")
    names = _class_names(table.schema)
    values = [list(_column(table, name, file=file, names=names.get(name, ()))) for name in columns]
    return _filled(Records(file=file, unit="row", rows=list(enumerate(zip(*values, strict=True), 1))))


def _column(table: pa.Table, name: str, *, file: str, names: Sequence[str]) -> Iterator[Any]:
    import pyarrow as pa

    column = table.column(name)
    if isinstance(column.type, pa.DictionaryType):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        for number, raw in enumerate(column.cast(pa.large_binary()).to_pylist(), 1):
            try:
                yield None if raw is None else raw.decode()
            except UnicodeDecodeError as error:
                raise malformed(file, f"row {number}", f"expected UTF-8 in '{name}', found other bytes") from error
        return
    for value in column.to_pylist():
        known = isinstance(value, int) and 0 <= value < len(names)
        yield names[value] if known else value


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of the class labels, which `datasets` keeps in the schema: their order may differ from GLUE's."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: list(f["names"]) for name, f in features.items() if f.get("_type") == "ClassLabel" and f["names"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _filled(records: Records) -> Records:
    if not records.rows:
        raise malformed(records.file, "", "expected at least one example, found none")
    return records
