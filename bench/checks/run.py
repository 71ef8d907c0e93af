"""Runs the checks of a method, one by one or as tests of pytest; torch is imported by the first that runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from unittest import SkipTest

from bench.checks.networks import SMALL, tasks_of
from bench.config.options import Value
from bench.config.overrides import Overrides, build_configs
from bench.core import registry
from bench.core.errors import BenchError, UsageError

if TYPE_CHECKING:
    import pytest

    from bench.checks.subject import Subject

NAMES = (
    "can_be_built",
    "options_survive_the_record",
    "parameters_follow_the_formula",
    "starts_at_the_backbone",
    "the_head_follows_from_the_seed",
    "each_trained_tensor_learns",
    "no_frozen_tensor_moves",
    "each_trained_tensor_has_one_group",
    "a_short_run_lowers_the_loss",
    "a_seed_repeats_a_run",
    "delta_is_the_change_of_the_function",
    "nominal_rank_bounds_the_rank",
    "export_loads_back",
    "an_interrupted_run_resumes",
    "micro_batches_change_nothing",
    "peft_computes_the_same",
)
"""The functions of `bench.checks.contract`, in the order in which a method is best mended."""
State = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check of a method on one network.

    Attributes:
        check: its name.
        on: the network.
        reason: why it failed, or does not apply; empty where it passed.
    """

    check: str
    on: str
    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a method on one network; a call runs it.

    Attributes:
        on: the network: bert, vit or mlp, which are small ones, or what was asked for.
        settings: options by name: `("method.rank", 4)`.
        small: whether the network is one of these three, with a few neurons.
    """

    name: str
    method: str
    on: str
    settings: tuple[tuple[str, Value], ...] = ()
    small: bool = True
    accelerator: str = "cpu"

    def __call__(self) -> None:
        """Run it.

        Raises:
            AssertionError: it does not hold; the text says what was found.
            unittest.SkipTest: it does not apply; the text says why.
            BenchError: the network cannot be opened.
        """
        from bench.checks import contract

        getattr(contract, self.name)(self._subject())

    def _subject(self) -> Subject:
        from bench.checks.subject import open_subject  # imports torch

        found = open_subject(
            self.method, self.on, settings=self.settings, small=self.small, accelerator=self.accelerator
        )
        if isinstance(found, str):
            raise SkipTest(found if self.name == NAMES[0] else f"it cannot be built on {self.on}")
        return found

    def result(self) -> Result:
        """Run it and say how it ended; an unexpected error is a check that does not hold.

        Raises:
            BenchError: the network cannot be opened.
        """
        try:
            self._subject()
        except SkipTest as skip:
            return self._result("skipped", str(skip))
        try:
            self()
        except SkipTest as skip:
            return self._result("skipped", str(skip))
        except AssertionError as broken:
            return self._result("failed", str(broken) or "an assertion failed")
        except BenchError as error:
            return self._result("failed", error.line())
        except Exception as error:  # the code of a third party may be wrong in any way
            return self._result("failed", f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}")
        return self._result("passed")

    def _result(self, state: State, reason: str = "") -> Result:
        return Result(check=self.name, on=self.on, state=state, reason=reason)


def checks_of(
    method: str, *, set: Mapping[str, Value] | None = None, backbones: Iterable[str] = (), accelerator: str = "cpu"
) -> list[Check]:
    """List the checks of a method, each on every network.

    Args:
        method: a registered name, also one of another package's entry point.
        set: options, `{"method.rank": 4}`.
        backbones: as `--backbone` takes them; none: a small BERT, ViT and MLP, those whose inputs its Config names.
        accelerator: where it trains.

    Raises:
        UsageError: a name or an option is not known, or an option has several values.
        EnvironmentProblem: the method's module cannot be imported.
    """
    needs = registry.load_config("methods", method).needs
    networks = tuple(backbones) or tuple(name for kind, name in SMALL.items() if kind in needs)
    tasks = {registry.family(task) for on in networks for task in tasks_of(method, on, small=not backbones)}
    overrides = Overrides.of(set or {})
    openers = [registry.opener(name) for name in networks]
    if len(build_configs(overrides, methods=(method,), tasks=sorted(tasks), backbones=openers)) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in overrides.by_name().items())
        raise UsageError("a check takes one value of an option", f"given: {listed}", "Run it once for each value.")
    settings = tuple((set or {}).items())
    return [
        Check(name=name, method=method, on=on, settings=settings, small=not backbones, accelerator=accelerator)
        for on in networks
        for name in NAMES
    ]


def run_checks(
    method: str, *, set: Mapping[str, Value] | None = None, backbones: Iterable[str] = (), accelerator: str = "cpu"
) -> Iterator[Result]:
    """Run the checks that `checks_of` lists for the same arguments, which raises as it does.

    Of a network on which the method cannot be built there is one result.
    """
    return _results(checks_of(method, set=set, backbones=backbones, accelerator=accelerator))


def _results(every: Iterable[Check]) -> Iterator[Result]:
    unfit: str | None = None
    for check in every:
        if check.on != unfit:
            yield (result := check.result())
            unfit = check.on if (result.check, result.state) == (NAMES[0], "skipped") else None


def parametrize_with_checks(
    method: str, *, set: Mapping[str, Value] | None = None, backbones: Iterable[str] = (), accelerator: str = "cpu"
) -> pytest.MarkDecorator:
    """Make a test function with the argument `check`, which it calls, a test for each check of `checks_of`."""
    import pytest

    every = checks_of(method, set=set, backbones=backbones, accelerator=accelerator)
    return pytest.mark.parametrize("check", every, ids=[f"{check.name}-{check.on}" for check in every])
