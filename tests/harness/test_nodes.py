"""Several nodes: which one this is, and what the first tells the others; small programs take the place of training."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.core.errors import BenchError, EnvironmentProblem
from bench.harness import nodes, worker
from bench.harness.nodes import Place

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "GROUP_RANK": "1",
    "GROUP_WORLD_SIZE": "2",
    "RANK": "5",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "ann",
    "MASTER_PORT": "29400",
}
SRUN = {
    "SLURM_JOB_ID": "41",
    "SLURM_STEP_ID": "3",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "ann[3-4]",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
}
HAND = {"NODE_RANK": "0", "MASTER_ADDR": "ann", "MASTER_PORT": "29400"}


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        (TORCHRUN, Place(node=1, local=1, address="ann", port=29400, hosted=True)),
        (SRUN, Place(node=1, local=0, address="ann3", port=15000 + 41 * 7 + 3)),
        (SRUN | HAND, Place(node=1, local=0, address="ann", port=29400)),
        (HAND, Place(node=0, local=0, address="ann", port=29400)),
    ],
    ids=["torchrun", "srun", "srun, with an address", "by hand"],
)
def test_where_this_process_is(variables: dict[str, str], place: Place) -> None:
    assert nodes.find_place(2, variables) == place


@pytest.mark.parametrize(
    ("variables", "count", "what", "known"),
    [
        ({}, 2, "--nodes 2: nothing says which", "NODE_RANK"),
        ({"SLURM_JOB_ID": "41", "SLURM_NODEID": "0"}, 2, "nothing says which", "NODE_RANK"),  # a job without srun
        ({**HAND, "MASTER_PORT": "x"}, 2, "nothing says which", "'x'"),
        (SRUN, 3, "--nodes 3, but the command was started on 2", "node 1 of 2"),
        ({**HAND, "NODE_RANK": "2"}, 2, "--nodes 2", "node 2 of 2"),
    ],
)
def test_a_place_that_is_unknown_or_wrong(variables: dict[str, str], count: int, what: str, known: str) -> None:
    with pytest.raises(EnvironmentProblem) as error:
        nodes.find_place(count, variables)
    assert what in error.value.what and known in error.value.known


BEGIN = """\
import json, os, pathlib, sys, time
folder, node = pathlib.Path(sys.argv[1]).parent, os.environ["NODE_RANK"]
"""


# two nodes in this process, whose workers are small programs


@pytest.fixture
def place() -> Callable[[int], Place]:
    """The places of two nodes that meet at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return lambda node: Place(node=node, local=0, address="127.0.0.1", port=port)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """`program(source)` is what a node starts; it has `folder`, `node` and the time."""

    def use(source: str) -> None:
        script = tmp_path / "program.py"
        script.write_text(BEGIN + textwrap.dedent(source))
        monkeypatch.setattr(worker, "command", lambda path: [sys.executable, str(script), str(path)])

    return use


def job() -> worker.Job:
    return worker.Job(
        spec={"method": "lora"},
        task="glue/cola",
        options={},
        data_hash="d",
        data="auto",
        dirs=((None, "data"),),
        parent=None,
        on_bad="error",
        backbone={},
    )


class Second(threading.Thread):
    """The second node."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self.place, self.ended = place, []
        self.start()

    def run(self) -> None:
        try:
            self.ended.append(nodes.follow(self.place))
        except BenchError as error:
            self.ended.append(error)


def train(others: nodes.Nodes, folder: Path, steps: list[tuple[int, float]] | None = None) -> Any:
    folder.mkdir()
    return worker.run(
        job(), folder, lambda *step: steps.append(step) if steps is not None else None, lambda line: None, others
    )


def test_every_node_trains_its_part_of_every_run(
    place: Callable[[int], Place], program: Callable[[str], None], tmp_path: Path
) -> None:
    program("""
        names = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
        told = {"job": json.loads(pathlib.Path(sys.argv[1]).read_text()), **{name: os.environ[name] for name in names}}
        (folder / f"node{node}").write_text(json.dumps(told))
        while not ((folder / "node0").exists() and (folder / "node1").exists()):
            time.sleep(0.01)
        print(f"step 1 {node}.5")
        time.sleep(600 if node == "1" else 0)  # the first node has ended: nothing more to do
    """)
    second = Second(place(1))
    steps: list[tuple[int, float]] = []
    with nodes.lead(place(0), 2) as others:
        for name in ("first", "next"):
            with pytest.raises(BenchError, match="without a result"):
                train(others, tmp_path / name, steps)
    second.join(20)
    assert second.ended == [0]
    assert steps == [(1, 0.5)] * 2, "only the first node speaks"
    for name in ("first", "next"):
        told = [worker.json.loads((tmp_path / name / f"node{node}").read_text()) for node in (0, 1)]
        assert [one["NODE_RANK"] for one in told] == ["0", "1"]
        assert told[0]["job"] == told[1]["job"] and told[0]["job"]["dirs"] == [[None, "data"]]
        assert told[0]["MASTER_PORT"] == told[1]["MASTER_PORT"] != str(place(0).port)
        assert {file.name for file in (tmp_path / name).iterdir()} == {"node0", "node1", "worker.log", "worker-1.log"}


def test_a_node_that_fails_ends_the_run_and_not_the_next_one(
    place: Callable[[int], Place], program: Callable[[str], None], tmp_path: Path
) -> None:
    """Without that the first node would wait for ever."""
    program("""
        if node == "1":
            (folder / "failure.json").write_text('["oom", {"what": "no memory", "known": "on node 1", "todo": "x"}]')
            sys.exit(1)
        print("step 1 0.5", flush=True)
        time.sleep(600)
    """)
    second = Second(place(1))
    with nodes.lead(place(0), 2) as others:
        for name in ("first", "next"):
            with pytest.raises(worker.failures.Reported) as reported:
                train(others, tmp_path / name)
            assert reported.value.error.known == "on node 1"
    second.join(20)
    assert second.ended == [0]


def test_the_command_of_the_first_node_is_killed(
    place: Callable[[int], Place], program: Callable[[str], None], tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    source = f"""
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from bench.harness import nodes, worker
        from test_nodes import job
        from bench.harness.nodes import Place
        with nodes.lead({place(0)!r}, 2) as others:
            worker.command = lambda path: [sys.executable, "-c", "import time; time.sleep(600)"]
            with others.training(job(), Path({str(tmp_path / "run")!r}), lambda: True):
                while not Path({str(tmp_path / "run" / "pid")!r}).exists():
                    pass
                os.kill(os.getpid(), signal.SIGKILL)
    """
    program("(folder / 'new').write_text(str(os.getpid())); (folder / 'new').rename(folder / 'pid'); time.sleep(600)")
    first = subprocess.Popen([sys.executable, "-c", textwrap.dedent(source)])
    second = Second(place(1))
    second.join(60)
    assert first.wait(20) == -signal.SIGKILL
    [error] = second.ended
    assert isinstance(error, EnvironmentProblem) and "first node is gone" in error.what
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "run" / "pid").read_text()), 0)


def test_nodes_that_do_not_come(place: Callable[[int], Place], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "JOIN_S", 1.0)
    with pytest.raises(EnvironmentProblem, match="1 of them did not come"), nodes.lead(place(0), 2):
        pass
    with pytest.raises(EnvironmentProblem, match="the first node does not answer"):
        nodes.follow(place(1))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(EnvironmentProblem, match="cannot meet"),
            nodes.lead(Place(node=0, local=0, address="127.0.0.1", port=port), 2),
        ):
            pass


def test_several_processes_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of them starts those of all devices; the others have nothing to do."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with nodes.others(2) as found:
        assert found == 0
    with nodes.others(1) as found:
        assert found is None
