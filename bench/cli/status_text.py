"""The text of `bench status`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime

from bench.core.text import printable, table, width, without_secrets
from bench.records.record import ERROR_LOG, TRIALS
from bench.records.status import ClaimedRun, Failure, Status
from leaderboard.render.cells import NOTHING, duration

MOST_FAILURES = 10
MOST_HOSTS = 3
MOST_SPEEDS = 5
ID = 8
"""Digits of a run id that `bench show` takes for the whole."""
HEAD = len("unreadable  ")
UNBROKEN = "\N{NO-BREAK SPACE}"
SMALLEST = 6
"""Columns that a cell keeps where a table is cut to a width."""


def text(status: Status, *, columns: int = 100, most: int | None = None) -> str:
    """Write a status in lines of at most so many columns.

    Args:
        most: running runs that are shown, and then only some mean times too; None: all.
    """
    parts = (
        _head(status, columns),
        _claimed(status, columns, most),
        _failures(status, columns),
        _speed(status, columns, None if most is None else MOST_SPEEDS),
    )
    return "\n\n".join(filter(None, parts))


def counts(status: Status) -> str:
    """`12 done, 2 running, 1 failed; trials: 4 done`."""
    trials = _counted(status.trials)
    return "; ".join(filter(None, (_counted(status.runs) or "no runs", trials and f"trials: {trials}")))


def failure(failed: Failure) -> str:
    """`0123456789abcdef failed: lora glue/cola seed 0: the error`."""
    run = f"{failed.run_id} {failed.state}: {failed.method} {_task(failed)} seed {failed.seed}"
    return printable(without_secrets(f"{run}: {failed.error}"))


def _head(status: Status, columns: int) -> str:
    unreadable = status.runs["unreadable"] + status.trials["unreadable"]
    rows = [
        ("runs", _counted(status.runs) or "none"),
        ("trials", _counted(status.trials)),
        ("left", _left(status)),
        ("last hour", f"{status.last_hour:,} done" if status.last_hour else ""),
        ("hosts", _hosts(status)),
        ("unreadable", "`bench list runs` says why" if unreadable else ""),
    ]
    lines = [(datetime.fromtimestamp(status.time).strftime("%H:%M:%S"), status.folder)]
    for name, value in rows:
        whole = value.replace(" ", UNBROKEN).replace(f",{UNBROKEN}", ", ")
        parts = textwrap.wrap(whole, max(columns - HEAD, 20), break_long_words=False)
        lines += [("" if i else name, part.replace(UNBROKEN, " ")) for i, part in enumerate(parts)]
    return table(lines[0], lines[1:])


def _left(status: Status) -> str:
    """`35, about 25 min one after the other, 8.3 min with 3 at a time, 4 of unknown time`."""
    if status.left is None:
        return ""
    parts = [f"{status.left:,}"]
    training = sum(not run.heartbeat for run in status.claimed)
    if status.left_s:
        parts.append(f"about {duration(status.left_s)} one after the other")
        parts += [f"{duration(status.left_s / training)} with {training} at a time"] if training > 1 else []
    parts += [f"{status.left_unknown:,} of unknown time"] if status.left_unknown else []
    return ", ".join(parts)


def _counted(states: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {state}" for state, number in states.items() if number)


def _claimed(status: Status, columns: int, most: int | None) -> str:
    shown = status.claimed[:most]
    header = ("running", "method", "task", "seed", "host:pid", "step", "loss", "for", "left", "heartbeat")
    rows = [_claimed_row(run) for run in shown]
    return (
        _with_rest(_fitted(header, rows, columns, shrink=(1, 2, 4)), len(status.claimed) - len(shown)) if rows else ""
    )


def _claimed_row(run: ClaimedRun) -> tuple[str, ...]:
    step = NOTHING if run.step is None else str(run.step)
    return (
        run.run_id[:ID],
        run.method or NOTHING,
        _task(run),
        NOTHING if run.seed is None else str(run.seed),
        NOTHING if run.host is None else f"{_host(run.host)}:{run.pid}",
        step if run.steps is None else f"{step}/{run.steps}",
        NOTHING if run.loss is None else f"{run.loss:.3g}",
        duration(run.elapsed_s),
        duration(run.left_s),
        "gone" if run.heartbeat == "gone" else f"{duration(run.heartbeat_s)} {run.heartbeat}".strip(),
    )


def _failures(status: Status, columns: int) -> str:
    shown = status.failures[:MOST_FAILURES]
    if not shown:
        return ""
    rows = [(f.run_id[:ID], f.state, f.method or NOTHING, _task(f), str(f.seed), f.error) for f in shown]
    lines = _fitted(("failures", "state", "method", "task", "seed", "error"), rows, columns, shrink=(2, 3, 5))
    lines = _with_rest(lines, len(status.failures) - len(shown))
    logs = [failed for failed in shown if failed.log]
    if not logs:
        return lines
    places = sorted({f"{TRIALS}/RUN*/{ERROR_LOG}" if failed.trial else f"RUN*/{ERROR_LOG}" for failed in logs})
    return f"{lines}\ntracebacks: " + ", ".join(f"{printable(status.folder)}/{place}" for place in places)


def _speed(status: Status, columns: int, most: int | None) -> str:
    shown = status.speed[:most]
    rows = [(speed.method, speed.task, str(speed.runs), duration(speed.mean_s)) for speed in shown]
    lines = _fitted(("done", "task", "runs", "mean time"), rows, columns, shrink=(0, 1))
    return _with_rest(lines, len(status.speed) - len(shown)) if rows else ""


def _task(run: ClaimedRun | Failure) -> str:
    return (run.task or NOTHING) + (" (trial)" if run.trial else "")


def _hosts(status: Status) -> str:
    busiest = sorted(status.hosts.items(), key=lambda item: -item[1])
    shown = [f"{_cut(_host(name), 24)} {number}" for name, number in busiest[:MOST_HOSTS]]
    more = len(busiest) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def _host(name: str) -> str:
    """A host without its domain."""
    return (name if name[:1].isdigit() else name.partition(".")[0]) or "unknown"


def _with_rest(lines: str, more: int) -> str:
    return f"{lines}\nand {more:,} more" if more > 0 else lines


def _fitted(header: Sequence[str], rows: Sequence[Sequence[str]], columns: int, *, shrink: Sequence[int]) -> str:
    """A table whose cells in the columns `shrink`, always the widest, are cut until a line has at most `columns`."""
    cells = [[without_secrets(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > columns:
        widest = max(shrink, key=lambda i: widths[i])
        if widths[widest] <= SMALLEST:
            break
        widths[widest] -= 1
    top, *lines = [[_cut(cell, most) for cell, most in zip(row, widths, strict=True)] for row in cells]
    return table(top, lines)


def _cut(cell: str, most: int) -> str:
    if width(cell) <= most:
        return cell
    while width(cell) >= most:
        cell = cell[:-1]
    return f"{cell}…"
