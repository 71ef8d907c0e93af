"""Tasks, backbones and adapters to start from, opened; what cannot be opened is kept with the reason."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bench.api.backbone import Backbone
from bench.api.peft import open_folder
from bench.api.task import Task
from bench.backbones import open_backbone
from bench.config.options import Config, Value, options_of
from bench.config.overrides import Configs, Name, Overrides
from bench.config.sections import BackboneConfig, MethodConfig
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


class Inputs:
    """The tasks and backbones of a request, each opened once with each of its Configs.

    Attributes:
        request: its `data` has `on_bad` filled in.
        skipped: what cannot be opened.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.skipped: list[Skip] = []
        self._tasks: dict[tuple[str, Config], LoadedTask | None] = {}
        self._backbones: dict[tuple[str, BackboneConfig], Backbone | None] = {}

    def tasks(self, names: Sequence[str], configs: Configs, lists: Lists) -> list[LoadedTask]:
        """Load tasks and suites with the options of a variant; `lists` are the options that have several values.

        Raises:
            UsageError: an unknown task, or an option that does not fit the data.
        """
        loaded: list[LoadedTask | None] = []
        for name, task in expand(names):
            config = configs.tasks[family(name)]
            if (name, config) not in self._tasks:
                wanted = replace(self.request.data, config=config)
                label = variant_name(name, configs.overrides.reaching([("task", config)]), lists)
                with self._skipping(label):
                    self._tasks[name, config] = None
                    self._tasks[name, config] = LoadedTask(name, wanted, task, task.open(wanted))
            loaded.append(self._tasks[name, config])
        return [one for one in loaded if one]

    def backbones(self, configs: Configs, lists: Lists) -> list[tuple[str, Backbone]]:
        """Open each with its name as given and the options of a variant.

        Raises:
            UsageError: a name that is nearly a registered one, or a network that does not exist.
        """
        opened: list[tuple[str, Backbone | None]] = []
        for name in self.request.all_backbones:
            config = configs.backbones[opener(name)]
            if (name, config) not in self._backbones:
                label = variant_name(name, configs.overrides.reaching([("backbone", config)]), lists)
                with self._skipping(label):
                    self._backbones[name, config] = None
                    self._backbones[name, config] = open_backbone(name, config, runs=self.request.out)
            opened.append((name, self._backbones[name, config]))
        return [(name, one) for name, one in opened if one]

    @contextmanager
    def _skipping(self, name: str) -> Generator[None]:
        try:
            yield
        except EnvironmentProblem as error:
            self.skipped.append(Skip(name=name, error=error, absent=isinstance(error, AbsentTask)))


Lists = frozenset[Name]
"""Options that have several values in a grid."""


def variant_name(name: str, given: Mapping[Name, str], lists: Lists) -> str:
    """Write which variant of something it is, `lora × digits with method.rank=4`, by its options among `lists`."""
    varied = [f"{space}.{key}={value}" for (space, key), value in given.items() if (space, key) in lists]
    return f"{name} with {', '.join(varied)}" if varied else name


def open_start(overrides: Overrides, method: str, config: MethodConfig) -> tuple[MethodConfig, str | None]:
    """The options of a method, and the folder of the adapter that its option `start` names.

    In the folder's place comes the hash of its content, with the options that the adapter decides.

    Raises:
        EnvironmentProblem: there is no adapter in it.
        UsageError: the method cannot start from it, or another value was given for an option that it decides.
    """
    start = getattr(config, "start", None)
    if not start:
        return config, None
    folder = open_folder(Path(str(start)).expanduser())
    decided: dict[str, Value] = registry.load("methods", method).from_peft(folder)
    for key, value in decided.items():
        if ("method", key) in overrides.selected:
            raise UsageError(
                f"--select method.{key} with an adapter to start from",
                f"{folder.path} has {key} {value}",
                f"Leave method.{key} out of --select.",
            )
        if key == "target" and overrides.has("method", key):
            continue  # which layers an expression names, only the network can tell
        if overrides.has("method", key) and getattr(config, key) != value:
            raise UsageError(
                f"--set method.{key}={getattr(config, key)} contradicts the adapter to start from",
                f"{folder.path} has {key} {value}",
                "Leave the option out.",
            )
        config = config.changed(**{key: value})
    return config.changed(start=f"sha256:{folder.hash}"), str(folder.path)
