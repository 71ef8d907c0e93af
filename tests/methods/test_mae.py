"""MAE against numpy, and against what its paper promises: the encoder sees visible patches alone, labels none of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mae_lab
import numpy as np
import pytest
import torch
from mae_lab import KINDS, spec
from torch import Tensor

from bench.core import registry
from bench.core.errors import UsageError
from methods.mae.method import count_masked, visible_patches
from methods.mae.network import PatchEncoder

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def images(make_lab: Callable[..., Any]) -> Any:
    """The small vision transformer on its tasks."""
    return make_lab(backbone=mae_lab.backbone(), tasks=mae_lab.tasks())


def built(images: Any, **options: Any) -> tuple[Any, Any]:
    """Data and untrained method, in float64."""
    data, method = images.build(spec(images, options=options))
    return data, method.double()


def batch_of(data: Any, index: list[int] | None = None, step: int = 3) -> dict[str, Any]:
    batch = data.collate(data.train, np.array([0, 1, 2, 5, 9, 30] if index is None else index), step=step)
    batch["inputs"]["x"] = batch["inputs"]["x"].double()
    return batch


def pixels(patch: int) -> tuple[slice, slice]:
    """Where patch number `patch` is in an image."""
    row, column = divmod(patch, mae_lab.SHAPE[2] // mae_lab.PATCH)
    return tuple(slice(i * mae_lab.PATCH, (i + 1) * mae_lab.PATCH) for i in (row, column))  # type: ignore[return-value]


@each_kind
def test_the_encoder_sees_visible_patches_alone(kind: str) -> None:
    """A masked pixel changes nothing at all, a visible one everything after it."""
    encoder = PatchEncoder(mae_lab.network(**KINDS[kind]).eval())
    x = torch.randn(2, *mae_lab.SHAPE, generator=torch.Generator().manual_seed(1))
    keep = torch.tensor([[0, 5, 7], [2, 3, 23]])
    tokens = encoder(x, keep)
    assert tokens.shape == (2, encoder.prefix + 3, mae_lab.WIDTH)
    for patch in range(mae_lab.PATCHES):
        for value in (7.0, torch.nan):
            changed = x.clone()
            rows, columns = pixels(patch)
            changed[1, 0, rows, columns.start] = value
            there = encoder(changed, keep)
            assert torch.equal(there[0], tokens[0])
            assert torch.equal(there[1], tokens[1]) == (patch not in (2, 3, 23)), patch


@each_kind
def test_with_every_patch_visible_it_is_the_backbone(kind: str) -> None:
    """And a backbone in which a masked autoencoder looked is still itself: same features, same names."""
    plain, used = (mae_lab.network(**KINDS[kind]).eval() for _ in range(2))
    encoder = PatchEncoder(used)
    x = torch.randn(2, *mae_lab.SHAPE, generator=torch.Generator().manual_seed(1))
    everything = torch.arange(mae_lab.PATCHES).expand(2, -1)
    assert torch.allclose(encoder.pooled(encoder(x, everything)), plain(x), rtol=0, atol=1e-5)
    assert torch.equal(used(x), plain(x))
    assert used.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(
    ("ratio", "patches", "masked"),
    [(0.75, 16, 12), (0.75, 49, 37), (0.5, 16, 8), (0.9, 10, 9), (0.85, 20, 17), (0.9, 100, 90), (0.15, 196, 29)],
)
def test_how_many_are_masked(ratio: float, patches: int, masked: int) -> None:
    assert count_masked(ratio, patches) == masked
    index = np.arange(50)
    keep = visible_patches(3, 0, index, patches=patches, masked=masked)
    assert keep.shape == (50, patches - masked)
    assert all(len(set(row)) == len(row) and min(row) >= 0 and max(row) < patches for row in keep.tolist())


def test_every_patch_is_masked_as_often() -> None:
    keep = np.concatenate([visible_patches(3, step, np.arange(200), patches=16, masked=12) for step in range(10)])
    often = np.bincount(keep.ravel(), minlength=16) / len(keep)
    assert np.abs(often - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / len(keep))


@pytest.mark.parametrize(("ratio", "patches"), [(0.0, 16), (1.0, 16), (0.01, 16), (0.99, 16), (0.5, 1)])
def test_a_ratio_that_masks_none_or_all_is_refused(ratio: float, patches: int) -> None:
    with pytest.raises(UsageError, match=r"method\.mask_ratio"):
        count_masked(ratio, patches)


def test_masks_follow_from_seed_step_and_example_alone(images: Any) -> None:
    data, method = built(images)
    whole = method.visible(batch_of(data))
    assert torch.equal(method.visible(batch_of(data, [9, 5, 1])), whole[[4, 3, 1]])
    evaluation = data.collate(data.evaluation["dev"], np.arange(6))
    assert evaluation["step"] == -1
    assert not torch.equal(method.visible(evaluation), method.visible({**evaluation, "step": 0}))
    others = [method.visible(batch_of(data, step=4)), method.visible(evaluation)]
    others.append(images.build(spec(images, seed=1))[1].visible(batch_of(data)))
    assert all(not torch.equal(other, whole) for other in others)
    assert len({tuple(row) for row in whole.tolist()}) == len(whole)


def reference(images: np.ndarray, predicted: np.ndarray, keep: np.ndarray, *, normalised: bool) -> np.ndarray:
    """Mean squared error of the masked patches' pixels, image by image and patch by patch, (B,)."""
    found = np.zeros(len(images))
    for i, image in enumerate(images):
        hidden = [n for n in range(mae_lab.PATCHES) if n not in keep[i]]
        for n in hidden:
            wanted = image[(slice(None), *pixels(n))].ravel()
            if normalised:
                wanted = (wanted - wanted.mean()) / np.sqrt(wanted.var(ddof=1) + 1e-6)
            found[i] += ((predicted[i, n] - wanted) ** 2).mean() / len(hidden)
    return found


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("ratio", [0.75, 0.3])
def test_the_loss_is_the_error_of_masked_patches(images: Any, normalised: bool, ratio: float) -> None:
    data, method = built(images, norm_pixels=normalised, mask_ratio=ratio)
    method.head.requires_grad_(False)  # leaves the probe out
    batch = batch_of(data)
    x, keep = batch["inputs"]["x"], method.visible(batch)
    tokens = method.encoder(x, keep)
    predicted = method.decoder(tokens, keep).detach().numpy()
    want = reference(x.numpy(), predicted, keep.numpy(), normalised=normalised)
    assert np.allclose(method.errors(x, tokens, keep).detach().numpy(), want, rtol=1e-10)
    assert method.loss(batch).item() == pytest.approx(want.mean(), rel=1e-10)


@torch.no_grad()
def test_the_decoder_puts_every_visible_token_where_it_was(images: Any) -> None:
    """A mask token everywhere else, positions added, the class token before all."""
    data, method = built(images)
    batch, decoder = batch_of(data), method.decoder
    keep = method.visible(batch)
    tokens = method.encoder(batch["inputs"]["x"], keep)
    hidden = decoder.embed(tokens)
    for i, places in enumerate(keep.tolist()):
        rows = [hidden[i, 0]]
        for n in range(mae_lab.PATCHES):
            token = hidden[i, 1 + places.index(n)] if n in places else decoder.mask[0, 0]
            rows.append(token + decoder.positions[n])
        want = decoder.predict(decoder.norm(decoder.blocks(torch.stack(rows)[None])))[0, 1:]
        assert torch.allclose(decoder(tokens, keep)[i], want, rtol=0, atol=1e-12)
    assert len({tuple(row) for row in decoder.positions.tolist()}) == mae_lab.PATCHES


@pytest.mark.parametrize("task", ["toy/stripes", "toy/slopes", "toy/pictures"])
def test_metrics_are_split_from_the_errors(images: Any, task: str) -> None:
    _, method = images.build(spec(images, task=task))
    draw = np.random.default_rng(5)
    outputs, kinds = (
        draw.normal(5, 1, (40, {"toy/stripes": 4, "toy/slopes": 2, "toy/pictures": 1}[task])),
        np.arange(40) % 3,
    )
    found = method.evaluate(torch.tensor(outputs, dtype=torch.float32), torch.tensor(kinds))
    assert found.pop("reconstruction") == pytest.approx(outputs[:, 0].mean(), rel=1e-6)
    if task == "toy/stripes":
        assert found.pop("accuracy") == pytest.approx((outputs[:, 1:].argmax(1) == kinds).mean(), rel=1e-6)
    if task == "toy/slopes":
        assert found.pop("pearson") == pytest.approx(np.corrcoef(outputs[:, 1], kinds)[0, 1], rel=1e-5)
    assert not found


def test_the_probe_adds_its_cross_entropy_on_whole_images(images: Any) -> None:
    data, method = built(images)
    method.head.weight.data.mul_(50)
    batch = batch_of(data)
    together = float(method.loss(batch))
    features = method.backbone(**batch["inputs"])
    logits = (features @ method.head.weight.T + method.head.bias).detach().numpy()
    surprise = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), batch["labels"].numpy()]
    method.head.requires_grad_(False)
    assert together - float(method.loss(batch)) == pytest.approx(surprise.mean(), rel=1e-9)
    assert surprise.std() > 0.1


def test_uniformity_is_the_mean_squared_cosine_of_visible_views(images: Any) -> None:
    weight = 0.3
    data, method = built(images, uniformity=weight)
    _, plain = built(images)
    batch = batch_of(data)
    keep = method.visible(batch)
    features = method.encoder.pooled(method.encoder(batch["inputs"]["x"], keep)).detach().numpy()
    cosines = [np.dot(f, g) / np.linalg.norm(f) / np.linalg.norm(g) for f in features for g in features]
    want = weight * np.mean(np.square(cosines))
    assert float(method.loss(batch) - plain.loss(batch)) == pytest.approx(want, rel=1e-9)


def test_no_gradient_of_the_probe_reaches_the_encoder(images: Any) -> None:
    data, method = built(images)
    batch = batch_of(data)
    gradients: list[dict[str, Tensor]] = []
    for labels in (batch["labels"], (batch["labels"] + 1) % 3):
        method.zero_grad()
        method.loss({**batch, "labels": labels}).backward()
        gradients.append({n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None})
    one, other = gradients
    assert {n for n in one if not torch.equal(one[n], other[n])} == {"head.weight", "head.bias"}


def test_counts_are_the_docstrings_formula(images: Any) -> None:
    _, method = images.build(spec(images, options={"decoder_width": 24, "decoder_depth": 3}))
    backbone = sum(p.numel() for p in mae_lab.network().parameters())
    d, depth, width, n, head = 24, 3, mae_lab.WIDTH, 2 * mae_lab.PATCH**2, 3 * mae_lab.WIDTH + 3
    decoder = d * (width + 2) + depth * (12 * d**2 + 13 * d) + 2 * d + n * (d + 1)
    total = backbone + decoder + head
    assert method.parameter_counts() == {"total": total, "trainable": total, "head": head}
    assert method.report() == {
        "patches": {"all": 24, "masked": 18, "visible": 6},
        "decoder_parameters": decoder,
        "trained_without_delta": "model.cls_token, model.pos_embed",
    }


def test_the_random_start_leaves_the_global_generator_alone(images: Any) -> None:
    data, method = images.build(spec(images))
    torch.manual_seed(5)
    method.adapt(data.first_batch())
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


class Pixels(torch.nn.Module):
    """No patches anywhere."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 4, 3)


def overlapping() -> torch.nn.Module:
    net = mae_lab.network()
    net.model.patch_embed.proj = torch.nn.Conv2d(2, mae_lab.WIDTH, 4, stride=2, padding=1)
    return net


@pytest.mark.parametrize(("network", "words"), [(Pixels, "into patches"), (overlapping, "embedded separately")])
def test_a_backbone_without_patches_of_their_own_is_refused(network: Callable[[], torch.nn.Module], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        PatchEncoder(network())
    assert caught.value.known and caught.value.todo


def test_patches_of_one_number_cannot_be_normalised(images: Any, make_lab: Callable[..., Any]) -> None:
    task = mae_lab.Pictures(mae_lab.GREY)
    lab = make_lab(backbone=mae_lab.backbone(patch_size=1), tasks={"toy/grey": task})
    with pytest.raises(UsageError, match="normalised"):
        lab.build(spec(lab, task="toy/grey"))
    lab.build(spec(lab, task="toy/grey", options={"norm_pixels": False}))


@pytest.mark.parametrize(
    "options", [{"decoder_width": 30}, {"decoder_heads": 5}, {"mask_ratio": 1.5}, {"uniformity": -1}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"method\."):
        registry.load("methods", "mae").Config(**options)
