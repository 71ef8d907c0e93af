"""Networks that are built: sizes, patches, features as timm's, seeds, and what is refused."""

from __future__ import annotations

from math import prod

import pytest
import timm
import torch
from networks import SMALL, build, count, found, images
from torch import nn

from bench.backbones.timm_network import TimmNet, patch_size
from bench.core.errors import UsageError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


# every network


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_every_network_goes_forth_and_back(name, shape):
    network = build(name, shape, **SMALL[name]).train()
    features = network(images(shape))
    assert features.shape == (4, network.width)
    features.square().mean().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("name", ["dln", "mlp"])
def test_vectors_go_through_what_has_no_picture_of_images(name):
    network = build(name, (7,), width=5)
    assert network(images((7,))).shape == (4, 5)


@pytest.mark.parametrize("name", SMALL)
def test_everything_random_follows_from_the_seed(name):
    shape = (1, 8, 8)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = build(name, shape, seed=5, **SMALL[name]).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(4)
    again, other = (build(name, shape, seed=seed, **SMALL[name]).state_dict() for seed in (5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    matrices = [key for key in first if first[key].ndim > 1 and first[key].unique().numel() > 1]
    assert len(matrices) > 1 and not [key for key in matrices if torch.equal(first[key], other[key])]


@pytest.mark.parametrize(("name", "blocks"), [("resnet18", 8), ("vit", 2), ("vgg11", 0), ("mlp", 0), ("dln", 0)])
def test_blocks_are_the_residual_ones_in_order(name, blocks):
    network = build(name, (1, 28, 28), **SMALL[name])
    order: list[nn.Module] = []
    for block in network.blocks:
        block.register_forward_hook(lambda module, *_: order.append(module))
    network(images((1, 28, 28)))
    assert order == network.blocks and len(order) == blocks


def test_blocks_of_nested_stages():
    assert len(TimmNet(timm.create_model("convnext_atto", num_classes=0), (3, 32, 32)).blocks) == 2 + 2 + 6 + 2
    assert len(TimmNet(timm.create_model("efficientnet_lite0", num_classes=0), (3, 32, 32)).blocks) == 16


# sizes


def test_parameters_of_an_mlp():
    n, w = 64, 16
    assert count(build("mlp", (1, 8, 8), depth=4, width=w)) == (n + 1) * w + 2 * (w + 1) * w
    assert count(build("mlp", (1, 8, 8), depth=4, width=w, norm="layer")) == (n + 1) * w + 2 * (w + 1) * w + 3 * 2 * w
    assert count(build("mlp", (1, 8, 8), depth=1)) == 0


def test_an_mlp_keeps_the_size_of_what_goes_through_it():
    """He et al. 2015: with variance 2/fan_in ReLU layers neither shrink nor grow a signal, whatever their number."""
    network = build("mlp", (1, 28, 28), depth=9, width=512)
    for layer in network.layers:
        assert float(layer.linear.weight.detach().std()) == pytest.approx(
            (2 / layer.linear.in_features) ** 0.5, rel=0.02
        )
        assert not layer.linear.bias.any()
    assert 0.5 < network(images((1, 28, 28))).detach().square().mean() < 2


def test_parameters_of_a_vit():
    width, depth, patch, tokens = 24, 2, 7, 16
    embedding = (patch**2 + 1) * width + (tokens + 1) * width + width
    block = 12 * width**2 + 13 * width
    assert count(build("vit", (1, 28, 28), **SMALL["vit"])) == embedding + depth * block + 2 * width


def test_parameters_of_resnet18_and_vgg11_are_timm_s():
    resnet = count(timm.create_model("resnet18", num_classes=0))
    assert count(build("resnet18", (3, 32, 32), stem="imagenet")) == resnet
    assert count(build("resnet18", (3, 32, 32))) == resnet - 64 * 3 * (7**2 - 3**2)
    with torch.device("meta"):  # its dense layers take 480 MB
        theirs = {norm: timm.create_model(norm, num_classes=0).features for norm in ("vgg11", "vgg11_bn")}
    assert count(build("vgg11", (3, 32, 32))) == count(theirs["vgg11_bn"])
    assert count(build("vgg11", (3, 32, 32), norm="none")) == count(theirs["vgg11"])


@pytest.mark.parametrize(
    ("size", "patch"),
    [
        ((8, 8), 2),
        ((28, 28), 7),
        ((32, 32), 8),
        ((30, 30), 6),
        ((64, 64), 16),
        ((96, 96), 16),
        ((224, 224), 16),
        ((4, 4), 1),
        ((28, 56), 7),
        ((13, 13), 1),
    ],
)
def test_patches_follow_the_size_of_the_image(size, patch):
    assert patch_size(*size) == patch
    network = build("vit", (1, *size), width=8, depth=1, heads=1, pool="mean")
    assert network.model.pos_embed.shape[1] == prod(size) // patch**2


@pytest.mark.parametrize(
    ("call", "texts"),
    [
        (lambda: patch_size(28, 28, 8), ("patch=8", "28×28", "1, 2, 4, 7, 14, 28")),
        (lambda: patch_size(37, 37), ("37×37", "1369 patches")),
        (lambda: build("vgg11", (1, 7, 7)), ("8×8", "7×7")),
        (lambda: build("resnet18", (3, 4, 32)), ("8×8", "4×32")),
        (lambda: build("vit", (1, 28, 28), width=10, heads=3), ("heads=3", "width=10")),
        (lambda: build("timm:vit_tiny_patch16_224", (1, 28, 28)), ("16×16", "28×28")),
        (lambda: build("timm:inception_v4", (1, 28, 28)), ("28×28", "InceptionV4")),
        (lambda: build("timm:resnet81", (1, 28, 28)), ("resnet81", "Did you mean 'resnet")),
        (lambda: build("timm:resnet18.a9_in1k", (1, 28, 28)), ("a1_in1k", "Did you mean 'a")),
        (lambda: build("timm:local-dir:/etc", (1, 28, 28)), ("unknown backbone",)),
        (lambda: build("mlp", (5,), depth=0), ("backbone.depth=0",)),
        (lambda: build("dln", (5,), init_scale=-1.0), ("backbone.init_scale=-1.0",)),
    ],
)
def test_what_does_not_fit_is_refused_by_its_sizes(call, texts):
    with pytest.raises(UsageError) as caught:
        call()
    assert not [text for text in texts if text not in str(caught.value)]


# features


def same_weights(ours: TimmNet, theirs: nn.Module) -> nn.Module:
    theirs.load_state_dict(ours.model.state_dict())
    return theirs.eval()


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_features_of_the_vit_are_timm_s(pool):
    shape = (3, 32, 32)
    ours = build("vit", shape, width=24, depth=2, heads=3, pool=pool).eval()
    kind = {"global_pool": "avg", "class_token": False} if pool == "mean" else {}
    theirs = timm.models.VisionTransformer(32, 8, 3, 10, embed_dim=24, depth=2, num_heads=3, **kind)
    theirs.head = nn.Identity()
    theirs = same_weights(ours, theirs)
    x = images(shape)
    assert torch.equal(ours(x), theirs.forward_head(theirs.forward_features(x), pre_logits=True))


def test_features_of_resnet18_are_timm_s():
    ours = build("resnet18", (3, 32, 32), stem="imagenet").eval()
    theirs = same_weights(ours, timm.create_model("resnet18", num_classes=0))
    x = images((3, 32, 32))
    assert torch.equal(ours(x), theirs.forward_head(theirs.forward_features(x), pre_logits=True))


def test_features_of_vgg11_are_timm_s_without_its_dense_layers():
    ours = build("vgg11", (3, 32, 32)).eval()
    with torch.device("meta"):
        theirs = timm.create_model("vgg11_bn", num_classes=0)
    theirs.pre_logits = nn.Identity()
    theirs = same_weights(ours, theirs.to_empty(device="cpu"))
    x = images((3, 32, 32))
    assert torch.equal(ours(x), theirs.forward_head(theirs.forward_features(x), pre_logits=True))


@pytest.mark.parametrize(("stem", "map_side"), [("small", 2), ("cifar", 4), ("imagenet", 1)])
def test_stems_leave_what_they_promise_of_the_image(stem, map_side):
    network = build("resnet18", (3, 32, 32), stem=stem).eval()
    assert network.model.forward_features(images((3, 32, 32))).shape == (4, 512, map_side, map_side)


def test_what_is_built_has_no_revision():
    plain, named = found("mlp"), found("mlp", revision="v2")
    assert (plain.weights_hash, plain.config) == (named.weights_hash, named.config)


def test_no_width_is_no_width_of_zero():
    with pytest.raises(UsageError, match=r"backbone\.width=0"):
        found("dln", width=0)


@pytest.mark.parametrize("name", ["efficientvit_m0", "pvt_v2_b0"])
def test_networks_without_patches_side_by_side(name: str) -> None:
    """EfficientViT has one number as its patch size; PVTv2's patches of 7×7 overlap, and cover images of any size."""
    network = build(f"timm:{name}", (3, 64, 64))
    assert network(images((3, 64, 64))).shape == (4, network.width)


@pytest.mark.parametrize(
    ("name", "size"), [("xcit_nano_12_p16_224", 24), ("vit_tiny_patch16_224", 24), ("efficientvit_m0", 8)]
)
def test_patches_that_do_not_fit_are_refused(name: str, size: int) -> None:
    with pytest.raises(UsageError, match=f"images of {size}×{size}"):
        build(f"timm:{name}", (3, size, size))
