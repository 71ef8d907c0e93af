"""Whether a server answers: asked once, within seconds, so that having no network costs no waiting."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from functools import cache
from urllib.parse import urlsplit

PATIENCE_S = 4.0
"""Time in which a server must answer, name look-up included."""
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def unreachable() -> str:
    """Why the Hugging Face hub (`HF_ENDPOINT`) cannot be reached, or an empty string."""
    for name in OFFLINE:
        if os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{name} is set"
    return silence((os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"))


@cache
def silence(endpoint: str) -> str:
    """Why a server cannot be reached, or an empty string; asked once per process."""
    host = urlsplit(endpoint).hostname or endpoint
    answer: list[str] = []
    # a name look-up knows no time limit, so it runs in a thread that may be left behind
    thread = threading.Thread(target=lambda: answer.append(ask(endpoint)), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    reason = answer[0] if answer else f"no answer within {PATIENCE_S:g} s"
    return f"{host}: {reason}" if reason else ""


def ask(endpoint: str) -> str:
    """Empty if the host answers, with whatever status short of its own failure; else why not."""
    try:
        with urllib.request.urlopen(endpoint, timeout=PATIENCE_S):
            return ""
    except urllib.error.HTTPError as error:
        return "" if error.code < 500 else f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
