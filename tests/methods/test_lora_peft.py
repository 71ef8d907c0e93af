"""LoRA against `peft`: the same weights, batches and optimiser give the same losses and the same merged weights.

One side is a run as `bench run` makes it, Lightning and all; the other is the bare loop of peft_reference.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft_reference import (
    DECAY,
    EPS,
    LR,
    PLAIN,
    STEPS,
    Reference,
    assert_same,
    batches_of,
    peft_config,
)
from sklearn.metrics import accuracy_score, matthews_corrcoef

from bench.api.method import schedule
from bench.backbones import open_backbone
from bench.config.sections import OptimConfig
from bench.core.errors import UsageError
from bench.records.data import DataRequest
from tasks.glue.task import GLUE


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("32-true", torch.float32)])
@pytest.mark.parametrize(("rank", "alpha"), [(8, 16.0), (3, 1.0)])
def test_twenty_steps_equal_pefts(lab: Any, precision: str, dtype: torch.dtype, rank: int, alpha: float) -> None:
    options = {"rank": rank, "alpha": alpha}
    spec = lab.spec("lora", options=options, head={"pooling": "mean"}, optim=PLAIN, lr=LR, precision=precision)
    run = lab.run(spec)
    reference = Reference(lab.backbone.path, peft_config(rank, alpha), dtype)
    reference.copy_from(run.start)
    batches = batches_of(run, lab.tasks[spec.task].dataset.train, STEPS)
    losses = reference.train(batches, rates=[LR] * STEPS, eps=EPS, decay=DECAY, clip=0.0)
    dev = lab.tasks[spec.task].dataset.evaluation["dev"]
    with torch.no_grad():
        guess = reference.logits(dev).argmax(-1).tolist()
    truth = [row.label for row in dev]
    assert run.result.metrics.all["dev"] == pytest.approx(
        {"matthews": matthews_corrcoef(truth, guess), "accuracy": accuracy_score(truth, guess)}, abs=1e-6
    )
    assert_same(run, reference, losses, merged=1e-6)


def test_warm_up_decay_and_clipping_are_those_of_a_bare_loop(lab: Any) -> None:
    clip, warm = 0.05, 4
    optim = {"schedule": "linear", "warmup": 0.2, "clip": clip}
    run = lab.run(lab.spec("lora", head={"pooling": "mean"}, optim=optim, lr=LR, precision="64-true"))
    reference = Reference(lab.backbone.path, peft_config(8, 16.0), torch.float64)
    reference.copy_from(run.start)
    batches = batches_of(run, lab.tasks["toy/classes"].dataset.train, STEPS)
    rates = [LR * min((s + 1) / warm, (STEPS - s) / (STEPS - warm)) for s in range(STEPS)]
    losses = reference.train(batches, rates=rates, eps=1e-8, decay=0.0, clip=clip)
    assert_same(run, reference, losses, merged=1e-6)


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_the_schedule_is_the_documented_one(kind: Any) -> None:
    total, warm = 50, 3  # .06 of 50
    factor = schedule(OptimConfig(schedule=kind), total)
    assert [factor(step) for step in range(warm)] == pytest.approx([1 / 3, 2 / 3, 1])
    for step in range(warm, total):
        done = (step - warm) / (total - warm)
        want = {"linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2, "constant": 1.0}[kind]
        assert factor(step) == pytest.approx(want)


def test_kaiming_start_is_pefts_in_distribution(lab: Any) -> None:
    """Uniform on ±1/√n, as peft's own A; B is zero in both."""
    reference = Reference(lab.backbone.path, peft_config(16, 16.0), torch.float32)
    _, method = lab.build(lab.spec("lora", options={"rank": 16}))
    ours = torch.stack([layer.factors[0].detach() for _, layer in method.layers()])
    theirs = torch.stack([reference.layer(n).lora_A["default"].weight.detach() for n, _ in method.layers()])
    for a in (ours, theirs):
        assert 0.99 / np.sqrt(32) < float(a.abs().max()) <= 1 / np.sqrt(32)
        assert float(a.std()) == pytest.approx(1 / np.sqrt(3 * 32), rel=0.05)
    assert all(not layer.factors[1].any() for _, layer in method.layers())
    assert len({layer.factors[0][0, 0].item() for _, layer in method.layers()}) == len(ours), "each layer has its own A"


@pytest.mark.parametrize(("scaling", "scale"), [("none", 1.0), ("standard", 5.0)])
@pytest.mark.parametrize("init", ["normal", "kaiming"])
def test_options_follow_the_formula(lab: Any, init: str, scaling: str, scale: float) -> None:
    """ΔW = BA, unscaled, with A ~ N(0, 1): the Deep LoRA paper's baseline; else α/r = 20/4."""
    options = {"rank": 4, "alpha": 20.0, "init": init, "scaling": scaling}
    _, method = lab.build(lab.spec("lora", options=options))
    a = torch.cat([layer.factors[0].detach().flatten() for _, layer in method.layers()])
    want = 1.0 if init == "normal" else 1 / np.sqrt(3 * 32)
    assert float(a.std()) == pytest.approx(want, rel=0.1)
    assert float(a.mean()) == pytest.approx(0, abs=0.15 * want)
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    for _, layer in method.layers():
        b = torch.randn(32, 4, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            layer.factors[1].copy_(b)
        update = scale * b @ layer.factors[0].detach()
        assert torch.allclose(layer.delta().dense(), update, rtol=1e-5, atol=1e-5)
        plain = F.linear(x, layer.base.weight, layer.base.bias)
        assert torch.allclose(layer(x), plain + x @ update.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(lab: Any, rank: int) -> None:
    with pytest.raises(UsageError):
        lab.build(lab.spec("lora", options={"rank": rank}))


def test_dropout_acts_on_the_updates_input_in_training_only(lab: Any) -> None:
    _, method = lab.build(lab.spec("lora", options={"dropout": 0.5, "rank": 2}))
    _, layer = next(method.layers())
    with torch.no_grad():
        layer.factors[1].fill_(1.0)
        x = torch.ones(4000, 32)
        still = layer.eval()(x)
        plain = F.linear(x, layer.base.weight, layer.base.bias)
        moving = layer.train()(x)
    assert torch.equal(still, layer.eval()(x))
    assert (moving - still).abs().max() > 0.1
    # inverted dropout: the mean over masks is the update itself
    assert torch.allclose((moving - plain).mean(0), (still - plain).mean(0), rtol=0, atol=0.1)


def test_minilm_equals_peft(make_lab: Callable[..., Any]) -> None:
    steps = 3
    cola = GLUE("cola")
    dataset = cola.open(DataRequest(data="embedded"))
    cola.dataset = replace(dataset, evaluation={"dev": dataset.evaluation["dev"][:8]})  # type: ignore[attr-defined]
    backbone = open_backbone("minilm", {})
    lab = make_lab(backbone=backbone, tasks={"glue/cola": cola})
    run = lab.run(lab.spec("lora", task="glue/cola", optim=PLAIN, lr=LR, max_steps=steps, batch_size=8))
    reference = Reference(backbone.path, peft_config(8, 16.0), torch.float32)
    reference.copy_from(run.start)
    batches = batches_of(run, dataset.train, steps)
    losses = reference.train(batches, rates=[LR] * steps, eps=EPS, decay=DECAY, clip=0.0)
    assert_same(run, reference, losses, merged=1e-6)
