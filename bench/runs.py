"""The Python API: `bench.run`, `bench.plan` and `bench.load`, and the `Runs` that they return."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from bench.config import flags
from bench.core.errors import BenchError, UsageError
from bench.env import preflight
from bench.harness.planner import Plan, make_plan
from bench.harness.request import make_request
from bench.records.record import DoneRecord, Record, is_done, load_all
from bench.records.record import folder as run_folder

if TYPE_CHECKING:
    import pandas

R = TypeVar("R", bound=Record, covariant=True)


class Runs(Sequence[R]):
    """The records of some runs, in order.

        runs = bench.run(methods=["lora", "deeplora"], tasks="glue/rte", seeds=range(3), set={"method.rank": 4})
        print(runs.table())
        runs.frame().groupby("method").score.mean()
        runs[0].ranks

    Attributes:
        folder: where the records are.
        problems: files in that folder that are not valid records.
    """

    def __init__(self, records: Sequence[R], folder: Path, problems: Sequence[BenchError] = ()) -> None:
        self._records, self.folder, self.problems = tuple(records), folder, tuple(problems)

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> Runs[R]: ...
    def __getitem__(self, index: int | slice) -> R | Runs[R]:
        if isinstance(index, slice):
            return Runs(self._records[index], self.folder, self.problems)
        return self._records[index]

    @property
    def done(self) -> Runs[DoneRecord]:
        """Those that finished well."""
        return Runs([record for record in self if is_done(record)], self.folder, self.problems)

    def table(self) -> str:
        """Write the leaderboard of these runs as Markdown."""
        from leaderboard.render.markdown import render

        return render([*self.done], self.folder)

    def frame(self) -> pandas.DataFrame:
        """Return a DataFrame with a row per run: scores, parameters, ranks, times, and every option by its name.

        `score` is the primary metric, `trained` and `total` count parameters, `effective_rank` and `nominal_rank` are
        means over the layers. What a run does not have is NaN.
        """
        import pandas

        return pandas.DataFrame([_row(record) for record in self])

    def spectra(self) -> pandas.DataFrame:
        """Return a DataFrame with a row per run, quantity, layer and step that was tracked: ranks and spectral norm.

        `of` is what was looked at (`updates` is ΔW, `gradients`, …), as in `spectra.of`. Of a ΔW that was not tracked
        there is a row for the last step. Columns are the fields of `bench.spectra.files.frame.Row`; `run_id` joins them
        with `frame`.

            spectra = bench.load("runs").spectra()
            spectra[spectra.of == "updates"].groupby(["method", "step"]).effective_rank.mean()
        """
        import pandas

        from bench.spectra.files.frame import Row, rows  # imports torch

        found = [row for record in self for row in rows(record, run_folder(self.folder, record.run_id))]
        return pandas.DataFrame(found, columns=[*Row._fields])


def _row(record: Record) -> dict[str, object]:
    spec, primary = record.spec, record.metrics.primary if record.metrics else None
    ranks, count = record.ranks, len(record.ranks)
    return {
        "run_id": record.run_id,
        "state": record.state,
        "method": spec.method,
        "task": spec.task,
        "backbone": record.backbone.name,
        "seed": spec.seed,
        "lr": record.lr,
        "metric": primary.name if primary else None,
        "score": primary.value if primary else None,
        "trained": record.params.trainable if record.params else None,
        "total": record.params.total if record.params else None,
        "effective_rank": sum(layer.effective for layer in ranks) / count if count else None,
        "nominal_rank": sum(layer.nominal for layer in ranks) / count if count else None,
        "train_s": record.cost.train_s if record.cost else None,
        "eval_s": record.cost.eval_s if record.cost else None,
        **spec.options.flat(),
    }


Names = str | Sequence[str]


def plan(methods: Names = (), tasks: Names = (), *, plan: str | Path | None = None, **options: Any) -> Plan:
    """Plan a grid without training it; the arguments are those of `run`.

    Raises:
        UsageError: an unknown name, key or value.
        EnvironmentProblem: nothing of it can run.
    """
    if plan is None:
        return make_plan(make_request(methods=methods, tasks=tasks, **options))
    from bench.harness.plan_file import read  # imports yaml

    names = {name: given for name, given in (("methods", methods), ("tasks", tasks)) if given}
    return make_plan(read(Path(plan).expanduser(), **names, **options))


def run(
    methods: Names = (),
    tasks: Names = (),
    *,
    plan: str | Path | None = None,
    jobs: int | Literal["auto"] = 1,
    **options: Any,
) -> Runs[Record]:
    """Train every combination of methods, tasks, backbones, learning rates, options and seeds; return their records.

    What is done already is not trained again; an interrupted run goes on.

    Args:
        methods: one name or several, as in `bench list methods`.
        tasks: one name or several, as in `bench list tasks`.
        plan: a file of `bench plan`, which gives what is not given here.
        jobs: runs that are trained at a time, each in a process of its own; auto: one for each GPU, or each core.
        options: keyword arguments of `bench.harness.request.make_request` (`backbones`, `seeds`, `lr`, `select`,
            `trials`, `data_dir`, `set={"method.rank": [4, 8]}`, `out`) and fields of `Request` (`max_steps`, `epochs`,
            `train_samples`, `evaluate`, `batch_size`, `precision`, `accelerator`, `devices`, `track`, `strict`,
            `retry`).

    Raises:
        UsageError: an unknown name, key or value.
        EnvironmentProblem: nothing of it can run.
    """
    try:
        flags.jobs(str(jobs))
    except ArgumentTypeError as error:
        what, known, todo = str(error).splitlines()
        raise UsageError(f"jobs: {what}", known, todo) from None
    preflight.check()
    grid = _plan(methods, tasks, plan=plan, **options)
    from bench.harness.runner import run_plan  # imports torch

    return Runs(grid.in_order(run_plan(grid, jobs=jobs)), grid.request.out)


_plan = plan


def load(folder: str | Path = "runs") -> Runs[Record]:
    """Read every record of a folder; files that are not valid records are in `problems`."""
    path = Path(folder).expanduser()
    records, problems = load_all(path)
    return Runs(records, path, problems)
