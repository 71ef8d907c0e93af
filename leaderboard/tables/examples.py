"""How the score of each run depends on the examples that it was measured on, from the outputs that the run kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.errors import BenchError, EnvironmentProblem
from bench.records.predictions import FILE, Predictions, load
from bench.records.record import FILE as RECORD
from bench.records.record import DoneRecord, is_done, read
from leaderboard.tables import resampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Values = NDArray[np.floating]
    Outputs = NDArray[np.floating]

MOST_RUNS = 2000
"""Runs whose outputs are read for one set of tables. Of more, none are: each costs about 10 ms, and STS-B's 40."""
SLACK = 1e-4
"""How far the score of the outputs may be from that in the record, which was computed in float32."""
CORRELATIONS = frozenset({"matthews", "pearson", "spearman"})


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """A score, and what it is in each draw of the bootstrap over examples: `drawn` (draws,).

    Runs that were scored on the same examples share their draws, so that their differences are paired.
    """

    score: float
    drawn: Values


class Examples:
    """Reads the outputs that runs kept in their folders, when they are asked for, and resamples them once.

    Attributes:
        problems: files that were changed, or do not fit their record; such a run counts as one without outputs.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Args: folder of the runs; without it there are no outputs."""
        self.folder = folder
        self.problems: list[BenchError] = []
        self._runs: dict[tuple[str, str | None], Resampled | None] = {}
        self._chance: dict[tuple[str, ...], Resampled | None] = {}
        self._draws: tuple[object, list[resampling.Weights]] = (None, [])

    def of(self, run: DoneRecord) -> Resampled | None:
        """The score of a run in each draw; None if it kept no outputs, or its metric has no form in `resampling`."""
        key = run.run_id, run.files.get(FILE)  # a run that was trained anew has another file
        if key not in self._runs:
            try:
                self._runs[key] = self._resample(run)
            except BenchError as problem:
                self.problems.append(problem)
                self._runs[key] = None
        return self._runs[key]

    def chance(self, run: DoneRecord) -> Resampled | None:
        """The score of ignoring the input on the examples of a run: of always naming the best class, or the mean label.

        A correlation is 0 then. None where `of` is.
        """
        return self._chance.get(_measure(run)) if self.of(run) else None

    def _resample(self, run: DoneRecord) -> Resampled | None:
        folder = self.folder / run.run_id if self.folder else None
        if folder is None or not (folder / FILE).exists() or run.metrics.primary.of != "task":
            return None
        whole = run if run.files else read(folder / RECORD)  # an index leaves out what a run keeps
        kept = load(whole, folder) if is_done(whole) else None
        found = self._score(run, kept.labels, kept.outputs) if kept else None
        if kept is None or found is None:
            return None
        value = run.metrics.primary.value
        if abs(found.score - value) > SLACK:
            raise EnvironmentProblem(
                f"{folder / FILE} does not give the score of its run",
                f"its outputs score {found.score:.4f}, the record has {value:.4f}",
                "Remove it: intervals of this run are then over seeds alone.",
            )
        if _measure(run) not in self._chance:
            higher = run.metrics.primary.higher_is_better
            constant = (self._score(run, kept.labels, outputs) for outputs in _constants(kept))
            scored = [one for one in constant if one]
            self._chance[_measure(run)] = max(scored, key=lambda one: one.score if higher else -one.score)
        return found

    def _score(self, run: DoneRecord, labels: NDArray[np.generic], outputs: Outputs) -> Resampled | None:
        import numpy as np

        names = run.metrics.primary.name.split("+")
        once = np.ones((1, len(labels)), dtype=np.float32)
        score = resampling.resampled(names, labels, outputs, once)
        if score is None:
            return None
        blocks = [resampling.resampled(names, labels, outputs, weights) for weights in self._weights(run, len(labels))]
        return Resampled(float(score[0]), np.concatenate([block for block in blocks if block is not None]))

    def _weights(self, run: DoneRecord, examples: int) -> Iterable[resampling.Weights]:
        """The draws for a split of some data; those of the last one asked for are kept if they are small."""
        split = f"{run.source.data_hash} {run.metrics.primary.split}"
        seed = [*sha256(split.encode(errors="surrogatepass")).digest()[:8]]
        if resampling.DRAWS * examples > resampling.MOST_WEIGHTS:
            return resampling.draws(seed, examples)
        if self._draws[0] != (seed, examples):
            self._draws = (seed, examples), [*resampling.draws(seed, examples)]
        return self._draws[1]


def chance_of_record(run: DoneRecord) -> tuple[float, float, float] | None:
    """What a record alone says of chance: a score, that of ignoring the input, and the variance of the score there.

    None where it says nothing. An accuracy beside another metric stands for both. Of a correlation the variance is 1/n,
    of an accuracy that of a binomial.
    """
    primary, scores = run.metrics.primary, run.metrics.all.get(run.metrics.primary.split, {})
    names, majority = {*primary.name.split("+")}, run.metrics.majority.get(primary.split)
    if primary.of != "task" or not primary.n or not primary.higher_is_better:
        return None
    if names <= CORRELATIONS:
        return primary.value, 0.0, 1 / primary.n
    if "accuracy" in names and majority is not None and "accuracy" in scores:
        return scores["accuracy"], majority, majority * (1 - majority) / primary.n
    return None


def _measure(run: DoneRecord) -> tuple[str, ...]:
    """What is equal in runs whose chance is the same."""
    primary = run.metrics.primary
    return run.spec.task, run.source.data_hash, primary.split, primary.name, str(primary.higher_is_better)


def _constants(kept: Predictions) -> Iterator[Outputs]:
    """Outputs that do not depend on the input: one class always, or the mean of the labels."""
    import numpy as np

    labels, outputs = kept.labels, kept.outputs
    if outputs.shape == labels.shape:
        yield np.broadcast_to(np.nanmean(labels.astype(np.float64), axis=0), labels.shape)
        return
    classes, counts = np.unique(labels, return_counts=True)
    for named in (
        (0, 1) if outputs.shape[1] == 2 else (classes[counts.argmax()],)
    ):  # F1 of two classes is that of class 1
        yield np.broadcast_to(np.arange(outputs.shape[1]) == named, outputs.shape).astype(np.float32)
