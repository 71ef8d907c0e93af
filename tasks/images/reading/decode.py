"""Decoding of one image file into pixels of one size and mode, or the reason why it cannot be used."""

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
"""Formats that are read; Pillow knows more, and runs other programs for some of them."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
PLAIN: dict[str, Literal["grey", "rgb"]] = {"L": "grey", "RGB": "rgb"}
"""Pillow's modes that need no conversion."""
CONVERTIBLE = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
"""Pillow's modes of 8 bits a channel, which can be converted to grey or RGB; alpha is dropped."""


class BadImageError(Exception):
    """An image cannot be used: for a reason that is counted, with a detail of this one."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


@dataclass(slots=True, kw_only=True)
class Decoder:
    """Decodes images to one shape. The first image decides what `size` and `mode` leave open.

    Attributes:
        size: images become size × size: the shorter side is resized to it (bilinear, antialiased) and the centre is
            cropped; None keeps their size, which must then be the same for all.
        mode: grey or rgb, to which every image is converted; auto takes the mode of the first image and no other.
        shape: (H, W, C) of all images, once the first is decoded.
        formats: number of images of each file format.
    """

    size: int | None = None
    mode: Mode = "auto"
    shape: tuple[int, int, int] | None = None
    formats: Counter[str] = field(default_factory=Counter[str])

    def decode(self, data: bytes | np.ndarray) -> np.ndarray:
        """Return pixels (H, W, C) uint8 of a file's bytes, or of pixels (H, W) or (H, W, 3).

        Raises:
            BadImageError: it is no image, is broken, too large, or of another size or mode than the first.
        """
        try:
            if isinstance(data, bytes):
                image = _load(data)
                kind, image = image.format or "?", ImageOps.exif_transpose(image)
            else:
                kind, image = "pixels", Image.fromarray(data)
            image = self._convert(image)
        except BadImageError:
            raise
        except UnidentifiedImageError:
            raise BadImageError("not an image file") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise BadImageError("more pixels than Pillow's limit against decompression bombs") from None
        except Exception as error:  # a broken file raises one of many kinds of error
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadImageError("a broken image", first) from error
        pixels = np.asarray(resize_and_crop(image, self.size) if self.size else image)
        pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
        height, width, channels = pixels.shape
        self.shape = self.shape or (height, width, channels)
        if (height, width) != self.shape[:2]:
            detail = f"{width}×{height}, not {self.shape[1]}×{self.shape[0]}"
            raise BadImageError("not of the first image's size; task.size=N resizes all", detail)
        self.formats[kind] += 1
        return pixels

    def _convert(self, image: Image.Image) -> Image.Image:
        mode = self.mode
        if mode == "auto":
            if image.mode not in PLAIN:
                reason = "neither grey nor RGB of 8 bits; task.mode=rgb or grey converts"
                raise BadImageError(reason, f"mode {image.mode}")
            mode = PLAIN[image.mode]
            first = self.shape and ("grey" if self.shape[2] == 1 else "rgb")
            if first and first != mode:
                reason = "not of the first image's mode; task.mode=rgb or grey converts"
                raise BadImageError(reason, f"{mode}, not {first}")
        if image.mode.startswith("I;16"):  # Pillow would clip values at 255
            image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
        if image.mode not in CONVERTIBLE:
            raise BadImageError("a mode that has no 8 bits a channel", f"mode {image.mode}")
        return image.convert("L" if mode == "grey" else "RGB")


def _load(data: bytes) -> Image.Image:
    """Open an image and decode it completely."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # the second image of a camera is a preview of the first
        raise BadImageError("an animation, or several pages", f"{frames} frames")
    image.load()
    return image


def resize_and_crop(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side and crop the centre, as torchvision's `resize` and `center_crop` do, without torch."""
    width, height = image.size
    short = min(width, height)
    if short != size:
        width, height = (size, int(size * height / width)) if width == short else (int(size * width / height), size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image if width == height else image.crop((left, top, left + size, top + size))
