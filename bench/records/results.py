"""What training gives: scores, sizes, ranks, costs and courses, as typed, frozen parts of a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from msgspec import Meta

from bench.records.fields import (
    LARGEST,
    Count,
    Edge,
    FreeForm,
    Option,
    Part,
    Quantity,
    Real,
    RunId,
    Scores,
    Sha256,
    Share,
    Space,
    about,
)


class PrimaryMetric(Part, frozen=True, kw_only=True):
    """The one number of the task."""

    name: Annotated[str, about("metric, such as matthews or accuracy+f1 (mean of the two)")]
    value: Annotated[float, about("its value; fractions, not percent")]
    split: Annotated[str, about("split it was measured on")]
    higher_is_better: Annotated[bool, about("direction")]
    n: Annotated[Count, about("examples evaluated")]
    of: Annotated[
        Literal["task", "method"],
        about("method where the metric is the method's own, such as mlm's held-out loss; absent for the task's"),
    ] = "task"


class Metrics(Part, frozen=True, kw_only=True):
    """The scores after the last step, never the best evaluation."""

    primary: Annotated[PrimaryMetric, about("the one number of the task")]
    all: Annotated[Scores, about("every metric of every evaluation split")]
    majority: Annotated[
        dict[str, Share],
        about(
            "share of the largest class in each evaluation split, the accuracy of naming it always; "
            "absent for numbers and where an example has several classes"
        ),
    ] = {}


class Parameters(Part, frozen=True, kw_only=True):
    """Sizes of the model."""

    total: Annotated[Count, about("backbone, adapter and head")]
    trainable: Annotated[Count, about("trained parameters, head included")]
    head: Annotated[Count, about("trained parameters of the head; 0 where it is frozen")]
    stored_bytes: Annotated[Count, about("bytes on disk of what was trained")]


class Trial(Part, frozen=True, kw_only=True):
    """One trial of a selection."""

    lr: Annotated[Real, about("learning rate tried")]
    options: Annotated[Space, about("options tried, by name; absent where the learning rate alone was selected")] = {}
    value: Annotated[float | None, about("score on the held-out split; null where the trial failed")]
    run_id: Annotated[RunId | None, about("run of the trial")]
    state: Annotated[str, about("state of the trial")]


class Selection(Part, frozen=True, kw_only=True):
    """How learning rate and options were chosen."""

    trials: Annotated[
        tuple[Trial, ...], about("each trial once: by learning rate, ascending, or as optuna suggested them")
    ]
    metric: Annotated[str, about("metric compared")]
    split: Annotated[str, about("split it was measured on")]
    task: Annotated[str, about("task whose train was split")]
    chosen: Annotated[Real, about("learning rate taken")]
    options: Annotated[Space, about("options taken, by name; absent where the learning rate alone was selected")] = {}

    @property
    def edge(self) -> Edge:
        """Which end of the learning rates with a result was taken; empty for one between others, or if one was given.

        A rate at which training diverged has a result; one that failed for another reason has none.
        """
        return self._edge(self.chosen, lambda trial: trial.lr)[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the reader of a score must know of the choice."""
        lines: list[str] = []
        edge, count = self._edge(self.chosen, lambda trial: trial.lr)
        if edge:
            tried = f"the {edge} of the {count} learning rates that were tried"
            lines.append(f"{self.chosen:g} is {tried}: a better one may lie beyond")
        for name, value in self.options.items():
            edge, count = self._edge(value, lambda trial, name=name: trial.options.get(name))
            if edge:
                lines.append(f"{name}={value} is the {edge} of the {count} values that were tried")
        return tuple(lines)

    def _edge(self, chosen: Option, value_of: Callable[[Trial], Option]) -> tuple[Edge, int]:
        """Which end of the numbers with a result was chosen, and how many were tried; no end of one, or of others."""
        tried = {value_of(trial) for trial in self.trials}
        if len(tried) < 2 or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in tried):
            return "", len(tried)
        results = [value_of(trial) for trial in self.trials if trial.value is not None or trial.state == "diverged"]
        numbers = [one for one in results if isinstance(one, int | float)]
        return "smallest" if chosen == min(numbers) else "largest" if chosen == max(numbers) else "", len(tried)


class LayerRank(Part, frozen=True, kw_only=True):
    """The rank of one layer's ΔW."""

    layer: Annotated[str, about("name of the adapted layer")]
    shape: Annotated[tuple[Count, Count], about("rows and columns of ΔW")]
    nominal: Annotated[Count, about("rank the method allows; what is left of it where the method prunes, 0 if nothing")]
    stable: Annotated[Real, about("‖ΔW‖_F² / ‖ΔW‖₂²")]
    effective: Annotated[Real, about("exponential of the entropy of the normalised singular values")]
    energy90: Annotated[Count, about("singular values that carry 90 % of ‖ΔW‖_F²")]
    norm: Annotated[Real, about("‖ΔW‖₂, the largest singular value")]
    how: Annotated[
        Literal["svd", "gram", "factors"],
        about("how the singular values were computed: float64 SVD, float64 Gram matrix, or QR of ΔW's factors"),
    ]


class LayerSpectrum(Part, frozen=True, kw_only=True):
    """The last spectrum of a layer, summed up."""

    of: Annotated[Quantity, about("what was looked at")]
    layer: Annotated[str, about("name of the layer, trained matrix or module")]
    step: Annotated[Count, about("optimiser steps done")]
    stable: Annotated[Real, about("Σσ²/σ₁²")]
    effective: Annotated[Real, about("exponential of the entropy of the normalised singular values")]
    energy90: Annotated[Count, about("singular values that carry 90 % of Σσ²")]
    norm: Annotated[Real, about("σ₁, the largest singular value")]


class RankSeries(Part, frozen=True, kw_only=True):
    """The course of effective rank."""

    of: Annotated[Quantity, about("what was looked at")]
    layers: Annotated[Count, about("how many layers")]
    steps: Annotated[tuple[Count, ...], about("optimiser steps done at each look")]
    effective: Annotated[
        tuple[Real | None, ...], about("mean effective rank over the layers; null where none was finite")
    ]


class Spectra(Part, frozen=True, kw_only=True):
    """Singular values during training, summed up."""

    layers: Annotated[tuple[LayerSpectrum, ...], about("the last spectrum of each layer looked at")]
    series: Annotated[tuple[RankSeries, ...], about("the course of effective rank")]


class Cost(Part, frozen=True, kw_only=True):
    """What a run took. Seconds count all processes of a run that was resumed."""

    steps: Annotated[Count, about("optimiser steps")]
    samples: Annotated[Count, about("examples seen, repeats counted")]
    train_s: Annotated[Real, about("seconds of training")]
    eval_s: Annotated[Real, about("seconds of evaluation")]
    tracking_s: Annotated[Real, about("seconds of train_s that spectra took")]
    peak_memory_bytes: Annotated[Count | None, about("peak memory in bytes; null where unknown")]
    cache_bytes: Annotated[Count, about("bytes kept per device in training of what was computed once per example")]
    optimizer_bytes: Annotated[Count, about("bytes of the optimiser's state on one device")]
    device: Annotated[str, about("name of the device")]
    devices: Annotated[Count, about("how many")]
    resumed_at: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=LARGEST)], ...],
        about("steps after which an interrupted run went on; seconds count all its processes"),
    ]
    truncation_s: Annotated[
        Real, about("seconds of scoring with ΔW cut, which neither train_s nor eval_s holds; absent where none was")
    ] = 0.0


class LossPoint(Part, frozen=True, kw_only=True):
    """Training loss of one batch."""

    step: Annotated[Count, about("optimiser step")]
    loss: Annotated[float, about("training loss of that step's batch")]


class Evaluation(Part, frozen=True, kw_only=True):
    """Scores during training."""

    step: Annotated[Count, about("optimiser steps done")]
    metrics: Annotated[Scores, about("every metric of every evaluation split")]


class SweepPoint(Part, frozen=True, kw_only=True):
    """Scores of the trained network without its first adapters."""

    n: Annotated[Count, about("blocks from the bottom that did without their adapters")]
    primary: Annotated[float, about("value of the primary metric")]
    metrics: Annotated[Scores, about("every metric of every evaluation split")]


class CutPoint(Part, frozen=True, kw_only=True):
    """Score with every ΔW cut to its k largest singular directions."""

    k: Annotated[Count, about("singular directions kept of each ΔW; of one of lower rank all")]
    value: Annotated[float, about("value of the primary metric")]


class LayerCut(Part, frozen=True, kw_only=True):
    """Score without the ΔW of one layer."""

    layer: Annotated[str, about("name of the adapted layer")]
    value: Annotated[float, about("value of the primary metric without this layer's ΔW, all others whole")]
    needed: Annotated[bool, about("whether that is worse than the whole by more than a standard error")]


class Truncation(Part, frozen=True, kw_only=True):
    """How much of ΔW the score needs. What else was trained, such as head and biases, stays as it is."""

    split: Annotated[str, about("split that was scored")]
    n: Annotated[Count, about("examples scored, spread evenly over the split; runtime.truncation_examples at most")]
    whole: Annotated[float, about("value of the primary metric on them with ΔW as it is")]
    se: Annotated[Real, about("standard error of `whole` over the examples, by the bootstrap")]
    points: Annotated[
        tuple[CutPoint, ...],
        about("score by k, ascending: 0, 1, 2, 4, … up to 64, the values where the drop begins, and the whole"),
    ]
    rank_needed: Annotated[
        Count | None,
        about("smallest k whose score is within `se` of the whole; null if none up to 64 is and ΔW has a higher rank"),
    ]
    layers: Annotated[
        tuple[LayerCut, ...], about("each layer without its ΔW; absent unless runtime.truncation=layers asks for it")
    ] = ()

    @property
    def text(self) -> str:
        """`2 of 8`, or `>64 of 384`: the rank needed, of the largest that a ΔW has."""
        *below, whole = (point.k for point in self.points)
        return f"{f'>{below[-1]}' if self.rank_needed is None else self.rank_needed} of {whole}"


class TrainingResult(Part, frozen=True, kw_only=True):
    """The fields of a record that training decides, and the parameters of the backbone before it was adapted."""

    metrics: Metrics
    params: Parameters
    ranks: tuple[LayerRank, ...]
    cost: Cost
    curve: tuple[LossPoint, ...]
    warnings: tuple[str, ...]
    backbone_parameters: Count
    report: FreeForm = {}
    spectra: Spectra | None = None
    evaluations: tuple[Evaluation, ...] = ()
    sweep: tuple[SweepPoint, ...] = ()
    truncation: Truncation | None = None
    files: dict[str, Sha256] = {}
