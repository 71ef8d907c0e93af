"""Decoding of one image: equal to Pillow's and torchvision's, and refused with the reason."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import encoded, noise
from PIL import Image

from tasks.images.reading.decode import BadImageError, Decoder


def refused(data, **options):
    with pytest.raises(BadImageError) as caught:
        Decoder(**options).decode(data)
    return f"{caught.value.reason} ({caught.value.detail})"


@pytest.mark.parametrize(("kind", "channels"), [("PNG", 3), ("PNG", 1), ("BMP", 3), ("JPEG", 3), ("JPEG", 1)])
def test_pixels_are_pillows(kind, channels):
    data = encoded(noise(0, (8, 5), channels), kind)
    import io

    theirs = np.asarray(Image.open(io.BytesIO(data)))
    ours = Decoder().decode(data)
    assert np.array_equal(ours, theirs.reshape(8, 5, channels))
    if kind == "PNG":
        assert np.array_equal(ours.squeeze(), noise(0, (8, 5), channels))


@pytest.mark.parametrize("shape", [(40, 23), (23, 40), (16, 16), (9, 16), (7, 31)])
def test_size_is_torchvisions_resize_and_centre_crop(shape):
    transforms = pytest.importorskip("torchvision.transforms.functional")
    image = Image.fromarray(noise(1, shape))
    theirs = transforms.center_crop(transforms.resize(image, 16), [16, 16])
    assert np.array_equal(Decoder(size=16).decode(encoded(image)), np.asarray(theirs))


def test_exif_orientation_is_applied():
    pixels = noise(2, (4, 7))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90° clockwise to see it upright
    turned = Decoder().decode(encoded(pixels, "PNG", exif=exif))
    assert np.array_equal(turned, np.rot90(pixels, k=-1))


def modes():
    rgb, grey = Image.fromarray(noise(3)), Image.fromarray(noise(3, channels=1))
    yield "RGBA", rgb.convert("RGBA")
    yield "LA", grey.convert("LA")
    yield "P", rgb.convert("P")
    yield "1", grey.convert("1")
    yield "CMYK", rgb.convert("CMYK")
    yield "I;16", Image.fromarray(noise(3, channels=1).astype(np.uint16) * 257)


@pytest.mark.parametrize(("mode", "image"), [*modes()], ids=lambda value: value if isinstance(value, str) else "")
def test_other_modes_are_refused_unless_one_is_asked_for(mode, image):
    data = encoded(image, "TIFF")
    assert f"mode {mode}" in refused(data)
    assert Decoder(mode="rgb").decode(data).shape == (6, 6, 3)
    assert Decoder(mode="grey").decode(data).shape == (6, 6, 1)


def test_sixteen_bits_are_scaled_not_cut_off():
    wide = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    assert np.array_equal(Decoder(mode="grey").decode(encoded(Image.fromarray(wide)))[..., 0], wide >> 8)


def test_floats_have_no_eight_bits():
    image = Image.fromarray(np.zeros((4, 4), dtype=np.float32))
    assert "no 8 bits a channel (mode F)" in refused(encoded(image, "TIFF"), mode="rgb")


def test_the_first_decides_what_the_others_are():
    decoder = Decoder()
    decoder.decode(encoded(noise(0, (6, 6))))
    for data, words in [
        (encoded(noise(0, (6, 6), 1)), "not of the first image's mode"),
        (encoded(noise(0, (6, 7))), r"7×6, not 6×6"),
    ]:
        with pytest.raises(BadImageError) as caught:
            decoder.decode(data)
        assert words in caught.value.reason + caught.value.detail
    assert decoder.formats == {"PNG": 1}


@pytest.mark.parametrize("data", [b"", b"text, no image", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
def test_no_image(data):
    assert "not an image file" in refused(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_image_is_broken(kind):
    data = encoded(noise(0, (64, 64)), kind)
    assert "a broken image" in refused(data[: len(data) // 2])


def test_pillows_limit_against_bombs_is_kept(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30)
    for shape in [(6, 6), (20, 20)]:  # between once and twice the limit Pillow only warns
        assert "decompression bombs" in refused(encoded(noise(0, shape)))


def test_an_animation_is_refused():
    frames = [Image.fromarray(noise(i)) for i in range(3)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert "3 frames" in refused(data, mode="rgb")
