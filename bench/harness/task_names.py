"""Names of tasks: a task, a suite (`glue`), a task of it (`glue/rte`), or a task with an argument (`table:FILE`)."""

from __future__ import annotations

from bench.core import registry
from bench.core.errors import UsageError, did_you_mean, plain


def tasks_of(suite: str) -> tuple[str, ...]:
    """List the tasks of a suite without its name (`rte`); empty for a task of its own.

    Raises:
        UsageError: there is none of that name.
    """
    return registry.load("tasks", suite).members


def written(task: str) -> str:
    """Write a registered task as `--task` takes it: `glue`, `table:FILE`, `corpus[:PATH]` where it may be left out."""
    argument: str = registry.load("tasks", task).argument
    if argument.startswith("["):
        return f"{task}[:{argument[1:]}"
    return f"{task}:{argument}" if argument else task


def all_tasks() -> list[str]:
    """List every task of every suite, with the suite's name."""
    found: list[str] = []
    for suite in registry.entries("tasks"):
        try:
            found += [f"{suite}/{task}" for task in tasks_of(suite)]
        except Exception:
            continue
    return found


def check_task(name: str) -> None:
    """Raise UsageError, which names the nearest, if there is no task or suite of that name."""
    head, colon, _ = name.partition(":")
    if colon:
        registry.find("tasks", head)
        return
    suite, slash, task = name.partition("/")
    if suite not in registry.entries("tasks"):
        # `rte` for `glue/rte` is the likeliest slip
        meant = next((full for full in all_tasks() if plain(full).endswith(f"/{plain(name)}")), None)
        if meant:
            raise UsageError(
                f"unknown task '{name}'", f"it is a task of {meant.partition('/')[0]}", f"Did you mean '{meant}'?"
            )
        registry.find("tasks", suite)
    known = tasks_of(suite)
    if slash and known and task not in known:
        raise UsageError(
            f"unknown task '{name}'",
            f"tasks of {suite}: {', '.join(known)}",
            did_you_mean(name, [f"{suite}/{one}" for one in known]) or f"`bench show {suite}` describes them.",
        )
