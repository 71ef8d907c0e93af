"""The W&B account: whether there is a key and a server that answers."""

from __future__ import annotations

import os
import sys
from typing import Literal

from bench.core.errors import EnvironmentProblem
from bench.core.hub import connection_error
from bench.core.text import printable, without_secrets

PROJECT = "lowrank-bench"
SERVER = "https://api.wandb.ai"


def mode() -> Literal["online", "offline"]:
    """Return `WANDB_MODE` if it is set; else online with a key and a server that answers, offline without."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen in ("online", "offline"):
        return chosen
    if not key():
        return "offline"
    # W&B itself would wait for a minute and a half in every run
    if reason := connection_error(server()):
        sys.stderr.write(f"warning: {reason}; the W&B run is offline; `bench wandb sync` sends it later\n")
        return "offline"
    return "online"


def require() -> None:
    """Raise EnvironmentProblem if there is no key, or the server does not answer."""
    if not key():
        raise EnvironmentProblem("no W&B key", f"server: {server()}", "Run `wandb login`, or set WANDB_API_KEY.")
    if reason := connection_error(server()):
        todo = "Connect to a network, or set WANDB_BASE_URL to another server."
        raise EnvironmentProblem("W&B's server does not answer", reason, todo)


def key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # releases without `prompt`
        return bool(wandb.api.api_key)


def server() -> str:
    return os.environ.get("WANDB_BASE_URL") or SERVER


def project() -> str:
    return os.environ.get("WANDB_PROJECT", PROJECT)


def first_line(error: Exception) -> str:
    """Return an error of W&B's packages in one line, without secrets and control characters."""
    return printable(without_secrets(f"{type(error).__name__}: {error}").splitlines()[0])
