"""Adapters in the layout of `peft`: folders are opened and hashed at plan time, and written by `bench export`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.core.errors import EnvironmentProblem
from bench.core.files import new_folder, read_object, sha256, tensor_shapes

if TYPE_CHECKING:
    from torch import Tensor

# peft's two files, and two of ours: the head's `weight` (outputs, D) and `bias` (outputs,), and the run that wrote them
CONFIG, TENSORS, HEAD, NOTE = "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "bench.json"
PeftConfig = dict[str, Any]


class PeftAdapter(NamedTuple):
    """What adapter_config.json and adapter_model.safetensors hold."""

    config: PeftConfig
    tensors: dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftFolder:
    """An adapter folder: its configuration, and names and shapes of its tensors, which are not loaded."""

    path: Path
    config: PeftConfig
    shapes: Mapping[str, list[int]]

    @property
    def hash(self) -> str:
        """sha256 over the content of the two files, wherever they are."""
        digests = [sha256(self.path / name) for name in (CONFIG, TENSORS)]
        return hashlib.sha256("\x00".join(digests).encode()).hexdigest()


def open_folder(path: Path) -> PeftFolder:
    """Read the configuration of an adapter folder, and the shapes of its tensors.

    Raises:
        EnvironmentProblem: the folder or one of its two files is missing or malformed.
    """
    todo = "Give a folder that peft's save_pretrained, or `bench export RUN --peft DIR`, wrote."
    missing = [name for name in (CONFIG, TENSORS) if not (path / name).is_file()]
    if missing:
        known = f"it has no {' and no '.join(missing)}" if path.is_dir() else f"searched from {Path.cwd()}"
        raise EnvironmentProblem(f"'{path}' is not a folder of a peft adapter", known, todo)
    config = read_object(path / CONFIG, todo)
    if "peft_type" not in config:
        raise EnvironmentProblem(f"{path / CONFIG} is not a configuration of peft", "it names no peft_type", todo)
    return PeftFolder(path=path.resolve(), config=config, shapes=tensor_shapes(path / TENSORS))


def write_folder(
    path: Path, config: PeftConfig, tensors: dict[str, Tensor], head: dict[str, Tensor], note: Mapping[str, object]
) -> None:
    """Write an adapter folder completely, or not at all; without `head` or `note`, their files are left out.

    Raises:
        UsageError: the folder exists and is not empty.
        EnvironmentProblem: it cannot be written.
    """
    with new_folder(path, "--peft") as folder:
        fill_folder(folder, config, tensors, head, note)


def fill_folder(
    folder: Path, config: PeftConfig, tensors: dict[str, Tensor], head: dict[str, Tensor], note: Mapping[str, object]
) -> None:
    """Write the files of `write_folder` into a folder that is there."""
    from safetensors.torch import save_file

    for name, value in ((CONFIG, config), (NOTE, note)):
        if value:
            write_json(folder / name, value)
    for name, group in ((TENSORS, tensors), (HEAD, head)):
        if group:
            save_file({key: t.contiguous() for key, t in group.items()}, folder / name, metadata={"format": "pt"})


def write_json(file: Path, value: Mapping[str, object]) -> None:
    """Write JSON for people."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
