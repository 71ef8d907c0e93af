"""Attributions are preserved when every ΔW is reduced to its top 2K directions, and not with random directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.config.options import Value, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, FullTrainingConfig, Outcome, parse_integers, parse_list
from bench.experiments.statistics import format_mean, mean, mean_series
from bench.figures import Figure, Panel

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from bench.api.method import Method
    from bench.experiments.attribution import Directions, Network
    from bench.experiments.lab import Data

ALIKE = 0.9
"""Least mean cosine with the attribution of the whole ΔW: an angle of 26°, which keeps four fifths of it."""
KEPT = 0.95
"""Share of predictions that must agree with those of the whole ΔW."""
UNLIKE = 0.7
"""Limit of the cosine with random directions: at an angle of 45° as much of an attribution is new as is kept."""
GONE = 0.3
"""Limit of the cosine of the network before training: less than a tenth of the attribution, .3² = .09."""
DRAWS = 3
"""Random choices per seed; the measurement is their mean."""
TOP, SINGULAR, RANDOM, UNTRAINED = "top", "random singular", "random", "untrained"
CHOICES = (TOP, SINGULAR, RANDOM)
Measured = Mapping[tuple[str, int], Mapping[str, float]]
"""`cosine`, `kept`, `accuracy` and `energy` by choice of directions and their number k."""


@dataclass(frozen=True, kw_only=True)
class InterpretabilityConfig(FullTrainingConfig):
    task: str = option("digits", "A task of images or vectors, with classes.")
    method: Literal["full", "lora"] = option("full", "The method that trains the network.")
    attribution: Literal["integrated-gradients", "occlusion"] = option("integrated-gradients", "Method of attribution.")
    directions: str = option("1,2,4,8,16,32,64", "k, ascending; 0 and 2K are always included.")
    examples: int = option(200, "Labelled dev examples, at most.", at_least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        given = parse_list(self.directions)
        if not given or not all(text.isdecimal() and int(text) > 0 for text in given):
            raise UsageError(f"directions={self.directions}", "whole numbers above 0", "Write 1,2,4,8.")


class Interpretability(Experiment[InterpretabilityConfig]):
    """Attributions of a network whose layers have W(0) + (k directions of ΔW), against those with the whole ΔW.

    An attribution says how much each input adds to the logit of an example's true class (captum: integrated gradients
    or occlusion, baseline 0). By the survey's law of parsimony training moves 2K directions (K classes). The
    prediction: with the top 2K singular directions of every layer's ΔW, attributions have a mean cosine of .9 or more
    with the whole one's (`attributions: top 2K`), and .95 of predictions are kept (`predictions: top 2K`).
    Controls: the projection of ΔW on 2K random directions of the layer's input, 2K singular directions drawn
    independently of σ, and no ΔW at all must stay below .7; the network before training must be below .3. Head, biases
    and normalisations are the trained ones in all but the last control, so that only ΔW differs: a trained head on
    random features is a classifier of its own, which without any ΔW uses some of the same inputs.
    If it holds, the inputs that a network uses can be read from few directions. It does not follow that an attribution
    is a correct explanation, that a direction has a meaning for people, or that fewer than 2K suffice for a prediction.
    """

    Config = InterpretabilityConfig
    place = "digest, third check"
    quick: ClassVar[Mapping[str, Value]] = {"seeds": "0", "steps": 200, "examples": 100, "directions": "1,4,16,64"}

    def run(self) -> Outcome:
        from bench.experiments.attribution import import_captum

        import_captum()  # before anything is trained
        c, twice = self.config, 0
        grid = c.grid(methods=c.method)
        runs: list[Measured] = []
        trained = self.lab.train_with(**grid)
        for number, (before, _) in enumerate(self.lab.build(**grid)):
            _check_task(before, c.task)
            method, data = next(trained)
            runs.append(self._measured(before, method, data, number))
            twice = 2 * method.task.num_classes
        return outcome(runs, twice, f"{c.backbone} on {c.task}, {c.method}, {c.attribution}")

    def _measured(self, before: Method, method: Method, data: Data, seed: int) -> Measured:
        import torch

        from bench.experiments.attribution import Network, attribute, cosine
        from bench.experiments.measurement import sample_indices

        split = data.evaluation[data.splits[0]]
        batch = data.collate(split, sample_indices(len(split.labels), self.config.examples))
        x, labels = batch["inputs"]["x"], batch["labels"]
        trained = Network(method)
        layers = trained.directions

        def attributions_and_predictions(network: Network) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                predictions = network(x).argmax(-1)
            return attribute(network, x, labels, self.config.attribution), predictions

        whole, predicted = attributions_and_predictions(trained)

        def compared(network: Network, energy: float) -> dict[str, float]:
            attribution, now = attributions_and_predictions(network)
            return {
                "cosine": cosine(attribution, whole),
                "kept": float((now == predicted).double().mean()),
                "accuracy": float((now == labels).double().mean()),
                "energy": energy,
            }

        generator, twice = torch.Generator().manual_seed(seed), 2 * method.task.num_classes
        measured: dict[tuple[str, int], dict[str, float]] = {(UNTRAINED, 0): compared(Network(before), 0.0)}
        for k in sorted({0, twice, *parse_integers(self.config.directions)}):
            for choice, draws in choices(k, generator).items():
                results: list[dict[str, float]] = []
                for draw in draws:
                    updates = {name: draw(layer) for name, layer in layers.items()}
                    energy = mean([layers[name].energy(update) for name, update in updates.items()])
                    results.append(compared(trained.set_updates(updates), energy))
                measured[choice, k] = {key: mean([result[key] for result in results]) for key in results[0]}
        return measured


def choices(k: int, generator: Generator) -> Mapping[str, Sequence[Callable[[Directions], Tensor]]]:
    """Return ways to choose k directions of a layer's ΔW: the top ones, and several draws of two random choices."""
    return {
        TOP: [lambda layer: layer.top(k)],
        SINGULAR: [lambda layer: layer.random_singular(k, generator)] * DRAWS,
        RANDOM: [lambda layer: layer.random(k, generator)] * DRAWS,
    }


def outcome(runs: Sequence[Measured], twice: int, title: str) -> Outcome:
    def over(choice: str, k: int, key: str) -> list[float]:
        return [run[choice, k][key] for run in runs]

    def at(k: int) -> tuple[str, ...]:
        shares = (format_mean(over(choice, k, key)) for key in ("cosine", "kept") for choice in CHOICES)
        return (str(k), f"{mean(over(TOP, k, 'energy')):.3f}", *shares, format_mean(over(TOP, k, "accuracy")))

    alike, none = mean(over(TOP, twice, "cosine")), mean(over(TOP, 0, "cosine"))
    checks = [
        Check.at_least(f"attributions: top {twice}", ALIKE, alike),
        Check.at_least(f"predictions: top {twice}", KEPT, mean(over(TOP, twice, "kept"))),
    ]
    chances = {choice: mean(over(choice, twice, "cosine")) for choice in (SINGULAR, RANDOM)}
    limits = {f"{twice} {choice}": (chance, UNLIKE) for choice, chance in chances.items()}
    limits |= {"no ΔW": (none, UNLIKE), "before training": (mean(over(UNTRAINED, 0, "cosine")), GONE)}
    controls = [Control.below(f"attributions: {name}", limit, measured) for name, (measured, limit) in limits.items()]
    ks = [k for choice, k in runs[0] if choice == TOP]
    shares = (f"{key}: {choice}" for key in ("cosine", "kept") for choice in CHOICES)
    figure = _figure(runs, ks, twice, title)
    header = ("k", "energy of top", *shares, "accuracy: top")
    rows = [at(k) for k in ks]
    summary = (
        f"{title}: with {twice} directions of every ΔW attributions have a cosine of {alike:.2f} with those of "
        f"the whole ΔW, with random directions {chances[RANDOM]:.2f}, with no ΔW {none:.2f}."
    )
    return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)


def _check_task(method: Method, task: str) -> None:
    """Raise UsageError if there is no class whose logit could be attributed to numbers."""
    if method.task.modality == "text":
        known = "its inputs are tokens, and attributions are to numbers"
        raise UsageError(f"task={task} is text", known, "Choose images or vectors.")
    if method.task.num_classes < 2:
        raise UsageError(f"task={task} has no classes", "the true class's logit is attributed", "Choose another task.")


def _figure(runs: Sequence[Measured], ks: Sequence[int], twice: int, title: str) -> Figure:
    def panel(key: str, title: str, x: str, y: str, *, whiskers: bool = True) -> Panel:
        lines = [
            # k + 1, since a logarithmic axis has no place for 0
            mean_series(choice, {k + 1: [run[choice, k][key] for run in runs] for k in ks}, whiskers=whiskers)
            for choice in CHOICES
        ]
        return Panel(title=title, x=x, y=y, content=lines, x_axis="log")

    x = "directions k of every layer's ΔW, plus 1"
    panels = [
        panel("cosine", "attributions", x, "mean cosine with the whole ΔW's"),
        panel("kept", "predictions", x, "share kept"),
        panel("accuracy", "accuracy", x, "accuracy on dev"),
        panel("energy", "energy", "directions k, plus 1", "share of ‖ΔW‖²_F", whiskers=False),
    ]
    caption = f"Mean and deviation over seeds; 2K = {twice}. Random choices are means of {DRAWS} draws."
    return Figure(title=f"Attributions with few directions: {title}", panels=panels, caption=caption)
