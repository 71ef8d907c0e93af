"""Runs over several nodes. The same command starts on each: the first plans, claims and records, the others train.

The first node tells the others what to train through a `torch.distributed` store, as a launcher's processes do to find
each other. So only one process decides, and the others need no plan.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from bench.core.errors import INTERRUPTED, OK, PREEMPTED, EnvironmentProblem
from bench.harness import worker
from bench.harness.signals import SIGNALS

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

JOIN_S = 300.0
"""How long the nodes wait for each other at the start."""
POLL_S = 0.2
LEAVE_S = 15.0
"""How long the first node waits at the end, until the others have noticed that."""
GRACE_S = 60.0
"""Time that the first node has to record a run, after another node was told to stop."""
END, STOP, JOINED, LEFT = "end", "stop", "joined", "left"
"""Keys of the store: no run will follow; a node was told to stop; how many nodes have come and gone."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """This process among those that a launcher has started.

    Attributes:
        node: number of its node.
        local: its number among the processes of its node.
        address, port: of the first node, where the store is.
        hosted: whether the launcher keeps the store, as torchrun does.
    """

    node: int
    local: int
    address: str
    port: int
    hosted: bool = False


class _Run(msgspec.Struct):
    """What a node must know to train its part of a run."""

    job: worker.Job
    folder: str
    variables: dict[str, str]


class Nodes:
    """The other nodes, as the first one sees them."""

    def __init__(self, store: Store, place: Place) -> None:
        self._store, self._place, self._number = store, place, 0

    @contextmanager
    def training(self, job: worker.Job, folder: Path, stop: Callable[[], bool]) -> Generator[dict[str, str]]:
        """Let every node train its part of a job inside the context; yield the variables of this node's process.

        Args:
            job: the same for all.
            folder: of the run, which all nodes see.
            stop: ends the process of this node when that of another has failed, and returns whether there was one.
        """
        from lightning.fabric.plugins.environments.lightning import find_free_network_port

        number, self._number = self._number, self._number + 1
        variables = {"MASTER_ADDR": self._place.address, "MASTER_PORT": str(find_free_network_port())}
        told = _Run(job=job, folder=str(folder.absolute()), variables=variables)
        over = threading.Event()

        def watch() -> None:
            with suppress(RuntimeError):  # the store is gone: then the process of this node fails too
                while not over.wait(POLL_S):
                    if self._store.check([_failed(number)]) and stop():
                        return
                    if self._store.check([STOP]):
                        os.kill(os.getpid(), int(self._store.get(STOP)))
                        return

        self._store.set(_run(number), msgspec.json.encode(told).decode())
        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield {**variables, "NODE_RANK": "0"}
        finally:
            over.set()
            watching.join()
            self._store.set(_ended(number), "")


@contextmanager
def lead(place: Place, count: int) -> Generator[Nodes]:
    """Wait for the other nodes, and let them go at the end.

    Raises:
        EnvironmentProblem: the store cannot be opened, or a node does not come.
    """
    store = _open(place)
    deadline = time.monotonic() + JOIN_S
    while (there := store.add(JOINED, 0)) < count - 1:
        if time.monotonic() > deadline:
            raise EnvironmentProblem(
                f"--nodes {count}: {count - 1 - there} of them did not come within {JOIN_S:g} s",
                f"this is the first one, {place.address} port {place.port}",
                "Start the same command on every node; docs/clusters.md shows how.",
            )
        time.sleep(POLL_S)
    try:
        yield Nodes(store, place)
    finally:
        with suppress(RuntimeError):
            store.set(END, "")
            deadline = time.monotonic() + LEAVE_S
            while not place.hosted and store.add(LEFT, 0) < count - 1 and time.monotonic() < deadline:
                time.sleep(POLL_S)  # the store ends with this process


def follow(place: Place) -> int:
    """Train this node's part of every run that the first node names, until it ends; return the exit code.

    A signal is passed on to the first node, which records how the run ends.

    Raises:
        EnvironmentProblem: the first node does not answer, or its command is gone.
    """
    store = _open(place)
    store.add(JOINED, 1)
    try:
        with _Signals() as signals:
            return _Follower(store, place.node, signals).work()
    except RuntimeError as error:
        raise EnvironmentProblem(
            "the command of the first node is gone",
            f"{place.address} port {place.port}: {str(error).splitlines()[0]}",
            "Run the same command again on every node; it goes on where it stopped.",
        ) from error


class _Signals:
    """Notes a signal instead of acting on it: the run of this node must go on until the first node has recorded it.

    Attributes:
        arrived: the first signal; None before that.
    """

    def __init__(self) -> None:
        self.arrived: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        heard = [n for n in (signal.SIGINT, *SIGNALS) if signal.getsignal(n) is not signal.SIG_IGN]  # as after nohup
        with suppress(ValueError):  # only the main thread may
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.arrived = self.arrived or number


class _Follower:
    def __init__(self, store: Store, node: int, signals: _Signals) -> None:
        self.store, self.node, self.signals, self.number = store, node, signals, 0
        self.code, self.deadline = OK, float("inf")

    def work(self) -> int:
        while not self.store.check([END]) and self._wait():
            if self.store.check([_run(self.number)]):
                self._train(msgspec.json.decode(self.store.get(_run(self.number)), type=_Run))
                self.number += 1
        self.store.add(LEFT, 1)
        return self.code

    def _train(self, told: _Run) -> None:
        """Train until this node's process ends, or the first node's has."""
        variables = {**told.variables, "NODE_RANK": str(self.node)}
        with worker.started(told.job, Path(told.folder), node=self.node, variables=variables) as process:
            while process.poll() is None and not self.store.check([_ended(self.number)]) and self._wait():
                pass
        if process.returncode and not self.store.check([_ended(self.number)]):
            self.store.set(_failed(self.number), "")

    def _wait(self) -> bool:
        """Wait a moment, and pass on a signal; return whether there is time left."""
        time.sleep(POLL_S)
        if (number := self.signals.arrived) and self.code == OK:
            self.code = INTERRUPTED if number == signal.SIGINT else PREEMPTED
            self.deadline = time.monotonic() + GRACE_S
            self.store.set(STOP, str(int(number)))
        return time.monotonic() < self.deadline


@contextmanager
def others(count: int) -> Generator[Nodes | int | None]:
    """Join the other nodes of this command, if it has several.

    Yields:
        On the first node the others; None where there is one node; anywhere else the exit code, after all that this
        process had to do.

    Raises:
        EnvironmentProblem: nothing says which node this is, or the nodes do not find each other.
    """
    place = find_place(count) if count > 1 else None
    if place is None:
        yield None
    elif place.local:  # the first process of a node starts those of its devices
        yield OK
    elif place.node:
        yield follow(place)
    else:
        with lead(place, count) as nodes:
            yield nodes


def find_place(count: int, variables: Mapping[str, str] = os.environ) -> Place:
    """Tell which of `count` nodes this process is on, as torchrun, srun or the user says.

    Raises:
        EnvironmentProblem: nothing says it, or there is another number of nodes.
    """
    get = variables.get
    try:
        if "TORCHELASTIC_RUN_ID" in variables:
            node, there, local = (int(variables[name]) for name in ("GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_RANK"))
            hosted = get("TORCHELASTIC_USE_AGENT_STORE") == "True"
            address, port = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
        elif "SLURM_STEP_NUM_NODES" in variables:
            names = ("SLURM_NODEID", "SLURM_STEP_NUM_NODES", "SLURM_LOCALID")
            node, there, local = (int(variables[name]) for name in names)
            hosted, address = False, get("MASTER_ADDR") or _first_host(variables["SLURM_STEP_NODELIST"])
            port = int(get("MASTER_PORT") or _slurm_port(variables))
        else:
            node, there, local, hosted = int(variables["NODE_RANK"]), count, int(get("LOCAL_RANK", "0")), False
            address, port = variables["MASTER_ADDR"], int(variables["MASTER_PORT"])
        place = Place(node=node, local=local, address=address, port=port, hosted=hosted)
    except (KeyError, ValueError) as error:
        problem = f"{error.args[0]} is not set" if isinstance(error, KeyError) else str(error)
        raise EnvironmentProblem(
            f"--nodes {count}: nothing says which of them this is",
            f"srun and torchrun say it, or the variables NODE_RANK, MASTER_ADDR and MASTER_PORT; {problem}",
            f"Start the same command on every node: srun --nodes {count} --ntasks-per-node 1 bench run …",
        ) from error
    if there != count or not 0 <= place.node < count:
        raise EnvironmentProblem(
            f"--nodes {count}, but the command was started on {there}",
            f"this is node {place.node} of {there}",
            "Give both the same number.",
        )
    return place


def _first_host(nodes: str) -> str:
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

    return SLURMEnvironment.resolve_root_node_address(nodes)


def _slurm_port(variables: Mapping[str, str]) -> int:
    """The same port on all nodes of a job step, and another for other steps."""
    return 15000 + (int(variables["SLURM_JOB_ID"]) * 7 + int(variables["SLURM_STEP_ID"])) % 15000


def _open(place: Place) -> Store:
    """Open the store: on the first node it is made, unless the launcher keeps it."""
    from datetime import timedelta

    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    tcp_store: Any = getattr(dist, "TCPStore")  # noqa: B009 - torch does not declare it
    host = place.node == 0 and not place.hosted
    try:
        store = tcp_store(
            place.address,
            place.port,
            is_master=host,
            timeout=timedelta(seconds=JOIN_S),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        where = f"{place.address} port {place.port}"
        raise EnvironmentProblem(
            f"the nodes cannot meet at {where}" if host else f"the first node does not answer at {where}",
            str(error).splitlines()[0],
            "Set MASTER_ADDR to a name of the first node that all know, and MASTER_PORT to a free port.",
        ) from error
    return PrefixStore("bench", store)


def _run(number: int) -> str:
    return f"run/{number}"


def _ended(number: int) -> str:
    return f"ended/{number}"


def _failed(number: int) -> str:
    return f"failed/{number}"
