"""Names of tasks: a task, a suite (`glue`), a task of it (`glue/rte`), or a task with an argument (`table:FILE`).

A file that a task reads stands for the task: `reviews.csv` is `table:reviews.csv`.
"""

from __future__ import annotations

from pathlib import Path

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


def full_name(name: str) -> str:
    """Return `table:FILE` for the name of a file that a task reads, and any other name as it is.

    A registered name means the task, also where there is a file of that name.

    Raises:
        UsageError: it looks like such a file, and there is none.
    """
    suffix = Path(name).suffix.lower()
    if not suffix or ":" in name or _is_registered(name):
        return name
    reader = next((task for task in registry.entries("tasks") if suffix in _suffixes(task)), None)
    if reader is None:
        return name
    if not Path(name).expanduser().is_file():
        todo = f"Give the path of a file, `bench show {reader}` describes it, or a name of `bench list tasks`."
        raise UsageError(f"there is no file '{name}', and no task of that name", f"looked from {Path.cwd()}", todo)
    return f"{reader}:{name}"


def _suffixes(task: str) -> tuple[str, ...]:
    try:
        return registry.load("tasks", task).suffixes
    except Exception:  # of a third party
        return ()


def _is_registered(name: str) -> bool:
    suite, slash, member = name.partition("/")
    return suite in registry.entries("tasks") and (not slash or member in tasks_of(suite))


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
