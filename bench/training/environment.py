"""The process environment of a run: bench starts every process itself, whatever launched the command."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

PREFIXES = ("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI_", "PMIX_", "JSM_", "LSB_", "XRT_", "TPU_", "PL_TRAINER_")
"""Variables of Slurm, torchrun, MPI, LSF and TPUs, and those that change Lightning's defaults."""
NAMES = frozenset(
    f"{prefix}{name}" for prefix in ("", "LOCAL_", "NODE_", "GROUP_", "ROLE_") for name in ("RANK", "WORLD_SIZE")
) | {"MASTER_ADDR", "MASTER_PORT"}
"""Variables of torch.distributed."""


def own_environment() -> dict[str, str]:
    """Return the variables of this process without those by which a launcher divides work between processes.

    Lightning would obey them: under Slurm it takes the number of processes from them, handles signals, and loads
    `hpc_ckpt_*.ckpt` from the working directory instead of starting anew.
    """
    return {name: value for name, value in os.environ.items() if name not in NAMES and not name.startswith(PREFIXES)}


@contextmanager
def without_launcher() -> Generator[None]:
    """Remove a launcher's variables from this process meanwhile."""
    before = dict(os.environ)
    for name in before.keys() - own_environment().keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in before.items() if name not in os.environ})
