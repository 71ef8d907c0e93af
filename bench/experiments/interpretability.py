"""Which inputs a network looks at survives when every ΔW is cut to its top 2K directions, and not to random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.config.options import Config, option
from bench.core.errors import UsageError
from bench.experiments import Check, Control, Experiment, Outcome
from bench.experiments.numbers import deviation, integers, listed, mean, words

if TYPE_CHECKING:
    from bench.api.method import Method
    from bench.experiments.attribution import Directions
    from bench.figures import Figure

ALIKE = 0.9
"""Mean cosine with the attribution of the whole ΔW: at an angle of 26°, four fifths of it."""
KEPT = 0.95
"""Share of predictions that must stay as the whole ΔW has them."""
UNLIKE = 0.7
"""What random directions must stay below: the angle of 45°, where as much of an attribution is new as is kept."""
GONE = 0.3
"""What a network before training must stay below: less than a tenth of the attribution, .3² = .09."""
DRAWS = 3
"""Random choices per seed; what is measured is their mean."""
TOP, SINGULAR, RANDOM, UNTRAINED = "top", "random singular", "random", "untrained"
Found = Mapping[tuple[str, int], Mapping[str, float]]
"""`cosine`, `kept`, `accuracy` and `energy` by choice and k."""


@dataclass(frozen=True, kw_only=True)
class InterpretabilityConfig(Config):
    """A network and how it is looked at."""

    task: str = option("digits", "A task of images or vectors, with classes.")
    backbone: str = option("mlp", "Any backbone that reads it.")
    method: Literal["full", "lora"] = option("full", "What trains.")
    attribution: Literal["integrated-gradients", "occlusion"] = option(
        "integrated-gradients",
        "How an attribution is found.",
    )
    directions: str = option("1,2,4,8,16,32,64", "k, ascending; 0 and 2K are always among them.")
    examples: int = option(200, "Labelled dev examples, at most.", at_least=1)
    steps: int = option(600, "Optimiser steps.", at_least=1)
    batch_size: int = option(64, "Examples per step.")
    lr: float = option(1e-3, "Learning rate.")
    seeds: str = option("0,1,2", "A run each.")

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        given = listed(self.directions)
        if not given or not all(text.isdecimal() and int(text) > 0 for text in given):
            raise UsageError(f"directions={self.directions}", "whole numbers above 0", "Write 1,2,4,8.")


class Interpretability(Experiment):
    """Attributions of a network whose layers have W(0) + (k directions of ΔW), against those with the whole ΔW.

    An attribution says how much each input adds to the logit of an example's true class (captum: integrated gradients
    or occlusion, baseline 0). The survey's law of parsimony has training move 2K directions (K classes). So the
    prediction: with the top 2K singular directions of every layer's ΔW, attributions have a mean cosine of .9 or more
    with the whole one's (`attributions: top 2K`), and .95 of predictions are kept (`predictions: top 2K`).
    Controls: the projection of ΔW on 2K random directions of the layer's input, 2K singular directions drawn without
    regard to σ, and no ΔW at all must stay below .7; the network before training must be below .3. Head, biases and
    normalisations are the trained ones in all but the last, so that what is compared is ΔW alone: a trained head
    on random features is a classifier of its own, which without any ΔW looks at some of the same inputs.
    What it means: what a network looks at can be read from few directions. What not: that an attribution is a right
    explanation, that a direction has a meaning for people, or that less than 2K are needed for a prediction.
    """

    place: ClassVar[str] = "digest, third check"
    quick: ClassVar[Mapping[str, Any]] = {"seeds": "0", "steps": 200, "examples": 100, "directions": "1,4,16,64"}

    Config = InterpretabilityConfig

    config: InterpretabilityConfig

    def run(self) -> Outcome:
        """Train, cut, and compare what is looked at."""
        from bench.experiments.attribution import library

        library()
        c = self.config
        grid: dict[str, Any] = {
            "methods": c.method,
            "tasks": c.task,
            "backbones": c.backbone,
            "lr": c.lr,
            "max_steps": c.steps,
            "batch_size": c.batch_size,
            "seeds": integers(c.seeds),
        }
        runs: list[Found] = []
        twice = 0
        untrained = self.lab.build(**grid)
        trained = self.lab.train_with(**grid)
        for number, (before, _) in enumerate(untrained):
            _refuse(before, c.task)
            method, data = next(trained)
            runs.append(self._measured(before, method, data, number))
            twice = 2 * method.task.num_classes
        return outcome(runs, twice, f"{c.backbone} on {c.task}, {c.method}, {c.attribution}")

    def _measured(self, before: Method, method: Method, data: Any, seed: int) -> Found:
        import torch

        from bench.experiments.attribution import Network, attribute, cosine
        from bench.experiments.midway import drawn

        split = data.evaluation[data.splits[0]]
        batch = data.collate(split, drawn(len(split.labels), self.config.examples))
        x, labels = batch["inputs"]["x"], batch["labels"]
        network = Network(method)
        layers = network.directions

        def seen(network: Network) -> tuple[Any, Any]:
            with torch.no_grad():
                predictions = network(x).argmax(-1)
            return attribute(network, x, labels, self.config.attribution), predictions

        whole, predicted = seen(network)

        def compared(network: Network, energy: float) -> dict[str, float]:
            attribution, now = seen(network)
            return {
                "cosine": cosine(attribution, whole),
                "kept": float((now == predicted).double().mean()),
                "accuracy": float((now == labels).double().mean()),
                "energy": energy,
            }

        generator = torch.Generator().manual_seed(seed)
        found: dict[tuple[str, int], dict[str, float]] = {(UNTRAINED, 0): compared(Network(before), 0.0)}
        for k in self._ks(2 * method.task.num_classes):
            for choice, draws in choices(k, generator).items():
                results: list[dict[str, float]] = []
                for draw in draws:
                    updates = {name: draw(one) for name, one in layers.items()}
                    energy = mean([layers[name].energy(update) for name, update in updates.items()])
                    results.append(compared(network.cut(updates), energy))
                found[choice, k] = {key: mean([one[key] for one in results]) for key in results[0]}
        return found

    def _ks(self, twice: int) -> list[int]:
        return sorted({0, twice, *map(int, listed(self.config.directions))})


def choices(k: int, generator: Any) -> Mapping[str, Sequence[Callable[[Directions], Any]]]:
    """Ways to take k directions of a layer's ΔW: the top ones, and several draws of two random choices."""
    return {
        TOP: [lambda layer: layer.top(k)],
        SINGULAR: [lambda layer: layer.random_singular(k, generator)] * DRAWS,
        RANDOM: [lambda layer: layer.random(k, generator)] * DRAWS,
    }


def outcome(runs: Sequence[Found], twice: int, title: str) -> Outcome:
    """Checks at 2K, controls, table and figure."""

    def over(choice: str, k: int, key: str) -> list[float]:
        return [run[choice, k][key] for run in runs]

    alike, none = mean(over(TOP, twice, "cosine")), mean(over(TOP, 0, "cosine"))
    checks = [
        Check.at_least(f"attributions: top {twice}", ALIKE, alike),
        Check.at_least(f"predictions: top {twice}", KEPT, mean(over(TOP, twice, "kept"))),
    ]
    chances = {choice: mean(over(choice, twice, "cosine")) for choice in (SINGULAR, RANDOM)}
    limits = {f"{twice} {choice}": (chance, UNLIKE) for choice, chance in chances.items()}
    limits |= {"no ΔW": (none, UNLIKE), "before training": (mean(over(UNTRAINED, 0, "cosine")), GONE)}
    controls = [
        Control(name=f"attributions: {name}", expected=f"below {limit:g}", measured=measured, held=measured < limit)
        for name, (measured, limit) in limits.items()
    ]
    ks = [k for choice, k in runs[0] if choice == TOP]
    rows = [
        (
            str(k),
            f"{mean(over(TOP, k, 'energy')):.3f}",
            *(words(over(choice, k, key)) for key in ("cosine", "kept") for choice in (TOP, SINGULAR, RANDOM)),
            words(over(TOP, k, "accuracy")),
        )
        for k in ks
    ]
    return Outcome(
        checks=checks,
        controls=controls,
        figure=_figure(runs, ks, twice, title),
        header=(
            "k",
            "energy of top",
            *(f"{key}: {choice}" for key in ("cosine", "kept") for choice in (TOP, SINGULAR, RANDOM)),
            "accuracy: top",
        ),
        rows=rows,
        says=f"{title}: with {twice} directions of every ΔW attributions have a cosine of {alike:.2f} with the whole "
        f"one's, with random ones {chances[RANDOM]:.2f}, with no ΔW {none:.2f}.",
    )


def _refuse(method: Method, task: str) -> None:
    """Raises UsageError where there is no class whose logit could be attributed to numbers."""
    if method.task.modality == "text":
        raise UsageError(
            f"task={task} is text", "its inputs are tokens, and no number is a part of one", "Take images or vectors."
        )
    if method.task.num_classes < 2:
        raise UsageError(f"task={task} has no classes", "the true class's logit is attributed", "Take another task.")


def _figure(runs: Sequence[Found], ks: Sequence[int], twice: int, title: str) -> Figure:
    from bench.figures import Figure, Panel, Series

    def panels() -> Iterator[Panel]:
        labels = {"cosine": "mean cosine with the whole ΔW's", "kept": "share kept", "accuracy": "accuracy on dev"}
        names = {"cosine": "attributions", "kept": "predictions", "accuracy": "accuracy"}
        for key, label in labels.items():
            lines = [
                Series(
                    name=choice,
                    x=[k + 1 for k in ks],  # a logarithm has no place for 0
                    y=[mean([run[choice, k][key] for run in runs]) for k in ks],
                    spread=[deviation([run[choice, k][key] for run in runs]) for k in ks],
                )
                for choice in (TOP, SINGULAR, RANDOM)
            ]
            yield Panel(
                title=names[key], x="directions k of every layer's ΔW, plus 1", y=label, content=lines, x_axis="log"
            )
        for_energy = [
            Series(name=choice, x=[k + 1 for k in ks], y=[mean([run[choice, k]["energy"] for run in runs]) for k in ks])
            for choice in (TOP, SINGULAR, RANDOM)
        ]
        yield Panel(title="energy", x="directions k, plus 1", y="share of ‖ΔW‖²_F", content=for_energy, x_axis="log")

    caption = f"Mean and deviation over seeds; 2K = {twice}. Random choices are means of {DRAWS} draws."
    return Figure(title=f"What a network looks at: {title}", panels=[*panels()], caption=caption)
