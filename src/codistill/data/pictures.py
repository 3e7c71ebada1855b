"""Encoded pictures (PNG, JPEG and so on) to arrays of bytes, all of one shape.

Shapes: n images, H height, W width, C channels.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from codistill.config.data import Resize
from codistill.errors import InputError, one_line

# Pillow knows more kinds, and one of them (EPS) it hands to another program to run.
_KINDS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
_GREY = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
_ORIENTATION = 0x0112
_GIB = 2**30


class Picture(NamedTuple):
    """An encoded picture, as its bytes or its file, and what messages call it."""

    source: bytes | Path
    where: str


class Header(NamedTuple):
    """What is known of a picture before it is decoded: upright height and width, whether it is grey."""

    height: int
    width: int
    grey: bool


@contextlib.contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    source = picture.source
    try:
        with warnings.catch_warnings():
            # Odd metadata is not ours to judge; a picture that unpacks to gigabytes is.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(file, formats=_KINDS) as image:
                # Cameras store a preview as second picture (MPO); elsewhere it means a moving picture.
                if getattr(image, "is_animated", False) and image.format != "MPO":
                    raise InputError(
                        f"{picture.where}: holds several frames; only still pictures can be used"
                    )
                yield image
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{picture.where}: is not a picture of a known kind: {', '.join(_KINDS)}") from error
    except Exception as error:  # Pillow lets a damaged file fail in any way: struct, zlib, index, memory …
        raise InputError(f"{picture.where}: cannot be read as a picture: {one_line(error)}") from error


def header(picture: Picture) -> Header:
    """Read a picture's header; `InputError` unless it is a still picture of a known kind."""
    with _opened(picture) as image:
        width, height = image.size
        # Where a PNG does not start with its EXIF data, asking for them would decode the whole picture.
        sideways = "exif" in image.info and image.getexif().get(_ORIENTATION, 1) >= 5
        return (
            Header(width, height, image.mode in _GREY)
            if sideways
            else Header(height, width, image.mode in _GREY)
        )


def verified(picture: Picture) -> Header:
    """Return a picture's header once all of it was decoded; `InputError` if that fails."""
    found = header(picture)
    with _opened(picture) as image:
        # A JPEG's data are read to the end at any scale, and an eighth of it takes a third of the time.
        image.draft(None, (1, 1))
        image.load()
    return found


def decode(picture: Picture, shape: tuple[int, int, int], resize: Resize | None) -> np.ndarray:
    """Decode a picture to uint8 [H, W, C] of the given shape, upright as its EXIF data say.

    With `resize` it is scaled (bilinear, antialiased): crop scales the shorter side and cuts out the centre,
    without distortion; stretch scales both sides.
    Transparency is dropped, as torchvision's folder reader does; 16-bit grey is scaled to 8 bits; grey
    becomes three equal channels where colour is asked for. `InputError` names the picture otherwise.
    """
    height, width, channels = shape
    with _opened(picture) as image:
        image.load()
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode in _GREY:
            image = _eight_bit(image, picture.where)
        elif channels == 1:
            raise InputError(f"{picture.where}: is coloured among pictures that were all grey")
        if channels == 3:
            image = image.convert("RGB")
        if resize == "stretch":
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        elif resize == "crop":
            # It scales the centre alone, so a very long picture does not fill the memory.
            image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
        elif image.size != (width, height):
            raise InputError(
                f"{picture.where}: is {image.height}×{image.width} pixels, others {height}×{width}; "
                f"data.image_size makes them alike"
            )
        return np.array(image, dtype=np.uint8).reshape(shape)


def _eight_bit(image: Image.Image, where: str) -> Image.Image:
    if not image.mode.startswith("I"):
        return image.convert("L")
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise InputError(f"{where}: has grey values beyond 0 to 65535")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def decode_all(
    pictures: Iterable[Picture], count: int, shape: tuple[int, int, int], resize: Resize | None
) -> np.ndarray:
    """Decode `count` pictures as `decode` does into one uint8 array [n, H, W, C].

    On a terminal a progress bar shows when that takes more than two seconds.
    """
    images_NHWC = np.empty((count, *shape), np.uint8)
    if sys.stderr.isatty():
        pictures = tqdm(pictures, total=count, desc="decoding", unit="image", delay=2, leave=False)
    for position, picture in enumerate(pictures):
        images_NHWC[position] = decode(picture, shape, resize)
    return images_NHWC


def fits(count: int, shape: tuple[int, int, int], memory_gib: float) -> bool:
    """Say whether that many decoded images fit in memory."""
    height, width, channels = shape
    return count * height * width * channels <= memory_gib * _GIB
