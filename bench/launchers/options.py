"""The options of launchers, `--set slurm.…`: where a plan's workers run, so no part of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.config.options import Config, option
from bench.config.overrides import build_bare
from bench.core.errors import UsageError

SLURM = "slurm"


@dataclass(frozen=True, kw_only=True)
class SlurmConfig(Config):
    """What the array of `--launcher slurm` asks for; what is not given is the site's default."""

    namespace: ClassVar[str] = SLURM

    workers: int = option(
        8, "Tasks of the array, each a worker that makes run after run; never more than runs, or than MaxArraySize.",
        at_least=1,
    )  # fmt: skip
    array_parallelism: int | None = option(None, "Workers that run at the same time.", at_least=1)
    partition: str | None = option(None, "Partition, or several with commas.")
    time: str | None = option(
        None, "Time limit of a worker, such as 4:00:00. A worker that reaches it is queued again."
    )
    gres: str | None = option(None, "Devices of a worker: gpu:1.")
    constraint: str | None = option(None, "Features that a node must have: a100|h100.")
    cpus_per_task: int | None = option(None, "Cores of a worker.", at_least=1)
    mem: str | None = option(None, "Memory of a worker: 32G.")
    account: str | None = option(None, "Account that pays.")
    qos: str | None = option(None, "Quality of service.")
    setup: str | None = option(None, "Shell commands before each worker: module load cuda.")
    signal_s: int = option(90, "Seconds before the time limit at which a worker is told to stop.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, value in self.to_json().items():
            if isinstance(value, str) and not value.isprintable():
                known = "it becomes a line of the job's script"
                raise UsageError(f"--set slurm.{key} has a line end or a control character", known, "Leave it out.")


def take(settings: Sequence[str]) -> tuple[SlurmConfig, list[str]]:
    """Read the options of Slurm among those of `--set`, and return the others as they are.

    Raises:
        UsageError: a key is unknown or given twice, or a value is wrong.
    """
    prefix = f"{SLURM}."
    own = [setting.strip().removeprefix(prefix) for setting in settings if setting.strip().startswith(prefix)]
    values: dict[str, Any] = build_bare(own, SlurmConfig, SLURM)
    return SlurmConfig(**values), [setting for setting in settings if not setting.strip().startswith(prefix)]
