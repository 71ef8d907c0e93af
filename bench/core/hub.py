"""The Hugging Face hub: whether a server answers, asked once and within seconds, and files from the hub's cache."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

TIMEOUT_S = 4.0
"""Time in which a server must answer, name look-up included."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


class NotAvailable(Exception):
    """Files that are not in the hub's cache and cannot be downloaded; the message says why."""


def cached_or_fetched(fetch: Callable[..., str], complete: Callable[[Path], bool] = lambda path: True) -> Path:
    """Return the path of files in the hub's cache, and download them where they are not there.

    Args:
        fetch: `hf_hub_download` or `snapshot_download` with its arguments, called with `local_files_only`.
        complete: whether what the cache holds is enough.

    Raises:
        NotAvailable: the hub cannot be reached, or has no such files.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = Path(fetch(local_files_only=True))
        if complete(path):
            return path
    except HFValidationError as error:
        raise NotAvailable(str(error)) from error
    except LocalEntryNotFoundError:
        pass
    if reason := unreachable():
        raise NotAvailable(f"it is not in the hub's cache; {reason}")
    try:
        return Path(fetch(local_files_only=False))
    except (HfHubHTTPError, OSError) as error:
        raise NotAvailable(str(error).splitlines()[0]) from error


def unreachable() -> str:
    """Return why the Hugging Face hub (`HF_ENDPOINT`) cannot be reached, or an empty string."""
    for name in OFFLINE:
        if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{name} is set"
    return connection_error((os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"))


@cache
def connection_error(endpoint: str) -> str:
    """Return why a server cannot be reached, or an empty string; tried once per process."""
    host = urlsplit(endpoint).hostname or endpoint
    answer: list[str] = []
    # a name look-up has no time limit, so it runs in a thread that may be left behind
    thread = threading.Thread(target=lambda: answer.append(_request(endpoint)), daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    reason = answer[0] if answer else f"no answer within {TIMEOUT_S:g} s"
    return f"{host}: {reason}" if reason else ""


def _request(endpoint: str) -> str:
    """Return an empty string if the host answers, with any status short of its own failure; else why it does not."""
    try:
        with urllib.request.urlopen(endpoint, timeout=TIMEOUT_S):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
