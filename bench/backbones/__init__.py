"""Backbones: networks that are found or built by name."""

from __future__ import annotations

from pathlib import Path

from bench.api.backbone import Backbone, Opener
from bench.config.sections import BackboneConfig
from bench.core import hub, registry
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean


def open_backbone(name: str, config: BackboneConfig | None = None, *, runs: Path = Path("runs")) -> Backbone:
    """Open a backbone: a registered name, `prefix:…`, a local directory, or a hub id.

    `config` is of the class that its opener declares; `runs` is the folder of the runs that `runs:RUN` names.

    Raises:
        UsageError: it is nowhere, and resembles a registered name.
        EnvironmentProblem: there is no such backbone.
    """
    known, registered = registry.entries("backbones"), registry.opener(name)
    kind = registry.load("backbones", registered)
    opener: Opener = kind(runs) if registered == "runs:" else kind()
    try:
        return opener.open(name, opener.Config() if config is None else config)
    except EnvironmentProblem as error:
        absent = registered == "hf" and "/" not in name and isinstance(error.__cause__, hub.HubUnavailable)
        if not absent or not (hint := did_you_mean(name, known)):
            raise
        names = f"known backbones: {', '.join(sorted(known))}"
        raise UsageError(error.what, f"{names}; {error.known}", f"{hint} {error.todo}") from error
