"""Every signal that asks a command to stop, at every moment: the documented states and exit codes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from bench.api.method import Method
from bench.harness import selection
from bench.harness.progress import Progress
from bench.harness.signals import Preempted, preemptible
from bench.records import record

Bench = Callable[..., Any]
RUN = ("--method", "linear", "--task", "glue/cola")
SIGNALS = {
    signal.SIGINT: (130, "cancelled", "interrupted"),
    signal.SIGTERM: (75, "preempted", "preempted: the same command goes on"),
    signal.SIGHUP: (75, "preempted", "preempted: the same command goes on"),
    signal.SIGUSR1: (75, "preempted", "preempted: the same command goes on"),
    signal.SIGUSR2: (75, "preempted", "preempted: the same command goes on"),
}
each = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


def send(number: int) -> Callable[..., None]:
    def to_this_process(*arguments: Any, **options: Any) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)  # the signal ends it

    return to_this_process


@each
@pytest.mark.parametrize("devices", ["1", "2"])
def test_while_planning(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, devices: str) -> None:
    code, _, said = SIGNALS[signal.Signals(number)]
    monkeypatch.setattr("bench.harness.planner.make_plan", send(number))
    outcome = bench(*RUN, "--devices", devices)
    assert (outcome.code, outcome.err) == (code, f"{said}\n")
    assert not outcome.folder.exists()


@each
@pytest.mark.parametrize("place", [(Progress, "step"), (Method, "validation_step")], ids=["training", "evaluating"])
def test_in_a_run(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, place: tuple[type, str]) -> None:
    code, state, _ = SIGNALS[signal.Signals(number)]
    with monkeypatch.context() as patch:
        patch.setattr(*place, send(number))
        outcome = bench(*RUN)
    assert (outcome.code, outcome.only().state) == (code, state)
    assert outcome.only().metrics is None and "1 not run: the same command goes on" in outcome.err
    again = bench(*RUN)
    assert (again.code, again.only().state) == (0, "done")


@each
@pytest.mark.parametrize("place", [(Progress, "step"), (selection, "choose")], ids=["trial", "choice"])
def test_while_selecting(bench: Bench, monkeypatch: pytest.MonkeyPatch, number: int, place: tuple[Any, str]) -> None:
    code, state, _ = SIGNALS[signal.Signals(number)]
    select = (*RUN, "--select", "lr", "--lr", "1e-3,1e-2", "--widen", "0")
    chosen: list[str] = []
    choose = selection.choose

    def choose_then_stop(run: Any, *rest: Any) -> Any:
        if not run.spec.holdout and not chosen:
            chosen.append(run.run_id)
            send(number)()
        return choose(run, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(*place, choose_then_stop if place[1] == "choose" else send(number))
        outcome = bench(*select)
    trials, _ = record.load_all(outcome.folder / record.TRIALS)
    runs, _ = record.load_all(outcome.folder)
    assert outcome.code == code
    states = sorted(made.state for made in trials), [made.state for made in runs]
    assert states == ((["done", "done"], [state]) if chosen else ([state], []))
    again = bench(*select)
    assert (again.code, [made.state for made in again.records]) == (0, ["done"])


def test_nohup_is_respected() -> None:
    """A process that is to outlive its terminal ignores its end; no other signal has such a meaning."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with preemptible() as check:
            os.kill(os.getpid(), signal.SIGHUP)
            check()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_does_not_disturb_what_the_first_began() -> None:
    """Slurm sends USR2, then TERM; srun passes on what the processes get too."""
    written: list[str] = []
    with pytest.raises(Preempted), preemptible() as check:
        try:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(10)
        except Preempted:
            for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
            written.append("the record")
            check()
    assert written == ["the record"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_stops_the_run_at_its_next_step(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a handler raises while an object is finalised goes nowhere; of SIGTERM alone Lightning takes note too."""
    steps: list[int] = []

    class Object:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(0.01)

    def step(self: Progress, step: int, loss: float) -> None:
        steps.append(step)
        Object() if step == 2 else None

    monkeypatch.setattr(Progress, "step", step)
    outcome = bench(*RUN, budget=("--max-steps", "6"))
    assert (outcome.code, outcome.only().state, steps) == (75, "preempted", [1, 2])
