"""Progress on standard error: bars on a terminal or in a notebook, one line per finished run elsewhere."""

from __future__ import annotations

import html
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from bench.core.errors import BenchError
from bench.core.text import format_score, format_trained, printable, without_secrets
from bench.records.record import Record, is_done
from bench.records.schema import RunError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class Progress(AbstractContextManager["Progress"]):
    """Plain lines: one when a run ends.

    Several processes may train at a time; each has a lane, a whole number.
    """

    def __init__(self, total: int) -> None:
        self.total, self.count = total, 0
        self._warned: set[str] = set()

    def __exit__(self, *error: object) -> None:
        """Remove what does not stay on the screen."""

    def say(self, line: str) -> None:
        sys.stderr.write(printable(line) + "\n")
        sys.stderr.flush()

    def extend(self, run_id: str) -> None:
        """One more run than planned is to come: a trial beyond the candidates of a selection."""
        self.total += 1

    def begin(self, label: str, steps: int, folder: Path, lane: int = 0) -> None:
        """A run begins; `folder` is its own."""

    def step(self, step: int, loss: float, lane: int = 0) -> None:
        pass

    def end(self, lane: int) -> None:
        """The process of a lane has ended."""

    def warn(self, task: str, text: str) -> None:
        """Say what is known of a task's data before training, once for all its runs."""
        line = f"{task}: {text}"
        if line not in self._warned:
            self._warned.add(line)
            self.say(printable(without_secrets(line)))

    def finished(self, record: Record, *, before: str = "") -> None:
        """A run has ended: now, or in an earlier run of the command, which `before` says."""
        self.count += 1
        self.say(f"{self.count:>{len(str(self.total))}}/{self.total} {summary(record, before=before)}")


class RichProgress(Progress):
    """A bar for the steps of each lane's run, and one for the runs of the plan."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars: Bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )
        self.plan = self.bars.add_task("all runs", total=total, note="")
        self.lanes: dict[int, TaskID] = {}

    def __enter__(self) -> RichProgress:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def say(self, line: str) -> None:
        self.bars.console.print(printable(line), markup=False, highlight=False, soft_wrap=True)

    def begin(self, label: str, steps: int, folder: Path, lane: int = 0) -> None:
        if lane not in self.lanes:
            self.lanes[lane] = self.bars.add_task("", total=None, note="")
        self.bars.reset(self.lanes[lane], description=printable(label), total=steps, visible=True, note="loading")

    def extend(self, run_id: str) -> None:
        super().extend(run_id)
        self.bars.update(self.plan, total=self.total)

    def step(self, step: int, loss: float, lane: int = 0) -> None:
        self.bars.update(self.lanes[lane], completed=step, note=f"loss {loss:.3f}")

    def end(self, lane: int) -> None:
        if lane in self.lanes:
            self.bars.remove_task(self.lanes.pop(lane))

    def finished(self, record: Record, *, before: str = "") -> None:
        super().finished(record, before=before)
        self.bars.update(self.plan, completed=self.count)


class _Display(Protocol):
    """What `IPython.display.display` returns."""

    def update(self, obj: object) -> None: ...


class NotebookProgress(Progress):
    """In a notebook's output a bar for the steps of each lane's run, and a line above them for every finished run."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        from IPython.display import display  # pyright: ignore[reportUnknownVariableType]

        self.lines: list[str] = []
        self.lanes: dict[int, tuple[str, int, int]] = {}
        self.shown = cast(_Display, display(self, display_id=True))
        self._updated = 0.0

    def _repr_html_(self) -> str:
        lines = "\n".join(map(html.escape, self.lines))
        bars = [
            f'<div><progress value="{done}" max="{max(steps, 1)}"></progress> {html.escape(label)}</div>'
            for label, steps, done in self.lanes.values()
        ]
        return f"<pre>{lines}</pre>{''.join(bars)}"

    def say(self, line: str) -> None:
        self.lines.append(line)
        self.shown.update(self)

    def begin(self, label: str, steps: int, folder: Path, lane: int = 0) -> None:
        self.lanes[lane] = (f"{self.count + 1}/{self.total} {label}", steps, 0)
        self.shown.update(self)

    def step(self, step: int, loss: float, lane: int = 0) -> None:
        """Move the bar, at most five times a second."""
        label, steps, _ = self.lanes[lane]
        self.lanes[lane] = (label, steps, step)
        if time.monotonic() - self._updated > 0.2:
            self._updated = time.monotonic()
            self.shown.update(self)

    def end(self, lane: int) -> None:
        self.lanes.pop(lane, None)

    def __exit__(self, *error: object) -> None:
        self.lanes.clear()
        self.shown.update(self)


def make_progress(total: int) -> Progress:
    """Choose bars in a notebook or on a terminal, and plain lines elsewhere."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        return NotebookProgress(total)
    return RichProgress(total) if sys.stderr.isatty() else Progress(total)


def summary(record: Record, *, before: str) -> str:
    """`deeplora glue/cola seed 0  matthews 0.41  0.08 M (0.3 %) trained  rank 8: effective 2.3, needed 2  38 s`."""
    spec = record.spec
    trial = "trial " if spec.holdout else ""
    rate = f" lr {record.lr:g}" if record.lr is not None else ""
    head = f"{trial}{spec.method} {spec.task} seed {spec.seed}{rate}"
    if not is_done(record):
        error = record.error or RunError(what="see its record", known="", todo="")
        problem = BenchError(error.what, error.known, error.todo)
        return f"{head:<40} {record.state.upper()}: {problem.line()}"
    primary, params, cost = record.metrics.primary, record.params, record.cost
    parts = [
        f"{head:<40} {primary.name} {format_score(primary.value, primary.higher_is_better)}",
        f"{format_trained(params.trainable, params.trainable / params.total)} trained",
    ]
    if record.ranks:
        effective = sum(r.effective for r in record.ranks) / len(record.ranks)
        nominal = sum(r.nominal for r in record.ranks) / len(record.ranks)
        needed = f", needed {record.truncation.text.split()[0]}" if record.truncation else ""
        parts.append(f"rank {nominal:.3g}: effective {effective:.1f}{needed}")
    parts.append(before or f"{cost.train_s + cost.eval_s + cost.truncation_s:.0f} s")
    return "  ".join([*parts, *(f"! {without_secrets(w)}" for w in record.warnings)])
