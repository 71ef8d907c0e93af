"""Any image network of timm by its name there, `timm:vit_tiny_patch16_224`; random, or with pretrained weights."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api.backbone import Backbone, built
from bench.backbones.folder import content_hash
from bench.config.options import option
from bench.config.sections import BackboneConfig
from bench.core.errors import EnvironmentProblem, UsageError, did_you_mean
from bench.core.files import sha256, tensor_shapes
from bench.core.hub import unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class TimmConfig(BackboneConfig):
    """Where weights come from."""

    pretrained: bool = option(
        False,
        "Start from timm's published weights; a tag behind the name chooses among several (`resnet18.a1_in1k`).",
    )
    weights: str = option(
        "",
        "Start from these: a folder in the layout of timm's hub repositories, or a .safetensors file.",
    )


class Timm:
    """timm.create_model(NAME) without its classifier, pooled as timm pools it; its stem is the published one.

    The weights come from timm's repository on the Hugging Face hub (`pretrained`), from a folder in that layout
    (config.json and model.safetensors) or from a safetensors file (`weights`); nothing is unpickled. For images of
    another size than that of the weights timm resamples the position embedding, for other channels it sums or
    repeats the first convolution's.
    """

    Config = TimmConfig

    def open(self, name: str, config: TimmConfig) -> Backbone:
        """Look the name up in timm, find and hash the weights. The bytes decide the identity, and not where they lie.

        Raises:
            UsageError: timm has no such network.
            EnvironmentProblem: the weights are not there, or are another network's.
        """
        architecture = name.removeprefix("timm:")
        published = _published(architecture)
        if config.weights:
            path = _local(architecture, Path(config.weights).expanduser())
        elif config.pretrained:
            path = _fetched(architecture, published, config.revision)
        else:
            return built(name, config, "bench.backbones.timm_net:load_timm", "image")
        known = replace(config, pretrained=True, weights="")
        file = path / WEIGHTS if path.is_dir() else path
        return replace(
            built(name, known, "bench.backbones.timm_net:load_timm", "image"),
            pretrained=True,
            config=known,
            path=path,
            weights_hash=content_hash(path) if path.is_dir() else sha256(file),
            parameters=sum(math.prod(shape) for shape in tensor_shapes(file).values()),
        )


def _published(architecture: str) -> Any:
    """timm's entry for the weights of a name; None where it has none."""
    import timm

    if not timm.is_model(architecture) or ":" in architecture or "/" in architecture:
        hint = did_you_mean(architecture.partition(".")[0], timm.list_models())
        known = (
            f"timm {timm.__version__} has {len(timm.list_models())} networks, such as resnet18 and vit_tiny_patch16_224"
        )
        raise UsageError(f"unknown backbone 'timm:{architecture}'", known, hint)
    base, _, tag = architecture.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        known = f"timm has weights of {base} with the tags {', '.join(tags) or '(none)'}"
        raise UsageError(f"unknown weights 'timm:{architecture}'", known, did_you_mean(tag, tags))
    return timm.get_pretrained_cfg(architecture)


def _local(architecture: str, path: Path) -> Path:
    if path.is_file() and path.suffix == ".safetensors":
        return path.resolve()
    missing = [name for name in ("config.json", WEIGHTS) if not (path / name).is_file()]
    if missing:
        raise EnvironmentProblem(
            f"there are no weights of timm's {architecture} in '{path}'",
            f"no {' and no '.join(missing)} in {path.resolve()}"
            if path.is_dir()
            else "it is no folder and no .safetensors",
            "Give a folder with config.json and model.safetensors, as on timm's hub, or a .safetensors file.",
        )
    said = _config(path / "config.json").get("architecture")
    if said != architecture.partition(".")[0]:
        raise EnvironmentProblem(
            f"the weights are not those of timm's {architecture}",
            f"{path / 'config.json'}: architecture {said!r}",
            f"Say --backbone timm:{said}, or give other weights.",
        )
    return path.resolve()


def _config(file: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise EnvironmentProblem("config.json is no JSON", f"{file}: {error}", "Fetch it again.") from error
    return found if isinstance(found, dict) else {}


def _fetched(architecture: str, published: Any, revision: str) -> Path:
    """The weight file in the hub's cache, put there if need be."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    repository, _, pinned = str(getattr(published, "hf_hub_id", None) or "").partition("@")
    if not repository:
        raise _not_there(architecture, "timm names no repository on the hub for it")
    open_clip = str(getattr(published, "hf_hub_filename", None) or "").startswith("open_clip")
    file = f"open_clip_{WEIGHTS}" if open_clip else WEIGHTS
    fetch = partial(hf_hub_download, repository, file, revision=pinned or revision)
    try:
        return Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError as error:
        if reason := unreachable():
            raise _not_there(architecture, f"{repository} is not in the hub's cache; {reason}") from error
    try:
        return Path(fetch())
    except (HfHubHTTPError, OSError) as error:
        raise _not_there(architecture, f"{repository}: {str(error).splitlines()[0]}") from error


def _not_there(architecture: str, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"timm's weights of {architecture} are not there",
        known,
        "Give them: --set backbone.weights=DIR|FILE.safetensors. Or start at random, without backbone.pretrained.",
    )
