"""Time and memory of lists and tables of many records, while their index is built, and with it:
`python -m bench.benchmarks.store`.

Real records are copied into a folder, with other settings and slightly changed scores. Every command is a process of
its own, and runs twice with a cache that is empty at first: the first one reads all records and builds the index.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bench.benchmarks import print_or_fail
from bench.benchmarks.page import copies
from bench.core.errors import EnvironmentProblem
from bench.core.text import table
from bench.records.record import FILE, is_done, load_all, stamps, to_json

COMMANDS = {"bench list runs": ("list", "runs"), "bench leaderboard": ("leaderboard",)}
KIB = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts peak memory."""


class Measured(NamedTuple):
    """What a process took: seconds, those of them on a processor, and bytes of memory at its peak."""

    seconds: float
    cpu: float
    peak: int


def write_copies(runs: Path, count: int, folder: Path) -> None:
    """Write valid records into a folder until it has `count`; raises EnvironmentProblem if there is none to copy."""
    real = [record for record in load_all(runs)[0] if is_done(record)]
    if not real:
        raise EnvironmentProblem(f"no finished records in {runs}", "", "Name a folder with some: --runs DIR.")
    folder.mkdir(exist_ok=True)
    there = len(stamps(folder))
    for record in islice(copies(real, count), there, None) if there < count else ():
        (folder / record.run_id).mkdir(exist_ok=True)
        (folder / record.run_id / FILE).write_text(json.dumps(to_json(record), indent=1) + "\n", encoding="utf-8")


def measured(words: Sequence[str], cache: Path) -> Measured:
    """Run a command of `bench` with this cache; raises EnvironmentProblem if it fails."""
    environment = {**os.environ, "LOWRANK_BENCH_CACHE": str(cache)}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *words], stdout=subprocess.DEVNULL, env=environment
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        known = f"bench {' '.join(words)} ended with {process.returncode}"
        raise EnvironmentProblem("nothing was measured", known, "Run that command by itself.")
    return Measured(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * KIB)


def measure(runs: Path, count: int, folder: Path) -> str:
    write_copies(runs, count, folder)
    time.sleep(3)  # records that were written just now are not indexed
    rows: list[tuple[str, ...]] = []
    for name, words in COMMANDS.items():
        with tempfile.TemporaryDirectory() as cache:
            for how in ("index is built", "with the index"):
                found = measured([*words, "--runs", str(folder)], Path(cache))
                size = sum(file.stat().st_size for file in Path(cache).rglob("*") if file.is_file())
                numbers = (
                    f"{found.seconds:.1f}",
                    f"{found.cpu:.1f}",
                    f"{found.peak / 1e6:.0f} MB",
                    f"{size / 1e6:.1f} MB",
                )
                rows.append((name, how, f"{len(stamps(folder)):,}", *numbers))
                sys.stderr.write(f"{'  '.join(rows[-1])}\n")
    return table(("command", "", "records", "seconds", "CPU seconds", "peak memory", "index"), rows)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.benchmarks.store", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="records (default: 100000)")
    runs = Path("leaderboard/results/runs")
    parser.add_argument("--runs", type=Path, default=runs, metavar="DIR", help="real records to copy")
    about = "folder of the copies, which are kept and used again (default: a temporary one)"
    parser.add_argument("--folder", type=Path, metavar="DIR", help=about)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "runs"
        return print_or_fail(lambda: measure(options.runs, options.count, folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
