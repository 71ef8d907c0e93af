"""The matrix of a layer: which layers and tensors have one or several, and how a weight is laid out."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence

from torch import Tensor, nn

from bench.spectra.singular import matricize

_AS_STORED = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
EXPERTS = re.compile(r"(?i)expert")
CONVOLUTION = re.compile(r"(?i)conv")
POSITION = re.compile(r"(?i)((\b|_)pos(\b|_|ition)|_tokens?$)")
KERNEL = 16
"""Widest kernel of a one-dimensional convolution (out, in, k) whose name does not say what it is."""


def has_matrix(layer: nn.Module) -> bool:
    """Tell whether the layer's `weight` is one linear map: of linear layers, convolutions, and transformers' Conv1D."""
    return isinstance(layer, _AS_STORED) or _is_transposed(layer)


def layer_matrix(layer: nn.Module, weight: Tensor) -> Tensor:
    """Return a weight of the layer, or its change, as the matrix (out, in·k·k) of `matricize`.

    transformers' Conv1D, a linear layer of GPT-2, keeps its weight as (in, out).
    """
    return weight.mT if _is_transposed(layer) else matricize(weight)


def is_stack(name: str, shape: Sequence[int]) -> bool:
    """Tell whether a tensor of this name holds matrices (count, m, n), as of experts."""
    is_matrices = len(shape) == 3 and (EXPERTS.search(name) or shape[2] > KERNEL)
    return bool(is_matrices and not CONVOLUTION.search(name))


def is_no_map(name: str, shape: Sequence[int]) -> bool:
    """Tell whether a tensor is added or multiplied entry by entry: embeddings of positions, class tokens, scales."""
    if len(shape) < 3 or CONVOLUTION.search(name) or EXPERTS.search(name):
        return False
    return shape[0] == 1 or max(shape) == math.prod(shape) or bool(POSITION.search(name))


def _is_transposed(layer: nn.Module) -> bool:
    # looked up, since a network without it need not import transformers
    return isinstance(layer, getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", ()))
