"""Records as JSON lines: valid ones come in, others are refused by line, and no record is lost to another."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from records import altered

from bench.records import record, transfer
from bench.records.record import FILE, Record
from bench.records.transfer import Outcome, store_lines

MakeRecord = Callable[..., Record]
FAILED: dict[str, Any] = {
    "state": "failed",
    "error": {"what": "went wrong", "known": "this", "todo": "that"},
    "metrics": None,
}


def line(value: Record | dict[str, Any] | bytes) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps(record.to_json(value) if isinstance(value, Record) else value).encode()


def stored(out: Path, *lines: Record | dict[str, Any] | bytes) -> list[Outcome]:
    return [*store_lines(io.BytesIO(b"\n".join(map(line, lines))), "x.jsonl", out)]


def test_valid_lines_come_in_and_others_are_named(tmp_path: Path, make_record: MakeRecord) -> None:
    good = [make_record(spec={"seed": seed}) for seed in range(3)]
    whole = record.to_json(good[2])
    unstamped = {name: value for name, value in whole.items() if name != "digest"}
    wrong: list[tuple[Any, str]] = [
        (b"{", "cannot be read"),
        (b"null", "got `null`"),
        ({**whole, "warnings": ["changed"]}, "digest"),
        ({**unstamped, "more": 1}, "more"),
        ({**unstamped, "spec": {**whole["spec"], "seed": 7}}, "run_id"),
        ({**unstamped, "run_id": "../../../../etc/x"}, "run_id"),
        ({**unstamped, "schema": 1}, "schema version 1"),
        ({**unstamped, "params": {**whole["params"], "head": 10**9}}, "params.head"),
        (b"[" * 100_000, "x.jsonl:"),
        (b"\xff\xfe", "cannot be read"),
    ]
    lines = [good[0], b"", *(one for one, _ in wrong), good[1], good[2]]
    outcomes = stored(tmp_path, *lines)
    bad = [outcome for outcome in outcomes if outcome.state == "bad"]
    assert [outcome.run_id for outcome in outcomes if outcome.state == "imported"] == [run.run_id for run in good]
    assert len(outcomes) == len(good) + len(wrong), "an empty line is nothing"
    for number, (outcome, (_, text)) in enumerate(zip(bad, wrong, strict=True), 3):
        assert outcome.why.startswith(f"x.jsonl:{number}: ") and text in outcome.why
    assert record.load_all(tmp_path) == (sorted(good, key=lambda run: run.run_id), [])
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [FILE] * 3


def test_a_line_larger_than_a_record_is_refused_and_the_next_one_read(
    tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_record()
    most = len(json.dumps(record.to_json(made), indent=1)) + 10
    monkeypatch.setattr(record, "MOST_BYTES", most)
    sizes = most, most + 1, most + 2, 2 * most + 1, 2 * most + 2, 3 * most
    outcomes = stored(tmp_path, *(b"x" * size for size in sizes), made)
    assert [outcome.state for outcome in outcomes] == ["bad"] * len(sizes) + ["imported"]
    assert [transfer.TOO_LARGE in outcome.why for outcome in outcomes] == [False, *[True] * 5, False]


def test_lines_are_stored_one_at_a_time(tmp_path: Path, make_record: MakeRecord) -> None:
    runs = [make_record(spec={"seed": seed}) for seed in range(2)]
    content = line(runs[0]) + b"\n" + line(runs[1])
    stream = io.BytesIO(content)
    outcomes = store_lines(stream, "x", tmp_path)
    next(outcomes)
    assert record.load_all(tmp_path)[0] == [runs[0]] and stream.tell() == len(line(runs[0])) + 1


def test_a_record_that_is_there(tmp_path: Path, make_record: MakeRecord) -> None:
    done, failed = make_record(), make_record(**FAILED)
    other = altered(done, lambda draft: setattr(draft, "warnings", ["another machine"]))
    running = altered(failed, lambda draft: draft.update(state="running", error=None))

    def states(records: Iterable[Record]) -> list[str]:
        return [outcome.state for outcome in stored(tmp_path, *records)]

    def there() -> Record:
        return record.read(tmp_path / done.run_id / FILE)

    assert states([failed, failed, running]) == ["imported", "there already", "kept ours"] and there() == failed
    assert states([done, done]) == ["imported", "there already"] and there() == done
    assert states([other, failed, running]) == ["kept ours"] * 3 and there() == done
    [outcome] = stored(tmp_path, failed)
    assert "state done, here failed" in outcome.why and done.run_id in outcome.why
    (tmp_path / done.run_id / FILE).write_text("{")
    [outcome] = stored(tmp_path, done)
    assert outcome.state == "kept ours" and "cannot be read" in outcome.why
    assert (tmp_path / done.run_id / FILE).read_text() == "{"


def test_an_imported_record_says_which_files_it_lacks(tmp_path: Path, make_record: MakeRecord) -> None:
    made = make_record(files={"adapter.safetensors": "a" * 64, "spectra.npz": "b" * 64})
    (tmp_path / made.run_id).mkdir()
    (tmp_path / made.run_id / "spectra.npz").write_bytes(b"")
    [outcome] = stored(tmp_path, made)
    assert (outcome.state, outcome.why) == ("imported", "without adapter.safetensors")
