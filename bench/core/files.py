"""Files written atomically, their hashes, and what a safetensors header says."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import stat
import tempfile
import time
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import cast

from bench.core.errors import EnvironmentProblem, UsageError

_HOST = re.sub(r"[^\w-]", "-", platform.node())
_TEMPORARY = re.compile(r"\..*?(?:\.(?P<host>[\w-]*)\.(?P<pid>\d+))?\.[0-9a-f]{32}\.tmp")
MOST_JSON = 64 * 2**20
"""Size of the largest configuration or index that is read; the index of a model of many shards has some megabytes."""
OLD_S = 24 * 3600.0
"""Age at which a temporary file of another host, or without a host in its name, is nobody's."""


def cache_folder() -> Path:
    """Return `LOWRANK_BENCH_CACHE`, or `lowrank-bench` in the user's cache folder."""
    if chosen := os.environ.get("LOWRANK_BENCH_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lowrank-bench"


@contextlib.contextmanager
def replacing(path: Path, *, sync: bool = False, private: bool = False) -> Generator[Path]:
    """Write a file atomically: the body writes the temporary file that is yielded, which then replaces `path`.

    A reader, or a crash, sees the old file or the new one, never half of it. If the body raises, `path` keeps its
    content, and nothing new is left. The folder is created if needed. With `sync` the new content also survives a
    power failure; with `private` only its owner can read it.

    Raises:
        OSError: the file cannot be written.
    """
    made = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{_HOST}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        if private:
            temporary.touch(0o600)
        yield temporary
        if not private:
            share(temporary)
        if sync:
            _sync(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - the name that says it is atomic
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if made:
            with contextlib.suppress(OSError):  # another process may have put something into it
                path.parent.rmdir()
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # writing, unlike opening, does not say which file
        raise
    if sync:
        with contextlib.suppress(OSError):  # some systems do not let a folder be opened
            _sync(path.parent)


@contextlib.contextmanager
def new_folder(path: Path, flag: str) -> Generator[Path]:
    """Write a folder completely, or not at all: the body fills the one that is yielded, which then becomes `path`.

    Raises:
        UsageError: it exists and is not empty; `flag` names it.
        EnvironmentProblem: it cannot be written.
    """
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{flag} {path} exists", "no file is overwritten", "Name a new folder.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
            folder = Path(temporary) / path.name
            folder.mkdir()
            yield folder
            share(*(file for file in folder.rglob("*") if file.is_file()))
            if path.exists():
                path.rmdir()
            folder.rename(path)
    except OSError as error:
        raise EnvironmentProblem(f"{flag} {path} cannot be written", str(error), "Name another folder.") from error


def share(*files: Path) -> None:
    """Give files the mode that the umask gives to new ones: those of safetensors are their owner's alone."""
    umask = os.umask(0o077)
    os.umask(umask)
    for file in files:
        with contextlib.suppress(OSError):  # some file systems have no modes
            file.chmod(0o666 & ~umask)


def sweep(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder; those of living ones stay."""
    for file in folder.glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(file.name)
        with contextlib.suppress(FileNotFoundError):  # another process has removed or renamed it
            if found and (_is_dead(found) or time.time() - file.stat().st_mtime > OLD_S):
                file.unlink()


def write_atomic(path: Path, content: bytes, *, sync: bool = False) -> None:
    with replacing(path, sync=sync) as temporary:
        temporary.write_bytes(content)


def regular(path: Path, *, most: int | None = None) -> Path:
    """Return the path of a file that can be read to its end: no pipe, no device, no more than `most` bytes.

    Raises:
        OSError: there is no file, or a folder.
        EnvironmentProblem: it is something else, or larger.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        known = f"{path.resolve()} is a pipe, a device or a socket"
        raise EnvironmentProblem(f"{path} is no regular file", known, "Put a file there, or remove it.")
    if most is not None and status.st_size > most:
        known = f"it has {status.st_size:,} bytes, and may have {most:,}"
        raise EnvironmentProblem(f"{path} is too large", known, "Put a smaller file there, or remove it.")
    return path


def sha256(file: Path) -> str:
    """Return the hex digest of a regular file's bytes; the errors are those of `regular`."""
    with regular(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_object(file: Path, todo: str) -> dict[str, object]:
    """Read the JSON object in a file; an empty one where the file holds another value.

    Raises:
        EnvironmentProblem: it is not JSON, no regular file, or too large; `todo` says what to do next.
    """
    try:
        value: object = json.loads(regular(file, most=MOST_JSON).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EnvironmentProblem(f"{file} is not JSON", str(error), todo) from error
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """Read names and shapes of the tensors in a safetensors file from its header alone.

    Raises:
        EnvironmentProblem: it is not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(file), framework="numpy") as weights:
            return {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise EnvironmentProblem(
            f"{file.name} is not a safetensors file", f"{file}: {error}", "Download or export it again."
        ) from error


def shard_files(index: Path) -> list[Path]:
    """List the safetensors files that an index (`*.safetensors.index.json`) names, all of them in its folder.

    Raises:
        EnvironmentProblem: the index is broken, or names a file that is missing or anywhere else.
    """
    stated = read_object(index, "Download the model again.").get("weight_map")
    names = (
        sorted({str(name) for name in cast("dict[str, object]", stated).values()}) if isinstance(stated, dict) else []
    )
    if not names:
        known = "its weight_map is empty or missing"
        raise EnvironmentProblem(f"{index} is not an index of safetensors files", known, "Download the model again.")
    wrong = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    missing = [name for name in names if not (index.parent / name).is_file()]
    if wrong or missing:
        known = f"{'not a plain name of one' if wrong else 'missing'}: {', '.join((wrong or missing)[:3])}"
        raise EnvironmentProblem(f"{index} names files that cannot be read", known, "Download the model again.")
    return [index.parent / name for name in names]


def _is_dead(name: re.Match[str]) -> bool:
    """Whether the process of this host that a temporary file's name tells is gone."""
    if name["host"] != _HOST or os.name != "posix":  # elsewhere `os.kill` ends the process that it asks about
        return False
    try:
        os.kill(int(name["pid"]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
