"""Matrices to learn, of known rank: linear regression, factorisation, and completion from some of the entries.

`regression`: y = Φ·x for whitened x, the setting of the law of parsimony (arXiv 2306.01154, 2311.02960);
`factorization`: the input e_j, a unit vector, asks for column j of X: a deep linear network is a product of factors;
`completion`: the same with some entries of X to learn from, and the others to be predicted. On dev the relative error
‖Ŵ − W‖/‖W‖ is that of the matrix in the Frobenius norm, of completion over the entries that were not told.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.api.task import Task, TaskSpec
from bench.config.options import Config, option
from bench.core.errors import UsageError, did_you_mean
from bench.records.data import Arrays, DataRequest, Dataset

if TYPE_CHECKING:
    import numpy as np

    from bench.api.backbone import Backbone
    from bench.records.spec import RunSpec
    from tasks.io.arrays import ArrayDataModule

VERSION = 1
"""Of the generator: raised whenever the same options would give other numbers."""
MEMBERS = ("regression", "factorization", "completion")
ONLY: dict[str, tuple[str, ...]] = {
    "samples": ("regression",),
    "repeats": ("factorization", "completion"),
    "fraction": ("completion",),
}
"""Options that say something about these tasks alone."""
MATRIX, OBSERVED, INPUTS, DEV, NOISE = range(5)
"""What is drawn."""


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(Config):
    """The matrix, and what is observed of it."""

    namespace: ClassVar[str] = "task"

    size: int = option(64, "n, columns of the matrix: numbers in an input.", at_least=2)
    outputs: int | None = option(None, "m, its rows: numbers to predict; none makes it square.", at_least=2)
    rank: int | None = option(None, "r; none takes the length of task.spectrum, or 3.", at_least=1)
    spectrum: str | None = option(
        None,
        "Its singular values, falling, such as 4,3,2,1; none takes r of them, evenly spaced from 1 down to 1/r.",
    )
    basis: Literal["random", "diagonal"] = option(
        "random",
        "Singular vectors in random directions, or unit vectors, with which the matrix is diagonal.",
    )
    noise: float = option(
        0.0,
        "Standard deviation of the noise on every number trained on; the numbers of dev have none.",
        at_least=0,
    )
    samples: int | None = option(
        None,
        "Regression: N, a multiple of the least power of two from n on, which none takes: XᵀX = N·I is then exact.",
    )
    fraction: float = option(0.3, "Completion: share of all entries that is observed.", at_least=0, at_most=1)
    repeats: int = option(
        1,
        "Factorisation and completion: how many times each column is an example; a step then averages several draws "
        "of what is random in training, such as dropout.",
        at_least=1,
    )
    seed: int = option(0, "Draws all of it, whatever the run's seed.", at_least=0)

    def __post_init__(self) -> None:
        """Check what depends on several options."""
        super().__post_init__()
        if len(self.values) > (largest := min(self.rows, self.size)):
            raise UsageError(
                f"task.rank={len(self.values)}",
                f"a matrix of {self.rows}×{self.size} has at most rank {largest}",
                "Lower it, or raise task.size.",
            )
        power = 1 << (self.size - 1).bit_length()
        if self.samples is not None and (self.samples < 1 or self.samples % power):
            known = f"inputs of {self.size} numbers are whitened exactly in multiples of {power}"
            raise UsageError(f"task.samples={self.samples}", known, f"Take {power}, {2 * power}, …")

    @property
    def rows(self) -> int:
        """m."""
        return self.size if self.outputs is None else self.outputs

    @property
    def values(self) -> tuple[float, ...]:
        """The singular values that are not 0, in falling order.

        Raises:
            UsageError: they are no such numbers, or not as many as the rank says.
        """
        if self.spectrum is None:
            r = 3 if self.rank is None else self.rank
            return tuple((r - i) / r for i in range(r))
        try:
            found = tuple(float(part) for part in self.spectrum.split(","))
        except ValueError:
            found = ()
        if not found or not all(0 < v < math.inf for v in found) or list(found) != sorted(found, reverse=True):
            raise UsageError(
                f"task.spectrum={self.spectrum}", "positive numbers, falling", "Write for example 4,3,2,1."
            )
        if self.rank not in (None, len(found)):
            raise UsageError(
                f"task.rank={self.rank} contradicts task.spectrum={self.spectrum}",
                f"{len(found)} singular values make a matrix of that rank",
                "Leave the rank out.",
            )
        return found


class Synthetic(Task):
    """One of the three by its name within the suite: `Synthetic("completion")`.

    Raises:
        UsageError: no such task.
    """

    modality: ClassVar[Literal["text", "image", "vector"]] = "vector"
    members: ClassVar[tuple[str, ...]] = MEMBERS
    Config: ClassVar[type] = SyntheticConfig

    def __init__(self, member: str) -> None:
        if member not in MEMBERS:
            raise UsageError(
                f"unknown task 'synthetic/{member}'", f"known: {', '.join(MEMBERS)}", did_you_mean(member, MEMBERS)
            )
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
        """Draw the matrix, inputs and noise.

        Raises:
            UsageError: options that contradict each other.
        """
        from tasks.synthetic import matrices

        config = request.config_as(SyntheticConfig)
        self.spec = replace(self.spec, shape=(config.size,), targets=config.rows)
        matrix = matrices.of_spectrum(
            matrices.stream(config.seed, MATRIX),
            config.rows,
            config.size,
            config.values,
            diagonal=config.basis == "diagonal",
        )
        make = _regression if self.member == "regression" else _columns
        train, dev, notes = make(config, matrix, self.member)
        unused = [name for name, members in ONLY.items() if self.member not in members]
        given = {f.name: getattr(config, f.name) for f in fields(config) if f.name in unused}
        notes += [
            f"task.{name}={value} says nothing about {self.spec.name}"
            for name, value in given.items()
            if value != getattr(SyntheticConfig(), name)
        ]
        known = {"outputs": config.rows, "rank": len(config.values), "spectrum": list(config.values)}
        return Dataset(
            train=train,
            evaluation={"dev": dev},
            source="embedded",
            revision=f"generator {VERSION}",
            notes=tuple(notes),
            reading={**asdict(config), **known, "samples": len(train), **dict.fromkeys(unused)},
        )

    def datamodule(self, dataset: Dataset, backbone: Backbone, spec: RunSpec) -> ArrayDataModule:
        """Vectors as they are."""
        from tasks.io.arrays import ArrayDataModule

        return ArrayDataModule(self.spec, dataset, spec)


def _regression(config: SyntheticConfig, matrix: np.ndarray, member: str) -> tuple[Arrays, Arrays, list[str]]:
    """Whitened inputs and Φ·x, with noise in train."""
    from tasks.synthetic import matrices

    least = matrices.block(config.size)
    inputs = matrices.whitened(matrices.stream(config.seed, INPUTS), config.samples or least, config.size)
    fresh = matrices.whitened(matrices.stream(config.seed, DEV), least, config.size)
    targets = matrices.product(inputs, matrix.T)
    return _arrays(inputs, _noisy(config, targets)), _arrays(fresh, matrices.product(fresh, matrix.T)), []


def _columns(config: SyntheticConfig, matrix: np.ndarray, member: str) -> tuple[Arrays, Arrays, list[str]]:
    """Unit vectors and the matrix's columns: all of them in train and dev, or in each a part of the entries."""
    import numpy as np

    from tasks.synthetic import matrices

    told = hidden = matrix
    notes: list[str] = []
    if member == "completion":
        mask = matrices.observed(matrices.stream(config.seed, OBSERVED), config.rows, config.size, config.fraction)
        told, hidden = np.where(mask, matrix, np.nan), np.where(mask, np.nan, matrix)
        notes = _undetermined(mask, len(config.values))
    units = np.eye(config.size)
    train = np.tile(units, (config.repeats, 1)), np.tile(_noisy(config, told.T), (config.repeats, 1))
    return _arrays(*train), _arrays(units, hidden.T), notes


def _undetermined(mask: np.ndarray, rank: int) -> list[str]:
    """Why the entries told cannot decide the others, where that is plain to see."""
    m, n = mask.shape
    freedom, told = rank * (m + n - rank), int(mask.sum())
    short = int((mask.sum(0) < rank).sum() + (mask.sum(1) < rank).sum())
    if told < freedom:
        return [
            f"synthetic/completion: {told} entries are told, and a matrix of rank {rank} has {freedom} free numbers"
        ]
    return [f"synthetic/completion: {short} rows and columns have fewer than {rank} entries told"] if short else []


def _noisy(config: SyntheticConfig, targets: np.ndarray) -> np.ndarray:
    """With noise on every number, the same for all repeats of a column; NaN stays NaN."""
    from tasks.synthetic import matrices

    draw = matrices.stream(config.seed, NOISE)
    return targets + config.noise * matrices.normal(draw, *targets.shape) if config.noise else targets


def _arrays(inputs: np.ndarray, targets: np.ndarray) -> Arrays:
    return Arrays(inputs.astype("float32"), targets.astype("float32"))


__all__ = ["MEMBERS", "VERSION", "Synthetic", "SyntheticConfig"]
