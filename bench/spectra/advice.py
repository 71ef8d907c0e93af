"""The rank of the first gradients of the layers that a method adapts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bench.spectra.ranks import effective_rank

if TYPE_CHECKING:
    from bench.api.batching import Batch
    from bench.api.method import Method


def gradient_ranks(method: Method, batches: Sequence[Batch]) -> dict[str, float]:
    """Return, by the names of `Method.deltas`, the effective rank of ∂loss/∂W of the mean loss over the batches.

    W is the pretrained weight (out, in), a convolution as the matrix on its patches. The method is adapted and not
    trained; it stays so, but in evaluation mode and with gradients.
    """
    weights: dict[str, nn.Parameter] = {}
    for name, *_ in method.deltas():
        _, base = method.layer_of(name)
        weights[name] = cast(nn.Parameter, base.weight)
        weights[name].requires_grad_(True)
    method.eval()
    method.zero_grad()
    for batch in batches:
        (method.loss(batch) / len(batches)).backward()
    with torch.no_grad():
        return {
            name: float(effective_rank(weight.grad.flatten(1).double()))
            for name, weight in weights.items()
            if weight.grad is not None
        }
