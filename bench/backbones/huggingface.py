"""Any Hugging Face text encoder: a local folder, or a hub id such as `google-bert/bert-base-cased`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from bench.api.backbone import Backbone
from bench.backbones.folder import TEXT_FILES, WEIGHT_FILES, from_folder
from bench.config.sections import BackboneConfig
from bench.core.errors import EnvironmentProblem
from bench.core.hub import unreachable


class HuggingFace:
    """An encoder in the layout of `save_pretrained`, with safetensors weights; nothing is unpickled.

    Pooled by its pooler where the weights hold one (BERT, RoBERTa), as sentence-transformers say where they do, else
    by the mean. `--set backbone.revision=COMMIT` pins a hub id.
    """

    Config: ClassVar[type] = BackboneConfig

    def open(self, name: str, config: BackboneConfig) -> Backbone:
        """Find it on disk, in the hub's cache, or on the hub.

        Raises:
            EnvironmentProblem: none of these has it.
        """
        folder = Path(name).expanduser()
        if folder.is_dir():
            return from_folder(folder.resolve().name, folder, config)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise EnvironmentProblem(
                f"there is no backbone directory '{name}'", f"looked from {Path.cwd()}", "Give a folder or a hub id."
            )
        return from_folder(name, self._snapshot(name, config.revision), config)

    def _snapshot(self, name: str, revision: str) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        patterns = [*WEIGHT_FILES, *TEXT_FILES, "special_tokens_map.json", "1_Pooling/config.json"]
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
        except HFValidationError as error:
            raise _not_there(name, str(error)) from error
        except LocalEntryNotFoundError as error:
            if reason := unreachable():
                known = f"it is no local folder and not in the hub's cache; {reason}"
                raise _not_there(name, known) from error
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
        except (HfHubHTTPError, OSError) as error:
            raise _not_there(name, str(error).splitlines()[0]) from error


def _not_there(name: str, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"backbone '{name}' is not there",
        known,
        "Give a local folder, a hub id, or the embedded one: --backbone minilm.",
    )
