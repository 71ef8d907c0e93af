"""Adapter directories in the layout of `peft`: opened and hashed at plan time, written by `bench export`."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.core.errors import EnvironmentProblem, UsageError
from bench.core.files import sha256, tensor_shapes

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, TENSORS, HEAD, NOTE = "adapter_config.json", "adapter_model.safetensors", "head.safetensors", "bench.json"
"""peft's two files, and ours beside them: the head's `weight` (outputs, D) and `bias` (outputs,); their origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeftFolder:
    """An adapter directory: its configuration, and names and shapes of its tensors; nothing is loaded."""

    path: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, list[int]]

    @property
    def hash(self) -> str:
        """sha256 of the two files' content, wherever they lie."""
        digests = [sha256(self.path / name) for name in (CONFIG, TENSORS)]
        return hashlib.sha256("\x00".join(digests).encode()).hexdigest()


def open_folder(path: Path) -> PeftFolder:
    """Read what an adapter directory says of itself.

    Raises:
        EnvironmentProblem: it is not there, or one of its two files is missing or malformed.
    """
    todo = "Give a folder that peft's save_pretrained, or `bench export RUN --peft DIR`, wrote."
    missing = [name for name in (CONFIG, TENSORS) if not (path / name).is_file()]
    if missing:
        known = f"it has no {' and no '.join(missing)}" if path.is_dir() else f"looked from {Path.cwd()}"
        raise EnvironmentProblem(f"'{path}' is no peft adapter directory", known, todo)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise EnvironmentProblem(f"{path / CONFIG} is no JSON", str(error), todo) from error
    if not isinstance(config, dict) or "peft_type" not in config:
        raise EnvironmentProblem(f"{path / CONFIG} is no configuration of peft", "it names no peft_type", todo)
    return PeftFolder(path=path.resolve(), config=config, shapes=tensor_shapes(path / TENSORS))


def write_folder(
    path: Path, config: dict[str, Any], tensors: dict[str, Tensor], head: dict[str, Tensor], note: dict[str, Any]
) -> None:
    """Write an adapter directory: all of it, or nothing.

    Raises:
        UsageError: the folder is there and not empty.
        EnvironmentProblem: it cannot be written.
    """
    from safetensors.torch import save_file

    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"--peft {path} is there already", "nothing is written over", "Name a new folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            made = Path(temporary) / "adapter"
            made.mkdir()
            for name, value in ((CONFIG, config), (NOTE, note)):
                text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
                (made / name).write_text(text + "\n", encoding="utf-8")
            for name, group in ((TENSORS, tensors), (HEAD, head)):
                save_file({key: t.contiguous() for key, t in group.items()}, made / name, metadata={"format": "pt"})
            if path.exists():
                path.rmdir()
            shutil.move(made, path)
    except OSError as error:
        raise EnvironmentProblem(f"--peft {path} cannot be written", str(error), "Name another folder.") from error
