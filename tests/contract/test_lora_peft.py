"""LoRA against `peft`: the same weights, batches and optimiser give the same losses and the same merged weights.

One side is a run as `bench run` makes it, Lightning and all; the other is a bare loop around peft's own layers, with a
tokenizer, a pooling, a head and a schedule written out here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from sklearn.metrics import accuracy_score, matthews_corrcoef
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from bench.backbones import open_backbone
from bench.config import BackboneConfig, OptimConfig
from bench.data import DataRequest, Example
from bench.errors import UsageError
from bench.method import schedule
from tasks.glue import GLUE

STEPS, LR, EPS, DECAY = 20, 2e-3, 1e-7, 0.02
PLAIN = {"schedule": "constant", "warmup": 0.0, "clip": 0.0, "eps": EPS, "weight_decay": DECAY}


class Reference:
    """An encoder with peft's LoRA on query and value, mean pooling and a linear head."""

    def __init__(self, folder: Path, config: LoraConfig, dtype: torch.dtype) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = get_peft_model(AutoModel.from_pretrained(folder).to(dtype), config).to(dtype).eval()
        self.head = nn.Linear(self.model.config.hidden_size, 2, dtype=dtype)

    def layer(self, name: str) -> nn.Module:
        return self.model.base_model.model.get_submodule(name.removeprefix("model."))

    def copy_from(self, start: dict[str, Tensor]) -> None:
        """A, B and head as they were at the start of our run."""
        with torch.no_grad():
            self.head.weight.copy_(start["head.weight"])
            self.head.bias.copy_(start["head.bias"])
            names = [n.removesuffix(".factors.0") for n in start if n.endswith(".factors.0")]
            assert names
            for name in names:
                layer = self.layer(name.removeprefix("backbone."))
                layer.lora_A["default"].weight.copy_(start[f"{name}.factors.0"])
                layer.lora_B["default"].weight.copy_(start[f"{name}.factors.1"])

    def trained(self) -> list[nn.Parameter]:
        return [p for p in (*self.model.parameters(), *self.head.parameters()) if p.requires_grad]

    def logits(self, rows: Sequence[Example]) -> Tensor:
        pair = [row.text_pair for row in rows] if rows[0].text_pair is not None else None
        inputs = self.tokenizer([row.text for row in rows], pair, padding=True, return_tensors="pt")
        features = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"]
        means = [one[keep.bool()].mean(0) for one, keep in zip(features, mask, strict=True)]
        return self.head(torch.stack(means))

    def train(
        self, batches: Sequence[Sequence[Example]], *, rates: Sequence[float], eps: float, decay: float, clip: float
    ) -> list[float]:
        optimizer = torch.optim.AdamW(self.trained(), lr=rates[0], eps=eps, weight_decay=decay)
        losses: list[float] = []
        for rate, rows in zip(rates, batches, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = F.cross_entropy(self.logits(rows), torch.tensor([int(row.label) for row in rows]))
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(self.trained(), clip)
            optimizer.step()
            losses.append(loss.item())
        return losses


def batches_of(run: Any, rows: Sequence[Example], steps: int) -> list[list[Example]]:
    return [[rows[i] for i in run.data.batches[step]] for step in range(steps)]


def assert_same(run: Any, reference: Reference, losses: Sequence[float], *, merged: float) -> None:
    """Losses to 1e-5 relative, scores, every product BA with its scale, and merged weights."""
    assert run.losses == pytest.approx(losses, rel=1e-5)
    moved = 0.0
    before = {n: layer.base.weight.detach().clone() for n, layer in run.method.layers()}
    for name, delta in run.method.deltas():
        theirs = reference.layer(name).get_delta_weight("default")
        assert torch.allclose(delta.dense(), theirs, rtol=0, atol=merged), name
        moved = max(moved, float(theirs.detach().abs().max()))
    assert moved > 100 * merged, "nothing was learned, so nothing was compared"
    run.method.merge()
    plain = reference.model.merge_and_unload()
    for name, layer in run.method.layers():
        theirs = plain.get_submodule(name.removeprefix("model.")).weight
        assert torch.allclose(layer.base.weight, theirs, rtol=0, atol=merged), name
        assert not torch.equal(layer.base.weight, before[name])
    assert torch.allclose(run.method.head.weight, reference.head.weight, rtol=0, atol=merged)


def peft_config(rank: int, alpha: float) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=["query", "value"], bias="none")


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("32-true", torch.float32)])
@pytest.mark.parametrize(("rank", "alpha"), [(8, 16.0), (3, 1.0)])
def test_twenty_steps_equal_pefts(lab: Any, precision: str, dtype: torch.dtype, rank: int, alpha: float) -> None:
    options = {"rank": rank, "alpha": alpha}
    spec = lab.spec("lora", options=options, head={"pooling": "mean"}, optim=PLAIN, lr=LR, precision=precision)
    run = lab.run(spec)
    reference = Reference(lab.backbone.path, peft_config(rank, alpha), dtype)
    reference.copy_from(run.start)
    batches = batches_of(run, lab.tasks[spec.task].corpus.train, STEPS)
    losses = reference.train(batches, rates=[LR] * STEPS, eps=EPS, decay=DECAY, clip=0.0)
    dev = lab.tasks[spec.task].corpus.evaluation["dev"]
    with torch.no_grad():
        guess = reference.logits(dev).argmax(-1).tolist()
    truth = [row.label for row in dev]
    assert run.result["metrics"]["all"]["dev"] == pytest.approx(
        {"matthews": matthews_corrcoef(truth, guess), "accuracy": accuracy_score(truth, guess)}, abs=1e-6
    )
    assert_same(run, reference, losses, merged=1e-6)


def test_warm_up_decay_and_clipping_are_those_of_a_bare_loop(lab: Any) -> None:
    clip, warm = 0.05, 4
    optim = {"schedule": "linear", "warmup": 0.2, "clip": clip}
    run = lab.run(lab.spec("lora", head={"pooling": "mean"}, optim=optim, lr=LR, precision="64-true"))
    reference = Reference(lab.backbone.path, peft_config(8, 16.0), torch.float64)
    reference.copy_from(run.start)
    batches = batches_of(run, lab.tasks["toy/classes"].corpus.train, STEPS)
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


@pytest.mark.parametrize("place", ["head", "options", "backbone"])
def test_dropout_acts_in_training_alone(lab: Any, place: str) -> None:
    plain, noisy = (lab.spec("lora", max_steps=3, **{place: {"dropout": rate}}) for rate in (0.0, 0.5))
    one, other = lab.run(plain), lab.run(noisy)
    assert one.losses != other.losses
    assert lab.run(noisy).losses == other.losses, "the seed decides the masks"
    other.method.load_state_dict(one.method.state_dict())
    inputs = one.data.first_batch()["inputs"]
    with torch.no_grad():
        assert torch.equal(other.method.eval()(inputs), one.method.eval()(inputs))


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
    corpus = cola.open(DataRequest(data="embedded"))
    cola.corpus = replace(corpus, evaluation={"dev": corpus.evaluation["dev"][:8]})  # type: ignore[attr-defined]
    backbone = open_backbone("minilm", BackboneConfig())
    lab = make_lab(backbone=backbone, tasks={"glue/cola": cola})
    run = lab.run(lab.spec("lora", task="glue/cola", optim=PLAIN, lr=LR, max_steps=steps, batch_size=8))
    reference = Reference(backbone.path, peft_config(8, 16.0), torch.float32)
    reference.copy_from(run.start)
    batches = batches_of(run, corpus.train, steps)
    losses = reference.train(batches, rates=[LR] * steps, eps=EPS, decay=DECAY, clip=0.0)
    assert_same(run, reference, losses, merged=1e-6)
