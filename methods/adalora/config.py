"""AdaLoRA: adds an update in SVD form and moves its rank, during training, to the layers that need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bench.api.lowrank.config import UpdateConfig
from bench.config.options import option
from bench.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class AdaLoRAConfig(UpdateConfig):
    """Adds (α/(r₀ + 1e-5))·B·(E ⊙ A) to every target layer W (m, n) and prunes it by importance.

    A (r₀, n) and B (m, r₀) start as N(0, .02²), E (r₀, 1) at zero. After every optimiser step each triplet (a_i, e_i,
    b_i) gets a score: the running sensitivity |w·∇w| of its entries times their uncertainty. A budget that falls from Σ
    r₀ to Σ r keeps the best triplets over all layers and sets E of the others to zero. A and B are held near orthogonal
    by γ · mean of ‖AAᵀ − I‖_F and ‖BᵀB − I‖_F (not squared, as in the authors' code). A convolution counts as the
    matrix (out, in·k·k), n = in·k·k.
    Trains: A, E, B and the head.
    Parameters: Σ over target layers r₀·(m + n + 1), plus head.
    Source: Zhang et al. 2023, arXiv 2303.10512. Defaults: the authors' settings for GLUE's small tasks, with t_i and
    t_f as shares of the run's steps.
    """

    learning_rate: ClassVar[float] = 1e-2
    learning_rates: ClassVar[tuple[float, ...]] = (3e-3, 1e-2, 3e-2)

    rank: int = option(8, "r, the rank per layer that remains on average.", at_least=1, scales_parameters=True)
    init_rank: int | None = option(None, "r₀, the rank of every layer at the start; none is 1.5·r, rounded up.")
    alpha: float = option(32.0, "Numerator of the scale α/(r₀+1e-5), which pruning does not change.")
    tinit: float = option(
        0.15, "t_i, steps before pruning begins: a share of all steps below 1, else a number of steps.", at_least=0
    )
    tfinal: float = option(
        0.5, "t_f, steps at the end with fixed ranks: a share of all steps below 1, else a number of steps.", at_least=0
    )
    delta_t: float = option(
        1.0, "ΔT, steps between two allocations: a share of all steps below 1, else a number of steps.", at_least=0
    )
    beta1: float = option(0.85, "β₁, decay of the running sensitivity.", at_least=0, at_most=0.9999)
    beta2: float = option(0.85, "β₂, decay of the running uncertainty.", at_least=0, at_most=0.9999)
    gamma: float = option(0.1, "γ, weight of the orthogonality penalty.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.init_rank is not None and self.init_rank < self.rank:
            raise UsageError(
                f"method.init_rank={self.init_rank}",
                f"it must be at least method.rank, {self.rank}",
                "Raise it, or lower method.rank.",
            )
        if max(self.tinit, self.tfinal) < 1 <= self.tinit + self.tfinal:
            raise schedule_error(f"tinit {self.tinit:g} and tfinal {self.tfinal:g} are shares of all steps")


def schedule_error(known: str) -> UsageError:
    """Return the error for a budget that no step is left to reduce."""
    return UsageError("AdaLoRA has no step left to reduce its budget in", known, "Lower method.tinit or method.tfinal.")
