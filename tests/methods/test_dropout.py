"""Dropout training: where it acts, what its probe is and leaves alone, and what a run keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.backbones import open_backbone
from bench.backbones.dln import DLNConfig
from bench.records.data import DataRequest
from tasks.synthetic.task import Synthetic, SyntheticConfig

TASK = "synthetic/regression"


@pytest.fixture
def small(make_lab: Callable[..., Any]) -> Any:
    """Whitened regression of 8 numbers from 16 on a deep linear network of two matrices."""
    task: Any = Synthetic("regression")
    task.dataset = task.open(DataRequest(config=SyntheticConfig(size=16, outputs=8, samples=64)))
    return make_lab(backbone=open_backbone("dln", DLNConfig(depth=2)), tasks={TASK: task})


def spec(lab: Any, **changes: Any) -> Any:
    return lab.spec("dropout", **{"task": TASK, "lr": 1e-2, "max_steps": 40} | changes)


class Inside(nn.Module):
    """Dropout inside alone."""

    width = 16

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.0), nn.Linear(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Last(Inside):
    """Dropout on the features, as a module before a layer that does nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.Identity()(self.layers[1](self.layers[0](x)))


class Pooled(Inside):
    """Dropout on the features as a function of a number that `set_dropout` knows from timm's networks."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.drop_rate = nn.Linear(16, 16), 0.0

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.layers(x))

    def forward_head(self, x: Tensor) -> Tensor:
        return F.dropout(x, p=self.drop_rate, training=self.training)


class Without(Inside):
    """No dropout at all."""

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](self.layers[0](x))

    def __init__(self) -> None:
        super().__init__()
        self.layers[1] = nn.Identity()


@pytest.mark.parametrize(("network", "head"), [(Inside, 0.4), (Last, 0.0), (Pooled, 0.0)])
def test_features_are_dropped_once(small: Any, monkeypatch: Any, network: type[Inside], head: float) -> None:
    """Of features without zeros, the share that reaches the head in training is θ, whoever drops."""
    monkeypatch.setattr("bench.backbones.Backbone.load", lambda self, **given: network())
    _, method = small.build(spec(small, options={"rate": 0.4}))
    assert method.head_config.dropout == head
    reached: list[Tensor] = []
    method.head.register_forward_hook(lambda module, given, out: reached.append(given[0].detach()))
    torch.manual_seed(0)
    many = torch.randn(4000, 16)
    method.train()({"x": many})
    method.eval()({"x": many})
    noisy, plain = reached
    share = (noisy == 0).double().mean()
    assert abs(float(share) - 0.4) < 5 * (0.24 / noisy.numel()) ** 0.5
    assert not (plain == 0).any()
    kept = noisy[noisy != 0] / plain[noisy != 0]
    assert torch.allclose(kept, torch.tensor(1 / 0.6)) == (network is not Inside)


def test_a_network_without_dropout_is_refused(small: Any, monkeypatch: Any) -> None:
    from bench.core.errors import UsageError

    monkeypatch.setattr("bench.backbones.Backbone.load", lambda self, **given: Without())
    with pytest.raises(UsageError, match="no effect inside this backbone") as caught:
        small.build(spec(small, options={"rate": 0.4}))
    assert "Without" in caught.value.known
    small.build(spec(small, options={"rate": 0.0}))


def test_the_probe_changes_nothing_in_the_network(small: Any) -> None:
    """Losses and weights are those without a probe, to the bit, even where gradients are clipped."""
    clip = {"clip": 0.05}
    runs = [small.run(spec(small, options={"rate": 0.3, "probe": probe}, optim=clip)) for probe in (True, False)]
    ours, theirs = (run.method.state_dict() for run in runs)
    assert runs[0].losses == runs[1].losses
    assert {name for name in ours if name not in theirs} == {"probe.weight"}
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    unclipped = small.run(spec(small, options={"rate": 0.3, "probe": False}, optim={"clip": 0.0}))
    assert unclipped.losses != runs[0].losses


def test_the_probe_reads_features_as_evaluation_sees_them(small: Any) -> None:
    """Its gradient is that of least squares on undropped features; its scores are those of its own outputs."""
    data, method = small.build(spec(small, options={"rate": 0.5}))
    batch = data.first_batch()
    method.loss(batch).backward()
    with torch.no_grad():
        features = method.eval().backbone(**batch["inputs"])
        error = features @ method.probe.weight.mT - batch["labels"]
        torch.testing.assert_close(method.probe.weight.grad, 2 * error.mT @ features / len(features))
        outputs = method.validation_step(batch, 0)
        method.probe.weight.mul_(3)
        scores = method.evaluate(method.validation_step(batch, 0), batch["labels"])
    want = float((features @ method.probe.weight.detach().mT - batch["labels"]).square().mean())
    assert scores["probe_mse"] == pytest.approx(want, rel=1e-5)
    assert scores["mse"] == pytest.approx(float((outputs[:, 0] - batch["labels"]).square().mean()), rel=1e-5)
    assert {*scores} == {"mse", "relative_error", "probe_mse", "probe_relative_error"}


def test_without_dropout_it_is_full_fine_tuning(small: Any) -> None:
    ours, plain = small.run(spec(small, options={"rate": 0.0})), small.run(full(small))
    assert ours.losses == plain.losses
    assert ours.result.metrics.all["dev"].items() > plain.result.metrics.all["dev"].items()
    assert small.run(spec(small, options={"rate": 0.2})).losses != plain.losses


def full(lab: Any) -> Any:
    return lab.spec("full", task=TASK, lr=1e-2, max_steps=40)


def test_dev_is_scored_on_the_way_and_the_network_kept(small: Any) -> None:
    run = small.run(spec(small, options={"rate": 0.2, "evaluations": 4}))
    rows = run.result.evaluations
    assert [row.step for row in rows] == [10, 20, 30, 40]
    assert rows[-1].metrics == run.result.metrics.all
    errors = [row.metrics["dev"]["probe_relative_error"] for row in rows]
    assert errors[-1] < errors[0] - 0.02
    assert not small.run(spec(small, options={"rate": 0.2, "evaluations": 0})).result.evaluations
    [file] = run.directory.glob("backbone/*.safetensors")
    kept = load_file(file)
    assert all(torch.equal(kept[name], tensor) for name, tensor in run.method.backbone.state_dict().items())


def test_a_class_and_a_single_number_have_probes_too(lab: Any) -> None:
    """With text, whose features BERT does not drop last."""
    for task, metric in [("toy/classes", "probe_accuracy"), ("toy/scores", "probe_pearson")]:
        run = lab.run(lab.spec("dropout", task=task, max_steps=3))
        assert metric in run.result.metrics.all["dev"]
        assert run.method.head_config.dropout == 0.1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backbone": {"dropout": 0.3}}, ["backbone.dropout=0.3 did not act: method.rate=0.1"]),
        ({"head": {"dropout": 0.2}}, ["head.dropout=0.2 did not act: method.rate=0.1"]),
        ({"backbone": {"dropout": 0.1}, "head": {"dropout": 0.1}}, []),
        ({}, []),
    ],
)
def test_rates_that_contradict_are_said(small: Any, given: dict[str, Any], words: list[str]) -> None:
    _, method = small.build(spec(small, **given))
    assert len(method.warnings()) == len(words)
    assert all(said.startswith(word) for said, word in zip(method.warnings(), words, strict=True))
    assert {m.p for m in method.backbone.modules() if isinstance(m, nn.Dropout)} == {0.1}


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_out_of_range_are_refused(small: Any, rate: float) -> None:
    from bench.core.errors import UsageError

    with pytest.raises(UsageError, match=r"method\.rate"):
        small.build(spec(small, options={"rate": rate}))
