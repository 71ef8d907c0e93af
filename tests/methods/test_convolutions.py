"""Convolutions adapted as the matrix (out, in·k·k) on their patches: against F.conv2d of W + ΔW, peft and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from image_reference import ALPHA, CASES, R, adapted, batch, convnext, images, resnet, shake, vit
from merging import merge
from torch import Tensor, nn

from bench.api.lowrank.targets import find_targets
from bench.api.running_statistics import freeze_statistics, moving_statistics
from bench.config.sections import PenaltyConfig
from bench.core import registry
from bench.core.errors import UsageError
from bench.training.regularizers import nuclear_penalty


class Mixed(nn.Module):
    """Strides, paddings of all kinds, dilation, 1×1, with and without bias, and a linear layer."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(8, 7, (3, 5), padding="same", dilation=2, bias=False)
        self.circular = nn.Conv2d(7, 8, 3, padding=1, padding_mode="circular")
        self.point = nn.Conv2d(8, 9, 1)
        self.grouped = nn.Conv2d(9, 9, 3, groups=3)
        self.last = nn.Linear(9, 6)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, self.dilated, self.circular, self.point, self.grouped):
            x = torch.tanh(layer(x))
        return self.last(x.mean((2, 3)))


NAMES = ["first", "dilated", "circular", "point", "last"]
SHAPES = [(8, 27), (7, 120), (8, 63), (9, 8), (6, 9)]
each = pytest.mark.parametrize("case", CASES)


def change(case: str, tensors: dict[str, Tensor], name: str, weight: Tensor) -> Tensor:
    """ΔW of a layer by the method's equation, from what it exports."""
    parts = {k.removeprefix(f"backbone.{name}."): t for k, t in tensors.items() if k.startswith(f"backbone.{name}.")}
    factors = [parts[f"factors.{i}"].flatten(1) for i in range(sum(k.startswith("factors") for k in parts))]
    if case == "adalora":
        a, e, b = factors
        return ALPHA / (6 + 1e-5) * b @ torch.diag(e[:, 0]) @ a
    product = factors[0]
    for factor in factors[1:]:
        product = factor @ product
    if case in ("deeplora", "compressed"):
        return product
    product = product * (ALPHA / 2 if case == "rslora" else ALPHA / 4)
    if "pissa" in case:
        product = product - ALPHA / 4 * parts["start_b"] @ parts["start_a"].flatten(1)
    if "dora" in case:
        direction = weight.flatten(1) + product
        lengths = np.sqrt((direction.numpy() ** 2).sum(1, keepdims=True))
        return parts["magnitude"][:, None] * direction / torch.from_numpy(lengths) - weight.flatten(1)
    return product


@each
@torch.no_grad()
def test_it_computes_the_convolution_of_the_sum(case: str) -> None:
    name, options = CASES[case]
    plain, x = Mixed(), images(3, 12)
    method = adapted(name, Mixed(), target="all", **options)
    start = plain(x)
    assert torch.allclose(method.backbone(x), start, rtol=0, atol=1e-9), "it starts where the backbone is"
    shake(method, 0.5)
    deltas, tensors = dict(method.deltas()), method.export()
    assert [*deltas] == NAMES and [delta.shape for delta in deltas.values()] == SHAPES
    for layer in NAMES:
        weight = plain.get_submodule(layer).weight
        update = change(case, tensors, layer, weight)
        assert torch.allclose(deltas[layer].dense(), update, rtol=0, atol=1e-12)
        weight += update.view_as(weight)
    want = plain(x)
    assert (want - start).abs().max() > 0.02
    assert torch.allclose(method.backbone(x), want, rtol=0, atol=1e-12)
    merged = merge(method)
    assert torch.allclose(method.backbone(x), want, rtol=0, atol=1e-12)
    assert [*merged] == NAMES
    for layer, weight in merged.items():
        assert torch.allclose(weight, plain.get_submodule(layer).weight, rtol=0, atol=1e-12)


@each
def test_counts_are_the_formula(case: str) -> None:
    name, options = CASES[case]
    method = adapted(name, Mixed(), target="all", **options)
    rank, extra = (6, 6) if name == "adalora" else (R, 0)
    extra += {"deeplora": 2 * R * R, "compressed": 3 * R * R}.get(case, 0)
    own = sum(rank * (m + n) + extra + (m if "dora" in case else 0) for m, n in SHAPES)
    assert method.parameter_counts()["trainable"] == own + 6 * 3 + 3
    assert method.parameter_counts()["total"] == own + 6 * 3 + 3 + sum(p.numel() for p in Mixed().parameters())


@each
def test_an_export_loads_back(case: str) -> None:
    name, options = CASES[case]
    method, other = (adapted(name, Mixed(), target="all", **options) for _ in range(2))
    shake(method)
    assert not other.load_state_dict(method.export(), strict=False).unexpected_keys
    with torch.no_grad():
        assert torch.equal(other(batch()["inputs"]), method(batch()["inputs"]))


def test_the_first_factor_starts_uniform_by_the_fan_in() -> None:
    method = adapted("lora", Mixed(), target="dilated", rank=64)
    (_, layer), *_ = method.layers()
    a = layer.factors[0].detach()
    assert a.shape == (64, 8, 3, 5)
    assert 0.98 / np.sqrt(120) < float(a.abs().max()) <= 1 / np.sqrt(120)


def test_adalora_scores_and_holds_the_matrices() -> None:
    """S = s(E) + mean s(A) + mean s(B) with s = Ī·U after one step, and Gram matrices of A (r, in·k·k) and B."""
    method = adapted("adalora", Mixed(), target="dilated", rank=R)
    shake(method)
    method.loss(batch()).backward()
    (_, layer), *_ = method.layers()
    layer.observe(0.8, 0.9)
    a, _, b = (f.detach().flatten(1).numpy() for f in layer.factors)
    scored = []
    for factor in layer.factors:
        now = np.abs((factor * factor.grad).detach().flatten(1).numpy())
        scored.append(0.2 * now * 0.1 * np.abs(now - 0.2 * now))
    want = scored[1][:, 0] + scored[0].mean(1) + scored[2].mean(0)
    assert np.allclose(layer.scores().numpy(), want, rtol=1e-9, atol=0) and want.min() > 0
    distances = [np.linalg.norm(g - np.eye(6)) for g in (a @ a.T, b.T @ b)]
    assert float(method.penalty().detach()) == pytest.approx(0.1 * np.mean(distances))


# which layers


def test_what_targets_mean() -> None:
    found = {
        t: [n for n, _ in find_targets(Mixed(), t).layers]
        for t in ("all", "all-linear", "convolutions", "qv", "point|last")
    }
    assert found["all"] == found["qv"] == NAMES
    assert found["all-linear"] == ["last"]
    assert found["convolutions"] == NAMES[:-1]
    assert found["point|last"] == ["point", "last"], "an expression finds both kinds"
    method = adapted("lora", Mixed())
    assert method.warnings() == [
        "no query and value projections in this network: its 4 convolutions and 1 linear layer are adapted",
        "convolutions not adapted because a grouped one is not one matrix: 1",
    ]
    assert adapted("lora", Mixed(), target="all-linear").warnings() == []


def test_vit_keeps_its_queries_and_values() -> None:
    method = adapted("lora", vit())
    assert [n for n, _ in method.layers()] == [
        f"model.blocks.{i}.attn.qkv.{part}" for i in range(3) for part in ("query", "value")
    ]
    assert method.warnings() == []
    assert [n for n, _ in find_targets(vit(), "convolutions").layers] == ["model.patch_embed.proj"]


def test_a_multilayer_perceptron_is_adapted_whole() -> None:
    network: Any = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6))
    choice = find_targets(network, "qv")
    assert [n for n, _ in choice.layers] == ["0", "2"]
    assert choice.notes == ["no query and value projections in this network: its 2 linear layers are adapted"]


def test_other_convolutions_are_left_and_said() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return F.conv2d(input, self.weight - self.weight.mean(), self.bias)

    choice = find_targets(nn.Sequential(nn.Conv2d(3, 4, 1), Standardised(4, 4, 1)), "all")
    assert [n for n, _ in choice.layers] == ["0"]
    assert choice.notes == ["convolutions not adapted because their class changes the convolution (Standardised): 1"]
    grouped = find_targets(convnext(), "convolutions")
    assert not any("conv_dw" in n for n, _ in grouped.layers)
    assert grouped.notes == ["convolutions not adapted because a grouped one is not one matrix: 4"]


def test_nothing_that_matches_is_refused_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="matches no linear layer of this") as caught:
        find_targets(resnet(), "all-linear")
    assert "layer#.#.conv#" in caught.value.known and "convolutions" in caught.value.todo
    with pytest.raises(UsageError, match="no convolution"):
        find_targets(nn.Sequential(nn.Linear(2, 2)), "convolutions")
    with pytest.raises(UsageError, match="no linear layer of"), pytest.MonkeyPatch.context():
        find_targets(nn.Sequential(nn.MultiheadAttention(4, 2)), "qv")


@pytest.mark.parametrize("policy", ["depth", "gradient"])
def test_rank_is_shared_out_among_convolutions(policy: str) -> None:
    method = adapted("lora", resnet(), allocation={"policy": policy}, rank=4)
    flat = adapted("lora", resnet(), rank=4)
    ranks = [len(layer.factors[0]) for _, layer in method.layers()]
    spent, budget = (m.parameter_counts()["trainable"] for m in (method, flat))
    assert len({*ranks}) > 1
    said = sum(int(line.split()[2].replace(",", "")) for line in method.warnings() if "allocation" in line)
    assert spent == budget - said and said < budget / 100


def test_gradients_are_those_of_the_matricised_weight() -> None:
    method, plain = adapted("full", Mixed()), adapted("full", Mixed())
    seen: dict[str, Tensor] = {}
    low: Any = registry.load("methods", "lora")
    low.with_gradients(method, find_targets(method.backbone, "all").layers, batch(), lambda n, g: seen.update({n: g}))
    plain.loss(batch()).backward()
    for (name, base), shape in zip(find_targets(plain.backbone, "all").layers, SHAPES, strict=True):
        assert seen[name].shape == shape
        assert torch.allclose(seen[name], base.weight.grad.reshape(shape), rtol=0, atol=1e-14)


# full fine-tuning and penalties


def test_full_measures_convolutions_by_their_matricisation() -> None:
    method = adapted("full", resnet())
    before = {n: m.weight.detach().clone() for n, m in method.backbone.named_modules() if isinstance(m, nn.Conv2d)}
    shake(method, 0.05)
    deltas = dict(method.deltas())
    assert deltas.keys() == before.keys()
    for name, start in before.items():
        want = (method.backbone.get_submodule(name).weight - start).detach().numpy().reshape(len(start), -1)
        assert np.allclose(deltas[name].dense().numpy(), want, rtol=0, atol=1e-14)
        sigma = np.linalg.svd(want, compute_uv=False)
        assert deltas[name].ranks().norm == pytest.approx(sigma[0])
        assert deltas[name].nominal == min(want.shape)


@pytest.mark.parametrize("name", ["full", "lora", "deeplora"])
@pytest.mark.parametrize("of", ["update", "weight"])
def test_the_nuclear_penalty_is_numpys_on_matrices(name: str, of: Any) -> None:
    method, plain = adapted(name, resnet()), resnet()
    shake(method, 0.1)
    total = 0.0
    for layer, delta in method.deltas():
        start = plain.get_submodule(layer).weight.detach().flatten(1).numpy() if of == "weight" else 0
        total += np.linalg.norm(start + delta.dense().numpy(), "nuc")
    penalty = nuclear_penalty(method, PenaltyConfig(nuclear=0.3, of=of))()
    assert float(penalty.detach()) == pytest.approx(0.3 * total, rel=1e-9)
    penalty.backward()
    assert all(p.grad is not None for n, p in method.named_parameters() if "factors" in n)


# running statistics


def statistics(network: nn.Module) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in network.named_buffers()}


@pytest.mark.parametrize("name", ["linear", "bitfit", "lora", "adapter", "full"])
def test_statistics_move_where_the_scale_trains(name: str) -> None:
    method = adapted(name, resnet())
    before = statistics(method.backbone)
    method.train()
    freeze_statistics(method.backbone)
    method(batch()["inputs"])
    now = statistics(method.backbone)
    assert len(before) > 20
    moved = [n for n in before if not torch.equal(before[n], now[n])]
    assert len(moved) == (len(before) if name == "full" else 0)
    assert moving_statistics(method.backbone).keys() == {*moved}
    assert {f"backbone.{n}" for n in moved} <= method.export().keys()


def test_a_normalisation_without_a_scale_moves_where_everything_trains() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), nn.Dropout(0.5))
    freeze_statistics(network.train())
    assert [m.training for m in network] == [True, True, True]
    network[0].weight.requires_grad_(False)
    freeze_statistics(network.train())
    assert [m.training for m in network] == [True, False, True]
