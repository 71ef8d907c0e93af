"""The W&B account: whether there is a key and a server that answers, and that the key is told to nobody."""

from __future__ import annotations

import os
import sys

from bench.core.errors import EnvironmentProblem
from bench.core.hub import connection_error

PROJECT = "lowrank-bench"
SERVER = "https://api.wandb.ai"


def mode() -> str:
    """`WANDB_MODE` if it is set; else online with a key and a server that answers, offline without."""
    chosen = os.environ.get("WANDB_MODE")
    if chosen in ("online", "offline"):
        return chosen
    if not key():
        return "offline"
    # W&B itself would wait a minute and a half, for every run
    if reason := connection_error(server()):
        sys.stderr.write(f"warning: {reason}; the W&B run is offline, `bench wandb sync` sends it later\n")
        return "offline"
    return "online"


def need() -> None:
    """Make sure that something can be sent or fetched.

    Raises:
        EnvironmentProblem: there is no key, or the server does not answer.
    """
    if not key():
        raise EnvironmentProblem("no W&B key", f"server: {server()}", "`wandb login` stores one, or set WANDB_API_KEY.")
    if reason := connection_error(server()):
        raise EnvironmentProblem(
            "W&B's server does not answer", reason, "Try again with a network; WANDB_BASE_URL names another server."
        )


def key() -> bool:
    """Whether W&B knows a key."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True))
    try:
        found = wandb.login(prompt=False, verify=False)
    except TypeError:  # releases that know no `prompt`
        found = wandb.api.api_key
    return bool(found)


def server() -> str:
    """Address of W&B's server."""
    return os.environ.get("WANDB_BASE_URL") or SERVER


def project() -> str:
    """The project that runs go to."""
    return os.environ.get("WANDB_PROJECT", PROJECT)


def hidden(text: str) -> str:
    """`text` without the key, should it have come into it."""
    secret = os.environ.get("WANDB_API_KEY")
    return text.replace(secret, "***") if secret else text
