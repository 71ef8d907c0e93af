"""Low-rank training: every weight is a product of two thin factors from the first step on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.config.options import option
from bench.config.sections import MethodConfig


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(MethodConfig):
    """Trains W = U·V, with U (m, r) and V (r, n), in the place of W (m, n).

    U and V start as U_r·√S_r and √S_r·V_rᵀ from the SVD of the layer's own starting weight, which is then dropped: the
    network is smaller during and after training. A convolution counts as (m, n·k·k) and becomes two. Layers where that
    saves nothing, r·(m + n) ≥ m·n, stay whole, as do grouped and transposed convolutions; the record names them.
    ΔW = U·V − U(0)·V(0) has rank up to 2r.
    Trains: everything that is left.
    Parameters: backbone − Σ m·n + Σ r·(m + n) over the replaced layers, plus head.
    Source: Khodak et al. 2021, arXiv 2105.01029.
    """

    freezes: ClassVar[bool] = False
    learning_rate: ClassVar[float] = 3e-3
    learning_rates: ClassVar[tuple[float, ...]] = (1e-3, 3e-3, 1e-2)

    rank: int = option(16, "r, the inner width of every product.", at_least=1, scales_parameters=True)
    target: str = option(
        "all",
        "Layers that become products: all linear layers and convolutions of the backbone, or a regular "
        "expression searched in their names.",
    )
