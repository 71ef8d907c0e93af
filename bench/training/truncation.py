"""Rank needed: how much of ΔW the score needs, found by scoring the trained network with every ΔW cut."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from statistics import stdev
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.api.method import Method
from bench.records.results import CutPoint, LayerCut, Truncation
from bench.spectra import Delta
from bench.spectra.layers import layer_matrix

MOST = 64
"""Largest k that is tried below the whole ΔW."""
BETWEEN = 7
"""Values tried, at most, between the last k that is too small and the first that suffices."""
DRAWS = 100
"""Bootstrap samples of the standard error."""
PLAIN = {layer.forward for layer in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)}
"""Forward passes that apply the weight as it is."""


class Scored(NamedTuple):
    """The primary metric of an evaluation, and the outputs and labels of its examples."""

    value: float
    outputs: Tensor
    labels: Tensor


class Truncated:
    """A trained method, of whose ΔW some part can be left out. No weight changes: forward hooks subtract what is cut.

    ΔW_k = U_k·U_kᵀ·ΔW is ΔW cut to its k largest singular directions, so a layer's output loses (I − U_k·U_kᵀ)·ΔW·x,
    for which ΔW's own factors are enough.

    Attributes:
        ranks: rank that the method allows the ΔW of each layer that can be cut, by name.
        whole: names of the layers whose ΔW cannot be cut, as far as is known: those that never apply their weight as
            it is, or that the network does not call, since it reads their weight.
    """

    def __init__(self, method: Method) -> None:
        self.ranks: dict[str, int] = {}
        self.whole: set[str] = set()
        self._layers: dict[str, tuple[nn.Module, nn.Module, Delta, Tensor]] = {}
        self._called: set[str] = set()
        device = method.device
        on_cpu = device.type == "mps"  # which has no float64
        for name, delta in method.deltas():
            if not delta.nominal:
                continue
            module, base = method.layer_of(name)
            if not _is_plain(base):
                self.whole.add(name)
                continue
            factors = tuple(factor.detach().to(device) for factor in delta.factors)
            vectors = (delta if on_cpu else Delta(factors=factors, nominal=delta.nominal)).left_singular_vectors(MOST)
            self.ranks[name] = min(delta.nominal, *delta.shape)
            self._layers[name] = module, base, Delta(factors=factors, nominal=delta.nominal), vectors.to(factors[0])

    @contextmanager
    def keep(self, k: int, only: Collection[str] | None = None) -> Generator[None]:
        """Keep the k largest singular directions, k ≤ 64, of every ΔW, or of those of the layers `only`."""
        with ExitStack() as hooks:
            for name in self._layers if only is None else only:
                if k < self.ranks[name]:
                    hooks.enter_context(self._hook(name, k))
            yield
        self.whole |= {name for name in self._layers if only is None and k == 0} - self._called

    def _hook(self, name: str, k: int) -> Any:
        module, base, delta, vectors = self._layers[name]
        kept = vectors[:, :k]

        def subtract(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            self._called.add(name)
            return output - _without(base, delta, kept, args[0]).to(output.dtype)

        return module.register_forward_hook(subtract)


def _without(base: nn.Module, delta: Delta, kept: Tensor, x: Tensor) -> Tensor:
    """Return (I − U·Uᵀ)·ΔW·x for U (m, k), in the shape of the layer's output."""
    kept, *factors = (matrix.to(x.dtype) for matrix in (kept, *delta.factors))
    if not isinstance(base, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return _project(F.linear(x, factors.pop()), factors, kept)
    kernel = (-1, *base.weight.shape[1:])
    convolve = cast(Any, base)._conv_forward
    if base.groups > 1:  # its outputs have inputs of their own, so the projection must act on the weight
        [matrix] = factors
        return convolve(x, (matrix - kept @ (kept.mT @ matrix)).reshape(kernel), None)
    channels = -len(base.kernel_size) - 1
    update = convolve(x, factors.pop().reshape(kernel), None).movedim(channels, -1)
    return _project(update, factors, kept).movedim(-1, channels)


def _project(update: Tensor, factors: list[Tensor], kept: Tensor) -> Tensor:
    """Return (I − U·Uᵀ)·F_1·…·F_k of vectors (…, n)."""
    for factor in reversed(factors):
        update = F.linear(update, factor)
    return update - F.linear(F.linear(update, kept.mT), kept)


def _is_plain(layer: nn.Module) -> bool:
    transposed = layer_matrix(layer, torch.empty(1, 2)).shape == (2, 1)  # transformers' Conv1D
    return type(layer).forward in PLAIN or transposed


def measure(
    method: Method,
    evaluate: Callable[[], Scored],
    score: Callable[[Tensor, Tensor], float],
    *,
    split: str,
    higher_is_better: bool,
    per_layer: bool = False,
) -> tuple[Truncation | None, list[str]]:
    """Score a trained method with every ΔW cut to its k largest singular directions, for k from 0 to its rank.

    Args:
        evaluate: scores the method as it is at that moment.
        score: the primary metric of outputs and labels.
        split: name of what `evaluate` scores.
        per_layer: also score it without the ΔW of each layer alone.

    Returns:
        What was found, None if no ΔW can be cut; and what the reader must know of it.
    """
    truncated = Truncated(method)
    if not truncated.ranks:
        return None, []
    whole = evaluate()
    se = standard_error(score, whole.outputs, whole.labels)

    def suffices(value: float) -> bool:
        return (whole.value - value if higher_is_better else value - whole.value) <= se

    def value(k: int, only: Collection[str] | None = None) -> float:
        with truncated.keep(k, only):
            return evaluate().value

    rank = max(truncated.ranks.values())
    values = {k: value(k) for k in coarse(rank)}
    if truncated.whole >= truncated.ranks.keys():
        return None, [_note(truncated)]
    enough = min((k for k in values if suffices(values[k])), default=rank if rank <= MOST else None)
    if enough:
        values |= {k: value(k) for k in between(max(k for k in values if k < enough), enough)}
    values[rank] = whole.value
    return Truncation(
        split=split,
        n=len(whole.labels),
        whole=whole.value,
        se=se,
        points=tuple(CutPoint(k=k, value=values[k]) for k in sorted(values)),
        rank_needed=min((k for k in values if k <= MOST and suffices(values[k])), default=None),
        layers=tuple(
            LayerCut(layer=name, value=without, needed=not suffices(without))
            for name in (truncated.ranks if per_layer else ())
            if name not in truncated.whole
            for without in [value(0, [name])]
        ),
    ), [_note(truncated)] if truncated.whole else []


def coarse(rank: int) -> list[int]:
    """Return 0, 1, 2, 4, … below `rank`, up to `MOST`."""
    powers = [2**i for i in range(MOST.bit_length())]
    return [0, *(k for k in powers if k < rank and k <= MOST)]


def between(low: int, high: int) -> list[int]:
    """Return at most `BETWEEN` integers between two others, evenly spaced."""
    step = -(-(high - low) // (BETWEEN + 1))
    return [*range(low + step, high, step)]


def standard_error(score: Callable[[Tensor, Tensor], float], outputs: Tensor, labels: Tensor) -> float:
    """Return the standard deviation of a score over bootstrap samples of the examples (Efron 1979), drawn alike."""
    draws = torch.randint(len(labels), (DRAWS, len(labels)), generator=torch.Generator().manual_seed(0))
    return stdev(score(outputs[draw], labels[draw]) for draw in draws)


def _note(truncated: Truncated) -> str:
    every = {*truncated.ranks, *truncated.whole}
    return (
        f"rank needed: {len(truncated.whole)} of {len(every)} ΔW could not be cut: the network reads these weights "
        "itself, or the layer does not apply them as they are"
    )
