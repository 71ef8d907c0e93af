"""Options of peft's tuners for the small networks of the tests."""

from __future__ import annotations

from typing import Any

SMALL: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 20},
    "frod": {"progressbar": False},
    "miss": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "vblora": {"vector_length": 16},
    "waveft": {"n_frequency": 20},
}
"""Options without which a tuner does not fit a layer of width 32."""
