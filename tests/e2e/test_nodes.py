"""`--nodes 2`: two commands, as on two machines, make one run, and it is the run that one process makes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killed import PROGRAM

from bench.records import record

Bench = Callable[..., Any]
RUN = ("run", "--method", "lora,linear", "--task", "digits", "--backbone", "vit", "--set", "backbone.width=16")
RUN += ("--set", "backbone.heads=2", "--set", "backbone.depth=2", "--train-samples", "41", "--batch-size", "8")
RUN += ("--epochs", "1", "--precision", "64-true", "--accelerator", "cpu", "--data", "embedded")
NOTHING = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(*argv: str, node: int, port: int, program: str = NOTHING) -> subprocess.Popen[str]:
    """Start the command as on one of the nodes."""
    own = {"NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-P", "-c", program, *argv]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env={**os.environ, **own}, **pipes)


def losses(folder: Path) -> dict[str, list[float]]:
    found, problems = record.load_all(folder)
    assert not problems and {made.state for made in found} == {"done"}
    return {made.run_id: [point.loss for point in made.curve] for made in found}


def test_two_nodes_equal_one_process(command: Bench, tmp_path: Path) -> None:
    assert command(*RUN, "--out", "one", folder=tmp_path / "one").code == 0
    port = free_port()
    first, second = (start(*RUN, "--nodes", "2", "--out", "two", node=node, port=port) for node in (0, 1))
    out, err = first.communicate(timeout=300)
    assert first.returncode == 0, err
    assert second.communicate(timeout=60) == ("", "") and second.returncode == 0
    assert "| lora" in out and "2 done" in err
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 2 and {len({*curve}) for curve in one.values()} == {6}
    assert two == {run_id: pytest.approx(curve, rel=1e-9) for run_id, curve in one.items()}
    assert {made.cost.devices for made in record.load_all(tmp_path / "two")[0] if made.cost} == {2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("node", "number", "code"), [(0, signal.SIGTERM, 75), (1, signal.SIGTERM, 75), (1, signal.SIGINT, 130)]
)
def test_a_signal_to_any_node_stops_all_and_the_same_commands_go_on(
    node: int, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    argv = (*RUN, "--method", "full", "--nodes", "2", "--out", "runs", "--set", "runtime.checkpoint_s=0")
    port = free_port()
    stops = PROGRAM.format(at=3, number=int(signal.SIGSTOP), first="")
    first, second = (start(*argv, node=n, port=port, program=stops if n == 0 else NOTHING) for n in (0, 1))
    _, status = os.waitpid(first.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    (first, second)[node].send_signal(number)
    first.send_signal(signal.SIGCONT)
    codes = [process.wait(90) for process in (first, second)]
    assert codes[node] == code and codes[0] == code, first.communicate()[1]
    states = [made.state for made in record.load_all(tmp_path / "runs")[0]]
    assert states == ["preempted" if code == 75 else "cancelled"]
    port = free_port()
    again = [start(*argv, node=n, port=port) for n in (0, 1)]
    assert [process.wait(200) for process in again] == [0, 0], again[0].communicate()[1]
    made, _ = record.load_all(tmp_path / "runs")
    assert len(made) == 3 and all(one.state == "done" for one in made)
    assert [one.cost.resumed_at for one in made if one.cost and one.cost.resumed_at]


@pytest.mark.slow
def test_torchrun_starts_it_on_two_nodes(command: Bench, tmp_path: Path) -> None:
    assert command(*RUN, "--out", "one", folder=tmp_path / "one").code == 0
    port = str(free_port())
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
    launch += ["--master-addr", "127.0.0.1", "--master-port", port]
    argv = ["-m", "bench", *RUN, "--nodes", "2", "--devices", "2", "--out", "two"]
    processes = [subprocess.Popen([*launch, "--node-rank", str(node), *argv]) for node in (0, 1)]
    assert [process.wait(400) for process in processes] == [0, 0]
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two == {run_id: pytest.approx(curve, rel=1e-9) for run_id, curve in one.items()}
    assert {made.cost.devices for made in record.load_all(tmp_path / "two")[0] if made.cost} == {4}


def test_what_does_not_go_with_several_nodes(command: Bench, tmp_path: Path) -> None:
    def said(*more: str) -> tuple[int, str]:
        outcome = command(*RUN, *more, folder=tmp_path / "none")
        return outcome.code, outcome.err

    code, err = said("--nodes", "2")
    assert code == 3 and "nothing says which" in err and "srun --nodes 2 --ntasks-per-node 1" in err
    code, err = said("--nodes", "2", "--jobs", "2")
    assert code == 2 and "--nodes 2 with --jobs" in err
    code, err = said("--nodes", "3", "--dry-run")
    assert code == 2 and "3 devices do not divide it" in err
    assert said("--nodes", "2", "--dry-run")[0] == 0
    code, err = said("--strategy", "fsdp")
    assert code == 2 and "--strategy fsdp with one device" in err
    for option in ("penalty.of=weight", "spectra.of=updates,weights"):
        code, err = said("--strategy", "fsdp", "--devices", "2", "--set", "penalty.nuclear=1", "--set", option)
        assert code == 2 and f"{option} with --strategy fsdp" in err
