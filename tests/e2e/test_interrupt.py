"""Ctrl-C, SIGTERM and `kill -9`: finished cells stay, no record is broken, the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killed import kill_at_step

from bench.harness.progress import Progress
from bench.records import claims, record

Bench = Callable[..., Any]
CELLS = ("--method", "linear,lora,full", "--task", "glue/cola")


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """`signalled(SIGINT, 3)` sends this process a signal at its third training step, counted over all cells."""

    def arm(number: int, when: int) -> None:
        steps: list[float] = []

        def step(self: Progress, step: int, loss: float) -> None:
            steps.append(loss)
            if len(steps) == when:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Progress, "step", step)

    return arm


@pytest.mark.parametrize(
    ("number", "code", "state"), [(signal.SIGINT, 130, "cancelled"), (signal.SIGTERM, 75, "preempted")]
)
def test_a_signal_stops_the_command_and_the_same_one_goes_on(
    bench: Bench, signalled: Any, fitted: list[Any], files: Any, number: int, code: int, state: str
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    signalled(number, 3)  # the first step of the second cell
    outcome = bench(*CELLS)
    assert outcome.code == code
    assert [method for method, _ in fitted] == ["linear", "lora"], "nothing is begun after it"
    by_method = {made.spec.method: made for made in outcome.records}
    assert {method: made.state for method, made in by_method.items()} == {"linear": "done", "lora": state}
    assert by_method["lora"].metrics is None
    assert "1 done" in outcome.err and "2 not run" in outcome.err and "goes on" in outcome.err
    assert "linear" in outcome.out, "what is done is shown"
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers

    fitted.clear()
    done = outcome.folder / by_method["linear"].run_id
    before = files(done)
    again = bench(*CELLS)
    assert again.code == 0
    assert [method for method, _ in fitted] == ["lora", "full"]
    assert {made.state for made in again.records} == {"done"}
    assert files(done) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("hook", "state"), [("step", "preempted"), ("finished", "done")])
def test_a_sigterm_that_python_drops_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fitted: list[Any], hook: str, state: str
) -> None:
    class Object:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # what a handler raises while an object is finalised goes nowhere

    def drop(*args: Any, **options: Any) -> None:
        Object()

    monkeypatch.setattr(Progress, hook, drop)
    outcome = bench(*CELLS)
    assert outcome.code == 75
    assert [made.state for made in outcome.records] == [state]
    assert len(fitted) == 1


def test_ctrl_c_in_a_trial(bench: Bench, signalled: Any, fitted: list[Any], tmp_path: Path) -> None:
    words = ("--method", "linear", "--task", "glue/stsb", "--select", "lr")
    signalled(signal.SIGINT, 3)
    outcome = bench(*words)
    assert (outcome.code, outcome.out.strip(), outcome.records) == (130, "", [])
    trials, problems = record.load_all(tmp_path / "runs" / "selection")
    assert not problems
    assert sorted(made.state for made in trials) == ["cancelled", "done"]
    assert bench(*words).code == 0
    assert len(fitted) == 5, "two of the first command, two trials and the cell of the second"


@pytest.mark.parametrize("verb", [("run", "--method", "lora", "--task", "digits"), ("reproduce", "parsimony")])
def test_a_sigterm_at_the_start_of_the_verb(
    command: Any, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("bench.cli.check_packages", lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = command(*verb, folder=tmp_path)
    assert (outcome.code, outcome.err) == (75, "preempted: the same command goes on\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sigterm_that_python_drops_while_planning_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, fitted: list[Any]
) -> None:
    import bench.harness.planner as planning

    real = planning.make_plan

    class Object:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def make_plan(request: Any) -> Any:
        Object()
        return real(request)

    monkeypatch.setattr(planning, "make_plan", make_plan)
    assert bench(*CELLS).code == 75
    assert not fitted


SEEDS = ",".join(map(str, range(9)))
NINE = ("--method", "linear", "--task", "glue/cola", "--seeds", SEEDS)


def test_kill_9_breaks_no_record_and_the_same_command_goes_on(
    bench: Bench, fitted: list[Any], files: Any, glue: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    small = ["--max-steps", "40", "--batch-size", "8", "--set", "task.max_length=24", "--accelerator", "cpu"]
    words = ["run", "--backbone", str(tiny_bert), *small, "--data-dir", str(glue), "--out", str(out), *NINE]
    kill_at_step(words, 100)
    records, problems = record.load_all(out)
    assert not problems, "every record is whole"
    done = [made.run_id for made in records if made.state == "done"]
    assert len(done) == 2
    assert {made.state for made in records} <= {"done", "running"}

    before = {run_id: files(out / run_id) for run_id in done}
    again = bench(*NINE, budget=("--max-steps", "40"))
    assert again.code == 0
    assert len(fitted) == 9 - len(done)
    assert [made.state for made in again.records] == ["done"] * 9
    assert {run_id: files(out / run_id) for run_id in done} == before


ONE = ("--method", "lora", "--task", "glue/cola", "--set", "runtime.checkpoint_s=0")


def test_a_killed_run_goes_on_from_its_last_step(bench: Bench, glue: Path, tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    small = ["--max-steps", "120", "--batch-size", "8", "--set", "task.max_length=24", "--accelerator", "cpu"]
    words = ["run", "--backbone", str(tiny_bert), *small, "--data-dir", str(glue), "--out", str(out), *ONE]
    kill_at_step(words, 60)
    made = bench(*ONE, budget=("--max-steps", "120")).only()
    assert made.state == "done"
    [step] = made.cost.resumed_at
    assert 1 <= step < 120
    assert [point.step for point in made.curve] == [*range(1, 121)], "no step is missing or twice"
    assert not [*out.glob("*/checkpoint*")], "what has ended needs none"


def test_what_a_killed_process_left_is_swept_at_the_next_start(bench: Bench, fitted: list[Any], files: Any) -> None:
    made = bench(*ONE)
    folder = made.folder / made.only().run_id
    before = files(folder)
    leftovers = [folder / f".adapter.safetensors.{'0' * 32}.tmp", folder / "checkpoint-1x1.ckpt"]
    for file in leftovers:
        file.write_bytes(b"half")
    os.utime(leftovers[0], (0, 0))
    assert bench(*ONE).code == 0
    assert files(folder) == before and len(fitted) == 1


def test_what_a_run_keeps_is_on_the_disk_before_it_has_its_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("bench.core.files._sync", lambda path: synced.append(path.name))
    bench(*ONE)
    for name in ("record.json", "adapter.safetensors", "checkpoint-1x1.ckpt"):
        assert any(one.startswith(f".{name}.") for one in synced)


@pytest.fixture
def fails_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that failed in its fourth step, as when a loader's worker is killed."""

    def step(self: Progress, step: int, loss: float) -> None:
        if step == 4:
            raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "step", step)
        outcome = bench(*ONE, budget=("--max-steps", "6"))
    assert outcome.only().error.what == "RuntimeError: boom"
    [checkpoint] = outcome.folder.glob("*/checkpoint-1x1.ckpt")
    return checkpoint


def test_a_run_that_failed_goes_on_from_its_checkpoint(bench: Bench, fails_once: Path) -> None:
    made = bench(*ONE, "--retry", budget=("--max-steps", "6")).only()
    assert (made.state, made.cost.resumed_at) == ("done", (3,))
    assert not fails_once.exists(), "what is done needs none"
    whole = bench(*ONE, budget=("--max-steps", "6"), out=Path("whole")).only()
    assert (made.metrics, made.curve) == (whole.metrics, whole.curve)


def test_a_damaged_checkpoint_is_a_warning_and_a_fresh_start(bench: Bench, fails_once: Path) -> None:
    """Half a file failed the run for ever; one flipped byte in the weights led to another result in silence."""
    content = bytearray(fails_once.read_bytes())
    content[len(content) // 2] ^= 1
    fails_once.write_bytes(content)
    made = bench(*ONE, "--retry", budget=("--max-steps", "6")).only()
    assert (made.state, made.cost.resumed_at) == ("done", ())
    assert "checkpoint of an interrupted attempt was damaged" in made.warnings[0]


@pytest.mark.parametrize(("interrupted", "code"), [(True, 130), (False, 0)])
def test_what_another_command_has_done_is_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, files: Any, interrupted: bool, code: int
) -> None:
    """Ctrl-C on the first of two equal commands turned the record that the second had finished into `cancelled`, and
    spectra of two steps took the place of the whole ones.
    """
    stored: dict[str, bytes] = {}

    def step(self: Progress, step: int, loss: float) -> None:
        if step == 2 and not stored:
            stored["running"] = b""
            [claim] = Path("runs").glob(f"*/{claims.FILE}")
            claim.unlink()  # the other command believes that this one is gone
            with monkeypatch.context() as patch:
                patch.setattr(Progress, "step", lambda self, step, loss: None)
                assert bench(*ONE).code == 0  # the other command, from start to end
            stored.update(files(Path("runs")))
            if interrupted:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Progress, "step", step)
    outcome = bench(*ONE)
    assert outcome.code == code
    assert outcome.only().state == "done" and outcome.only().metrics
    kept = {name: stored[f"{outcome.only().run_id}/{name}"] for name in ("adapter.safetensors", "spectra.npz")}
    assert {name: files(outcome.folder)[f"{outcome.only().run_id}/{name}"] for name in kept} == kept


def test_a_worker_ends_with_the_command_that_started_it() -> None:
    """After `kill -9` of the command nobody else would end it, and it would hold the device."""
    worker = (
        "import os, time; from bench.harness.worker import end_with_parent as end; end(os.getppid()); time.sleep(60)"
    )
    command = (
        f"import os, subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {worker!r}]); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    pid = int(process.stdout.readline())
    time.sleep(1)
    os.kill(pid, 0)  # it is there
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while _alive(pid):
        assert time.monotonic() < deadline, "the worker outlived its parent"
        time.sleep(0.1)


def test_a_worker_whose_launcher_is_gone_at_its_start_ends(tmp_path: Path) -> None:
    """A launcher that dies before its worker looks for it is known by the id that it passed on."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    os.mkfifo(tmp_path / "job.json")  # the worker would wait for its job for ever
    words = [sys.executable, "-m", "bench.harness.worker", str(tmp_path / "job.json"), str(gone.pid)]
    assert subprocess.run(words, timeout=60, check=False).returncode == 1
    assert not [*tmp_path.glob("error*")], "it ended, and its job did not fail"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # an orphan that nobody waits for stays as a zombie
    return not status.is_file() or status.read_text().rpartition(")")[2].split()[0] != "Z"
