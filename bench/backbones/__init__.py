"""Networks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.api.backbone import Backbone, Opener
from bench.core import registry
from bench.core.errors import UsageError, did_you_mean


def open_backbone(name: str, config: Any = None, *, runs: Path = Path("runs")) -> Backbone:
    """A registered name, `prefix:…`, a local directory, or a hub id.

    Args:
        name: as typed.
        config: its options, of the Config that its opener declares; None: the defaults.
        runs: folder in which `runs:RUN` looks.

    Raises:
        UsageError: a bare word that is nearly a registered name.
        EnvironmentProblem: not there.
    """
    known, registered = registry.entries("backbones"), registry.opener(name)
    if registered == "hf" and "/" not in name and not Path(name).exists() and (hint := did_you_mean(name, known)):
        raise UsageError(f"unknown backbone '{name}'", f"known backbones: {', '.join(sorted(known))}", hint)
    kind: type[Any] = registry.load("backbones", registered)
    opener: Opener = kind(runs) if registered == "runs:" else kind()
    return opener.open(name, kind.Config() if config is None else config)
