"""Files written at once: a reader, or a crash, sees the old one or the new one, never half."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whose folder is made where it is not there.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)  # noqa: PTH105 - the name that says it is atomic
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
