"""The survey's claims as experiments: a prediction, checks with a tolerance, and controls that must fail them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar, Unpack

from bench.config import options
from bench.config.options import Value, option
from bench.core.errors import UsageError
from bench.figures import Figure

if TYPE_CHECKING:
    from bench.experiments.lab import Grid, Lab

ConfigT = TypeVar("ConfigT", bound=options.Config)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Check:
    """One prediction and the measurement.

    Attributes:
        predicted: of theory or the claim; the limit of a one-sided claim.
        measured: NaN and infinities never hold, and are written as null.
        tolerance: largest allowed difference.
        note: a remark, such as that training was too short for a verdict.
    """

    name: str
    predicted: float
    measured: float
    tolerance: float
    held: bool
    note: str = ""

    @classmethod
    def near(cls, name: str, predicted: float, measured: float, tolerance: float) -> Check:
        """Hold if the two differ by at most `tolerance`."""
        return cls(name, predicted, measured, tolerance, held=abs(measured - predicted) <= tolerance)

    @classmethod
    def at_most(cls, name: str, limit: float, measured: float, tolerance: float = 0.0) -> Check:
        """Hold if the measurement exceeds the limit by at most `tolerance`."""
        return cls(name, limit, measured, tolerance, held=measured <= limit + tolerance)

    @classmethod
    def at_least(cls, name: str, limit: float, measured: float, tolerance: float = 0.0) -> Check:
        """Hold if the measurement falls below the limit by at most `tolerance`."""
        return cls(name, limit, measured, tolerance, held=measured >= limit - tolerance)


def too_short(checks: Sequence[Check], why: str) -> list[Check]:
    """Return checks of which none holds, with the note that training was too short for a verdict."""
    return [replace(check, held=False, note=f"not trained long enough: {why}; give more steps") for check in checks]


@dataclass(frozen=True, slots=True)
class Control:
    """The same measurement where the prediction must fail: a check that nothing can fail shows nothing.

    `expected` is the expected result in words, and `held` says whether it came so.
    """

    name: str
    expected: str
    measured: float
    held: bool

    @classmethod
    def above(cls, name: str, limit: float, measured: float, expected: str = "") -> Control:
        """Expect a measurement above the limit; `expected` describes it, by default as `above LIMIT`."""
        return cls(name, expected or f"above {limit:g}", measured, held=measured > limit)

    @classmethod
    def below(cls, name: str, limit: float, measured: float, expected: str = "") -> Control:
        """Expect a measurement below the limit; `expected` describes it, by default as `below LIMIT`."""
        return cls(name, expected or f"below {limit:g}", measured, held=measured < limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of an experiment, with a table of the measurements and one or two sentences with the main numbers."""

    checks: Sequence[Check]
    controls: Sequence[Control] = ()
    figure: Figure | None = None
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    summary: str = ""

    @property
    def held(self) -> bool:
        """Whether there are checks, and all checks and controls hold."""
        return bool(self.checks) and all(result.held for result in (*self.checks, *self.controls))

    def to_json(self, name: str) -> dict[str, object]:
        """Return name, verdict, checks (`note` only where there is one) and controls as JSON values."""
        checks, controls = ([_to_json(result) for result in results] for results in (self.checks, self.controls))
        return {"name": name, "held": self.held, "checks": checks, "controls": controls}


class Experiment(ABC, Generic[ConfigT]):
    """One claim. A subclass has `Config`, a frozen dataclass of its options, and `run`.

    Attributes:
        summary: the claim in one line; where it is empty, the first line of the module's docstring is used.
        quick: values of options with `--quick`, which must end within two minutes on two cores.
        place: where the survey makes the claim.
    """

    Config: ClassVar[type[options.Config]]
    summary: ClassVar[str] = ""
    quick: ClassVar[Mapping[str, Value]] = {}
    place: ClassVar[str] = ""

    def __init__(self, config: ConfigT, lab: Lab) -> None:
        self.config, self.lab = config, lab

    @abstractmethod
    def run(self) -> Outcome:
        """Train, measure, and compare the measurements with the prediction."""


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(options.Config):
    """Options that most experiments share. The defaults adapt a pretrained network."""

    task: str = option("glue/stsb", "A task of `bench list tasks`.")
    backbone: str = option("minilm", "The pretrained network.")
    steps: int = option(200, "Optimiser steps.", at_least=1)
    seeds: str = option("0,1,2", "Seeds, separated by commas; one run per seed.")

    def grid(self, **more: Unpack[Grid]) -> Grid:
        """Return the arguments of `Lab.run` that follow from these options, and `more`."""
        seeds = parse_integers(self.seeds)
        return {"tasks": self.task, "backbones": self.backbone, "max_steps": self.steps, "seeds": seeds, **more}


@dataclass(frozen=True, kw_only=True)
class FullTrainingConfig(TrainingConfig):
    """The same for experiments that train all of a small network."""

    task: str = option("digits", "A task of `bench list tasks`.")
    backbone: str = option("mlp", "Any backbone for such a task.")
    steps: int = option(600, "Optimiser steps.", at_least=1)
    batch_size: int = option(64, "Examples per step.")
    lr: float = option(1e-3, "Learning rate.")

    def grid(self, **more: Unpack[Grid]) -> Grid:
        return {**super().grid(), "batch_size": self.batch_size, "lr": self.lr, **more}


def parse_list(text: str) -> list[str]:
    """Return the elements of `a,b,c`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_integers(text: str) -> list[int]:
    """Return the numbers of `0,1,2`; raise UsageError if one is not a whole number."""
    return _parse(text, int, "whole numbers", "0,1,2")


def parse_numbers(text: str) -> list[float]:
    """Return the numbers of `0,0.5,1e-3`; raise UsageError if one is not a number."""
    return _parse(text, float, "numbers", "0,0.5,1e-3")


def _parse(text: str, kind: Callable[[str], T], what: str, example: str) -> list[T]:
    try:
        return [kind(part) for part in parse_list(text)]
    except ValueError as error:
        raise UsageError(f"{text!r} is not a list of {what}", str(error), f"Write {example}.") from error


def _to_json(result: Check | Control) -> dict[str, Value]:
    fields = {key: value for key, value in asdict(result).items() if key != "note" or value}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
