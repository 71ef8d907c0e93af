"""The linear probe's standardised features, held against scikit-learn and against what they must not depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from bench.api.task import TaskSpec
from bench.config.sections import HeadConfig, OptimConfig
from bench.core.errors import UsageError
from methods.linear.method import Linear

CLASSES = TaskSpec(name="x", version=1, modality="vector", num_classes=3, metrics=("accuracy",), primary=("accuracy",))


class Features(nn.Module):
    """Features that are given: `scale`·x + `shift`."""

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.width, self.scale, self.shift = len(scale), scale, shift
        self.noise = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.noise(torch.ones_like(x)) * (self.scale * x + self.shift)


def probe(x: Tensor, scale: Tensor | float = 1.0, shift: Tensor | float = 0.0, **options: Any) -> Linear:
    """The probe on features `scale`·x + `shift`, adapted to the batch `x`."""
    given = (value * torch.ones(x.shape[1]) for value in (scale, shift))
    method = Linear(
        Features(*given), CLASSES, Linear.Config(**options), head=HeadConfig(), optim=OptimConfig(), lr=1e-2, seed=0
    )
    method.adapt({"inputs": {"x": x}, "index": torch.arange(len(x))})
    return method


@pytest.fixture
def x() -> Tensor:
    return torch.randn(16, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 2, 3, 0.5, 0.1]) + 4


def test_they_are_scikit_learns_of_the_first_batch(x: Tensor) -> None:
    more = x[:3] * 1.5
    method = probe(x, standardise=True).eval()
    unbiased = (1 - 1 / len(x)) ** 0.5  # scikit-learn divides by n, torch by n − 1
    want = torch.from_numpy(StandardScaler().fit(x.double().numpy()).transform(more.double().numpy())).float()
    assert torch.allclose(method(inputs := {"x": more}), method.head(want * unbiased), atol=1e-5)
    assert not torch.allclose(method(inputs), method.head(more), atol=1e-2)


def test_their_place_and_scale_change_nothing(x: Tensor) -> None:
    scale, shift = torch.tensor([0.2, 5.0, 1, 3, 2]), torch.tensor([3.0, -80, 0, 0, 1])
    one, two = (probe(x, *by, standardise=True).eval() for by in ((), (scale, shift)))
    assert torch.allclose(one({"x": x}), two({"x": x}), atol=1e-4)
    plain, other = (probe(x, *by).eval() for by in ((), (scale, shift)))
    assert not torch.allclose(plain({"x": x}), other({"x": x}), atol=1e-2)


def test_features_that_hardly_vary_are_not_blown_up(x: Tensor) -> None:
    rare = x.clone()
    rare[:, 0] = 0.0
    method = probe(rare, standardise=True).eval()
    assert torch.isfinite(method({"x": x})).all()
    assert float(method.deviation[0]) == pytest.approx(0.01 * float((rare.var(0).mean()) ** 0.5), rel=1e-5)
    constant = probe(torch.ones(4, 5), standardise=True).eval()
    assert torch.isfinite(constant({"x": x})).all()


def test_the_backbones_dropout_is_not_in_the_statistics(x: Tensor) -> None:
    method = probe(x, standardise=True)
    assert torch.allclose(method.mean, x.mean(0))


def test_one_example_has_no_deviation(x: Tensor) -> None:
    with pytest.raises(UsageError, match=r"method\.standardise") as error:
        probe(x[:1], standardise=True)
    assert "--batch-size" in error.value.todo


def test_small_features_are_learned_from_as_well_as_large_ones(make_lab: Any, lab: Any) -> None:
    """What the option is for: SGD hardly moves on features a thousand times smaller."""
    spec = lab.spec("linear", options={"standardise": True}, max_steps=60)
    plain = lab.run(lab.spec("linear", max_steps=60))
    run = lab.run(spec)
    assert run.losses[-1] < plain.losses[-1] - 0.02
