"""Claims: one process has a run at a time, and what it leaves behind when it dies or hangs is taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.records import claims
from bench.records.claims import FILE, Claims

OTHER = """
import sys, time
from pathlib import Path
from bench.records.claims import Claims
with Claims(float(sys.argv[2])).take(Path(sys.argv[1])) as held:
    print("claimed", flush=True)
    while not held.lost:
        time.sleep(0.01)
print("lost", flush=True)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, which has the run of the folder `run`."""
    argv = [sys.executable, "-c", OTHER, str(tmp_path / "run"), "0.6"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    return now


def test_one_has_it_until_it_is_released(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    held = Claims().take(folder)
    assert held
    with held:
        assert Claims().take(folder) is None
        there = claims.read(folder)
        assert there and there.pid == os.getpid() and not there.gone
    assert not folder.exists(), "a run that has left nothing leaves no folder"
    assert Claims().take(folder)


def test_a_file_of_the_run_stays(tmp_path: Path) -> None:
    held = Claims().take(tmp_path / "run")
    assert held
    with held:
        (tmp_path / "run" / "record.json").touch()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["record.json"]


def test_that_of_a_killed_process_is_free_at_once(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    assert Claims(1e9).take(tmp_path / "run") is None
    other.kill()
    other.wait()
    assert Claims(1e9).take(tmp_path / "run")


def test_a_process_that_is_dead_but_not_reaped_is_gone(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
    assert Claims(1e9).take(tmp_path / "run")


@pytest.mark.parametrize("change", [{"machine": "another"}, {"born": "1"}, {"pid": 2**22 + 1}])
def test_who_is_gone(tmp_path: Path, change: dict[str, Any]) -> None:
    """Of another machine nothing is known; on this one a process id may have come back."""
    with ExitStack() as stack:
        held = Claims().take(tmp_path)
        assert held
        stack.enter_context(held)
        there = claims.msgspec.structs.replace(held.claim, **change)
        assert there.gone == ("machine" not in change)


def test_an_untouched_claim_is_taken_over_and_its_owner_notices(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """A process that was stopped, as a laptop's lid does, for longer than the heartbeat, and goes on."""
    mine = Claims(0.6)
    other.send_signal(signal.SIGSTOP)
    while (held := mine.take(tmp_path / "run")) is None:
        assert other.poll() is None
    with held:
        other.send_signal(signal.SIGCONT)
        assert other.stdout and other.stdout.readline() == "lost\n"
        assert other.wait(60) == 0
        there = claims.read(tmp_path / "run")
        assert there == held.claim, "who has lost a claim does not remove that of the next"


def test_a_claim_is_timed_by_the_clock_of_who_waits(tmp_path: Path, clock: list[float]) -> None:
    """The clock of the owner, or of the disk, may be an hour off or set back."""
    held, waiting = Claims(60).take(tmp_path), Claims(60)
    assert held
    for hours in (-1, 0, 1):
        os.utime(tmp_path / FILE, (3600 * hours, 3600 * hours))
        assert waiting.take(tmp_path) is None
        clock[0] += 59
        assert waiting.take(tmp_path) is None, "it was touched 59 s ago"
    clock[0] += 1
    assert waiting.take(tmp_path)


def test_a_half_written_claim_is_somebody_s_for_a_while(tmp_path: Path, clock: list[float]) -> None:
    (tmp_path / FILE).touch()
    waiting = Claims(60)
    assert waiting.take(tmp_path) is None
    clock[0] += 60
    assert waiting.take(tmp_path)


def test_of_many_that_take_over_at_once_one_succeeds(tmp_path: Path) -> None:
    def take(waiting: Claims) -> Any:
        return waiting.take(folder)

    with ThreadPoolExecutor(16) as pool:
        for number in range(100):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / FILE).write_text("half")
            held = [one for one in pool.map(take, [Claims(0) for _ in range(16)]) if one]
            owners = {one.claim.owner for one in held if one.check()}
            there = claims.read(folder)
            assert there and owners == {there.owner}, "the others, if any, know that they have lost it"


def test_a_claim_that_was_renewed_meanwhile_is_put_back(tmp_path: Path) -> None:
    held = Claims().take(tmp_path)
    assert held
    assert not claims.remove(tmp_path / FILE, "the owner before")
    assert claims.read(tmp_path) == held.claim and [path.name for path in tmp_path.iterdir()] == [FILE]


def test_an_owner_whose_claim_is_looked_at_by_another_writes_it_again(tmp_path: Path) -> None:
    held = Claims().take(tmp_path)
    assert held
    (tmp_path / FILE).unlink()
    assert held.check() and claims.read(tmp_path) == held.claim


def test_a_full_disk_leaves_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(claim: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims.msgspec.json, "encode", encode)
    with pytest.raises(OSError, match="No space"):
        Claims().take(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pipe_in_the_place_of_a_claim_holds_nobody_up(tmp_path: Path, clock: list[float]) -> None:
    os.mkfifo(tmp_path / FILE)
    waiting = Claims(60)
    assert claims.read(tmp_path) is None and waiting.take(tmp_path) is None
    clock[0] += 60
    held = waiting.take(tmp_path)
    assert held and claims.read(tmp_path) == held.claim
