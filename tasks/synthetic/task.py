"""Matrices to learn, of known rank: linear regression, factorisation, and completion from some of the entries.

`regression`: y = Φ·x for whitened x, the setting of the law of parsimony (arXiv 2306.01154, 2311.02960);
`factorization`: the input e_j, a unit vector, asks for column j of X: a deep linear network is a product of factors;
`completion`: the same with some entries of X to learn from, and the others to be predicted. On dev the relative error
‖Ŵ − W‖/‖W‖ is that of the matrix in the Frobenius norm, of completion over the entries that were not observed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api.task import Task, TaskSpec
from bench.config.options import Config, option
from bench.core.errors import UsageError, did_you_mean
from bench.records.data import DataRequest, Dataset

if TYPE_CHECKING:
    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec
    from tasks.io.arrays import ArrayDataModule

VERSION = 1  # version of the generator: raised whenever the same options would give other numbers
MEMBERS = ("regression", "factorization", "completion")
OPTIONS_OF = {"samples": ("regression",), "repeats": ("factorization", "completion"), "fraction": ("completion",)}
"""Options that have an effect on these tasks alone."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Config):
    namespace: ClassVar[str] = "task"

    size: int = option(64, "n, columns of the matrix and numbers of an input.", at_least=2)
    outputs: int | None = option(
        None, "m, rows of the matrix and numbers to predict; none: the same as task.size.", at_least=2
    )
    rank: int | None = option(None, "r; none: the length of task.spectrum, or 3.", at_least=1)
    spectrum: str | None = option(
        None,
        "Singular values in decreasing order, such as 4,3,2,1; none: r values, evenly spaced from 1 down to 1/r.",
        commas=True,
    )
    basis: Literal["random", "diagonal"] = option(
        "random", "Singular vectors: in random directions, or unit vectors, so that the matrix is diagonal."
    )
    noise: float = option(
        0.0, "Standard deviation of the noise on the targets of train; those of dev have none.", at_least=0
    )
    samples: int | None = option(
        None,
        "Regression: N, a multiple of the smallest power of two ≥ n, which is the default: XᵀX = N·I is then exact.",
    )
    fraction: float = option(0.3, "Completion: share of all entries that is observed.", at_least=0, at_most=1)
    repeats: int = option(
        1,
        "Factorisation and completion: how many times each column is an example, so that a step averages over several "
        "draws of dropout.",
        at_least=1,
    )
    seed: int = option(0, "Seed of matrix, inputs and noise; the run's seed does not change them.", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.values) > (largest := min(self.rows, self.size)):
            known = f"a matrix of {self.rows}×{self.size} has at most rank {largest}"
            raise UsageError(f"task.rank={len(self.values)}", known, "Lower it, or raise task.size.")
        if self.samples is not None and (self.samples < 1 or self.samples % self.block):
            known = f"inputs of {self.size} numbers can be whitened exactly in multiples of {self.block}"
            raise UsageError(f"task.samples={self.samples}", known, f"Take {self.block}, {2 * self.block}, …")

    @property
    def block(self) -> int:
        """The smallest power of two ≥ n; `samples` is a multiple of it."""
        return 1 << (self.size - 1).bit_length()

    @property
    def rows(self) -> int:
        """m, the rows of the matrix."""
        return self.size if self.outputs is None else self.outputs

    @property
    def values(self) -> tuple[float, ...]:
        """The singular values that are not 0, in decreasing order; a UsageError if `spectrum` and `rank` give none."""
        if self.spectrum is None:
            r = 3 if self.rank is None else self.rank
            return tuple((r - i) / r for i in range(r))
        try:
            values = tuple(float(part) for part in self.spectrum.split(","))
        except ValueError:
            values = ()
        if not values or not all(0 < v < math.inf for v in values) or list(values) != sorted(values, reverse=True):
            known = "expected positive numbers in decreasing order"
            raise UsageError(f"task.spectrum={self.spectrum}", known, "Write for example 4,3,2,1.")
        if self.rank not in (None, len(values)):
            what = f"task.rank={self.rank} contradicts task.spectrum={self.spectrum}"
            raise UsageError(what, f"the spectrum has {len(values)} values", "Leave the rank out.")
        return values


class Synthetic(Task):
    """One of the three tasks by its name within the suite: `Synthetic("completion")`.

    Raises:
        UsageError: no such task.
    """

    modality: ClassVar[Literal["text", "image", "vector"]] = "vector"
    members: ClassVar[tuple[str, ...]] = MEMBERS
    Config: ClassVar[type] = SyntheticConfig

    def __init__(self, member: str) -> None:
        if member not in MEMBERS:
            known = f"known: {', '.join(MEMBERS)}"
            raise UsageError(f"unknown task 'synthetic/{member}'", known, did_you_mean(member, MEMBERS))
        self.member = member
        self.spec = TaskSpec(
            name=f"synthetic/{member}",
            version=VERSION,
            modality="vector",
            num_classes=0,
            metrics=("relative_error", "mse"),
            primary=("relative_error",),
            higher_is_better=False,
        )

    def open(self, request: DataRequest) -> Dataset:
        from tasks.synthetic import matrices

        config = request.config_as(SyntheticConfig)
        self.spec = replace(self.spec, shape=(config.size,), targets=config.rows)
        rank, is_diagonal = len(config.values), config.basis == "diagonal"
        matrix = matrices.of_spectrum(config.seed, config.rows, config.size, config.values, diagonal=is_diagonal)
        notes: list[str] = []
        if self.member == "regression":
            blocks = (config.samples or config.block) // config.block
            train, dev = matrices.regression(matrix, blocks, noise=config.noise, seed=config.seed)
        else:
            mask = None
            if self.member == "completion":
                mask = matrices.observed(config.seed, config.rows, config.size, config.fraction)
                notes += [f"{self.spec.name}: {reason}" for reason in matrices.undetermined(mask, rank)]
            train, dev = matrices.columns(matrix, mask, repeats=config.repeats, noise=config.noise, seed=config.seed)
        unused = [name for name, members in OPTIONS_OF.items() if self.member not in members]
        given = {name: value for name in unused if (value := getattr(config, name)) != getattr(SyntheticConfig(), name)}
        notes += [f"task.{name}={value} has no effect on {self.spec.name}" for name, value in given.items()]
        derived = {"outputs": config.rows, "rank": rank, "spectrum": list(config.values)}
        return Dataset(
            train=train,
            evaluation={"dev": dev},
            source="embedded",
            revision=f"generator {VERSION}",
            notes=tuple(notes),
            reading={**asdict(config), **derived, "samples": len(train), **dict.fromkeys(unused)},
        )

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> ArrayDataModule:
        from tasks.io.arrays import ArrayDataModule

        return ArrayDataModule(self.spec, dataset, spec)
