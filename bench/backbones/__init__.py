"""Backbones: networks that are found or built by name."""

from __future__ import annotations

from pathlib import Path

from bench.api.backbone import Backbone, Opener
from bench.config.sections import BackboneConfig
from bench.core import registry
from bench.core.errors import UsageError, did_you_mean


def open_backbone(name: str, config: BackboneConfig | None = None, *, runs: Path = Path("runs")) -> Backbone:
    """Open a backbone: a registered name, `prefix:…`, a local directory, or a hub id.

    `config` is of the class that its opener declares; `runs` is the folder of the runs that `runs:RUN` names.

    Raises:
        UsageError: a name without a slash that resembles a registered one.
        EnvironmentProblem: there is no such backbone.
    """
    known, registered = registry.entries("backbones"), registry.opener(name)
    if registered == "hf" and "/" not in name and not Path(name).exists() and (hint := did_you_mean(name, known)):
        raise UsageError(f"unknown backbone '{name}'", f"known backbones: {', '.join(sorted(known))}", hint)
    kind = registry.load("backbones", registered)
    opener: Opener = kind(runs) if registered == "runs:" else kind()
    return opener.open(name, opener.Config() if config is None else config)
