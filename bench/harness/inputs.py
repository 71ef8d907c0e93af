"""Tasks and backbones by name, opened; what cannot be is kept with the reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from bench.api.backbone import Backbone
from bench.api.task import Task
from bench.backbones import open_backbone
from bench.config.overrides import resolve_own
from bench.core import registry
from bench.core.errors import AbsentTask, BenchError, EnvironmentProblem, UsageError, did_you_mean
from bench.core.registry import family, opener
from bench.harness.request import Request
from bench.records.data import Corpus, DataRequest
from bench.records.spec import Option


class Opened(NamedTuple):
    """A task with its data, and how to open it again: its name as asked (`table:FILE`) and the request."""

    name: str
    request: DataRequest
    task: Task
    corpus: Corpus

    @property
    def task_options(self) -> dict[str, Option]:
        """Options that the examples do not speak for: equal data is an equal run, however it was named."""
        return {key: value for key, value in self.request.options.items() if key not in self.corpus.reading}


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """Something asked for that will not run. `absent`: the directory just does not hold it, which is no error."""

    name: str
    error: BenchError
    absent: bool = False


def expand(names: Iterable[str]) -> list[tuple[str, Task]]:
    """`glue` → its nine cells; `glue/rte`; `name:argument` for tasks that take one. Each once.

    Raises:
        UsageError: an unknown task or cell.
    """
    found: dict[str, Task] = {}
    for name in names:
        suite, colon, argument = name.partition(":")
        suite, _, cell = (suite, "", argument) if colon else name.partition("/")
        task: type[Any] = registry.load("tasks", suite)
        cells: tuple[str, ...] = task.cells
        if cell and cells and cell not in cells:
            hint = did_you_mean(cell, cells)
            raise UsageError(f"unknown task '{name}'", f"{suite} has: {', '.join(cells)}", hint)
        if cell and not cells and not task.argument:
            known = f"{suite} is one task, without cells or an argument"
            raise UsageError(f"unknown task '{name}'", known, f"Did you mean '{suite}'?")
        for one in [cell] if cell or not cells else cells:
            found[f"{suite}/{one}" if cells else name] = task(one)
    return list(found.items())


def open_tasks(request: Request, names: Sequence[str], skipped: list[Skip]) -> list[Opened]:
    """The cells of `names`, each read with its own options; those that cannot be go to `skipped`.

    Raises:
        UsageError: an unknown task or cell, or an option that does not fit the data.
    """
    options = resolve_own("tasks", request.settings, request.families)
    opened: list[Opened] = []
    for name, task in expand(names):
        task.Config(**options[family(name)])  # checks ranges
        asked = replace(request.data, options=options[family(name)])
        try:
            opened.append(Opened(name, asked, task, task.open(asked)))
        except EnvironmentProblem as error:
            skipped.append(Skip(name=name, error=error, absent=isinstance(error, AbsentTask)))
    return opened


def open_backbones(request: Request, skipped: list[Skip]) -> list[Backbone]:
    """The backbones, each with its own options; those that cannot be found go to `skipped`.

    Raises:
        UsageError: a value out of range.
    """
    options = resolve_own("backbones", request.settings, request.openers)
    opened: list[Backbone] = []
    for name in request.all_backbones:
        try:
            opened.append(open_backbone(name, options[opener(name)], runs=request.out))
        except EnvironmentProblem as error:
            skipped.append(Skip(name=name, error=error))
    return opened
