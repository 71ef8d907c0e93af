"""`bench` in this process, as its user calls it, in a folder of the test's own."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
from false_slurm import FalseSlurm


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one command did."""

    code: int
    out: str
    err: str


Bench = Callable[..., Outcome]


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


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FalseSlurm:
    """A false Slurm, whose programs are the only ones on the path."""
    made = FalseSlurm(tmp_path / "slurm")
    monkeypatch.setenv("PATH", str(tmp_path / "slurm" / "bin"))
    return made
