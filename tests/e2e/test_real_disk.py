"""Disks that are full, without inodes, or read-only, for real: a small file system in memory."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records import claims, record

Bench = Callable[..., Any]
GRID = ("--method", "linear,lora", "--task", "glue/cola", "--seeds", "0,1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB and 80 files."""
    place = tmp_path / "disk"
    place.mkdir()
    if not (mount := shutil.which("mount")):
        pytest.skip("no program `mount`")
    argv = [mount, "-t", "tmpfs", "-o", "size=2m,nr_inodes=80", "tmpfs", str(place)]
    if (tried := subprocess.run(argv, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no file system can be mounted here: {tried.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(disk: Path, *, free: int) -> Callable[[], None]:
    """Leave `free` bytes of room, and return what gives it back."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - free))
    return filler.unlink


def use_up_inodes(disk: Path, *, free: int) -> Callable[[], None]:
    fillers = [disk / f"filler{number}" for number in range(100)]
    made: list[Path] = []
    try:
        for filler in fillers:
            filler.touch()
            made.append(filler)
    except OSError:
        for filler in made[-free:]:
            filler.unlink()

    def give_back() -> None:
        for filler in made[:-free]:
            filler.unlink()

    return give_back


def remount(disk: Path) -> Callable[[], None]:
    def mount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    mount("ro")
    return lambda: mount("rw")


PROBLEMS: dict[str, tuple[Callable[[Path], Callable[[], None]], str]] = {
    "full at once": (lambda disk: fill(disk, free=4096), "No space left on device"),
    "full in the middle": (lambda disk: fill(disk, free=60_000), "No space left on device"),
    "no inodes": (lambda disk: use_up_inodes(disk, free=6), "No space left on device"),
    "read-only": (remount, "Read-only file system"),
}


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["alone", "pool"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_command_finishes_once_the_disk_is_well_again(
    bench: Bench, disk: Path, name: str, jobs: tuple[str, ...]
) -> None:
    problem, said = PROBLEMS[name]
    mend = problem(disk)
    outcome = bench(*GRID, *jobs, out=disk / "runs")
    assert outcome.code == 3 and said in outcome.err, outcome.err
    records, broken = record.load_all(disk / "runs")
    assert not broken and {made.state for made in records} <= {"done", "running"}
    assert not [*disk.rglob("*.tmp")], "no half file is left"
    done = {made.run_id for made in records if made.state == "done"}
    mend()
    again = bench(*GRID, *jobs, out=disk / "runs")
    assert again.code == 0, again.err
    assert {made.state for made in again.records} == {"done"} and len(again.records) == 4
    assert again.err.count("done before") == len(done)
    assert not [*disk.rglob(claims.FILE)]
