"""Tasks and backbones by name, opened; what cannot be opened is kept with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bench.api.backbone import Backbone
from bench.api.task import Task
from bench.backbones import open_backbone
from bench.config.options import Config, options_of
from bench.config.sections import BackboneConfig
from bench.core import registry
from bench.core.errors import AbsentTask, BenchError, EnvironmentProblem, UsageError, did_you_mean
from bench.core.registry import family, opener
from bench.harness.request import Request
from bench.records.data import DataRequest, Dataset


class LoadedTask(NamedTuple):
    """A task with its data, and how to load it again: its name as given (`table:FILE`) and the request."""

    name: str
    request: DataRequest
    task: Task
    dataset: Dataset

    @property
    def data_options(self) -> frozenset[str]:
        """Options of the task that only say what the examples are: the hash of the data speaks for them."""
        return frozenset(options_of(type(self.request.config))) & frozenset(self.dataset.reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something asked for that will not run. `absent`: the directory just does not hold it, which is no error."""

    name: str
    error: BenchError
    absent: bool = False


def expand(names: Iterable[str]) -> list[tuple[str, Task]]:
    """List the tasks of these names, each once: `glue` is its nine; `glue/rte`; `name:argument` where a task takes one.

    Raises:
        UsageError: an unknown task.
    """
    found: dict[str, Task] = {}
    for name in names:
        suite, colon, argument = name.partition(":")
        suite, _, member = (suite, "", argument) if colon else name.partition("/")
        task: type[Any] = registry.load("tasks", suite)
        members: tuple[str, ...] = task.members
        if member and members and member not in members:
            hint = did_you_mean(member, members)
            raise UsageError(f"unknown task '{name}'", f"{suite} has: {', '.join(members)}", hint)
        if member and not members and not task.argument:
            known = f"{suite} is one task, not a suite, and takes no argument"
            raise UsageError(f"unknown task '{name}'", known, f"Did you mean '{suite}'?")
        for one in [member] if member or not members else members:
            found[f"{suite}/{one}" if members else name] = task(one)
    return list(found.items())


def load_tasks(
    request: Request, names: Sequence[str], configs: Mapping[str, Config], skipped: list[Skip]
) -> list[LoadedTask]:
    """Load tasks and suites; those that cannot be loaded are added to `skipped`. `configs` are by registered name.

    Raises:
        UsageError: an unknown task, or an option that does not fit the data.
    """
    loaded: list[LoadedTask] = []
    for name, task in expand(names):
        wanted = replace(request.data, config=configs[family(name)])
        try:
            loaded.append(LoadedTask(name, wanted, task, task.open(wanted)))
        except EnvironmentProblem as error:
            skipped.append(Skip(name=name, error=error, absent=isinstance(error, AbsentTask)))
    return loaded


def open_backbones(
    request: Request, configs: Mapping[str, BackboneConfig], skipped: list[Skip]
) -> list[tuple[str, Backbone]]:
    """Open each with its name as given; those not found are added to `skipped`. `configs` are by registered name.

    Raises:
        UsageError: a name that is nearly a registered one, or a network that does not exist.
    """
    opened: list[tuple[str, Backbone]] = []
    for name in request.all_backbones:
        try:
            opened.append((name, open_backbone(name, configs[opener(name)], runs=request.out)))
        except EnvironmentProblem as error:
            skipped.append(Skip(name=name, error=error))
    return opened
