"""Whether the Hugging Face hub answers: asked once, within seconds, so that having no network costs no waiting."""

from __future__ import annotations

import os
import socket
import threading
from functools import cache
from urllib.parse import urlsplit

LIMIT_S = 4.0
"""Longest wait for an answer; name resolution hangs longer than any socket timeout, hence the thread."""


@cache
def reachable() -> bool:
    """True if the hub's host (`HF_ENDPOINT`) accepts a connection; False at once in the hub's offline mode."""
    if any(os.environ.get(name, "").upper() in {"1", "TRUE", "YES", "ON"} for name in OFFLINE):
        return False
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    target = urlsplit(proxy) if proxy else endpoint
    port = target.port or (443 if target.scheme == "https" else 80)
    answered = threading.Event()

    def knock() -> None:
        try:
            socket.create_connection((target.hostname or "", port), timeout=LIMIT_S).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=knock, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    return answered.is_set()


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
