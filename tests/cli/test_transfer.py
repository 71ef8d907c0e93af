"""`bench export --records` and `bench import records`: a folder moves to another machine, whole or not at all."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.cli import main
from bench.core.errors import ENVIRONMENT, OK, SOME_FAILED, USAGE
from bench.records import record
from bench.records.record import FILE, Record

REAL = Path(__file__).resolve().parents[2] / "leaderboard" / "results" / "runs"
FAILED: dict[str, Any] = {"state": "failed", "error": {"what": "w", "known": "k", "todo": "t"}, "metrics": None}


@pytest.fixture
def runs(tmp_path: Path, make_record: Callable[..., Record]) -> Path:
    """A done run that kept an adapter, and a failed one."""
    made = [make_record(files={"adapter.safetensors": "a" * 64}), make_record(spec={"seed": 1}, **FAILED)]
    for run in made:
        record.write(run, record.folder(tmp_path / "runs", run.run_id))
    return tmp_path / "runs"


def exported(runs: Path, capsysbinary: pytest.CaptureFixture[bytes], code: int = OK) -> bytes:
    assert main(["export", "--records", "--runs", str(runs)]) == code
    return capsysbinary.readouterr().out


def test_real_records_come_back_unchanged(tmp_path: Path) -> None:
    file, out = tmp_path / "all.jsonl", tmp_path / "back"
    assert main(["export", "--records", "--runs", str(REAL), "--output", str(file)]) == OK
    assert len(file.read_bytes().splitlines()) == len([*REAL.iterdir()])
    assert main(["import", "records", str(file), "--out", str(out)]) == OK
    assert record.load_all(out) == record.load_all(REAL)
    for path in REAL.glob(f"*/{FILE}"):
        ours, theirs = (json.loads((folder / path.parent.name / FILE).read_text()) for folder in (out, REAL))
        assert {**ours, "digest": ""} == {**theirs, "digest": ""}


def test_stdout_and_stdin_by_a_pipe(runs: Path, tmp_path: Path) -> None:
    bench = [sys.executable, "-m", "bench"]
    first = subprocess.run([*bench, "export", "--records", "--runs", runs], capture_output=True, check=True)
    assert first.stderr == b"wrote 2 records\n"
    command = [*bench, "import", "records", "-", "--runs", tmp_path / "back"]
    second = subprocess.run(command, input=first.stdout, capture_output=True, check=True)
    assert "1 of the imported records list files that are not here" in second.stderr.decode()
    assert "2 imported · next" in second.stderr.decode() and second.stdout == b""
    assert record.load_all(tmp_path / "back") == record.load_all(runs)


def test_a_broken_record_is_left_out_and_said(runs: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    whole = exported(runs, capsysbinary)
    (runs / ("0" * 16)).mkdir()
    (runs / ("0" * 16) / FILE).write_text("{")
    assert exported(runs, capsysbinary, SOME_FAILED) == whole
    assert main(["export", "--records", "--runs", str(runs), "--output", "-"]) == SOME_FAILED
    shown = capsysbinary.readouterr()
    assert shown.out == whole and b"1 left out" in shown.err and b"0000000000000000" in shown.err


def test_what_could_not_come_in_is_said(
    runs: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = exported(runs, capsysbinary).splitlines(keepends=True)
    cut = tmp_path / "cut.jsonl"
    cut.write_bytes(lines[0] + b'{"\\u001b[31m": 1}\n' + lines[1][:-100])
    assert main(["import", "records", str(cut), "--out", str(tmp_path / "back"), "--json"]) == SOME_FAILED
    shown = capsysbinary.readouterr()
    assert json.loads(shown.out) == {"imported": 1, "bad": 2}
    assert f"{cut}:2: ".encode() in shown.err and f"{cut}:3: ".encode() in shown.err and b"\x1b" not in shown.err
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"{")))
    assert main(["import", "records", "-", "--out", str(tmp_path / "back")]) == SOME_FAILED
    assert b"stdin:1: " in capsysbinary.readouterr().err


def test_a_file_is_there_only_when_it_is_whole(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "all.jsonl"
    command = ["export", "--records", "--runs", str(runs), "--output", str(file), "--json"]
    assert main(command) == OK
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "records": 2, "left_out": 0}
    before = file.read_bytes()

    def fail(run: Record) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record, "to_json", fail)
    assert main(command) == ENVIRONMENT
    assert file.read_bytes() == before and [*tmp_path.glob(".*")] == []


def test_a_secret_is_not_exported(
    runs: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "Linux x86_64")
    assert b"Linux x86_64" in (runs / next(runs.iterdir()).name / FILE).read_bytes()
    assert b"Linux x86_64" not in exported(runs, capsysbinary)


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["export"], USAGE),
        (["export", "1f3a"], USAGE),
        (["export", "--peft", "x"], USAGE),
        (["export", "1f3a", "--records"], USAGE),
        (["export", "--records", "--peft", "x"], USAGE),
        (["export", "1f3a", "--peft", "x", "--output", "y"], USAGE),
        (["export", "--records", "--json"], USAGE),
        (["export", "--records", "--runs", "none"], ENVIRONMENT),
        (["export", "--records", "--runs", "none", "--output", "y"], ENVIRONMENT),
        (["export", "--records", "--runs", "runs", "--output", "folder"], ENVIRONMENT),
        (["import", "records"], USAGE),
        (["import", "records", "none.jsonl"], ENVIRONMENT),
        (["import", "records", "runs"], ENVIRONMENT),
        (["import", "records", "x", "--replace"], USAGE),
    ],
)
def test_what_cannot_be_done(
    argv: list[str], code: int, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs.parent)
    (runs.parent / "folder").mkdir()
    assert main(argv) == code
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ") and len(shown.err.splitlines()) >= 3
    assert not (runs.parent / "y").exists()
