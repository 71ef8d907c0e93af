"""`--devices 2`: equal to one process, and a process of its own whose every end is the right state."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.config.options import options_of
from bench.core import registry
from bench.harness import worker
from bench.harness.progress import Progress
from bench.records import record
from bench.records.results import TrainingResult

Bench = Callable[..., Any]
TWO = ("--task", "glue/cola", "--devices", "2")


@pytest.mark.parametrize(
    "method", ["lora", "adapterdrop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "adalora"))]
)
def test_two_devices_equal_one(bench: Bench, method: str, tmp_path: Path) -> None:
    """33 examples in batches of 8 leave one for the last step, and 21 dev examples are odd: nothing is even.

    A correlation of scores moves with every single prediction; a few small steps leave all classes alike.
    """
    words = ("--method", method, "--task", "glue/stsb", "--train-samples", "33")
    words += ("--precision", "64-true") if method == "adalora" else ()  # near-ties of its scores flip in float32
    (tmp_path / "tasks").mkdir()  # a folder of the user's where the command is called must not hide ours
    (tmp_path / "tasks" / "__init__.py").write_text("raise ImportError('the wrong tasks')")
    one = bench(*words, budget=("--epochs", "1"), out=tmp_path / "one").only()
    outcome = bench(*words, "--devices", "2", budget=("--epochs", "1"), out=Path("two"))
    assert outcome.code == 0, outcome.err
    two = outcome.only()
    assert (one.cost.devices, two.cost.devices) == (1, 2)
    assert two.run_id == one.run_id
    assert [point.step for point in two.curve] == [1, 2, 3, 4, 5]
    assert [p.loss for p in two.curve] == pytest.approx([p.loss for p in one.curve], abs=1e-6)
    scores = one.metrics.all["dev"]
    assert abs(scores["pearson"]) > 0.01
    assert two.metrics.all["dev"] == pytest.approx(scores, abs=1e-6)
    assert one.metrics.primary.n == two.metrics.primary.n == 21
    assert (two.params, two.source) == (one.params, one.source)
    norms = [[rank.norm for rank in made.ranks] for made in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    left = {path.name for path in (outcome.folder / two.run_id).iterdir()}
    assert left == {"record.json", "worker.log", "spectra.npz", "predictions.parquet"} | (
        {"adapter.safetensors"} if method != "full" else set()
    )
    kept = {name: (outcome.folder / two.run_id / name).read_bytes() for name in left - {"record.json", "worker.log"}}
    assert two.files == {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()}
    if method == "adapterdrop":  # the robust form leaves parameters out of some steps
        curves = [[point.metrics["dev"]["pearson"] for point in made.sweep] for made in (one, two)]
        assert len(curves[0]) == 2 and curves[1] == pytest.approx(curves[0], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*sorted({*registry.entries("methods")} - {"dropout"}), "peft:vera"])
def test_the_losses_of_two_devices_are_those_of_one(command: Callable[..., Any], method: str, tmp_path: Path) -> None:
    """Every registered method, in float64, so that a sum in another order is no other loss.

    Except `dropout`, whose masks torch draws for the batch as it is cut.
    """
    config = registry.load_config("methods", method)
    text = "text" in config.needs
    network = ("--set", "backbone.heads=2", "--set", f"backbone.{'hidden' if text else 'width'}=16")
    network += ("--set", "method.rank=2") if "rank" in options_of(config) else ()
    where = ("--task", "glue/cola", "--backbone", "bert") if text else ("--task", "digits", "--backbone", "vit")
    argv = ("run", "--method", method, *where, *network, "--data", "embedded", "--train-samples", "41")
    argv += ("--batch-size", "8", "--epochs", "2", "--precision", "64-true", "--accelerator", "cpu", "--lr", "1e-2")
    losses: list[list[float]] = []
    for devices in ("1", "2"):
        out = tmp_path / devices
        outcome = command(*argv, "--devices", devices, "--out", str(out), folder=out)
        assert outcome.code == 0, outcome.err
        assert outcome.only().cost.devices == int(devices)
        losses.append([point.loss for point in outcome.only().curve])
    one, two = losses
    assert len(one) == 12 and len({*one}) == 12
    assert two == pytest.approx(one, rel=1e-9)


@pytest.mark.slow
def test_two_devices_go_on_from_a_checkpoint(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, so that the random generators of both devices must have been kept."""
    words = ("--method", "lora", "--task", "glue/stsb", "--devices", "2", "--set", "method.dropout=0.1")
    words = (*words, "--set", "backbone.dropout=0.1", "--set", "runtime.checkpoint_s=0")
    whole = bench(*words, budget=("--epochs", "1"), out=Path("whole")).only()
    with monkeypatch.context() as patch:
        patch.setattr(
            Progress, "step", lambda self, step, loss: os.kill(os.getpid(), signal.SIGINT) if step == 3 else None
        )
        assert bench(*words, budget=("--epochs", "1"), out=Path("parts")).code == 130
    parts = bench(*words, budget=("--epochs", "1"), out=Path("parts")).only()
    [resumed] = parts.cost.resumed_at
    assert resumed in (2, 3, 4)
    assert parts.curve[resumed:] == whole.curve[resumed:]
    assert (parts.metrics, parts.ranks) == (whole.metrics, whole.ranks)


# the process itself, in the place of which stands a small one


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`stand_in(source)` is started for a worker; it writes process ids into the file that this returns."""

    def use(source: str) -> Path:
        pids = tmp_path / "pids"
        script = tmp_path / "stand_in.py"
        start = f"import json, os, subprocess, sys, time\npids = open({str(pids)!r}, 'w')\n"
        script.write_text(start + textwrap.dedent(source))
        monkeypatch.setattr(worker, "command", lambda path: [sys.executable, str(script), str(path)])
        return pids

    return use


HANGS = """
    other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])  # holds our standard output
    print(os.getpid(), other.pid, file=pids, flush=True)
    print('step 1 0.5', flush=True)
"""


def gone(pids: Path) -> bool:
    """Whether the processes have ended, or do so within seconds."""
    left = [int(pid) for pid in pids.read_text().split()]
    assert len(left) == 2
    end = time.monotonic() + 20
    while left and time.monotonic() < end:
        left = [pid for pid in left if _runs(pid)]
        time.sleep(0.05)
    return not left


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # a dead child of a dead parent may wait for somebody to take notice
    return not (state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z")


ENDS = {
    signal.SIGINT: (130, "cancelled"),
    **dict.fromkeys((signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), (75, "preempted")),
}
"""Exit code and state by the signal that stops a command."""
each = pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)


@each
def test_a_signal_leaves_no_process_behind(
    bench: Bench, stand_in: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    pids = stand_in(HANGS + "    time.sleep(600)\n")
    monkeypatch.setattr(Progress, "step", lambda self, step, loss: os.kill(os.getpid(), number))
    outcome = bench("--method", "lora", *TWO)
    assert (outcome.code, outcome.only().state) == ENDS[number]
    assert gone(pids)


@each
def test_a_signal_while_no_step_is_made(bench: Bench, stand_in: Any, number: signal.Signals) -> None:
    """As before the first step, and while dev is evaluated: the command waits for what its process says."""
    pids = stand_in(f"{HANGS}    time.sleep(0.5)\n    os.kill(os.getppid(), {int(number)})\n    time.sleep(600)\n")
    outcome = bench("--method", "lora", *TWO)
    assert (outcome.code, outcome.only().state) == ENDS[number]
    assert gone(pids)


@each
def test_a_signal_while_a_trial_is_trained(
    bench: Bench, stand_in: Any, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    pids = stand_in(HANGS + "    time.sleep(600)\n")
    monkeypatch.setattr(Progress, "step", lambda self, step, loss: os.kill(os.getpid(), number))
    outcome = bench("--method", "lora", *TWO, "--select", "lr")
    [trial], _ = record.load_all(outcome.folder / record.TRIALS)
    assert (outcome.code, trial.state, outcome.records) == (*ENDS[number], [])
    assert gone(pids)


@pytest.mark.parametrize(
    "number",
    [n if n == signal.SIGTERM else pytest.param(n, marks=pytest.mark.slow) for n in ENDS],  # Lightning handles it too
    ids=lambda number: number.name,
)
def test_a_signal_to_the_processes_of_all_devices(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: signal.Signals
) -> None:
    """Slurm sends it to every process of a job, in any order; a device that ended first would fail the run."""
    pids, sent = tmp_path / "pids", list[float]()

    def step(self: Progress, step: int, loss: float) -> None:
        if not sent:
            ps = ["ps", "-A", "-ww", "-o", "pid=,args="]
            lines = subprocess.run(ps, capture_output=True, text=True, check=True).stdout.splitlines()
            of_run = [line.split()[0] for line in lines if "harness.worker" in line and str(tmp_path) in line]
            pids.write_text(" ".join(of_run))
            for pid in of_run:
                os.kill(int(pid), number)
            sent.append(time.monotonic())
        elif time.monotonic() > sent[0] + 1:  # they would have ended, and no step be made
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Progress, "step", step)
    outcome = bench("--method", "linear", *TWO, budget=("--max-steps", "100000"))
    assert (outcome.code, outcome.only().state) == ENDS[number]
    assert gone(pids)


def test_a_first_process_that_dies_takes_the_others_with_it(bench: Bench, stand_in: Any) -> None:
    pids = stand_in(HANGS + "    print('the last words', file=sys.stderr)\n    sys.exit(3)\n")
    outcome = bench("--method", "lora", *TWO)
    assert outcome.code == 1
    error = outcome.only().error
    assert outcome.only().state == "failed"
    assert "without a result" in error.what
    assert "exit code 3" in error.known and "the last words" in error.known
    assert gone(pids)


def test_steps_are_passed_on(bench: Bench, stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(Progress, "step", lambda self, step, loss: seen.append((step, loss)))
    stand_in("print('noise'); print('step 1 0.5'); print('step 2 0.25')")
    assert bench("--method", "lora", *TWO).code == 1
    assert seen == [(1, 0.5), (2, 0.25)]


def test_a_result_stands_whatever_befalls_another_device_after_it(
    tmp_path: Path, record_json: Callable[..., dict[str, Any]]
) -> None:
    shared = {name: value for name, value in record_json().items() if name in TrainingResult.__struct_fields__}
    result = msgspec.convert({**shared, "backbone_parameters": 7}, TrainingResult)
    (tmp_path / worker.RESULT).write_bytes(msgspec.json.encode(result))
    (tmp_path / worker.ERROR).write_text('["failed", {"what": "connection closed by peer", "known": "", "todo": ""}]')
    assert worker.take(tmp_path, 0) == result
    assert not (tmp_path / worker.ERROR).exists()


# what the process does, here


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker runs in this process, up to where the other devices would be started."""

    def run(asked: worker.Job, folder: Path, on_step: Any, on_warning: Any, nodes: Any) -> TrainingResult:
        (folder / worker.JOB).write_bytes(msgspec.json.encode(asked))
        return worker.take(folder, worker.main(folder / worker.JOB))

    monkeypatch.setattr(worker, "run", run)


def _cuda_memory() -> BaseException:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory")


def _diverged() -> BaseException:
    from bench.core.errors import Diverged

    return Diverged("the loss became nan", "at step 2", "Lower --lr.")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("error", "state", "what", "log"),
    [
        (_cuda_memory, "oom", "OutOfMemoryError: CUDA out of memory", True),
        (MemoryError, "oom", "MemoryError", True),
        (_diverged, "diverged", "the loss became nan", False),
        (lambda: RuntimeError("boom"), "failed", "RuntimeError: boom", True),
    ],
    ids=["gpu memory", "memory", "diverged", "defect"],
)
def test_an_error_in_the_worker_arrives_as_its_state(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Callable[[], BaseException], state: str, what: str, log: bool
) -> None:
    import methods.lora.method

    def adapt(self: Any, batch: Any) -> None:
        raise error()

    monkeypatch.setattr(methods.lora.method.LoRA, "adapt", adapt)
    outcome = bench("--method", "lora", *TWO)
    assert outcome.code == 1
    made = outcome.only()
    assert (made.state, made.error.what) == (state, what)
    assert made.error.known and made.error.todo
    folder = outcome.folder / made.run_id
    assert (folder / record.ERROR_LOG).exists() == log
    assert not (folder / worker.ERROR).exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("source", ["named", "parent", "embedded"])
def test_the_worker_opens_what_the_plan_opened(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, glue: Path, tiny_bert: Path, tmp_path: Path, source: str
) -> None:
    import bench.training.trainer as fitting

    seen: list[tuple[Any, ...]] = []
    real = fitting.fit

    def fit(spec: Any, task: Any, dataset: Any, backbone: Any, **options: Any) -> Any:
        seen.append((spec, task.spec, dataset.hash, dataset.source, backbone))
        return real(spec.with_(devices=1), task, dataset, backbone, **options)

    monkeypatch.setattr(fitting, "fit", fit)
    (tmp_path / "minilm").symlink_to(tiny_bert)  # a folder with the name of a registered backbone
    words = {
        "named": ("--data-dir", f"glue={glue}"),
        "parent": (),
        "embedded": ("--data", "embedded"),
    }[source]
    task = "glue/wnli" if source == "embedded" else "glue/cola"
    if source == "parent":
        monkeypatch.setenv("BENCH_DATA", str(glue.parent))
    small = ("--method", "linear", "--task", task, *words)
    for devices in ("1", "2"):
        outcome = bench(*small, "--devices", devices, data=None, backbone="./minilm", out=tmp_path / devices)
        assert outcome.code == 0, outcome.err
    first, second = seen
    assert first[0].with_(devices=2, out=str(tmp_path / "2")) == second[0]
    assert first[1:] == second[1:]


RANK_ONE_FAILS = """
    import torch
    from pathlib import Path
    from bench.harness import worker
    from bench.training.callbacks import LossCurve
    real = LossCurve.on_train_batch_end
    def fails(self, trainer, *rest):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise torch.OutOfMemoryError('CUDA out of memory on the second device')
        real(self, trainer, *rest)
    LossCurve.on_train_batch_end = fails
    sys.exit(worker.main(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_the_second_device_alone_runs_out_of_memory(bench: Bench, stand_in: Any) -> None:
    stand_in(RANK_ONE_FAILS)
    outcome = bench("--method", "lora", *TWO, budget=("--max-steps", "4"))
    assert outcome.code == 1
    made = outcome.only()
    assert made.state == "oom", made.error
    assert "second device" in made.error.what
