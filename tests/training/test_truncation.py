"""Rank needed: ΔW cut to its largest singular directions, scored, and held against constructed ranks."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from lab import SCORES
from scipy import stats
from torch import Tensor

from bench.core.errors import Diverged
from bench.spectra import Delta
from bench.training import truncation
from bench.training.truncation import Scored, between, coarse, measure, standard_error


@pytest.mark.parametrize("shapes", [((30, 6), (6, 20)), ((30, 6), (6, 6), (6, 20)), ((30, 20),), ((20, 30),)])
def test_left_singular_vectors_are_numpys(shapes: tuple[tuple[int, int], ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    delta = Delta(factors=tuple(torch.randn(s, generator=generator) for s in shapes), nominal=min(*shapes[0]))
    dense = delta.dense().double().numpy()
    u, s, vt = np.linalg.svd(dense, full_matrices=False)
    for k in (1, 3, 6):
        found = delta.left_singular_vectors(k).numpy()
        assert found.shape[1] == k and np.allclose(found.T @ found, np.eye(k), atol=1e-12)
        assert np.allclose(found @ (found.T @ dense), (u[:, :k] * s[:k]) @ vt[:k], atol=1e-5 * s[0])


def test_what_is_tried() -> None:
    assert coarse(8) == [0, 1, 2, 4] and coarse(1) == [0] and coarse(384) == [0, 1, 2, 4, 8, 16, 32, 64]
    assert between(4, 8) == [5, 6, 7] and between(1, 2) == [] and between(8, 16) == [*range(9, 16)]
    assert between(32, 64) == [36, 40, 44, 48, 52, 56, 60]


def score(outputs: Tensor, labels: Tensor) -> float:
    return float(np.corrcoef(outputs.numpy(), labels.numpy())[0, 1])


def needed(lab: Any, spectrum: list[float]) -> Any:
    """Measure LoRA with this spectrum of every ΔW, on labels that are its own outputs and a little noise."""
    data, model = lab.build(lab.spec("lora", task=SCORES.name, options={"rank": len(spectrum), "target": "all-linear"}))
    model.double().eval()
    generator, sigma = torch.Generator().manual_seed(1), torch.tensor(spectrum, dtype=torch.float64)
    for _, layer in model.layers():
        shape = layer.base.weight.shape
        u, v = (torch.linalg.qr(torch.randn(size, len(sigma), generator=generator).double()).Q for size in shape)
        layer.factors[0].data, layer.factors[1].data = v.mT, u * sigma / layer.scale
    [batch] = data.evaluation_loader("dev")

    @torch.no_grad()
    def outputs() -> Tensor:
        return model(batch["inputs"])

    whole = outputs()
    labels = whole + 0.05 * whole.std() * torch.randn(len(whole), generator=generator)

    def evaluate() -> Scored:
        now = outputs()
        return Scored(score(now, labels), now, labels)

    found, notes = measure(model, evaluate, score, split="dev", higher_is_better=True, per_layer=True)
    assert torch.equal(outputs(), whole) and not notes, "nothing has changed"
    return found


def test_the_rank_needed_is_the_rank_that_was_put_in(lab: Any) -> None:
    found = needed(lab, [3.0, 2.0, 1.5, 1e-4, 1e-4, 1e-5, 1e-5, 1e-5])
    assert found.rank_needed == 3
    assert [point.k for point in found.points] == [0, 1, 2, 3, 4, 8] and found.points[-1].value == found.whole
    assert found.n == 48 and 0 < found.se < 0.01
    assert all(layer.needed for layer in found.layers) and len(found.layers) == 12


def test_a_flat_spectrum_needs_all_its_rank(lab: Any) -> None:
    """The negative control: equal singular values in random directions, of the same norm as above."""
    size = math.sqrt((3.0**2 + 2.0**2 + 1.5**2) / 8)
    found = needed(lab, [size] * 8)
    assert found.rank_needed == 8
    assert [point.k for point in found.points] == [0, 1, 2, 4, 5, 6, 7, 8]


def test_a_delta_without_effect_needs_none(lab: Any) -> None:
    found = needed(lab, [1e-6] * 4)
    assert found.rank_needed == 0 and not any(layer.needed for layer in found.layers)


def test_the_standard_error_is_that_of_the_bootstrap() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = (torch.rand(400, generator=generator) < 0.8).double()
    se = standard_error(lambda outputs, labels: float((outputs == labels).double().mean()), hits, torch.ones(400))
    assert se == pytest.approx(math.sqrt(0.8 * 0.2 / 400), rel=0.2)
    x = torch.randn(300, generator=generator)
    y = x + torch.randn(300, generator=generator)
    pearson = {"statistic": lambda a, b: stats.pearsonr(a, b)[0], "paired": True, "vectorized": False}
    oracle = stats.bootstrap((x.numpy(), y.numpy()), **pearson, n_resamples=999, rng=0)
    assert standard_error(score, x, y) == pytest.approx(oracle.standard_error, rel=0.2)


def test_examples_are_spread_evenly(lab: Any) -> None:
    data, _ = lab.build(lab.spec("linear"))
    found = sorted(int(i) for batch in data.evaluation_loader("dev", most=7) for i in batch["index"])
    assert found == [i * 48 // 7 for i in range(7)]
    assert sum(len(batch["index"]) for batch in data.evaluation_loader("dev", most=48)) == 48


@pytest.mark.parametrize("method", ["lora", "deeplora", "adalora", "full", "lowrank", "peft:oft"])
def test_a_run_measures_it(lab: Any, method: str) -> None:
    options = {"peft:oft": {"oft_block_size": 4}, "full": {}}.get(method, {"rank": 3})
    result = lab.run(lab.spec(method, options=options, runtime={"truncation": "network"}, lr=1e-2)).result
    found = result.truncation
    ranks = {rank.layer: min(rank.nominal, *rank.shape) for rank in result.ranks}
    assert found.n == 48 and found.whole == result.metrics.primary.value == found.points[-1].value
    assert found.points[-1].k == max(ranks.values()) and found.points[0].k == 0
    assert found.rank_needed == min(p.k for p in found.points if found.whole - p.value <= found.se)
    assert not found.layers and result.cost.truncation_s > 0
    assert not [line for line in result.warnings if "rank needed" in line]


def test_nothing_is_cut_where_there_is_no_delta_or_nobody_asks(lab: Any) -> None:
    for spec in (lab.spec("linear", runtime={"truncation": "network"}), lab.spec("lora", holdout=8)):
        result = lab.run(spec).result
        assert result.truncation is None and result.cost.truncation_s < 1
        assert not [line for line in result.warnings if "rank needed" in line]


@pytest.mark.parametrize("error", [RuntimeError("out of memory\nmore"), Diverged("the outputs are not finite", "", "")])
def test_a_failure_here_costs_the_run_nothing(lab: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object, **named: object) -> None:
        raise error

    monkeypatch.setattr(truncation, "measure", fail)
    result = lab.run(lab.spec("lora", runtime={"truncation": "network"})).result
    assert result.truncation is None and result.metrics.primary.n == 48
    [line] = [line for line in result.warnings if "rank needed" in line]
    assert line.startswith("rank needed was not measured: ") and "more" not in line


def test_layers_that_are_never_called_are_counted(lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a network reads the weight of a layer instead of calling it."""
    monkeypatch.setattr(torch.nn.Module, "register_forward_hook", lambda *args, **named: nullcontext())
    result = lab.run(lab.spec("lora", runtime={"truncation": "network"})).result
    assert result.truncation is None
    [line] = [line for line in result.warnings if "rank needed" in line]
    assert line.startswith("rank needed: 4 of 4 ΔW could not be cut")
