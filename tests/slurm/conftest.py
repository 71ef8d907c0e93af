"""`bench` in this process, as its user calls it, in a folder of the test's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.records import record
from bench.records.record import Record


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str


Bench = Callable[..., Outcome]
SMALL = ("--method", "full", "--task", "digits", "--backbone", "mlp", "--max-steps", "6", "--accelerator", "cpu")
"""A run of six steps; with `--seeds` a grid."""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """`bench("cancel")` runs a verb in the folder `work`."""
    from bench.cli import main

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("BENCH_DATA", raising=False)

    def call(*words: str) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(words)
        assert "Traceback" not in err.getvalue()
        return Outcome(code=code, out=out.getvalue(), err=err.getvalue())

    return call


def records(folder: Path = Path("runs")) -> list[Record]:
    """The records of a folder, every one read and validated."""
    found, problems = record.load_all(folder)
    assert not problems
    return found
