"""Kills a pool of workers again and again with SIGKILL, and holds what comes out against runs that nobody disturbed.

    python tests/support/chaos.py --runs 24 --kills 20

Whom it kills takes turns: all processes at once, one worker, the launcher alone. After each kill of the launcher the
same command is given again, with --retry, since a run whose worker died is recorded as failed. At the end every run
must be done once, with the weights of the undisturbed run to the bit, no file of a done run may have changed after it
was done, a run that had a checkpoint must have gone on from it, and no process may be left. The exit code is 1 if not.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from bench.core.text import table
from bench.records import record
from bench.records.record import Record

MARK = "CHAOS"
"""Variable of the environment by which the processes of a command are found."""
NETWORK = ("--task", "digits", "--backbone", "vit", "--accelerator", "cpu", "--batch-size", "16")
NETWORK += (
    "--train-samples",
    "64",
    "--set",
    "backbone.width=16",
    "--set",
    "backbone.depth=1",
    "--set",
    "runtime.save=all",
)
NETWORK += ("--set", "backbone.heads=1", "--set", "runtime.checkpoint_s=0.2")
METHODS = ("linear", "lora", "full")
WEIGHTS = ("adapter.safetensors", "spectra.npz")


def command(out: Path, runs: int, steps: int) -> list[str]:
    seeds = ",".join(map(str, range(runs // len(METHODS))))
    argv = [sys.executable, "-P", "-m", "bench", "run", "--method", ",".join(METHODS), "--seeds", seeds, *NETWORK]
    return [*argv, "--max-steps", str(steps), "--out", str(out)]


@dataclass
class Chaos:
    """What happened.

    Attributes:
        kills: whom, and how many runs were done then.
        resumable: runs that had a checkpoint when they were killed.
        kept: the files of runs when they were first seen to be done.
    """

    out: Path
    kills: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    resumable: set[str] = field(default_factory=set[str])
    kept: dict[str, dict[str, bytes]] = field(default_factory=dict[str, dict[str, bytes]])
    faults: list[str] = field(default_factory=list[str])

    def look(self) -> list[Record]:
        """Read all records; what is done must stay as it is."""
        records, problems = record.load_all(self.out) if self.out.exists() else ([], [])
        self.faults += [f"broken: {problem}" for problem in problems]
        for made in records:
            if made.state == "done":
                folder = self.out / made.run_id
                files = {name: (folder / name).read_bytes() for name in (record.FILE, *WEIGHTS)}
                if self.kept.setdefault(made.run_id, files) != files:
                    self.faults.append(f"{made.run_id} was done, and its files have changed")
        return records

    def kill(self, whom: str, launcher: subprocess.Popen[bytes], mark: str) -> None:
        """Kill some of the processes that carry a mark; the launcher must leave none behind when it is gone."""
        everyone = marked(mark)
        workers = [pid for pid in everyone if pid != launcher.pid]
        if not everyone or (whom == "a worker" and not workers):
            return
        self.kills.append((whom, len(self.kept)))
        victims = {"all": everyone, "a worker": [random.choice(workers or [0])], "the launcher": [launcher.pid]}[whom]
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if whom == "a worker":
            return
        launcher.wait()
        deadline = time.monotonic() + 5
        while left := marked(mark):
            if time.monotonic() > deadline:
                self.faults.append(f"{len(left)} processes are left five seconds after the launcher's death")
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                break
            time.sleep(0.05)
        self.resumable |= {file.parent.name for file in self.out.glob("*/checkpoint-*.ckpt")} - self.kept.keys()


def marked(mark: str) -> list[int]:
    """The processes whose environment carries a mark."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _changed(file: Path) -> float:
    """When a file was written; a run that has just ended has none any more."""
    return file.stat().st_mtime if file.exists() else 0.0


def wreak(out: Path, *, runs: int, kills: int, steps: int, jobs: int, seed: int) -> Chaos:
    """Run the grid with kills until all of it is done."""
    random.seed(seed)
    chaos, whom = Chaos(out), cycle(("all", "a worker", "the launcher"))
    done = 0
    while done < runs:
        mark = uuid.uuid4().hex
        argv = [*command(out, runs, steps), "--jobs", str(jobs), "--retry"]
        launcher = subprocess.Popen(
            argv, env={**os.environ, MARK: mark}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        started = time.time()
        while launcher.poll() is None:
            if len(chaos.kills) >= kills:
                break
            # not before it trains: a command that is killed while it starts tests little
            if any(_changed(file) > started for file in out.glob("*/progress.json")):
                time.sleep(random.uniform(0, 3))
                chaos.look()
                chaos.kill(next(whom), launcher, mark)
            time.sleep(0.1)
        launcher.wait()
        if marked(mark):
            time.sleep(2)
            chaos.faults += ["processes are left"] if marked(mark) else []
        done = sum(made.state == "done" for made in chaos.look())
        if len(chaos.kills) >= kills and launcher.returncode == 0 and done < runs:
            chaos.faults.append(f"the command ended with 0, and {done} of {runs} runs are done")
            break
    return chaos


def compare(chaos: Chaos, calm: Path, runs: int) -> None:
    """Hold all that was made against the undisturbed runs."""
    records = chaos.look()
    if len(records) != runs:
        chaos.faults.append(f"{len(records)} records of {runs} runs")
    for made in records:
        folder, other = chaos.out / made.run_id, calm / made.run_id
        for name in WEIGHTS:
            if (folder / name).read_bytes() != (other / name).read_bytes():
                chaos.faults.append(f"{made.run_id}: {name} differs from that of the undisturbed run")
        if made.metrics != record.read(other / record.FILE).metrics:
            chaos.faults.append(f"{made.run_id}: its scores differ")
        if made.run_id in chaos.resumable and made.cost and not made.cost.resumed_at:
            chaos.faults.append(f"{made.run_id} had a checkpoint and began anew")
        if left := {path.name for path in folder.iterdir()} ^ {path.name for path in other.iterdir()}:
            chaos.faults.append(f"{made.run_id}: {', '.join(sorted(left))} left behind, or missing")


def run(folder: Path, *, runs: int, kills: int, steps: int = 300, jobs: int = 2, seed: int = 0) -> Chaos:
    """Make the undisturbed runs and the disturbed ones, and compare them."""
    calm = folder / "calm"
    subprocess.run(command(calm, runs, steps), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    chaos = wreak(folder / "chaos", runs=runs, kills=kills, steps=steps, jobs=jobs, seed=seed)
    compare(chaos, calm, runs)
    return chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("runs", 24), ("kills", 20), ("steps", 800), ("jobs", 2), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # sums of one thread and of two differ in the last bit
    with tempfile.TemporaryDirectory() as folder:
        chaos = run(Path(folder), **vars(options))
        resumed = [made.cost.resumed_at for made in chaos.look() if made.cost and made.cost.resumed_at]
    print(
        table(
            ("kill", "of", "runs done then"),
            [(str(n), whom, str(done)) for n, (whom, done) in enumerate(chaos.kills, 1)],
        )
    )
    print(f"{len(chaos.kept)} of {options.runs} runs done; {len(resumed)} went on from a checkpoint, at {resumed}")
    print("\n".join(chaos.faults) or "no fault")
    return bool(chaos.faults)


if __name__ == "__main__":
    sys.exit(main())
