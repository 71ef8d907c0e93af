"""A cache of folders that are expensive to build, each named by the hash of what it is built from.

A folder of the cache is complete or absent: it is built under another name and then renamed. Where two processes do so
at once, the second uses what the first has built.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from bench.core.errors import DataProblem
from tasks.images.reading.source import sha256_of
from tasks.text.tokens import cache_folder

T = TypeVar("T")


def cached(key: Mapping[str, object], build: Callable[[Path], None], load: Callable[[Path], T]) -> T:
    """Load a folder of the cache, built first if it is absent or broken.

    Args:
        key: JSON values that decide what is built.
        build: writes the files into a new folder.
        load: reads such a folder; raises OSError, ValueError or EOFError if it is broken.

    Raises:
        DataProblem: the cache cannot be written.
    """
    name = sha256_of(json.dumps(key, sort_keys=True))
    folder = cache_folder() / "images" / name
    try:
        return load(folder)
    except (OSError, ValueError, EOFError):  # absent, or cut short by a full disk or a crash
        pass
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f"{name[:16]}.", dir=folder.parent))
        try:
            build(temporary)
            return _publish(temporary, folder, load)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise DataProblem(
            "decoded images cannot be cached",
            f"{folder.parent}: {error.strerror or error}",
            "Free some space, or set LOWRANK_BENCH_CACHE to a folder that can be written.",
        ) from error


def _publish(temporary: Path, folder: Path, load: Callable[[Path], T]) -> T:
    for _ in range(3):
        try:
            temporary.rename(folder)
            return load(folder)
        except OSError:
            try:
                return load(folder)  # another process was faster
            except (OSError, ValueError, EOFError):
                shutil.rmtree(folder, ignore_errors=True)
    return load(temporary)  # open files stay readable after their folder is removed
