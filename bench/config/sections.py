"""Options outside the method's own: head, optimiser, penalty, task, …, as `--set namespace.key=value`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_type_hints

from bench.config.options import Config, option
from bench.core.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Config):
    """Base of every method's options, and what a plan must know of the method before torch is imported.

    Attributes:
        learning_rate: default of `--lr`.
        learning_rates: candidates of `--select lr` where `--lr` names none.
        scratch_learning_rate: default of `--lr` where the backbone starts random, and the middle one of three
            candidates; 0: the same as for a pretrained backbone.
        needs: modalities it works on.
        supervised: whether it needs labels.
        allocates: whether it has a rank per layer that `allocation` can share out.
        freezes: whether it leaves weights of the backbone as they are, which `--strategy fsdp` shards.
    """

    namespace: ClassVar[str] = "method"
    learning_rate: ClassVar[float] = 1e-3
    learning_rates: ClassVar[tuple[float, ...]] = (3e-4, 1e-3, 3e-3)
    scratch_learning_rate: ClassVar[float] = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"text", "image", "vector"})
    supervised: ClassVar[bool] = True
    allocates: ClassVar[bool] = False
    freezes: ClassVar[bool] = True


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """The linear layer between pooled features and labels."""

    namespace: ClassVar[str] = "head"

    trainable: bool = option(True, "False freezes the head at its random start, as the Deep LoRA paper does.")
    pooling: Literal["auto", "mean", "cls", "pooler"] = option(
        "auto", "How token features become one vector; auto is what the backbone was trained with."
    )
    dropout: float = option(0.0, "Dropout rate on the pooled features.", at_least=0, at_most=0.999)
    loss: Literal["auto", "squared"] = option(
        "auto",
        "auto is cross-entropy for classes and squared error for numbers; squared takes that for classes too, "
        "against labels of zeros and a one, as the theory of deep linear networks does.",
    )


@dataclass(frozen=True, kw_only=True)
class OptimConfig(Config):
    """The optimiser and its schedule."""

    namespace: ClassVar[str] = "optim"

    name: Literal["adamw", "adam", "sgd", "momentum", "muon"] = option(
        "adamw",
        "Which one; muon orthogonalises the updates of matrices and takes AdamW for the rest (torch 2.9 or later).",
    )
    momentum: float = option(
        0.9, "Momentum of momentum and muon.", at_least=0, at_most=0.9999, used_with={"name": ("momentum", "muon")}
    )
    weight_decay: float = option(
        0.0,
        "Weight decay of all that trains; apart from the gradient in adamw and muon, a term of the loss in the rest.",
        at_least=0,
    )
    eps: float = option(1e-8, "Adam's epsilon.", at_least=0, used_with={"name": ("adamw", "adam", "muon")})
    schedule: Literal["linear", "constant", "cosine"] = option(
        "linear", "How the learning rate goes to zero after the warm-up (constant: it does not)."
    )
    warmup: float = option(
        0.06, "Share of all steps over which the learning rate rises linearly from zero.", at_least=0, at_most=1
    )
    clip: float = option(1.0, "Norm at which gradients are clipped; 0 does not clip.", at_least=0)


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig(Config):
    """What is added to the loss to keep rank low."""

    namespace: ClassVar[str] = "penalty"

    nuclear: float = option(
        0.0,
        "λ, weight of the sum of nuclear norms over all adapted layers; 0 adds nothing and costs nothing.",
        at_least=0,
    )
    form: Literal["exact", "factor", "frobenius"] = option(
        "exact",
        "Σσ itself, or a bound of it for a product U·V of two factors: factor is Σ‖u_i‖‖v_i‖ over the columns of "
        "U and the rows of V, frobenius (‖U‖² + ‖V‖²)/2. LoRA's scale counts as part of U.",
    )
    of: Literal["delta", "weight"] = option(
        "delta", "Whose nuclear norm: that of ΔW, or of the whole weight W(0) + ΔW (exact only)."
    )

    def __post_init__(self) -> None:
        """Refuse what would do nothing, and forms that W does not have."""
        super().__post_init__()
        if not self.nuclear and (self.form, self.of) != ("exact", "delta"):
            what = f"penalty.form={self.form}, penalty.of={self.of}: nothing is penalised"
            raise UsageError(what, "penalty.nuclear is 0", "Give it a weight: --set penalty.nuclear=1e-3.")
        if self.of == "weight" and self.form != "exact":
            what = f"penalty.form={self.form} does not go with penalty.of=weight"
            known = "a pretrained weight is no product of two factors"
            raise UsageError(what, known, "Use penalty.form=exact, or penalty.of=delta.")


@dataclass(frozen=True, kw_only=True)
class TaskConfig(Config):
    """How texts become batches."""

    namespace: ClassVar[str] = "task"

    max_length: int = option(128, "Tokens per example, special ones included; longer texts are cut.", at_least=8)


@dataclass(frozen=True, kw_only=True)
class NewRowsConfig(Config):
    """Which columns of a table of new rows are read."""

    namespace: ClassVar[str] = "task"

    text: str | None = option(None, "Column of the text; none takes that of training, or guesses by name.")
    text_pair: str | None = option(None, "Column of the second text, the same way.")
    quotes: bool | None = option(None, "Whether fields may be quoted; none: as in training.")


@dataclass(frozen=True, kw_only=True)
class DataConfig(Config):
    """How data are read in which something is broken; GLUE is read whole or not at all."""

    namespace: ClassVar[str] = "data"

    on_bad: Literal["error", "skip"] = option(
        "error", "A row or picture that cannot be used is an error that names it, or is left out and counted."
    )


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(Config):
    """Options of every backbone; one may add its own."""

    namespace: ClassVar[str] = "backbone"

    dropout: float = option(
        0.0,
        "Dropout rate inside the backbone. 0 by default: dropout masks depend on how a batch is split over "
        "devices, and the number of devices must not change the experiment.",
        at_least=0,
        at_most=0.999,
    )
    revision: str = option(
        "main", "Branch, tag or commit on the hub; it says nothing where the network does not come from there."
    )


@dataclass(frozen=True, kw_only=True)
class AllocationConfig(Config):
    """How a low-rank method shares its rank out between layers; the trained parameters stay those of `method.rank`."""

    namespace: ClassVar[str] = "allocation"

    policy: Literal["uniform", "depth", "depth-reverse", "gradient"] = option(
        "uniform",
        "Same rank everywhere; rank that grows, or falls, linearly with depth; or in proportion to the rank of "
        "each layer's gradient on the first batch.",
    )
    slope: float = option(
        0.5,
        "Depth: the first block's rank is 1 − slope times the middle one's, the last block's 1 + slope times.",
        at_least=0,
        at_most=1,
        used_with={"policy": ("depth", "depth-reverse")},
    )
    measure: Literal["effective", "energy"] = option(
        "effective",
        "Gradient: its effective rank, or the number of singular values that carry 90 % of its energy.",
        used_with={"policy": ("gradient",)},
    )
    minimum: int = option(
        1, "Least rank of a layer.", at_least=1, used_with={"policy": ("depth", "depth-reverse", "gradient")}
    )


QUANTITIES = ("updates", "weights", "gradients", "steps", "activations")
"""What `spectra.of` can name."""


@dataclass(frozen=True, kw_only=True)
class SpectraConfig(Config):
    """Whose singular values are taken on the way, into the run's spectra.npz; training is the same without."""

    namespace: ClassVar[str] = "spectra"

    of: str = option(
        "updates",
        "What is looked at, several by commas: updates (ΔW), weights (W(0) + ΔW), gradients (of the global batch, "
        "before clipping), steps (what the optimiser changed), activations (of the blocks); none looks at "
        "nothing.",
        commas=True,
    )
    every: int = option(
        0,
        "Optimiser steps between two looks, besides those at the start and the end; 0 cuts the run into five "
        "equal parts.",
        at_least=0,
    )
    layers: str = option(
        "auto",
        "Which layers: all, patterns such as *.0.*,*query, several by commas, or auto: all where they are thin, "
        "as factors are, else four spread over the depth.",
        commas=True,
    )
    window: int = option(
        8,
        "Training batches before each look that activations are taken from, at most those since the look before.",
        at_least=1,
    )

    def __post_init__(self) -> None:
        """Check names and ranges, and that what is given is used."""
        super().__post_init__()
        names = [word.strip() for word in self.of.split(",")]
        unknown = [word for word in names if word not in QUANTITIES and names != ["none"]]
        if unknown or len({*names}) < len(names):
            raise UsageError(
                f"spectra.of={self.of}: {f'{unknown[0]!r} is none of them' if unknown else 'named twice'}",
                f"quantities: {', '.join(QUANTITIES)}, or none",
                "Write for example --set spectra.of=updates,gradients.",
            )
        if not all(pattern.strip() for pattern in self.layers.split(",")):
            what = f"spectra.layers={self.layers!r}: an empty pattern"
            raise UsageError(what, "patterns are separated by commas", "Fix it.")
        for key, users in (("every", QUANTITIES), ("layers", QUANTITIES), ("window", ("activations",))):
            value, default = getattr(self, key), getattr(SpectraConfig, key)
            if value != default and not {*names} & {*users}:
                what = f"spectra.{key}={value} changes nothing with spectra.of={self.of}"
                raise UsageError(what, f"it belongs to {', '.join(users)}", "Leave it out, or name one of these.")

    @property
    def names(self) -> tuple[str, ...]:
        """The quantities, in the order of `QUANTITIES`."""
        names = [word.strip() for word in self.of.split(",")]
        return tuple(name for name in QUANTITIES if name in names)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig(Config):
    """How a run is executed; nothing here is part of its identity, and where a micro batch changes the result, as with
    dropout or BatchNorm, a warning says so.
    """

    namespace: ClassVar[str] = "runtime"

    micro_batch: int = option(
        0, "Examples per forward pass and device; 0 is the whole share of the device. Must divide it.", at_least=0
    )
    eval_batch: int = option(64, "Examples per forward pass in evaluation.", at_least=1)
    save: Literal["adapter", "all", "none"] = option(
        "adapter",
        "Which weights a run keeps: what a parameter-efficient method trained and the network of a pretraining, "
        "also those of full training, or nothing, its outputs on the evaluated examples included.",
    )
    truncation: Literal["network", "layers", "off"] = option(
        "network",
        "After training, score dev with every ΔW cut to its k largest singular directions, which gives the rank "
        "needed; layers also scores it without the ΔW of each layer alone. It takes some evaluations of dev.",
    )
    truncation_examples: int = option(
        2000, "Examples of dev, at most, that these scores are taken on, spread evenly; 0 is all.", at_least=0
    )
    workers: int = option(0, "Loader processes; the data is in memory, so 0 is nearly always fastest.", at_least=0)
    checkpoint_s: float | None = option(
        10.0,
        "Least seconds between two checkpoints, from which the same command goes on after an interruption; more where "
        "writing would take over 2 % of the time. 0 writes after every step, none never.",
        at_least=0,
    )
    on_oom: Literal["fail", "halve"] = option(
        "fail",
        "A run that needs too much memory is recorded as oom, or made again with half the micro batch, down to one "
        "example: the same global batches, and the same result but for rounding.",
    )
    claim_s: float = option(
        60.0,
        "Seconds without a sign of life after which another process takes over the run of one that cannot be seen from "
        "here. A process that is known to be gone is not waited for.",
        at_least=1,
    )
    nodes: int = option(
        1,
        "Machines that train a run together, each with all of --devices; the same command starts on each.",
        at_least=1,
    )
    strategy: Literal["auto", "ddp", "fsdp"] = option(
        "auto",
        "How several devices share a run: ddp keeps the whole network on each; fsdp shards the frozen weights of the "
        "blocks, which each device gathers block by block, and keeps what trains on each. auto is ddp.",
    )
    compile: bool = option(
        False, "Compile the network's blocks with torch.compile; the same result but for rounding. It takes a compiler."
    )
    gradient_checkpointing: bool = option(
        False, "Keep a block's input alone and compute the block again in the backward pass: less memory, more time."
    )
    track_artifact: bool = option(False, "With `--track wandb`: send the adapter too, as an artifact.")


@dataclass(frozen=True, kw_only=True)
class Sections:
    """The options that every run has, whatever its method, task and backbone."""

    head: HeadConfig = HeadConfig()
    optim: OptimConfig = OptimConfig()
    penalty: PenaltyConfig = PenaltyConfig()
    allocation: AllocationConfig = AllocationConfig()
    spectra: SpectraConfig = SpectraConfig()
    data: DataConfig = DataConfig()
    runtime: RuntimeConfig = RuntimeConfig()


SECTIONS: dict[str, type[Config]] = get_type_hints(Sections)
"""Namespaces of `--set` and their Configs. Methods, tasks and backbones bring the namespaces `method`, `task` and
`backbone`."""
