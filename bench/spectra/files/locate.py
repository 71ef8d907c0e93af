"""Where a model's weights are: a safetensors file, a folder of them, or an id on the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

from bench.api.peft import CONFIG
from bench.core.errors import EnvironmentProblem, UsageError
from bench.core.hub import unreachable

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
PATTERNS = ["*.safetensors", "*.safetensors.index.json", CONFIG]
NEXT = "Give a safetensors file, a folder of them, a run, or a hub id."


def locate(name: str, revision: str = "main") -> Path:
    """The file or folder: as it is on disk, in the hub's cache, or fetched from the hub.

    Raises:
        EnvironmentProblem: there is none.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith((".safetensors", *PICKLES)):
        raise EnvironmentProblem(f"there is no file or folder '{name}'", f"looked from {Path.cwd()}", NEXT)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    def fetch(*, here: bool) -> Path:
        return Path(
            snapshot_download(
                name, revision=revision, local_files_only=here, allow_patterns=PATTERNS, ignore_patterns=["*/*"]
            )
        )

    try:
        found = fetch(here=True)
        if any(found.glob("*.safetensors")):  # the cache may hold a model's tokenizer alone
            return found
    except HFValidationError as error:
        raise _not_there(name, str(error)) from error
    except LocalEntryNotFoundError:
        pass
    if reason := unreachable():
        raise _not_there(name, f"it is no file or folder here and its weights are not in the hub's cache; {reason}")
    try:
        return fetch(here=False)
    except (HfHubHTTPError, OSError) as error:
        raise _not_there(name, str(error).splitlines()[0]) from error


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a model: `path` itself, the shards of an index, or all of a folder.

    Raises:
        UsageError: the weights are pickled.
        EnvironmentProblem: there are none, or the index is broken or names a file that is missing.
    """
    if path.is_file():
        if path.suffix.lower() in PICKLES:
            raise _pickled(str(path))
        return [path]
    if indexes := sorted(path.glob("*.safetensors.index.json")):
        return _shards(indexes[0])
    found = sorted(path.glob("*.safetensors"))
    plain = path / "model.safetensors"
    if plain in found:
        return [plain]
    if not found:
        if pickled := sorted(file.name for file in path.iterdir() if file.suffix.lower() in PICKLES):
            raise _pickled(f"{path}: {', '.join(pickled[:3])}")
        raise EnvironmentProblem(f"no safetensors file in {path}", "nor an index of one", NEXT)
    return found


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        # a name with a folder in it would read what lies elsewhere
        wrong = [str(name) for name in names if not isinstance(name, str) or Path(name).name != name]
        missing = [name for name in names if name not in wrong and not (index.parent / name).is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        known = f"{type(error).__name__}: {error}"
        raise EnvironmentProblem(f"{index} is no index of safetensors files", known, "Fetch it again.") from error
    if wrong or missing:
        known = f"{'not a plain file name' if wrong else 'missing'}: {', '.join((wrong or missing)[:3])}"
        raise EnvironmentProblem(f"{index} names files that cannot be read", known, "Fetch the model again.")
    return [index.parent / name for name in names]


def _pickled(what: str) -> UsageError:
    return UsageError(
        f"{what}: pickled weights are not opened",
        "reading a pickle runs whatever code is in it",
        "Save the model as safetensors (save_pretrained does), or take the hub's safetensors revision of it.",
    )


def _not_there(name: str, known: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"'{name}' is not there", known, NEXT)
