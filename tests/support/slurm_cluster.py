"""A real Slurm of two nodes with two false GPUs each, all on this host, in a temporary folder."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
KillWait=20
MaxArraySize={most_tasks}
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs={cores} Gres=gpu:2
PartitionName=debug Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""
GRES = "NodeName=n[1-2] Name=gpu File=/dev/null\nNodeName=n[1-2] Name=gpu File=/dev/zero\n"


def missing() -> str:
    """Why there can be no Slurm here; empty if there can."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@contextmanager
def cluster(folder: Path, *, most_tasks: int) -> Generator[None]:
    """Run a Slurm whose clients find it by `SLURM_CONF`, and end all of it: jobs first, then its daemons."""
    host, ports = platform.node().split(".")[0], free_ports()
    for name in ("munge", "state", "spool-n1", "spool-n2"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    settings = {"folder": folder, "host": host, "ports": ports, "most_tasks": most_tasks, "cores": os.cpu_count()}
    (folder / "slurm.conf").write_text(CONFIGURATION.format(**settings))
    (folder / "gres.conf").write_text(GRES)
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    munge = [f"--{name}={folder}/munge/{name.split('-')[0]}" for name in ("key-file", "socket", "log-file", "pid-file")]
    munge = ["munged", "--foreground", "--force", "--num-threads=2", f"--seed-file={folder}/munge/seed", *munge]
    with ExitStack() as running:
        running.callback(os.environ.pop, "SLURM_CONF")
        running.enter_context(_daemon(munge, folder))
        wait_for(lambda: (folder / "munge" / "socket").exists(), "munged")
        running.enter_context(_daemon(["slurmctld", "-D"], folder))
        for node in ("n1", "n2"):
            running.enter_context(_daemon(["slurmd", "-D", "-N", node], folder))
        running.callback(_end_jobs)
        wait_for(lambda: client("sinfo", "-h", "-o", "%t %D") == "idle 2", "nodes that are idle")
        yield


def client(*argv: str) -> str:
    """Output of a command of Slurm; of one that fails, what it says."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


def wait_for(ready: object, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"no {what} after {seconds:g} s"
        time.sleep(0.1)


def free_ports() -> tuple[int, int, int]:
    """A free port, and two free ones that follow each other."""
    while True:
        with ExitStack() as taken:
            try:
                first = taken.enter_context(_bound(0)).getsockname()[1]
                second = taken.enter_context(_bound(0)).getsockname()[1]
                taken.enter_context(_bound(second + 1))
            except OSError:
                continue
            return first, second, second + 1


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", port))
    return made


@contextmanager
def _daemon(argv: list[str], folder: Path) -> Generator[None]:
    with (folder / "output.log").open("ab") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs() -> None:
    client("scancel", "--user=root")
    wait_for(lambda: not client("squeue", "-h"), "end of the jobs")
