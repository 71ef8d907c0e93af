"""Adapters, AdapterDrop and BitFit on image networks: against the equations written out on the plain network."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from image_reference import Net, adapted, batch, convnext, images, resnet, shake, swin, vit
from lightning.pytorch.plugins.precision import DoublePrecision
from torch import Tensor, nn

from bench.core.errors import UsageError
from methods.adapter.method import find_blocks
from methods.adapterdrop.prefix_cache import PrefixCache

NETWORKS: dict[str, Callable[[], Net]] = {"vit": vit, "resnet": resnet, "convnext": convnext, "swin": swin}
WIDTHS = {"vit": [32] * 3, "resnet": [8, 12, 16, 24], "convnext": [8, 12, 16, 24], "swin": [8, 16]}
each = pytest.mark.parametrize("name", NETWORKS)


def written_out(net: Net, tensors: dict[str, Tensor], places: list[str], name: str) -> None:
    """h + Up·relu(Down·h + b) + c behind the blocks that have an adapter, over channels."""
    axes = "bchw,kc->bkhw" if name in ("resnet", "convnext") else "...c,kc->...k"
    for place, block in zip(places, find_blocks(net), strict=True):
        parts = [
            tensors.get(f"backbone.{place}.adapter.{p}") for p in ("down.weight", "down.bias", "up.weight", "up.bias")
        ]
        if parts[0] is None:
            continue

        def hook(block: Any, args: Any, h: Tensor, parts: Any = parts) -> Tensor:
            down, b, up, c = parts
            if axes.startswith("bchw"):
                b, c = b[:, None, None], c[:, None, None]
            inner = (torch.einsum(axes, h, down) + b).clamp_min(0)
            return h + torch.einsum(axes, inner, up) + c

        block.register_forward_hook(hook)


def places(net: Net) -> list[str]:
    names = {id(m): n for n, m in net.named_modules()}
    return [names[id(block)] for block in find_blocks(net)]


@each
@pytest.mark.parametrize(("method", "n"), [("adapter", 0), ("adapterdrop", 0), ("adapterdrop", 1)])
@torch.no_grad()
def test_the_network_is_the_plain_one_with_the_equation(name: str, method: str, n: int) -> None:
    options = {"n": n} if method == "adapterdrop" else {}
    made, plain, x = adapted(method, NETWORKS[name](), reduction=4, **options), NETWORKS[name](), images()
    start = plain(x)
    assert torch.equal(made.backbone(x), start), "Up starts at zero"
    shake(made, 0.5)
    written_out(plain, made.export(), places(plain), name)
    want = plain(x)
    assert (want - start).abs().max() > 0.05
    assert torch.allclose(made.backbone(x), want, rtol=0, atol=1e-12)


@each
@pytest.mark.parametrize("options", [{"reduction": 4}, {}, {"bottleneck": 3}])
def test_counts_follow_the_width_of_every_block(name: str, options: dict[str, Any]) -> None:
    made, plain = adapted("adapter", NETWORKS[name](), **options), NETWORKS[name]()
    inner = [options.get("bottleneck") or max(1, round(d / options.get("reduction", 16))) for d in WIDTHS[name]]
    own = sum(2 * d * b + b + d for d, b in zip(WIDTHS[name], inner, strict=True)) + 3 * plain.width + 3
    assert made.parameter_counts()["trainable"] == own
    assert made.parameter_counts()["total"] == sum(p.numel() for p in plain.parameters()) + own


@pytest.mark.parametrize("name", ["vit", "resnet"])
@pytest.mark.parametrize("robust", [False, True], ids=["specialised", "robust"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_nothing_is_kept_for_a_gradient_below_n(name: str, robust: bool, n: int) -> None:
    made = adapted("adapterdrop", NETWORKS[name](), **({} if robust else {"n": n}))
    now, kept, requires = [-1], set[int](), dict[int, bool]()
    for i, block in enumerate(made.blocks):
        block.register_forward_pre_hook(lambda block, args, i=i: now.__setitem__(0, i))
        block.register_forward_hook(lambda block, args, out, i=i: requires.__setitem__(i, out.requires_grad))

    def keep(tensor: Tensor) -> Tensor:
        kept.add(now[0])
        return tensor

    with made.dropping(n), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = made.loss(batch())
    blocks = len(made.blocks)
    assert requires == {i: i >= n for i in range(blocks)}
    assert kept == {*range(n, blocks)}, "and nothing in what lies before the first block"
    loss.backward()
    assert {i for i, a in made.adapters.items() if a.up.bias.grad is not None} == {*range(n, blocks)}


@pytest.mark.parametrize("kind", ["vgg", "mlp"])
def test_a_network_without_blocks_is_refused(kind: str) -> None:
    network: Any
    if kind == "vgg":
        import timm

        network = Net(timm.create_model("vgg11", num_classes=0), [])
    else:
        network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        network.width, network.blocks = 4, []
    with pytest.raises(UsageError, match="one stack"):
        adapted("adapter", network)


# the frozen blocks, computed once


@pytest.mark.parametrize(("name", "n"), [("vit", 1), ("vit", 2), ("resnet", 1), ("resnet", 3), ("convnext", 2)])
@torch.no_grad()
def test_blocks_are_replayed(name: str, n: int) -> None:
    net, x = NETWORKS[name](), images(4)
    want = net(x)
    statistics = [b.clone() for b in net.buffers()]
    prefix = PrefixCache(net.requires_grad_(False), find_blocks(net), n)
    hidden = prefix._run({"x": x}, training=False)
    assert not prefix._is_random(hidden, {"x": x}), "frozen normalisations give the same in training mode"
    assert all(torch.equal(a, b) for a, b in zip(statistics, net.buffers(), strict=True))
    prefix.rows = dict(enumerate(hidden))
    computed = [0]
    for block in find_blocks(net)[:n]:
        leaf = next(m for m in block.modules() if isinstance(m, nn.Linear | nn.Conv2d))
        leaf.register_forward_hook(lambda *_: computed.__setitem__(0, computed[0] + 1))
    with prefix.replaying({"index": torch.tensor([2, 0])}):
        assert torch.allclose(net.eval()(x[[2, 0]]), want[[2, 0]], rtol=0, atol=1e-12)
    assert computed == [0], "nothing below is computed"
    assert torch.allclose(net(x), want, rtol=0, atol=1e-12) and computed[0] >= n


class Data:
    """Seven images, twice; in training something is added to those that are `augmented`."""

    def __init__(self, *, augmented: tuple[int, ...] = (), samples: int = 14) -> None:
        self.images, self.augmented, self.samples = images(7).float(), augmented, samples
        self.train = SimpleNamespace(lengths=np.zeros(7, dtype=np.int64))

    def collate(self, split: Any, index: np.ndarray, weight: float = 1.0, step: int = -1) -> dict[str, Any]:
        change = 0.1 * np.isin(index, self.augmented) * (step >= 0)
        x = self.images[torch.from_numpy(index)] + torch.from_numpy(change).float()[:, None, None, None]
        return {"inputs": {"x": x}, "index": torch.from_numpy(index)}

    def one_pass(self) -> Any:
        return (self.collate(self.train, part) for part in (np.arange(4), np.arange(4, 7)))


def filled(data: Data, net: Net, n: int, limit: int = 2**30) -> tuple[str, PrefixCache]:
    prefix = PrefixCache(net.requires_grad_(False), find_blocks(net), n)
    host: Any = SimpleNamespace(
        trainer=SimpleNamespace(datamodule=data, precision_plugin=DoublePrecision()),
        transfer_batch_to_device=lambda batch, device, i: batch,
        device=torch.device("cpu"),
    )
    return prefix.fill(host, limit), prefix


@pytest.mark.parametrize(("name", "n", "shape"), [("vit", 2, (17, 32)), ("resnet", 2, (12, 4, 4))])
def test_rows_are_whole_images(name: str, n: int, shape: tuple[int, ...]) -> None:
    data, plain = Data(), NETWORKS[name]()
    said, prefix = filled(data, NETWORKS[name](), n)
    assert said == "" and sorted(prefix.rows) == [*range(7)]
    outs: list[Tensor] = []
    find_blocks(plain)[n - 1].register_forward_hook(lambda block, args, out: outs.append(out))
    with torch.no_grad():
        plain(data.images.double())
    for i, row in prefix.rows.items():
        assert row.shape == shape
        assert torch.allclose(row, outs[0][i], rtol=0, atol=1e-12)
    assert prefix.bytes == 7 * 8 * int(np.prod(shape))
    said, _ = filled(data, NETWORKS[name](), n, limit=prefix.bytes)
    assert said == ""


def test_where_replaying_is_not_right_it_says_why() -> None:
    for augmented in (range(7), (4,)):  # chance may leave many as they are
        said, prefix = filled(Data(augmented=tuple(augmented)), resnet(), 1)
        assert "augmentation" in said and not prefix.rows
    said, prefix = filled(Data(), resnet(), 2, limit=7 * 8 * 12 * 16 - 1)
    assert "cache_mib" in said and not prefix.rows
    net = vit()
    net.model.blocks[0].mlp.drop1.p = 0.5
    said, prefix = filled(Data(), net, 1)
    assert "evaluation mode" in said and not prefix.rows
    said, prefix = filled(Data(samples=7), vit(), 1)
    assert said == "" and not prefix.rows, "an example that is seen once is not worth it"


# biases


@pytest.mark.parametrize("name", ["vit", "resnet", "convnext"])
def test_bitfit_moves_biases_alone(name: str) -> None:
    made, plain = adapted("bitfit", NETWORKS[name]()), NETWORKS[name]()
    biases = {n for n, p in plain.named_parameters() if n.endswith("bias")}
    kinds = (nn.Linear, nn.Conv2d, nn.LayerNorm, nn.BatchNorm2d)
    want = sum(m.bias.numel() for m in plain.modules() if isinstance(m, kinds) and m.bias is not None)
    assert made.parameter_counts()["trainable"] == want + 3 * plain.width + 3
    made.loss(batch()).backward()
    torch.optim.SGD([p for p in made.parameters() if p.requires_grad], lr=0.1).step()
    start = dict(plain.named_parameters())
    moved = {n for n, p in made.backbone.named_parameters() if not torch.equal(p, start[n])}
    assert moved and moved <= biases
    assert any("norm" in n or "bn" in n for n in moved)
    assert [*made.deltas()] == []
