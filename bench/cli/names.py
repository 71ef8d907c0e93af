"""Names of tasks: a task, a suite (`glue`), a cell of it (`glue/rte`), or a task with an argument (`table:FILE`)."""

from __future__ import annotations

from functools import cache

from bench.config.help import describe
from bench.core import registry
from bench.core.errors import UsageError, did_you_mean


@cache
def cells(suite: str) -> tuple[str, ...]:
    """Cells of a suite without its name (`rte`); empty for a task of its own, and where the source cannot be read."""
    found = describe("tasks", suite).attributes.get("cells", ())
    return tuple(str(cell).removeprefix(f"{suite}/") for cell in found)


def written(task: str) -> str:
    """A registered task as `--task` takes it: `glue`, `table:FILE`, `corpus[:PATH]` where it may be left out."""
    argument = str(describe("tasks", task).attributes.get("argument", ""))
    if argument.startswith("["):
        return f"{task}[:{argument[1:]}"
    return f"{task}:{argument}" if argument else task


def all_cells() -> list[str]:
    """Every cell of every suite, with the suite's name."""
    return [f"{suite}/{cell}" for suite in registry.entries("tasks") for cell in cells(suite)]


def check_task(name: str) -> None:
    """Look a task, suite or cell up.

    Raises:
        UsageError: there is none of that name; names the nearest.
    """
    head, colon, _ = name.partition(":")
    if colon:
        registry.where("tasks", head)
        return
    suite, slash, cell = name.partition("/")
    if suite not in registry.entries("tasks"):
        # `rte` for `glue/rte` is the likeliest slip
        meant = next((full for full in all_cells() if full.endswith(f"/{name}")), None)
        if meant:
            raise UsageError(
                f"unknown task '{name}'", f"it is a cell of {meant.partition('/')[0]}", f"Did you mean '{meant}'?"
            )
        registry.where("tasks", suite)
    known = cells(suite)
    if slash and known and cell not in known:
        raise UsageError(
            f"unknown cell '{name}'",
            f"cells of {suite}: {', '.join(known)}",
            did_you_mean(name, [f"{suite}/{cell}" for cell in known]) or f"`bench show {suite}` describes them.",
        )
