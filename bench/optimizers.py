"""Optimisers by name, from torch."""

from __future__ import annotations

from typing import Any

import torch


def make(
    name: str, groups: list[dict[str, Any]], *, lr: float, eps: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """The optimiser of that name."""
    return torch.optim.AdamW(groups, lr=lr, eps=eps, weight_decay=weight_decay)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the optimiser's state."""
    values = [value for state in optimizer.state.values() for value in state.values()]
    return sum(t.numel() * t.element_size() for t in values if isinstance(t, torch.Tensor))
