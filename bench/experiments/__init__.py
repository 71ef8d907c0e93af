"""The survey's claims as experiments: a prediction, a check with a tolerance, and controls that must fail it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bench.config import options

if TYPE_CHECKING:
    from bench.experiments.lab import Lab
    from bench.figures import Figure

Number = float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One prediction and what was measured.

    Attributes:
        name: what is compared.
        predicted: what theory or the claim says; of a one-sided claim its limit.
        measured: what came out; NaN and infinities are never held, and written as null.
        tolerance: how far apart the two may be.
        held: whether the prediction was met.
        note: what a reader must know besides, such as that training was too short to say.
    """

    name: str
    predicted: Number
    measured: Number
    tolerance: float
    held: bool
    note: str = ""

    @classmethod
    def near(cls, name: str, predicted: Number, measured: Number, tolerance: float) -> Check:
        """Holds where the two differ by at most `tolerance`."""
        held = abs(measured - predicted) <= tolerance
        return cls(name=name, predicted=predicted, measured=measured, tolerance=tolerance, held=held)

    @classmethod
    def at_most(cls, name: str, limit: Number, measured: Number, tolerance: float = 0.0) -> Check:
        """Holds where what was measured is not above the limit by more than `tolerance`."""
        held = measured <= limit + tolerance
        return cls(name=name, predicted=limit, measured=measured, tolerance=tolerance, held=held)

    @classmethod
    def at_least(cls, name: str, limit: Number, measured: Number, tolerance: float = 0.0) -> Check:
        """Holds where what was measured is not below the limit by more than `tolerance`."""
        held = measured >= limit - tolerance
        return cls(name=name, predicted=limit, measured=measured, tolerance=tolerance, held=held)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The same check where the prediction must fail: a check that everything passes checks nothing.

    Attributes:
        expected: what must come out, in words.
        measured: what did.
        held: whether it is as expected.
    """

    name: str
    expected: str
    measured: Number
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an experiment found.

    Attributes:
        checks, controls: all must hold.
        figure: what there is to see.
        header, rows: its table, for people.
        says: one or two sentences of what came out, written by the experiment from its numbers.
    """

    checks: Sequence[Check]
    controls: Sequence[Control] = ()
    figure: Figure | None = None
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    says: str = ""

    @property
    def held(self) -> bool:
        """Whether every check held and every control came out as it must."""
        return bool(self.checks) and all(one.held for one in (*self.checks, *self.controls))

    def to_json(self, name: str) -> dict[str, Any]:
        """`{name, held, checks: [{name, predicted, measured, tolerance, held}], controls: [{name, expected, measured,
        held}]}`; a check has a `note` where there is something to say.
        """
        return {
            "name": name,
            "held": self.held,
            "checks": [_plain(check) for check in self.checks],
            "controls": [_plain(control) for control in self.controls],
        }


class Experiment(ABC):
    """One claim. A subclass has `Config`, a frozen dataclass of its options, and `run`.

    Attributes:
        quick: options, and their values with `--quick`, which then ends within two minutes on two cores.
        place: where in the survey the claim stands.
    """

    Config: ClassVar[type[options.Config]]
    quick: ClassVar[Mapping[str, str | int | float | bool]] = {}
    place: ClassVar[str] = ""

    def __init__(self, config: Any, lab: Lab) -> None:
        self.config, self.lab = config, lab

    @abstractmethod
    def run(self) -> Outcome:
        """Train, measure, compare."""


def _plain(one: Check | Control) -> dict[str, Any]:
    found = {key: value for key, value in asdict(one).items() if key != "note" or value}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}
