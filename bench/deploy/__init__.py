"""Predictions of finished runs, and folders that other libraries load."""

from __future__ import annotations

from typing import Literal

Form = Literal["peft", "merged", "adapter"]
"""An adapter of peft, a whole model, or bottleneck adapters with a loader of their own."""
