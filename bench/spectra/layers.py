"""The matrix of a layer: which layers have one, and how their weight is laid out."""

from __future__ import annotations

import sys

from torch import Tensor, nn

from bench.spectra.singular import matricize

_AS_STORED = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def has_matrix(layer: nn.Module) -> bool:
    """Tell whether the layer's `weight` is one linear map: of linear layers, convolutions, and transformers' Conv1D."""
    return isinstance(layer, _AS_STORED) or _is_transposed(layer)


def layer_matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight of the layer, or its change, as the matrix (out, in·k·k) of `matricize`.

    transformers' Conv1D, a linear layer of GPT-2, keeps its weight as (in, out).
    """
    return weight.mT if _is_transposed(layer) else matricize(weight)


def _is_transposed(layer: nn.Module) -> bool:
    # looked up, since a network without it need not import transformers
    return isinstance(layer, getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", ()))
