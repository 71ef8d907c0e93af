"""Several processes on one folder: the pool of `bench run --jobs`, workers of `bench work`, two equal commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import chaos
import pytest
from killed import stop_at_step

from bench.harness import pool
from bench.harness.progress import Progress
from bench.records import claims, progress, record

Bench = Callable[..., Any]
GRID = ("--method", "linear,lora", "--task", "glue/cola", "--seeds", "0,1")
ADAPTER = record.ADAPTER


@pytest.fixture
def processes(glue: Path, tiny_bert: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`processes("run", …)` starts `bench` with the small data and network in a process of its own."""
    with ExitStack() as stack:

        def start(*argv: str, group: bool = False) -> subprocess.Popen[str]:
            small = ("--backbone", str(tiny_bert), "--data-dir", str(glue), "--batch-size", "8", "--accelerator", "cpu")
            given = small if argv[0] == "run" else ()
            command = [sys.executable, "-P", "-m", "bench", *argv, *given]
            pipe = subprocess.PIPE
            process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=group)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def wait_for(out: Path, pattern: str, count: int = 1) -> Sequence[Path]:
    deadline = time.monotonic() + 120
    while len(found := [*out.glob(pattern)]) < count:
        assert time.monotonic() < deadline, f"{pattern} has not come"
        time.sleep(0.02)
    return found


def inject(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Run `body` at the start of every worker process of a pool."""
    folder.mkdir()
    lines = ["import os, sys", "if 'bench.harness.pool_worker' in sys.orig_argv:"]
    (folder / "sitecustomize.py").write_text("\n".join([*lines, *(f"    {line}" for line in body.splitlines())]))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


def test_a_pool_makes_the_same_records_as_one_process(bench: Bench, tmp_path: Path) -> None:
    alone = bench(*GRID, out=tmp_path / "alone")
    shared = bench(*GRID, "--jobs", "2", out=tmp_path / "shared")
    assert (alone.code, shared.code) == (0, 0), shared.err
    assert shared.out.splitlines()[:4] == alone.out.splitlines()[:4]
    for one, other in zip(alone.records, shared.records, strict=True):
        assert (one.run_id, one.metrics, one.curve, one.lr) == (other.run_id, other.metrics, other.curve, other.lr)
        [first, second] = ((out.folder / one.run_id / ADAPTER).read_bytes() for out in (alone, shared))
        assert first == second
    numbers = [line.split("/")[0].strip() for line in shared.err.splitlines() if " seed " in line]
    assert numbers == ["1", "2", "3", "4"], "each run is said once"
    assert {path.name for path in shared.folder.glob("*/*")} == {path.name for path in alone.folder.glob("*/*")}

    before = files(shared.folder)
    again = bench(*GRID, "--jobs", "2", out=tmp_path / "shared")
    assert again.code == 0 and again.err.count("done before") == 4 and files(shared.folder) == before


def test_a_selection_in_a_pool_chooses_the_same(bench: Bench, tmp_path: Path) -> None:
    grid = ("--method", "linear", "--task", "glue/cola", "--select", "lr", "--lr", "1e-6,1e-5")
    alone, shared = bench(*grid, out=tmp_path / "a"), bench(*grid, "--jobs", "2", out=tmp_path / "b")
    assert alone.code == shared.code == 0
    assert alone.only().selection == shared.only().selection
    assert len(shared.only().selection.trials) > 2, "trials beyond the candidates too"
    total = max(int(line.split("/")[1].split()[0]) for line in shared.err.splitlines() if " seed " in line)
    assert total == len(shared.only().selection.trials) + 1


def test_a_worker_that_dies_costs_its_run_alone(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a segmentation fault, or where the kernel kills the process that takes most memory."""
    body = f"""
from pathlib import Path
from bench.records import claims
report, flag = claims.Held.report, Path({str(tmp_path / "flag")!r})
def die(self, *, step, **more):
    if step == 3:
        try:
            flag.touch(exist_ok=False)  # of two workers that come here at once, one dies
        except FileExistsError:
            pass
        else:
            sys.stderr.write("Segmentation fault of a kind")
            sys.stderr.flush()
            os.kill(os.getpid(), 11)
    report(self, step=step, **more)
claims.Held.report = die
"""
    inject(tmp_path / "site", monkeypatch, body)
    keep = pool._Pool._keep_tail

    def late(self: Any, worker: Any) -> None:
        """Read what a worker wrote a second after its end, as on a busy machine."""
        worker.process.wait()
        time.sleep(1)
        keep(self, worker)

    monkeypatch.setattr(pool._Pool, "_keep_tail", late)
    outcome = bench(*GRID, "--jobs", "2", budget=("--max-steps", "5"))
    assert outcome.code == 1
    states = Counter(made.state for made in outcome.records)
    assert states == {"done": 3, "failed": 1}, outcome.err
    [failed] = [made for made in outcome.records if made.state == "failed"]
    assert failed.error.what == "the run's process died" and "signal 11" in failed.error.known
    folder = outcome.folder / failed.run_id
    assert "of a kind" in (folder / "error.log").read_text()
    assert "died" in outcome.err and not [*outcome.folder.glob(f"*/{claims.FILE}")]
    again = bench(*GRID, "--jobs", "2", "--retry", budget=("--max-steps", "5"))
    assert again.code == 0 and {made.state for made in again.records} == {"done"}


def test_workers_that_cannot_start_are_an_error(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inject(tmp_path / "site", monkeypatch, "sys.stderr.write('no such library'); sys.stderr.flush(); os._exit(7)")
    outcome = bench(*GRID, "--jobs", "2")
    assert outcome.code == 1 and outcome.records == []
    assert "worker processes end before they begin a run" in outcome.err
    assert "exit code 7" in outcome.err and "no such library" in outcome.err


def test_what_stops_a_worker_s_command_stops_the_pool(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
from bench.records import claims
def full(*args, **more):
    raise OSError(28, "No space left on device", "/the/disk")
claims.Claims.take = full
"""
    inject(tmp_path / "site", monkeypatch, body)
    outcome = bench(*GRID, "--jobs", "2")
    assert outcome.code == 3 and "/the/disk: No space left on device" in outcome.err


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGINT, 130, "cancelled"), (signal.SIGTERM, 75, "preempted")]
)
def test_a_signal_stops_a_pool_and_the_same_command_goes_on(
    processes: Any, tmp_path: Path, number: int, code: int, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, mark = tmp_path / "runs", f"{number}{tmp_path.name}"
    monkeypatch.setenv(chaos.MARK, mark)
    argv = ("run", *GRID, "--jobs", "2", "--out", str(out), "--max-steps")
    process = processes(*argv, "5000")
    wait_for(out, f"*/{progress.FILE}", 2)
    process.send_signal(number)
    assert process.wait(60) == code
    assert not chaos.marked(mark), "no process is left"
    records, problems = record.load_all(out)
    assert not problems and [made.state for made in records] == [state] * 2
    assert not [*out.glob(f"*/{claims.FILE}")]


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
def test_two_equal_commands_at_once_share_the_runs(processes: Any, tmp_path: Path, jobs: Sequence[str]) -> None:
    out = tmp_path / "runs"
    commands = [processes("run", *GRID, "--max-steps", "60", "--out", str(out), *jobs) for _ in range(2)]
    said = [process.communicate()[1] for process in commands]
    assert [process.returncode for process in commands] == [0, 0], said
    made = [line for text in said for line in text.splitlines() if " trained" in line and "done before" not in line]
    assert len(made) == 4, "each run is trained by one of them"
    assert all(len([line for line in text.splitlines() if " trained" in line]) == 4 for text in said)
    records, problems = record.load_all(out)
    assert not problems and [one.state for one in records] == ["done"] * 4


def test_a_stopped_command_that_wakes_up_writes_nothing_over_the_other_s(
    bench: Bench, tmp_path: Path, glue: Path, tiny_bert: Path
) -> None:
    """Its claim was taken over while it slept, as under a laptop's closed lid."""
    small = ("--backbone", str(tiny_bert), "--data-dir", str(glue), "--batch-size", "8", "--accelerator", "cpu")
    small += ("--set", "task.max_length=24", "--max-steps", "40", "--out", str(tmp_path / "runs"))
    more = (*GRID, "--set", "runtime.claim_s=1")
    sleeper = stop_at_step(["run", *small, *more], 60)
    try:
        assert bench(*more, budget=("--max-steps", "40")).code == 0
        before = files(tmp_path / "runs")
    finally:
        sleeper.send_signal(signal.SIGCONT)
    _, said = sleeper.communicate(timeout=120)
    assert sleeper.returncode == 0, said
    assert files(tmp_path / "runs") == before
    assert said.count(" trained ") == 4


def test_who_loses_a_claim_stops_and_writes_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[claims.Held] = []
    seen: list[dict[str, bytes]] = []

    def step(self: Progress, step: int, loss: float, lane: int = 0) -> None:
        if step == 2 and not others:
            [file] = Path("runs").glob(f"*/{claims.FILE}")
            file.unlink()
            other = claims.Claims().take(file.parent)
            assert other
            others.append(other)
            seen.append(files(file.parent))
            time.sleep(1)  # several heartbeats

    def say(self: Progress, line: str) -> None:
        if "another process has taken this run over" in line:
            [other] = others
            seen.append(files(other.folder))
            (other.folder / claims.FILE).unlink()

    monkeypatch.setattr(Progress, "step", step)
    monkeypatch.setattr(Progress, "say", say)
    argv = ("--method", "lora", "--task", "glue/cola", "--set", "runtime.claim_s=1")
    outcome = bench(*argv, budget=("--max-steps", "6"))
    assert outcome.code == 0 and outcome.only().state == "done"
    then, at_the_end = ({name: one for name, one in files.items() if name != "spectra.npz"} for files in seen)
    assert at_the_end == then, "nothing was written after it had lost its claim, but for spectra of the step before"


def test_workers_share_a_plan_and_do_not_wait(processes: Any, tmp_path: Path, tiny_bert: Path, glue: Path) -> None:
    plan, out = tmp_path / "grid.yaml", tmp_path / "runs"
    small = ("--backbone", str(tiny_bert), "--data-dir", str(glue), "--batch-size", "8", "--accelerator", "cpu")
    assert processes("plan", *GRID, *small, "--max-steps", "5", "--output", str(plan)).wait() == 0
    first = processes("work", "--plan", str(plan), "--out", str(out), "--shard", "0/2")
    _, said = first.communicate()
    assert first.returncode == 0 and "2 done, 0 failed" in said
    assert len([*out.glob("*/record.json")]) == 2
    second = processes("work", "--plan", str(plan), "--out", str(out))
    _, said = second.communicate()
    assert second.returncode == 0 and "4 done, 0 failed" in said and said.count("done before") == 2


def test_a_run_that_needs_too_much_memory_is_made_again_with_less(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bench.training import trainer

    fit = trainer.fit

    def small_memory(spec: Any, *args: Any, **options: Any) -> Any:
        if (spec.options.runtime.micro_batch or spec.batch_size) > 2:
            raise MemoryError
        return fit(spec, *args, **options)

    grid = ("--method", "lora", "--task", "glue/cola")
    plain = bench(*grid, "--set", "runtime.micro_batch=2", out=tmp_path / "plain").only()
    monkeypatch.setattr(trainer, "fit", small_memory)
    assert bench(*grid, out=tmp_path / "small").only().state == "oom"
    outcome = bench(*grid, "--on-oom", "halve", "--retry", out=tmp_path / "small")
    made = outcome.only()
    assert (outcome.code, made.state, made.run_id) == (0, "done", plain.run_id)
    assert made.curve == plain.curve and made.metrics == plain.metrics
    assert "parts of 2 examples" in made.warnings[0] and "parts of 2 examples" in outcome.err


def test_chaos(tmp_path: Path) -> None:
    """In short; `python tests/support/chaos.py` kills 20 times."""
    found = chaos.run(tmp_path, runs=6, kills=3, steps=60)
    assert not found.faults and len(found.kept) == 6
    assert [whom for whom, _ in found.kills] == ["all", "a worker", "the launcher"][: len(found.kills)]


@pytest.mark.parametrize(
    ("jobs", "gpus", "cores", "gigabytes", "devices", "runs", "count"),
    [
        (3, 0, 2, 8, 1, 24, 3),
        (3, 0, 2, 8, 1, 2, 2),
        ("auto", 0, 2, 8, 1, 24, 2),
        ("auto", 0, 64, 8, 1, 24, 4),
        ("auto", 0, 8, 64, 2, 24, 4),
        ("auto", 8, 64, 512, 1, 24, 8),
        ("auto", 8, 64, 512, 4, 24, 2),
        ("auto", 0, 1, 1, 1, 24, 1),
    ],
)
def test_how_many_workers(
    monkeypatch: pytest.MonkeyPatch,
    *,
    jobs: pool.Jobs,
    gpus: int,
    cores: int,
    gigabytes: int,
    devices: int,
    runs: int,
    count: int,
) -> None:
    monkeypatch.setattr(pool, "_gpus", lambda accelerator: [*map(str, range(gpus))])
    monkeypatch.setattr(pool, "_cores", lambda: cores)
    monkeypatch.setattr(pool, "_free_memory", lambda: gigabytes * 2**30)
    assert pool.count_workers(jobs, accelerator="auto", devices=devices, runs=runs) == count
