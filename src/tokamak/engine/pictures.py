"""Pictures as callers give them, to pixels as an image encoder takes them. Nothing is ever fetched.

Pillow reads the files and resizes; it is an extra, `vision`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import InvalidParams, UnavailableError
from tokamak.loaders.vision import Preprocessing
from tokamak.types import Array, Floats

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_NBYTES = 32 << 20  # of a file
MAX_PIXELS = 1 << 26  # of a picture: 64 million
MAX_RATIO = 200  # of the sides

PictureLike = Any
"""Bytes of a file, its path (str or Path), a data: URL, uint8[H, W, 3], or a PIL image."""


def read_picture(given: PictureLike) -> Array:
    """uint8[H, W, 3] of a picture; of one with several frames the first.

    Raises: InvalidParams for what is no picture, too large, or an address of the network; UnavailableError without Pillow.
    """
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim != 3 or given.shape[2] != 3 or 0 in given.shape:
            raise InvalidParams(
                f"a picture as an array is uint8[H, W, 3], not {given.dtype}{list(given.shape)}"
            )
        _check_size(given.shape[1], given.shape[0])
        return given
    if hasattr(given, "convert") and hasattr(given, "size"):
        _check_size(*given.size)
        return np.asarray(given.convert("RGB"))
    return _decoded(_content(given))


def _content(given: PictureLike) -> bytes:
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    if isinstance(given, str) and given[:5].lower() == "data:":
        return data_url(given)
    if isinstance(given, str) and "://" in given[:16]:
        raise InvalidParams(f"a picture is not fetched from {given[:40]!r}: send its content, as a data: URL")
    if isinstance(given, str | os.PathLike):
        path = Path(given)
        try:
            if path.stat().st_size > MAX_NBYTES:
                raise InvalidParams(
                    f"{path}: is larger than {MAX_NBYTES} bytes, the most of a picture's file"
                )
            return path.read_bytes()
        except (OSError, ValueError) as error:
            raise InvalidParams(f"no picture can be read at {str(given)[:80]!r}: {error}") from None
    raise InvalidParams(
        f"a picture is bytes, a path, a data: URL, an array or a PIL image, not {type(given).__name__}"
    )


def data_url(url: str) -> bytes:
    """The content of a base64 data: URL.  Raises: InvalidParams for anything else, addresses of the network above all."""
    head, comma, body = url.partition(",")
    if head[:5].lower() != "data:" or not comma:
        raise InvalidParams(
            f"an image's url must be a data: URL with its content; {url[:40]!r} is not fetched"
        )
    if not head.lower().endswith(";base64"):
        raise InvalidParams("a data: URL of an image must be base64")
    if len(body) > MAX_NBYTES * 4 // 3 + 4:
        raise InvalidParams(f"an image has more than {MAX_NBYTES} bytes")
    try:
        return base64.b64decode(body.encode("ascii", "replace"), validate=True)
    except binascii.Error as error:
        raise InvalidParams(f"an image's data: URL is no base64: {error}") from None


def _decoded(content: bytes) -> Array:
    pillow = _pillow()
    if len(content) > MAX_NBYTES:
        raise InvalidParams(f"an image has {len(content)} bytes, at most {MAX_NBYTES} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here, and of odd metadata
            with pillow.Image.open(io.BytesIO(content), formats=FORMATS) as opened:
                _check_size(*opened.size)
                upright = pillow.ImageOps.exif_transpose(opened)
                return np.asarray(upright.convert("RGB"))
    except InvalidParams:
        raise
    except Exception as error:  # noqa: BLE001  # what decoding strange bytes can raise is not a closed list
        raise InvalidParams(f"an image is no {', '.join(FORMATS)} file that can be read: {error}") from None


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise InvalidParams(f"an image has {width} x {height} pixels; 1 to {MAX_PIXELS} are read")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidParams(
            f"an image has {width} x {height} pixels, a strip more than {MAX_RATIO} times as long as wide"
        )


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError:
        raise UnavailableError("pictures need Pillow: pip install 'tokamak[vision]'") from None
    return PIL


def digest(picture: Array) -> bytes:
    """Of its pixels and its shape: equal pictures, equal digests, whatever file they came in."""
    found = hashlib.sha256(repr(picture.shape).encode())
    found.update(np.ascontiguousarray(picture).tobytes())
    return found.digest()


def pixels(picture: Array, how: Preprocessing) -> Floats:
    """f32[n, 3, size, size]: cut into tiles, resized, scaled to 0 .. 1 and normalised, as the encoder was taught."""
    columns, lines = grid(picture.shape[1], picture.shape[0], how)
    whole = normalised(resized(picture, how), how)
    if columns * lines == 1:
        return whole[None]
    image = _pillow().Image.fromarray(picture)
    large = np.asarray(image.resize((columns * how.size, lines * how.size), resample=how.resample))
    tiles = [
        large[i * how.size : (i + 1) * how.size, j * how.size : (j + 1) * how.size]
        for i in range(lines)
        for j in range(columns)
    ]
    return np.stack([*(normalised(tile, how) for tile in tiles), whole])


def grid(width: int, height: int, how: Preprocessing) -> tuple[int, int]:
    """Columns and lines of the tiles of a picture: those whose proportions are nearest to its own, and of equally near ones
    more tiles only if the picture fills half of them.  Source: Chen et al. 2024 (InternVL 1.5), section 3.
    """
    least, most = how.tiles
    best, nearest = (1, 1), float("inf")
    every = [(c, r) for r in range(1, most + 1) for c in range(1, most + 1) if least <= c * r <= most]
    for columns, lines in sorted(every, key=lambda g: g[0] * g[1]):
        away = abs(width / height - columns / lines)
        fills = width * height > 0.5 * how.size**2 * columns * lines
        if away < nearest or (away == nearest and fills):
            best, nearest = (columns, lines), away
    return best


def resized(picture: Array, how: Preprocessing) -> Array:
    """uint8[size, size, 3]: the whole of a picture, or its middle."""
    image = _pillow().Image.fromarray(picture)
    height, width = picture.shape[:2]
    if how.mode == "crop":
        short, long = sorted((width, height))
        longer = int(how.shortest * long / short)
        wanted = (how.shortest, longer) if width <= height else (longer, how.shortest)
    else:
        wanted = (how.size, how.size)
    found = np.asarray(image.resize(wanted, resample=how.resample))
    top, left = ((n - how.size) // 2 for n in found.shape[:2])
    return found[top : top + how.size, left : left + how.size]


def normalised(square: Array, how: Preprocessing) -> Floats:
    """f32[3, size, size] of uint8[size, size, 3]."""
    scaled = square.astype(np.float32) * np.float32(1 / 255)
    normal = (scaled - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1), dtype=np.float32)


def is_picture_part(part: Any) -> bool:
    """Whether a part of a message is a picture."""
    return isinstance(part, Mapping) and part.get("type") in ("image", "image_url", "input_image")


def picture_of(part: Mapping[str, Any]) -> PictureLike:
    """What a part of a message holds: {"image_url": {"url": "data:..."}}, or {"image": ...} of any kind.

    An address never names a file: it may come from afar.  Raises: InvalidParams.
    """
    if "image_url" in part:
        url = part["image_url"]
        return data_url(str(url.get("url") if isinstance(url, Mapping) else url))
    if part.get("image") is None:
        raise InvalidParams("a part of type image has neither image_url nor image")
    return part["image"]
