"""A picture's bytes into pixels of one size and one mode, or the reason why it cannot be used."""

from __future__ import annotations

import io
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Mode = Literal["auto", "grey", "rgb"]
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What is read; Pillow knows more, and runs other programs for some of it."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
PLAIN: dict[str, Literal["grey", "rgb"]] = {"L": "grey", "RGB": "rgb"}
"""Pillow's modes that are taken as they are."""
CONVERTED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Its modes of 8 bits a channel, which become grey or rgb where that is asked for; alpha is dropped."""


class Unusable(Exception):
    """A picture that cannot be used: the reason as it is counted, and what was found."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(slots=True, kw_only=True)
class Decoder:
    """Makes pictures alike. The first one decides what `size` and `mode` leave open.

    Attributes:
        size: pictures become size × size: the shorter side is resized to it (bilinear, antialiased), the centre is cut
            out; None leaves them as they are, and they must then all be of one size.
        mode: grey or rgb, to which every picture is converted; auto takes what the first one is, and no other.
        shape: (H, W, C) of all, once the first is decoded.
        formats: pictures of each file format.
    """

    size: int | None = None
    mode: Mode = "auto"
    shape: tuple[int, int, int] | None = None
    formats: Counter[str] = field(default_factory=Counter[str])

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        """Pixels (H, W, C) uint8 of a file's bytes, or of pixels (H, W) or (H, W, 3).

        Raises:
            Unusable: it is none, is broken, too large, or of another size or mode.
        """
        image, kind = (_opened(data), "") if isinstance(data, bytes) else (Image.fromarray(data), "pixels")
        kind = kind or image.format or "?"
        try:
            if isinstance(data, bytes):
                image = ImageOps.exif_transpose(image)
            image = self._coloured(image)
        except Unusable:
            raise
        except Exception as error:  # a broken file shows as one of many kinds of error
            raise Unusable("a broken image", _first_line(error)) from error
        pixels = np.asarray(_sized(image, self.size) if self.size else image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        self._settle(pixels.shape)
        self.formats[kind] += 1
        return pixels

    def _coloured(self, image: Image.Image) -> Image.Image:
        mode = self.mode
        if mode == "auto":
            if image.mode not in PLAIN:
                raise Unusable("neither grey nor RGB of 8 bits; task.mode=rgb or grey converts", f"mode {image.mode}")
            mode = PLAIN[image.mode]
            settled = self.shape and ("grey" if self.shape[2] == 1 else "rgb")
            if settled and settled != mode:
                raise Unusable(
                    "not of the first image's mode; task.mode=rgb or grey converts", f"{mode}, not {settled}"
                )
        if image.mode.startswith("I;16"):  # Pillow would cut values off at 255
            image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        if image.mode not in CONVERTED:
            raise Unusable("a mode that has no 8 bits a channel", f"mode {image.mode}")
        return image.convert("L" if mode == "grey" else "RGB")

    def _settle(self, shape: tuple[int, ...]) -> None:
        height, width, channels = shape
        if self.shape is None:
            self.shape = (height, width, channels)
        if (height, width) != self.shape[:2]:
            found = f"{width}×{height}, not {self.shape[1]}×{self.shape[0]}"
            raise Unusable("not of the first image's size; task.size=N makes all alike", found)


def _opened(data: bytes) -> Image.Image:
    """The picture, all of it decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data), formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a camera's second picture is a preview of the first
            raise Unusable("an animation, or several pages", f"{frames} frames")
        image.load()
    except UnidentifiedImageError:
        raise Unusable("not an image file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unusable("more pixels than Pillow's limit against decompression bombs") from None
    except Unusable:
        raise
    except Exception as error:  # a broken file shows as one of many kinds of error
        raise Unusable("a broken image", _first_line(error)) from error
    return image


def _sized(image: Image.Image, size: int) -> Image.Image:
    """Resized and cut as torchvision's `resize` and `center_crop` do it."""
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = (size, int(size * height / width)) if width == short else (int(size * width / height), size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image if width == height else image.crop((left, top, left + size, top + size))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
