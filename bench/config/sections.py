"""Options outside the method's own: head, optimiser, penalty, task, …, as `--set namespace.key=value`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from bench.core.errors import UsageError


def in_range(name: str, value: float, low: float, high: float = float("inf")) -> None:
    """Refuse a value outside [low, high].

    Raises:
        UsageError: names the option and its range.
    """
    if not low <= value <= high:
        known = f"between {low:g} and {high:g}" if high < float("inf") else f"at least {low:g}"
        raise UsageError(f"{name}={value}", f"it must be {known}", "Change it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """The linear layer between pooled features and labels."""

    trainable: bool = True
    """False freezes the head at its random start, as the Deep LoRA paper does."""
    pooling: Literal["auto", "mean", "cls", "pooler"] = "auto"
    """How token features become one vector; auto is what the backbone was trained with."""
    dropout: float = 0.0
    """Dropout rate on the pooled features."""
    loss: Literal["auto", "squared"] = "auto"
    """auto is cross-entropy for classes and squared error for numbers; squared takes that for classes too, against
    labels of zeros and a one, as the theory of deep linear networks does."""

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("head.dropout", self.dropout, 0, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """The optimiser and its schedule."""

    name: Literal["adamw", "adam", "sgd", "momentum", "muon"] = "adamw"
    """Which one; muon orthogonalises the updates of matrices and takes AdamW for the rest (torch 2.9 or later)."""
    momentum: float = 0.9
    """Of momentum and muon."""
    weight_decay: float = 0.0
    """Weight decay of all that trains; apart from the gradient in adamw and muon, a term of the loss in the rest."""
    eps: float = 1e-8
    """Adam's epsilon."""
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    """How the learning rate goes to zero after the warm-up (constant: it does not)."""
    warmup: float = 0.06
    """Share of all steps over which the learning rate rises linearly from zero."""
    clip: float = 1.0
    """Norm at which gradients are clipped; 0 does not clip."""

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("optim.weight_decay", self.weight_decay, 0)
        in_range("optim.momentum", self.momentum, 0, 0.9999)
        for field, users in (("momentum", ("momentum", "muon")), ("eps", ("adamw", "adam", "muon"))):
            value = getattr(self, field)
            if value != type(self).__dataclass_fields__[field].default and self.name not in users:
                raise UsageError(
                    f"optim.{field}={value:g} changes nothing with optim.name={self.name}",
                    f"it belongs to {', '.join(users)}",
                    "Leave it out, or choose one of these.",
                )
        in_range("optim.eps", self.eps, 0)
        in_range("optim.warmup", self.warmup, 0, 1)
        in_range("optim.clip", self.clip, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PenaltyConfig:
    """What is added to the loss to keep rank low."""

    nuclear: float = 0.0
    """λ, weight of the sum of nuclear norms over all adapted layers; 0 adds nothing and costs nothing."""
    form: Literal["exact", "factor", "frobenius"] = "exact"
    """Σσ itself, or a bound of it for a product U·V of two factors: factor is Σ‖u_i‖‖v_i‖ over the columns of U and the
    rows of V, frobenius (‖U‖² + ‖V‖²)/2. LoRA's scale counts as part of U."""
    of: Literal["delta", "weight"] = "delta"
    """Whose nuclear norm: that of ΔW, or of the whole weight W(0) + ΔW (exact only)."""

    def __post_init__(self) -> None:
        """Refuse what would do nothing, and forms that W does not have."""
        in_range("penalty.nuclear", self.nuclear, 0)
        if not self.nuclear and (self.form, self.of) != ("exact", "delta"):
            raise UsageError(
                f"penalty.form={self.form}, penalty.of={self.of}: nothing is penalised",
                "penalty.nuclear is 0",
                "Give it a weight: --set penalty.nuclear=1e-3.",
            )
        if self.of == "weight" and self.form != "exact":
            raise UsageError(
                f"penalty.form={self.form} does not go with penalty.of=weight",
                "a pretrained weight is no product of two factors",
                "Use penalty.form=exact, or penalty.of=delta.",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig:
    """How texts become batches."""

    max_length: int = 128
    """Tokens per example, special ones included; longer texts are cut."""

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("task.max_length", self.max_length, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """How data are read in which something is broken; GLUE is read whole or not at all."""

    on_bad: Literal["error", "skip"] = "error"
    """A row or picture that cannot be used is an error that names it, or is left out and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneConfig:
    """Options of every backbone; one may add its own."""

    dropout: float = 0.0
    """Dropout rate inside the backbone. 0 by default: dropout masks depend on how a batch is split over devices, and
    the number of devices must not change the experiment."""
    revision: str = "main"
    """Branch, tag or commit on the hub; it says nothing where the network does not come from there."""

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("backbone.dropout", self.dropout, 0, 0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationConfig:
    """How a low-rank method shares its rank out between layers; the trained parameters stay those of `method.rank`."""

    policy: Literal["uniform", "depth", "depth-reverse", "gradient"] = "uniform"
    """Same rank everywhere; rank that grows, or falls, linearly with depth; or in proportion to the rank of each
    layer's gradient on the first batch."""
    slope: float = 0.5
    """Depth: the first block's rank is 1 − slope times the middle one's, the last block's 1 + slope times; 0 to 1."""
    measure: Literal["effective", "energy"] = "effective"
    """Gradient: its effective rank, or the number of singular values that carry 90 % of its energy."""
    minimum: int = 1
    """Least rank of a layer."""

    def __post_init__(self) -> None:
        """Check ranges, and that the policy uses what is given.

        Raises:
            UsageError: an option is set that the policy does not use: two names would stand for one experiment.
        """
        in_range("allocation.slope", self.slope, 0, 1)
        in_range("allocation.minimum", self.minimum, 1)
        users: dict[str, tuple[str, ...]] = {"slope": ("depth", "depth-reverse"), "measure": ("gradient",)}
        users["minimum"] = (*users["slope"], *users["measure"])
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if value != field.default and self.policy not in users[field.name]:
                raise UsageError(
                    f"allocation.{field.name}={value} changes nothing with allocation.policy={self.policy}",
                    f"it belongs to the policies {', '.join(users[field.name])}",
                    "Leave it out, or choose one of these.",
                )


QUANTITIES = ("updates", "weights", "gradients", "steps", "activations")
"""What `spectra.of` can name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectraConfig:
    """Whose singular values are taken on the way, into the run's spectra.npz; training is the same without."""

    of: str = "updates"
    """What is looked at, several by commas: updates (ΔW), weights (W(0) + ΔW), gradients (of the global batch, before
    clipping), steps (what the optimiser changed), activations (of the blocks); none looks at nothing."""
    every: int = 0
    """Optimiser steps between two looks, besides those at the start and the end; 0 cuts the run into five equal parts.
    """
    layers: str = "auto"
    """Which layers: all, patterns such as *.0.*,*query, several by commas, or auto: all where they are thin, as factors
    are, else four spread over the depth."""
    window: int = 8
    """Training batches before each look that activations are taken from, at most those since the look before."""

    def __post_init__(self) -> None:
        """Check names and ranges, and that what is given is used.

        Raises:
            UsageError: an unknown quantity, a value out of range, or an option that changes nothing.
        """
        words = [word.strip() for word in self.of.split(",")]
        unknown = [word for word in words if word not in QUANTITIES and words != ["none"]]
        if unknown or len({*words}) < len(words):
            raise UsageError(
                f"spectra.of={self.of}: {f'{unknown[0]!r} is none of them' if unknown else 'named twice'}",
                f"it can look at {', '.join(QUANTITIES)}, or none",
                "Write for example --set spectra.of=updates,gradients.",
            )
        in_range("spectra.every", self.every, 0)
        in_range("spectra.window", self.window, 1)
        if not all(pattern.strip() for pattern in self.layers.split(",")):
            raise UsageError(
                f"spectra.layers={self.layers!r}: an empty pattern", "patterns are separated by commas", "Mend it."
            )
        for name, value in (("every", self.every), ("layers", self.layers), ("window", self.window)):
            users = ("activations",) if name == "window" else QUANTITIES
            if value != type(self).__dataclass_fields__[name].default and not {*words} & {*users}:
                raise UsageError(
                    f"spectra.{name}={value} changes nothing with spectra.of={self.of}",
                    f"it belongs to {', '.join(users)}",
                    "Leave it out, or name one of these.",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The quantities, in the order of `QUANTITIES`."""
        words = [word.strip() for word in self.of.split(",")]
        return tuple(name for name in QUANTITIES if name in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """How a run is executed; nothing here is part of its identity, and where a micro batch changes the result, as with
    dropout or BatchNorm, a warning says so.
    """

    micro_batch: int = 0
    """Examples per forward pass and device; 0 is the whole share of the device. Must divide it."""
    eval_batch: int = 64
    """Examples per forward pass in evaluation."""
    save: Literal["adapter", "all", "none"] = "adapter"
    """Which weights a run keeps: what a parameter-efficient method trained and the network of a pretraining, also those
    of full training, or nothing."""
    workers: int = 0
    """Loader processes; the data is in memory, so 0 is nearly always fastest."""
    checkpoint_s: float | None = 60.0
    """Seconds between two checkpoints, from which the same command goes on after an interruption; none writes none."""
    track_artifact: bool = False
    """With `--track wandb`: send the adapter too, as an artifact."""

    def __post_init__(self) -> None:
        """Check ranges."""
        in_range("runtime.micro_batch", self.micro_batch, 0)
        in_range("runtime.eval_batch", self.eval_batch, 1)
        in_range("runtime.workers", self.workers, 0)
        in_range("runtime.checkpoint_s", self.checkpoint_s or 0, 0)


NAMESPACES: dict[str, type] = {
    "head": HeadConfig,
    "optim": OptimConfig,
    "penalty": PenaltyConfig,
    "task": TaskConfig,
    "data": DataConfig,
    "backbone": BackboneConfig,
    "allocation": AllocationConfig,
    "spectra": SpectraConfig,
    "runtime": RuntimeConfig,
}
"""Namespaces of `--set` besides `method`, whose options are the method's own `Config`. Tasks and backbones bring a
`Config` of their own for `task` and `backbone`, which may be these."""
