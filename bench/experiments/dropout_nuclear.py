"""Dropout of a factorisation is nuclear-norm regularisation: training reaches the closed form's singular values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.config.options import Config, Value, option
from bench.experiments import Check, Control, Experiment, Outcome
from bench.figures import Figure, Panel, Series
from bench.records.files import checked
from bench.records.record import ADAPTER

SPECTRUM = (4.0, 3.0, 2.0, 1.0)
"""Singular values of X = diag(4, 3, 2, 1)."""
STRENGTHS = (0.05, 0.25, 1.0)
"""c = λ/k with λ = (1 − θ)/θ."""
CLOSE = 0.01
"""Largest allowed error of a singular value, relative to σ₁(X)."""
SETTINGS: Mapping[str, Value] = {
    "task.size": 4,
    "task.spectrum": "4,3,2,1",
    "task.basis": "diagonal",
    "task.repeats": 256,
    "backbone.depth": 2,
    "backbone.init": "gaussian",
    "optim.name": "sgd",
    "optim.warmup": 0,
    "optim.clip": 0,
    "runtime.save": "all",
}


@dataclass(frozen=True, kw_only=True)
class DropoutNuclearConfig(Config):
    steps: int = option(
        3000, "Steps of 1024 examples: 256 copies of the four rows of X, each with its own masks.", at_least=1
    )
    lr: float = option(0.15, "Learning rate at the start; it decays linearly to zero.", above=0)
    seed: int = option(0, "Seed of initial weights and masks.", at_least=0, at_most=2**32 - 1)


class DropoutNuclear(Experiment[DropoutNuclearConfig]):
    """The best U·Vᵀ under dropout of rate 1 − θ between its factors has σ_i → (σ_i − μ)₊ (Cavazza et al. 2018).

    E‖X − U·diag(b)·Vᵀ/θ‖² = ‖X − UVᵀ‖² + (1 − θ)/θ·Σ_i‖u_i‖²‖v_i‖², b_i ~ Bernoulli(θ), whose optimum at width k has
    μ = c/(1 + cρ)·Σ_{i≤ρ}σ_i, c = λ/k, λ = (1 − θ)/θ, ρ the largest index with σ_ρ > μ. X = diag(4, 3, 2, 1), k = 4,
    θ = 1/(1 + ck), masks are sampled and the learning rate decays. Every singular value must come within .01·σ₁(X).
    Without dropout it must not: training then finds X itself.
    """

    Config = DropoutNuclearConfig
    place = "Section 4, dropout"

    def run(self) -> Outcome:
        width, tolerance = len(SPECTRUM), CLOSE * SPECTRUM[0]
        rates = {c: c * width / (1 + c * width) for c in STRENGTHS}
        predicted = {c: closed_form(SPECTRUM, c) for c in STRENGTHS}
        trained = {c: self._trained("dropout", {"method.rate": rate}) for c, rate in rates.items()}
        checks = [
            Check.near(f"c={c:g} σ{i}", wanted, measured, tolerance)
            for c in STRENGTHS
            for i, (wanted, measured) in enumerate(zip(predicted[c], trained[c], strict=True), 1)
        ]
        bare = self._trained("full", {})
        distance = _distance(bare, predicted[STRENGTHS[-1]])
        expected = f"X itself, so further than {tolerance:g} from the closed form of c=1"
        held = _distance(bare, SPECTRUM) <= tolerance < distance
        rows = [(f"{c:g}", f"{rates[c]:.4f}", _format(predicted[c]), _format(trained[c])) for c in STRENGTHS]
        rows.append(("–", "0", _format(SPECTRUM), _format(bare)))
        worst = max(abs(check.measured - check.predicted) for check in checks)
        controls = [Control("no dropout", expected, distance, held)]
        figure = _figure({**trained, 0.0: bare})
        header = ("c", "rate", "predicted singular values", "measured singular values")
        summary = f"The largest error of twelve singular values is {worst:.4f}."
        return Outcome(checks=checks, controls=controls, figure=figure, header=header, rows=rows, summary=summary)

    def _trained(self, method: str, options: Mapping[str, Value]) -> list[float]:
        """Return the singular values of U·Vᵀ after training."""
        from safetensors.torch import load_file

        from bench.spectra import singular_values

        c = self.config
        [record] = self.lab.run(
            methods=method,
            tasks="synthetic/factorization",
            backbones="dln",
            set={**SETTINGS, **options},
            batch_size=1024,
            precision="64-true",
            lr=c.lr,
            max_steps=c.steps,
            seeds=c.seed,
        )
        weights = load_file(checked(record, self.lab.folder_of(record), ADAPTER))
        return singular_values(weights["head.weight"] @ weights["backbone.layers.0.weight"]).tolist()


def closed_form(spectrum: Sequence[float], c: float) -> list[float]:
    """Return (σ_i − μ)₊ with μ = c/(1 + cρ)·Σ_{i≤ρ}σ_i and the largest ρ for which σ_ρ > μ; `spectrum` descends."""
    mu = 0.0
    for rho in range(1, len(spectrum) + 1):
        threshold = c / (1 + c * rho) * sum(spectrum[:rho])
        if spectrum[rho - 1] > threshold:
            mu = threshold
    return [max(0.0, value - mu) for value in spectrum]


def _format(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def _distance(values: Sequence[float], others: Sequence[float]) -> float:
    return max(abs(value - other) for value, other in zip(values, others, strict=True))


def _figure(trained: Mapping[float, Sequence[float]]) -> Figure:
    index = [f"σ{i}" for i in range(1, len(SPECTRUM) + 1)]
    panels: list[Panel] = []
    for c, values in trained.items():
        content = [
            Series(name="closed form", x=index, y=closed_form(SPECTRUM, c), form="dashed"),
            Series(name="trained", x=index, y=values, form="points"),
        ]
        title = f"c = {c:g}" if c else "no dropout"
        panels.append(Panel(title=title, x="of the trained product", y="singular value", content=content))
    return Figure(title="Dropout is nuclear-norm regularisation: X = diag(4, 3, 2, 1)", panels=panels)
