"""Claims: a file beside a record that says which process trains the run now, so that no other trains it too.

A claim is one file that only one process can create, on any file system of POSIX, NFS included. Its owner touches it
while it works. It is taken over from an owner that is gone, or whose claim nobody has touched for a while.

A claim saves work, no more: a run gives the same record whoever trains it, records are written atomically, and one that
is done is never replaced. Two processes that take over one claim at the same time may both believe for a moment that
they have it. Then the one that has lost it notices at its next touch and stops, and no result is wrong.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import stat
import threading
import time
import uuid
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from bench.core.files import share, write_atomic
from bench.records import progress
from bench.records.progress import Progress

FILE = "claim.json"
REPORT_S = 2.0
"""Least time between two reports of progress."""
STALE_S = 60.0
"""Default of `runtime.claim_s`."""
BEATS = 6
"""How often an owner touches its claim in the time after which others would take it over."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds.

    Attributes:
        owner: drawn anew for each claim.
        host, pid: for people, and for `bench status`.
        machine: boot and process namespace, in which `pid` and `born` name one process.
        born: start of the process, in the kernel's ticks; empty where the system does not say.
        since: time of the claim, ISO 8601 in UTC.
        pool: the pool of which the process is a worker; other workers of it leave the claim alone, even if the process
            is gone, since the pool records that.
    """

    owner: str
    host: str
    pid: int
    machine: str
    born: str
    since: str
    pool: str = ""

    @property
    def gone(self) -> bool:
        """Whether its process is known to have ended: it was one of this machine, and is no more."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) != self.born

    @property
    def here(self) -> bool:
        """Whether its process is known to be one of this machine, and there."""
        return bool(self.machine) and self.machine == _machine() and _born(self.pid) == self.born


_DECODER = msgspec.json.Decoder(Claim)


def read(folder: Path) -> Claim | None:
    """The claim on the run of this folder; None if there is none, or if it is still being written."""
    return _decode(folder / FILE)


class Claims:
    """Takes claims for this process, and remembers how long it has seen those of others untouched.

    Others are timed by this process's own clock, since the clocks of two machines differ and may be set back.

    Args:
        stale_s: seconds after which a claim that nobody has touched is taken over.
        pool: see `Claim`.
    """

    def __init__(self, stale_s: float = STALE_S, pool: str = "") -> None:
        self.stale_s, self.pool = stale_s, pool
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}

    def take(self, folder: Path) -> Held | None:
        """Claim the run of a folder, which is created if needed; None while another process has it.

        Raises:
            OSError: the claim cannot be written.
        """
        path = folder / FILE
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and not self._free(folder):
            return None
        self._seen.pop(folder, None)
        mine = Claim(
            owner=uuid.uuid4().hex,
            host=platform.node(),
            pid=os.getpid(),
            machine=_machine(),
            born=_born(os.getpid()) or "",
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            pool=self.pool,
        )
        try:
            _create(path, mine)
        except FileExistsError:  # another process was faster
            return None
        except BaseException:
            if made:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            raise
        return Held(folder, mine, self.stale_s / BEATS)

    def _free(self, folder: Path) -> bool:
        """Whether the claim on a folder is nobody's any more; if so, it is removed."""
        path = folder / FILE
        try:
            touched = path.stat().st_mtime_ns
        except OSError:
            return True
        claim = read(folder)
        if claim and self.pool and claim.pool == self.pool:
            return False
        state = (claim.owner if claim else "", touched)
        seen, since = self._seen.get(folder, (None, 0.0))
        if seen != state:
            since = time.monotonic()
            self._seen[folder] = (state, since)
        if (claim and claim.gone) or time.monotonic() - since >= self.stale_s:
            return remove(path, state[0])
        return False


class Held:
    """A claim of this process: touched by a thread until it is released, at the end of a `with` block.

    Attributes:
        lost: another process has taken it over, so this one must stop its run and write nothing more.
    """

    FILES = (FILE, progress.FILE)

    def __init__(self, folder: Path, claim: Claim, beat_s: float) -> None:
        self.folder, self.claim, self.beat_s = folder, claim, beat_s
        self.lost = False
        self._reported = -math.inf
        self._end = threading.Event()
        self._beats = threading.Thread(target=self._beat, name="claim", daemon=True)

    def __enter__(self) -> Held:
        self._beats.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._beats.join()
        if not self.check():
            return
        for name in reversed(self.FILES):
            with contextlib.suppress(OSError):  # a claim that cannot be removed is taken over when its process is gone
                (self.folder / name).unlink()
        with contextlib.suppress(OSError):  # of a run that has left nothing
            self.folder.rmdir()

    def check(self) -> bool:
        """Touch the claim; False if another process has it now."""
        path = self.folder / FILE
        try:
            os.utime(path)
            there = read(self.folder)
            self.lost = self.lost or (there is not None and there.owner != self.claim.owner)
        except FileNotFoundError:  # another process is looking whether it is stale
            with contextlib.suppress(OSError):
                _create(path, self.claim)
        except OSError:
            pass  # a file server that does not answer: others see it as untouched
        return not self.lost

    def report(self, *, step: int, steps: int, loss: float, train_s: float) -> None:
        """Write how far the run has come, at most once in `REPORT_S`; where it cannot be written, nothing happens."""
        if time.monotonic() - self._reported < REPORT_S:
            return
        self._reported = time.monotonic()
        finite = loss if math.isfinite(loss) else None
        now = Progress(owner=self.claim.owner, step=step, steps=steps, loss=finite, train_s=round(train_s, 3))
        with contextlib.suppress(OSError):
            write_atomic(self.folder / progress.FILE, msgspec.json.encode(now))

    def _beat(self) -> None:
        while not self._end.wait(self.beat_s) and self.check():
            pass


def _decode(path: Path) -> Claim | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would never end
            return None
        with path.open("rb") as stream:
            return _DECODER.decode(stream.read(4096))
    except (OSError, msgspec.MsgspecError):
        return None


def _create(path: Path, claim: Claim) -> None:
    """Write a new file; raises FileExistsError if there is one, and OSError, leaving none, if it cannot be written."""
    with path.open("xb") as stream:
        try:
            stream.write(msgspec.json.encode(claim))
            stream.flush()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    share(path)


def remove(path: Path, owner: str) -> bool:
    """Remove the claim of `owner`; False if it is another's by now, which stays."""
    aside = path.with_name(f".{FILE}.{uuid.uuid4().hex}.tmp")
    try:
        path.rename(aside)  # of several processes that do so at once one succeeds
    except OSError:
        return False
    claim = _decode(aside)
    stale = (claim.owner if claim else "") == owner
    if not stale:
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)
    return stale


@cache
def _machine() -> str:
    """This boot and process namespace, in which a process id means one process; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path
    except OSError:
        return ""


def _born(pid: int) -> str | None:
    """When a process of this machine was started; None if there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
