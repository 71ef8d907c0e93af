"""As features collapse onto their class means their rank falls to K − 1; updates have low rank before that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.config.options import Value, option
from bench.core.errors import Diverged, UsageError
from bench.experiments import Check, Control, Experiment, FullTrainingConfig, Outcome, parse_integers, too_short
from bench.experiments.statistics import mean, spearman
from bench.figures import Axis, Figure, Panel, Series

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api.method import Method
    from bench.experiments.lab import Data

MOMENTS = 12
"""Steps at which is measured."""
ZERO_ERROR = 0.999
"""Least training accuracy at the end: collapse comes after zero training error."""
FALLEN = 0.1
"""Share of its start to which NC1 must fall."""
ONE_DIRECTION = 1.0
"""Allowed distance of the effective rank from K − 1: one direction, so that K (means not centred) and K − 2 fail."""
TOGETHER = 0.7
"""Least Spearman correlation: its square, one half, is the share of one order's variance that the other explains."""
Moment = Mapping[str, float]
"""Measurements at one step, by name."""
NEURAL = ("NC1", "NC2", "NC3", "NC4", "accuracy")
RANKS = ("features", "features by energy", "ΔW", "ΔW stable", "learned", "learned stable", "W", "W stable")
"""Effective ranks, unless named stable or by energy (participation ratio). W is the last hidden layer's weight, and
`learned` is W(t) − s·W(0)."""
MEASURES = (*NEURAL, *RANKS, "s")
"""Columns of the table. s = ⟨W(t), W(0)⟩/‖W(0)‖²_F is the share of W(0) that remains."""


@dataclass(frozen=True, kw_only=True)
class CollapseRankConfig(FullTrainingConfig):
    task: str = option("digits", "A task of `bench list tasks` with classes.")
    norm: Literal["layer", "none"] = option("layer", "Normalisation of the backbone mlp; others have their own.")
    optimizer: Literal["momentum", "sgd", "adam", "adamw"] = option(
        "momentum", "momentum is that of the published recipe; adamw has decoupled weight decay."
    )
    lr: float = option(0.05, "Learning rate.")
    weight_decay: float = option(5e-3, "Weight decay of all trained parameters.")
    steps: int = option(1200, "Optimiser steps; 12 are one epoch of digits.", at_least=MOMENTS)
    batch_size: int = option(128, "Examples per step.")
    examples: int = option(2048, "Training examples that are measured, at most.", at_least=2)


class CollapseRank(Experiment[CollapseRankConfig]):
    """Neural collapse and rank on training examples, at 12 steps of a training that continues after zero error.

    At full collapse (Papyan, Han and Donoho 2020, arXiv 2008.08186) every feature is its class's mean (NC1) and the K
    centred means are an equiangular tight frame (NC2), whose K − 1 singular values are equal: the centred features
    then have effective rank K − 1 exactly. NC1 looks only into the span of the class means, and alone does not say so.
    Training follows their recipe: a normalised network, SGD with momentum .9 and weight decay, batches of 128. The
    decay is ten times theirs: with data that are fitted this easily, W(0) and its features would otherwise remain.
    The relation to the rank of weights is the survey's open question 4. By its law of parsimony (Section 3) updates
    move 2K directions at every step, so the prediction is that low rank comes before collapse. Weight decay shrinks
    W(0), which is no part of what is learned: that is W(t) − s·W(0), where s is the share of W(0) that remains. Checks,
    on means over seeds: `training accuracy` at the end, .999 or more; `NC1 at the end` over that of the start, at most
    a tenth; `features: rank at the end`, their effective rank, K − 1 up to one direction; `features: rank with NC1`,
    Spearman's correlation over the steps, at least .7; `learned before collapse`, the largest effective rank of what
    the last hidden layer has learned while NC1 is above half of its start, at most 2K.
    Controls: the features at the end under shuffled labels have the same rank and must not be collapsed, and those at
    the start must miss K − 1. A correlation over time is no evidence of a cause. The last row of the table has all
    correlations with NC1; those of ΔW and `learned` leave out step 0. Ranks by energy weigh σ², so that many small σ,
    which count in an effective rank, hardly count there; at full collapse they are K − 1 too.
    """

    Config = CollapseRankConfig
    place = "open question 4"
    quick: ClassVar[Mapping[str, Value]] = {"seeds": "0", "steps": 1000}

    def run(self) -> Outcome:
        from bench.experiments.measurement import MeasureAtSteps, log_spaced_steps

        c, classes = self.config, 0
        options: dict[str, Value] = {"optim.name": c.optimizer, "optim.weight_decay": c.weight_decay, "optim.clip": 0}
        if c.backbone == "mlp":
            options["backbone.norm"] = c.norm
        runs: list[Mapping[int, Moment]] = []
        for seed in parse_integers(c.seeds):
            callback = MeasureAtSteps(log_spaced_steps(c.steps, MOMENTS), self._measure)
            [(method, _)] = self.lab.train_with([callback], **c.grid(methods="full", seeds=seed, set=options))
            runs.append(callback.results)
            classes = method.task.num_classes
        course = {step: {n: mean([run[step][n] for run in runs]) for n in runs[0][step]} for step in runs[0]}
        with_nc1 = {name: correlation(course, name) for name in MEASURES[1:]}
        rows = [(str(step), *(f"{moment[name]:.4g}" for name in MEASURES)) for step, moment in course.items()]
        rows.append(("Spearman with NC1", "", *(f"{with_nc1[name]:+.2f}" for name in MEASURES[1:])))
        checks = checks_of(course, classes)
        controls = controls_of(course, classes)
        figure = _figure(course, classes, f"{c.backbone} on {c.task}")
        header = ("step", *MEASURES)
        summary = _summary(course, with_nc1, classes)
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)

    def _measure(self, method: Method, data: Data) -> Moment:
        from bench.experiments.measurement import features

        if method.task.num_classes < 2:
            what = f"task={self.config.task} has no classes to collapse"
            raise UsageError(what, "it is a regression", "Choose one with classes.")
        return measure(method, *features(method, data, self.config.examples))


def measure(method: Method, x: Tensor, labels: Tensor) -> Moment:
    """Measure collapse and ranks: `MEASURES`, `shuffled` (NC1 under shuffled labels), and `ΔW of LAYER`.

    The method is full training; `x` are features (N, D), and labels (N,).

    Raises:
        Diverged: a feature is not finite.
        UsageError: a class has no example, or no layer below the head trains.
    """
    import torch

    from bench.spectra import collapse, effective_rank, participation_ratio, singular_values, stable_rank

    if not bool(x.isfinite().all()):
        raise Diverged("the network diverged", "its features are not finite", "Give a smaller lr.")
    head = {name: value.detach().cpu() for name, value in method.head.named_parameters()}
    weight, bias = head["weight"], head.get("bias")  # a deep linear network's head has no bias
    shuffled = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    try:
        collapsed, by_chance = (collapse(x, y, weight, bias) for y in (labels, shuffled))
    except ValueError as error:
        raise UsageError("neural collapse cannot be measured", str(error), "Give a larger examples=N.") from error
    layers = {name: delta.singular_values() for name, delta in method.deltas()}
    if not layers:
        known = "collapse is a property of learned features"
        raise UsageError("the network has no hidden layer", known, "Choose a network with one.")
    name, start, delta = list(method.updates())[-1]
    start, delta = start.cpu(), delta.dense().cpu()
    left = float(((start + delta) * start).sum() / start.square().sum())
    spectra = {
        "ΔW": layers[name],
        "learned": singular_values(start + delta - left * start),
        "W": singular_values(start + delta),
    }
    ranked = {**spectra, **{f"ΔW of {layer}": sigma for layer, sigma in layers.items()}}
    centred = singular_values(x - x.mean(0))
    accuracy = float(((x @ weight.mT + (0 if bias is None else bias)).argmax(-1) == labels).float().mean())
    return {
        **dict(zip(NEURAL, (*collapsed, accuracy), strict=True)),
        "shuffled": by_chance.nc1,
        "features": float(effective_rank(centred, singular_values=True)),
        "features by energy": float(participation_ratio(centred, singular_values=True)),
        "s": left,
        **{n: float(effective_rank(sigma, singular_values=True)) for n, sigma in ranked.items()},
        **{f"{n} stable": float(stable_rank(sigma, singular_values=True)) for n, sigma in spectra.items()},
    }


def checks_of(course: Mapping[int, Moment], classes: int) -> list[Check]:
    """Return the checks of a training, given its measurements by step, from start to end."""
    steps = list(course)
    start, end = course[steps[0]], course[steps[-1]]
    before = [s for s in steps[1:] if course[s]["NC1"] > start["NC1"] / 2] or steps[1:2]
    checks = [
        Check.at_least("training accuracy", ZERO_ERROR, end["accuracy"]),
        Check.at_most("NC1 at the end, of the start", FALLEN, end["NC1"] / start["NC1"]),
        Check.near("features: rank at the end", classes - 1, end["features"], ONE_DIRECTION),
        Check.at_least("features: rank with NC1", TOGETHER, correlation(course, "features")),
        Check.at_most("learned before collapse", 2 * classes, max(course[step]["learned"] for step in before)),
    ]
    return checks if checks[0].held else too_short(checks, "collapse comes after zero training error")


def controls_of(course: Mapping[int, Moment], classes: int) -> list[Control]:
    """Return the controls: features at the end under shuffled labels, and features at the start."""
    start, end = course[min(course)], course[max(course)]
    by_chance, rank = end["shuffled"] / start["NC1"], start["features"]
    uncollapsed = f"above {FALLEN:g}: not collapsed, with the same rank"
    far = f"further than {ONE_DIRECTION:g} from {classes - 1}"
    return [
        Control.above("shuffled labels: NC1 at the end, of the start", FALLEN, by_chance, uncollapsed),
        Control("features: rank at the start", far, rank, held=abs(rank - (classes - 1)) > ONE_DIRECTION),
    ]


def correlation(course: Mapping[int, Moment], name: str) -> float:
    """Return Spearman's correlation with NC1 over the steps; ΔW and `learned`, which are 0 at step 0, leave it out."""
    steps = [step for step in course if step or not name.startswith(("ΔW", "learned"))]
    return spearman([course[step][name] for step in steps], [course[step]["NC1"] for step in steps])


def _summary(course: Mapping[int, Moment], with_nc1: Mapping[str, float], classes: int) -> str:
    start, end = course[min(course)], course[max(course)]
    measures = {"effective": "features", "by energy": "features by energy"}
    ranks = ", ".join(f"{what} from {start[name]:.1f} to {end[name]:.1f}" for what, name in measures.items())
    names = {"features": "features", "last hidden W": "W", "its ΔW": "ΔW", "learned": "learned"}
    correlations = ", ".join(f"{what} {with_nc1[name]:+.2f}" for what, name in names.items())
    return (
        f"NC1 falls from {start['NC1']:.2g} to {end['NC1']:.2g}; the features' rank: {ranks} (K − 1 = {classes - 1}). "
        f"Correlations of effective ranks with NC1: {correlations}."
    )


def _figure(course: Mapping[int, Moment], classes: int, title: str) -> Figure:
    steps = list(course)
    layers = [name for name in course[0] if name.startswith("ΔW of ")]

    def lines(names: Sequence[str], steps: Sequence[int]) -> list[Series]:
        # step + 1, since a logarithmic axis has no place for 0
        return [Series(name=n, x=[s + 1 for s in steps], y=[course[s][n] for s in steps]) for n in names]

    def level(name: str, value: float) -> Series:
        return Series(name=name, x=[steps[0] + 1, steps[-1] + 1], y=[value, value], form="dashed")

    def panel(title: str, y: str, content: Sequence[Series], y_axis: Axis = "log", x: str = "step + 1") -> Panel:
        return Panel(title=title, x=x, y=y, content=content, x_axis="log", y_axis=y_axis)

    features = [*lines(("features", "features by energy"), steps), level("K − 1", classes - 1)]
    updates = [*lines((*layers, "learned"), steps[1:]), level("2K", 2 * classes)]
    nc1 = [course[step]["NC1"] for step in steps[1:]]
    against = [Series(name=n, x=nc1, y=[course[s][n] for s in steps[1:]]) for n in ("features", "ΔW", "learned", "W")]
    panels = [
        panel("collapse", "NC1 to NC3 (0 at collapse)", lines(("NC1", "NC2", "NC3"), steps)),
        panel("last features", "effective rank", features),
        panel("updates", "effective rank of ΔW", updates, y_axis="linear"),
        panel("rank against collapse", "effective rank", against, x="NC1 (training goes from right to left)"),
    ]
    caption = "Training examples, means over seeds; W and learned are those of the last hidden layer."
    return Figure(title=f"Neural collapse and rank: {title}", panels=panels, caption=caption)
