"""Penalties for any method: the nuclear norm of ΔW or W, exact or as a bound over two factors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.config.sections import PenaltyConfig
from bench.core.errors import UsageError
from bench.spectra import Delta

if TYPE_CHECKING:
    from bench.api.method import Method


def nuclear_penalty(method: Method, config: PenaltyConfig) -> Callable[[], Tensor]:
    """Return the penalty: λ times the sum over the method's layers of the nuclear norm, in the form of `config`.

    Raises:
        UsageError: the method has no ΔW, or one to which the form does not apply.
    """
    name = type(method).__name__
    with torch.no_grad():
        counts = {len(delta.factors) for _, _, delta in method.updates()}
    if not counts:
        raise UsageError(
            f"penalty.nuclear={config.nuclear:g}: {name} has no ΔW to penalise",
            "it changes no weight matrix, or computes ΔW without gradients",
            "Use a method such as lora, adalora, deeplora or full, or leave the penalty out.",
        )
    if config.form != "exact" and counts != {2}:
        factors = "a full matrix" if counts == {1} else f"a product of {', '.join(map(str, sorted(counts)))} factors"
        raise UsageError(
            f"penalty.form={config.form} does not apply here",
            f"it needs a ΔW of two factors; ΔW of this {name} is {factors}",
            "Use penalty.form=exact.",
        )

    def norm(start: Tensor, delta: Delta) -> Tensor:
        if config.of == "weight":
            return nuclear_norm([start + delta.dense()])
        if config.form == "exact":
            return nuclear_norm(delta.factors)
        return (factor_norm if config.form == "factor" else frobenius)(*delta.factors)

    return lambda: config.nuclear * torch.stack([norm(start, delta) for _, start, delta in method.updates()]).sum()


def nuclear_norm(factors: Sequence[Tensor]) -> Tensor:
    """Return Σσ of the product F_1·F_2·…·F_k (m, n), with the subgradient Σ u_i·v_iᵀ over σ_i > 0: 0 for a zero matrix.

    Computed as ⟨UVᵀ, F_1·…·F_k⟩ with U and V held fixed. Its gradient is that of Σσ wherever that exists, also for the
    factors, and no decomposition is differentiated: its derivative does not exist at LoRA's start.
    """
    left, right = _directions([factor.detach() for factor in factors])
    return (reduce(torch.matmul, factors, left.mT) * right.mT).sum()


def factor_norm(left: Tensor, right: Tensor) -> Tensor:
    """Return Σ‖u_i‖‖v_i‖ over the columns of U (m, k) and the rows of V (k, n).

    At least Σσ(U·V); equal for balanced singular vectors (u_i, v_i = √σ_i times them).
    """
    return (torch.linalg.vector_norm(left, dim=0) * torch.linalg.vector_norm(right, dim=1)).sum()


def frobenius(left: Tensor, right: Tensor) -> Tensor:
    """Return (‖U‖_F² + ‖V‖_F²)/2, at least `factor_norm`, equal where ‖u_i‖ = ‖v_i‖ (Srebro, Rennie, Jaakkola 2004)."""
    return (left.square().sum() + right.square().sum()) / 2


def _directions(factors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return singular vectors U (m, k) and V (n, k) of the product, zero where σ is zero.

    Of several factors they come from the SVD of the small core between the two outer QR decompositions.
    """
    if len(factors) == 1:
        u, sigma, vt = torch.linalg.svd(factors[0], full_matrices=False)
    else:
        first, *inner, last = (factor.double() for factor in factors)
        left, left_core = torch.linalg.qr(first)
        right, right_core = torch.linalg.qr(last.mT)
        core = reduce(torch.matmul, [left_core, *inner, right_core.mT])
        u, sigma, vt = torch.linalg.svd(core, full_matrices=False)
        u, vt = left @ u, vt @ right.mT
    size = max(len(u), vt.shape[1])
    positive = sigma > sigma[:1] * size * torch.finfo(factors[0].dtype).eps
    return (u * positive).to(factors[0]), vt.mT.to(factors[0])
