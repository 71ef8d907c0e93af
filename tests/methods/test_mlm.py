"""Masked language modelling: transformers' own loss, a probe that touches nothing, masks that stay as they are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score
from torch import Tensor
from transformers import AutoModel, BertForMaskedLM

from bench.api.task import TaskSpec
from bench.backbones.text_encoders import from_folder
from bench.config.sections import HeadConfig, OptimConfig
from bench.core.errors import UsageError
from bench.core.random import uniform
from methods.mlm.method import DRAWS, MLM, mask_tokens

WIDTH = 32


@pytest.fixture(scope="module")
def mlm(lab: Any) -> tuple[Any, MLM]:
    """Data and method, with a head that is far from its start."""
    data, method, *_ = lab.build(lab.spec("mlm"))
    with torch.no_grad():
        for parameter in method.mlm_head.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return data, method.eval()


@pytest.fixture(scope="module")
def reference(lab: Any, mlm: Any) -> BertForMaskedLM:
    """transformers' BERT with the same weights."""
    model = BertForMaskedLM.from_pretrained(lab.backbone.path).eval()
    head, ours = model.cls.predictions, mlm[1].mlm_head
    with torch.no_grad():
        head.transform.dense.load_state_dict(ours.dense.state_dict())
        head.transform.LayerNorm.load_state_dict(ours.norm.state_dict())
        head.bias.copy_(ours.bias)
        head.decoder.bias.copy_(ours.bias)
    assert head.decoder.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr(), "tied"
    return model


def hidden_words(method: MLM, batch: dict[str, Any], step: int) -> tuple[Tensor, Tensor]:
    """What the network sees, and the labels of transformers: −100 where nothing was selected."""
    ids, tokens = batch["inputs"]["input_ids"], method.backbone.tokens
    draws = torch.from_numpy(uniform(method.seed, "mask", step, batch["index"].numpy(), DRAWS * ids.shape[1]))
    seen, selected = mask_tokens(
        ids,
        batch["inputs"]["attention_mask"],
        draws,
        special=tokens.special,
        mask_id=tokens.mask,
        vocabulary=tokens.vocabulary,
    )
    return seen, ids.masked_fill(~selected, -100)


def one(batch: dict[str, Any], i: int) -> dict[str, Any]:
    """One example of a batch."""
    inputs = {name: tensor[i : i + 1] for name, tensor in batch["inputs"].items()}
    return {**batch, "inputs": inputs, "index": batch["index"][i : i + 1], "labels": batch["labels"][i : i + 1]}


def alone(run: Any) -> dict[str, Tensor]:
    """What trained without the probe."""
    return {name: t for name, t in run.method.state_dict().items() if not name.startswith("head.")}


@torch.no_grad()
def test_loss_is_that_of_transformers_on_the_same_words(mlm: Any, reference: BertForMaskedLM) -> None:
    data, method = mlm
    batch = data.first_batch()
    seen, labels = hidden_words(method, batch, 0)
    assert (seen != batch["inputs"]["input_ids"]).any()
    want = []
    for i in range(len(labels)):
        found = reference(**{**one(batch, i)["inputs"], "input_ids": seen[i : i + 1]}, labels=labels[i : i + 1]).loss
        want.append(float(found))
    method.probing = False
    try:
        assert float(method.loss(batch)) == pytest.approx(np.mean(want), rel=1e-6)
        for i in range(3):
            assert float(method.loss(one(batch, i))) == pytest.approx(want[i], rel=1e-6)
    finally:
        method.probing = True


@torch.no_grad()
def test_held_out_scores_are_those_of_all_selected_words_at_once(mlm: Any, reference: BertForMaskedLM) -> None:
    data, method = mlm
    outputs, labels, losses, right, classes = [], [], [], [], []
    for batch in data.val_dataloader()[0]:
        outputs.append(method.validation_step(batch, 0))
        labels.append(batch["labels"])
        seen, words = hidden_words(method, batch, -1)
        logits = reference(**{**batch["inputs"], "input_ids": seen}).logits[words != -100]
        losses.append(F.cross_entropy(logits, words[words != -100], reduction="none"))
        right.append(logits.argmax(-1) == words[words != -100])
        classes.append(method(batch["inputs"]).argmax(-1))
    assert outputs[0].shape[1] == 3 + 2
    found = method.evaluate(torch.cat(outputs), torch.cat(labels))
    loss = float(torch.cat(losses).double().mean())
    assert found["mlm_loss"] == pytest.approx(loss, rel=1e-6)
    assert found["perplexity"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert found["mlm_accuracy"] == pytest.approx(float(torch.cat(right).float().mean()))
    assert found["probe_accuracy"] == pytest.approx(accuracy_score(torch.cat(labels), torch.cat(classes)))
    assert set(found) == {"mlm_loss", "perplexity", "mlm_accuracy", "probe_accuracy", "probe_matthews"}


@torch.no_grad()
def test_64_bits_are_kept(mlm: Any) -> None:
    data, method = mlm
    batch = next(iter(data.val_dataloader()[0]))
    single = method.validation_step(batch, 0)
    try:
        double = method.double().validation_step(batch, 0)
    finally:
        method.float()
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert not torch.equal(double.float().double(), double), "numbers that 32 bits do not hold"
    assert torch.allclose(single.double(), double, rtol=1e-4)


def test_words_of_an_example_change_with_the_step_and_held_out_ones_never(mlm: Any) -> None:
    data, method = mlm
    batch = data.first_batch()
    zero, first = hidden_words(method, batch, 0), hidden_words(method, batch, 1)
    assert not torch.equal(zero[1], first[1])
    held = next(iter(data.val_dataloader()[0]))
    again = next(iter(data.val_dataloader()[0]))
    with torch.no_grad():
        assert torch.equal(method.validation_step(held, 0), method.validation_step(again, 0))
        assert held["step"] == -1


def test_the_probe_changes_nothing_of_the_network(lab: Any) -> None:
    """Not through gradients, nor through the norm at which they are clipped."""
    small = {"optim": {"clip": 0.05}, "max_steps": 6}
    with_probe, without = (lab.run(lab.spec("mlm", options={"probe": probe}, **small)) for probe in (True, False))
    ours, theirs = alone(with_probe), alone(without)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not torch.equal(with_probe.method.head.weight, with_probe.start["head.weight"])
    assert torch.equal(without.method.head.weight, without.start["head.weight"])
    assert not any(name.startswith("probe_") for name in without.result.metrics.all["dev"])


def test_a_regression_probe_too(lab: Any) -> None:
    run = lab.run(lab.spec("mlm", task="toy/scores", max_steps=6))
    assert {"mlm_loss", "probe_pearson"} <= set(run.result.metrics.all["dev"])


def test_words_are_learned_and_scored_on_the_way(lab: Any) -> None:
    run = lab.run(lab.spec("mlm", max_steps=40, lr=3e-3))
    primary, rows = run.result.metrics.primary, run.result.evaluations
    assert (primary.name, primary.higher_is_better) == ("mlm_loss", False)
    assert [row.step for row in rows] == [10, 20, 30, 40]
    losses = [row.metrics["dev"]["mlm_loss"] for row in rows]
    assert losses[-1] == pytest.approx(primary.value)
    assert losses[-1] < losses[0]
    before, after = run.start["backbone.model.embeddings.word_embeddings.weight"], run.method.backbone
    assert not torch.equal(before, after.get_input_embeddings().weight)


def test_the_trained_network_is_kept_as_a_backbone(lab: Any) -> None:
    run = lab.run(lab.spec("mlm", max_steps=3))
    kept = AutoModel.from_pretrained(run.directory / "backbone")
    ours = run.method.backbone.model.state_dict()
    assert all(torch.equal(ours[name], tensor) for name, tensor in kept.state_dict().items())


def test_texts_without_labels(lab: Any, make_lab: Any) -> None:
    toy = lab.tasks["toy/classes"]
    texts = replace(toy.spec, name="toy/texts", num_classes=0, metrics=(), primary=(), labelled=False)
    bare = make_lab(backbone=lab.backbone, tasks={texts.name: type(toy)(texts, toy.dataset)})
    run = bare.run(bare.spec("mlm", task=texts.name, max_steps=4))
    assert set(run.result.metrics.all["dev"]) == {"mlm_loss", "perplexity", "mlm_accuracy"}
    assert run.result.params.head == 0
    ours, theirs = alone(run), alone(lab.run(lab.spec("mlm", max_steps=4)))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), "labels change nothing"


def test_counts_are_the_docstrings_formula(lab: Any, mlm: Any) -> None:
    backbone = AutoModel.from_pretrained(lab.backbone.path)
    head, probe = WIDTH * WIDTH + 3 * WIDTH + backbone.config.vocab_size, 2 * WIDTH + 2
    pooler = WIDTH * WIDTH + WIDTH
    assert mlm[1].parameter_counts() == {
        "total": backbone.num_parameters() + head + probe,
        "trainable": backbone.num_parameters() - pooler + head + probe,
        "head": probe,
    }


def method_on(network: Any, task: TaskSpec) -> MLM:
    return MLM(network, task, MLM.Config(), head=HeadConfig(), optim=OptimConfig(), lr=1e-3, seed=0)


def test_networks_without_tokens_or_mask_are_refused(lab: Any, tiny_bert: Path, monkeypatch: Any) -> None:
    task = lab.tasks["toy/classes"].spec
    bare = torch.nn.Identity()
    bare.width = 4  # type: ignore[assignment]
    with pytest.raises(UsageError, match="features of tokens"):
        method_on(bare, task).adapt({})
    network = from_folder("tiny", tiny_bert).load(task=lab.tasks["toy/classes"].spec, head=HeadConfig(), seed=0)
    monkeypatch.setattr(network, "tokens", replace(network.tokens, mask=None))
    with pytest.raises(UsageError, match="mask token"):
        method_on(network, task).adapt({})


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": 1.0}, {"random_share": 0.6, "keep_share": 0.6}, {"evaluations": 0}]
)
def test_impossible_shares_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        MLM.Config(**options)


@pytest.mark.parametrize("pooling", ["mean", "cls", "pooler"])
def test_forward_is_pool_of_hidden(lab: Any, mlm: Any, pooling: str) -> None:
    network = lab.backbone.load(task=lab.tasks["toy/classes"].spec, head=HeadConfig(pooling=pooling), seed=0).eval()
    inputs = mlm[0].first_batch()["inputs"]
    hidden = network.hidden(**inputs)
    assert hidden.shape == (*inputs["input_ids"].shape, WIDTH)
    assert torch.equal(network.pool(hidden, inputs["attention_mask"]), network(**inputs))
    assert network.tokens.special == (0, 1, 2, 3, 4) and network.tokens.mask == 4
