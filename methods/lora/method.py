"""LoRA: a frozen weight plus the product of two thin matrices; rsLoRA, DoRA, PiSSA and LoRA+ are options of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench.api.method import Batch, Peft
from bench.api.peft import PeftFolder
from bench.config.sections import in_range
from bench.core.errors import UsageError
from methods.common import peft as peft_format
from methods.common.lowrank import Base, FactoredLinear, LowRank, LowRankConfig, matrix
from methods.lora import peft as peft_start
from methods.lora.layer import STARTS, LoRALinear, principal


class LoRA(LowRank):
    """W + s·B·A with s = α/r (Hu et al. 2021, arXiv 2106.09685).

    A (r, n) starts Kaiming-uniform with a=√5, B (m, r) at zero, so the network starts where the backbone is. Options:
    rsLoRA, `scaling=rank-stabilized`: s = α/√r (Kalajdzievski 2023, arXiv 2312.03732).
    PiSSA, `init=pissa`: with W ≈ U_r·S_r·V_rᵀ, B₀ = U_r·√(S_r/s), A₀ = √(S_r/s)·V_rᵀ and the frozen residual
    W − s·B₀·A₀ (Meng et al. 2024, arXiv 2404.02948, section 3); ΔW = s·(B·A − B₀·A₀), of rank up to 2r.
    DoRA, `dora=true`: W' = g ⊙ V by rows, V = W + s·B·A, g = μ/‖V‖, where μ (m,) starts at ‖W‖ and the norm is constant
    in the backward pass (Liu et al. 2024, arXiv 2402.09353, eq. 5 and section 4.3); ΔW = W' − W, of any rank.
    A convolution is the matrix (out, in·k·k) on its patches, n = in·k·k: A (r, in, k, k) is one like it, B one of 1×1.
    LoRA+, `lr_ratio`: B learns at that multiple of the learning rate (Hayou et al. 2024, arXiv 2402.12354).
    Trains: A, B, with DoRA μ, and the head. Parameters: Σ over target layers r·(m + n), with DoRA + m, plus head.
    """

    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)

    @dataclass(frozen=True, kw_only=True)
    class Config(LowRankConfig):
        """Defaults of the paper's RoBERTa setting."""

        rank: int = 8
        """r, the inner width of BA."""
        alpha: float = 16.0
        """Numerator of the scale α/r."""
        init: Literal["kaiming", "normal", "pissa"] = "kaiming"
        """Start of A: kaiming as in the LoRA paper, N(0, 1) as the Deep LoRA paper's baseline, or with B, pissa, the
        weight's r principal singular directions."""
        scaling: Literal["standard", "rank-stabilized", "none"] = "standard"
        """Scale of BA: standard is α/r, rank-stabilized rsLoRA's α/√r, none 1, as the Deep LoRA paper's baseline."""
        dora: bool = False
        """Train the length of every row of the weight apart from its direction, which BA changes."""
        lr_ratio: float = 1.0
        """Learning rate of B relative to A's; LoRA+ recommends more than 1."""
        start: str | None = None
        """Folder of a LoRA adapter of peft to start from, which then decides rank, alpha, target, scaling and dora."""

        def __post_init__(self) -> None:
            """Check ranges."""
            super().__post_init__()
            in_range("method.rank", self.rank, 1)
            for name in ("alpha", "lr_ratio"):
                value = getattr(self, name)
                if not value > 0:
                    raise UsageError(f"method.{name}={value:g}", "at 0 or below B·A cannot learn", "Give more than 0.")

        def scale(self, rank: int) -> float:
            """Factor on BA of a layer of that rank."""
            return {"standard": self.alpha / rank, "rank-stabilized": self.alpha / math.sqrt(rank)}.get(
                self.scaling, 1.0
            )

    config: Config

    def prepare(
        self,
        found: Sequence[tuple[str, Base]],
        ranks: dict[str, int | None],
        batch: Batch,
        generator: torch.Generator,
    ) -> None:
        """Read the adapter to start from, if there is one."""
        start = self.config.start
        self._start = peft_start.start(Path(start), found, self.config.scale) if start else {}

    def layer(self, name: str, base: Base, rank: int | None, generator: torch.Generator) -> FactoredLinear:
        """The layer with B·A beside it."""
        assert rank is not None
        factors, magnitude = self._start.get(name, ([], None))
        scale = self.config.scale(len(factors[0]) if factors else rank)
        pissa, dora, dropout = self.config.init == "pissa" and not factors, self.config.dora, self.config.dropout
        if not factors:
            factors = principal(name, base, rank, scale) if pissa else self._factors(base, rank, generator)
        if not (pissa or dora):
            return FactoredLinear(base, factors, scale=scale, dropout=dropout)
        made = LoRALinear(base, factors, scale=scale, dropout=dropout, offset=pissa, dora=dora)
        if made.magnitude is not None and magnitude is not None:
            made.magnitude.data.copy_(magnitude.flatten())  # peft's of a convolution is (1, m, 1, 1)
        return made

    def param_groups(self) -> list[dict[str, Any]]:
        """B at `lr_ratio` times the learning rate, the rest at the learning rate."""
        if self.config.lr_ratio == 1:
            return super().param_groups()
        b = [layer.factors[1] for _, layer in self.layers()]
        fast = {id(p) for p in b}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in fast]
        return [{"params": rest}, {"params": b, "lr_scale": self.config.lr_ratio}]

    def export(self) -> dict[str, Tensor]:
        """What was trained, and PiSSA's A₀ and B₀, without which ΔW and the residual are not known."""
        start = {f"backbone.{n}.{key}": t for n, layer in self.layers() for key, t in layer.named_buffers()}
        return {**{n: t for n, t in start.items() if n.endswith(STARTS)}, **super().export()}

    def _factors(self, base: Base, rank: int, generator: torch.Generator) -> list[Tensor]:
        m, n = matrix(base).shape
        if self.config.init == "kaiming":
            # Kaiming-uniform with a=√5: U(−1/√n, 1/√n)
            a = (torch.rand(rank, n, generator=generator) * 2 - 1) / math.sqrt(n)
        else:
            a = torch.randn(rank, n, generator=generator)
        return [a, torch.zeros(m, rank)]

    @classmethod
    def peft(cls, config: Any, tensors: dict[str, Tensor]) -> Peft:
        """Peft's LoRA or DoRA: the same A and B; of PiSSA with −B₀ and A₀ beside them, on the pretrained weight."""
        stable = config.scaling == "rank-stabilized"
        return peft_format.lora(tensors, lambda rank: rank if config.scaling == "none" else config.alpha, rslora=stable)

    @classmethod
    def from_peft(cls, folder: PeftFolder) -> dict[str, Any]:
        """The options that a LoRA adapter of peft stands for."""
        return peft_start.options(folder)
