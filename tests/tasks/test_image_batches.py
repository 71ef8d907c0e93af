"""Normalisation and augmentation of images, against torchvision's own operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.images.augment import DRAWS, augment, normalise

functional = pytest.importorskip("torchvision.transforms.functional")


def batch(n=6, side=32, channels=3):
    return np.random.default_rng(0).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_normalise_is_torchvisions(channels):
    pixels, mean, std = batch(channels=channels), [0.4, 0.5, 0.3][:channels], [0.2, 0.25, 0.3][:channels]
    theirs = torch.stack([functional.normalize(functional.to_tensor(image), mean, std) for image in pixels])
    ours = normalise(pixels, mean, std)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


def test_a_constant_channel_is_not_divided_by_zero():
    assert normalise(np.zeros((1, 2, 2, 1), dtype=np.uint8), [0.0], [0.0]).abs().sum() == 0


def theirs(pixels, *, flip=False, top=4, left=4):
    x = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    x = functional.hflip(x) if flip else x
    return functional.crop(functional.pad(x, [4]), top, left, 32, 32).numpy().transpose(1, 2, 0)


@pytest.mark.parametrize("name", ["flip", "crop", "flip-crop"])
def test_flip_and_crop_are_torchvisions_at_the_drawn_places(name):
    pixels, draws = batch(), np.random.default_rng(1).random((6, DRAWS[name]))
    draws[:4] = np.array([0.0, np.nextafter(1, 0), 0.5, np.nextafter(0.5, 0)])[:, None]  # the edges
    out = augment(name, pixels, draws)
    for i, row in enumerate(draws):
        where = {"flip": row[0] < 0.5} if "flip" in name else {}
        if "crop" in name:
            where |= {"top": int(row[-2] * 9), "left": int(row[-1] * 9)}
        assert np.array_equal(out[i], theirs(pixels[i], **where)), i


def test_trivial_leaves_the_generators_of_gpus_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    augment("trivial", batch(2), np.array([[0.2], [0.7]]))
    assert not seeded
    torch.manual_seed(5)
    assert seeded == [5], "torch's own function seeds them"


def test_trivial_is_torchvisions_under_the_seed_that_was_drawn():
    from torchvision.transforms import TrivialAugmentWide

    pixels, draws = batch(12), np.random.default_rng(2).random((12, 1))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    out = augment("trivial", pixels, draws)
    assert torch.equal(torch.get_rng_state(), before), "the global generator is left as it was"
    for i, draw in enumerate(draws[:, 0]):
        torch.manual_seed(int(draw * 2**53))
        expected = TrivialAugmentWide()(torch.from_numpy(pixels[i].transpose(2, 0, 1).copy()))
        assert np.array_equal(out[i], expected.numpy().transpose(1, 2, 0))
    assert sum(not np.array_equal(a, b) for a, b in zip(out, pixels, strict=True)) > 6


@pytest.mark.parametrize("name", DRAWS)
def test_each_image_depends_on_its_own_draws_alone(name):
    pixels, draws = batch(), np.random.default_rng(3).random((6, DRAWS[name]))
    kept = pixels.copy()
    whole = augment(name, pixels, draws)
    assert np.array_equal(pixels, kept)
    assert whole.dtype == np.uint8
    order = np.array([4, 1, 5])
    assert np.array_equal(augment(name, pixels[order], draws[order]), whole[order])


@pytest.mark.parametrize("name", DRAWS)
def test_grey_images_too(name):
    assert augment(name, batch(channels=1), np.full((6, DRAWS[name]), 0.3)).shape == (6, 32, 32, 1)


def test_draws_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="takes draws of shape"):
        augment("flip", batch(), np.zeros((6, 2)))
