"""Equal parameters: the rank, or another size, at which a method trains as many parameters as another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from bench.api.backbone import Backbone
from bench.config.options import Value, scaling_option
from bench.config.sections import AllocationConfig, MethodConfig
from bench.core.errors import BenchError, UsageError
from bench.harness.inputs import LoadedTask
from bench.records.spec import RunSpec

STEPS = 16
"""Most distance between two values that an option may have: some ranks must be even."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The value of an option at which a method trains as many parameters as another method, or the next fewer.

    Attributes:
        to: the other method.
        option: `method.rank`.
        trained, budget: parameters beside the head that the method trains, and the other.
    """

    method: str
    to: str
    option: str
    value: int
    trained: int
    budget: int

    def line(self) -> str:
        """Say what was chosen, and what is left over."""
        left = self.budget - self.trained
        rest = f"{left:,} ({100 * left / self.budget:.1f} %) left over" if left else "nothing left over"
        return (
            f"{self.method}: {self.option}={self.value} trains {self.trained:,} parameters beside the head, "
            f"{self.to} {self.budget:,}: {rest}"
        )


class Matcher:
    """Finds matches, and builds each network once for each value that it tries."""

    def __init__(self) -> None:
        self._counts: dict[tuple[object, ...], int] = {}

    def match(self, spec: RunSpec, reference: RunSpec, loaded: LoadedTask, backbone: Backbone) -> Match:
        """Find the largest value of the option that scales a method with which it trains no more than `reference`.

        Raises:
            UsageError: the method declares no such option, the option has no effect, or its least value trains more.
        """
        method, to = spec.method, reference.method
        config = spec.options.method
        key = scaling_option(type(config))
        if key is None:
            raise UsageError(
                f"--match-params {to}: {method} has no option that scales its parameters",
                "a method declares one by option(…, scales_parameters=True)",
                f"Leave {method} out, or run it by a command of its own.",
            )
        name = config.full_name(key)
        budget = self._count(reference, loaded, backbone)
        values = _Values(config, key)

        def count(place: int) -> int | None:
            """Return what is trained at a value; None where the network refuses it."""
            changed = values.config(place)
            try:
                return changed and self._count(spec.with_options(method=changed), loaded, backbone)
            except UsageError:
                return None

        least, second = count(0), count(1)
        if least is None or least > budget:
            trains = f"{method} trains {least:,}" if least else f"{method} cannot be built"
            raise UsageError(
                f"--match-params {to}: {method} cannot train as few parameters",
                f"beside the head {to} trains {budget:,}, {trains} at {name}={values[0]}",
                f"Raise what {to} trains, or leave {method} out.",
            )
        if second is not None and second <= least:
            raise UsageError(
                f"--match-params {to}: {name} does not raise what {method} trains",
                f"{name}={values[0]} trains {least:,} beside the head, {name}={values[1]} {second:,}",
                f"Leave out the option that fixes it, or {method}.",
            )
        place, trained = largest_within(budget, count)
        return Match(method=method, to=to, option=name, value=values[place], trained=trained, budget=budget)

    def _count(self, spec: RunSpec, loaded: LoadedTask, backbone: Backbone) -> int:
        """Return the trained parameters beside the head; an allocation of rank does not change them."""
        shape = loaded.task.spec.shape
        key = (spec.method, spec.options.method, spec.start, backbone.weights_hash, spec.options.backbone, shape)
        if key not in self._counts:
            from bench.training.counting import count_parameters  # imports torch

            plain = spec.with_options(allocation=AllocationConfig())
            counts = count_parameters(plain, loaded.task, loaded.dataset, backbone)
            if counts is None:
                raise BenchError(f"{spec.method} on {spec.task} cannot be counted", "the first batch cannot be made")
            self._counts[key] = counts["trainable"] - counts["head"]
        return self._counts[key]


class _Values:
    """The values that a whole-number option can have, evenly spaced, by their place from 0 on."""

    def __init__(self, config: MethodConfig, key: str) -> None:
        self._config, self._key = config, key
        limits = next(field.metadata for field in dataclasses.fields(config) if field.name == key)
        least = int(limits.get("at_least") or 1)
        allowed = [value for value in range(least, least + STEPS) if self._at(value)]
        self._first, self._step = allowed[0], allowed[1] - allowed[0]

    def __getitem__(self, place: int) -> int:
        return self._first + place * self._step

    def config(self, place: int) -> MethodConfig | None:
        """Return the options with the value at a place; None where they refuse it."""
        return self._at(self[place])

    def _at(self, value: Value) -> MethodConfig | None:
        try:
            return self._config.changed(**{self._key: value})
        except UsageError:
            return None


def largest_within(budget: int, count: Callable[[int], int | None]) -> tuple[int, int]:
    """Return the last place at which an increasing `count` is at most `budget`, and the count there.

    `count(0)` must be; None counts as too much. Each guess is where a line through the last two counts meets the
    budget, which is exact for a linear count.
    """
    low, at_low = 0, count(0)
    assert at_low is not None and at_low <= budget
    slope, high = 1, None
    guess = 1
    while high is None or high - low > 1:
        counted = count(guess)
        if counted is None or counted > budget:
            high = guess
        else:
            slope = max(1, (counted - at_low) // (guess - low))
            low, at_low = guess, counted
        guess = low + max(1, (budget - at_low) // slope)
        if high is not None and guess >= high:
            guess = (low + high) // 2
    return low, at_low
