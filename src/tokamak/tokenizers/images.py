"""Compiled tokenizers in one mapped file: what took time to make is read where it lies, by all processes that have it open.

`Tokenizer.load` keeps one in the cache directory for each large file; `Tokenizer.save(form="image")` writes one where told.
An image that is damaged, or of another source or version, is as good as none. Files are only ever replaced whole, so a
mapped one never changes. Layout: docs/formats/tokenizer-image.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokamak import _native
from tokamak.errors import TokenizerFileError
from tokamak.settings import Settings
from tokamak.tokenizers.files.saving import pack, spec_of, unpack
from tokamak.tokenizers.spec import TokenizerSpec

MAGIC = b"TOKIMAGE"
VERSION = 5  # of the layout, the native tables and what the readers of files give: raise it with any of them
COMPRESSED = 1  # flag: the arrays are one zlib stream
HEAD = struct.Struct("<8sIIQQQ")  # magic, version, flags, bytes of the header and of the arrays, sum of both
POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # all pages at once: they are read for the sum anyway
ALIGN = 64  # of every array in the file
PIECE = 1 << 20  # bytes that share a checksum
SMALLEST = 128 << 10  # bytes of a source that is worth an image
LARGEST = 64 << 20  # bytes of a source that is read to see whether it changed
MOST = 1 << 30  # bytes of all images in the cache directory; the least recently opened go first
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "merges.txt")


@dataclass(frozen=True, slots=True)
class Image:
    """An opened image."""

    spec: TokenizerSpec
    digest: bytes  # of the spec
    tables: Mapping[str, NDArray[np.uint8]]  # for `_native.make_text_engine`
    sources: Any  # what `stamp` said of the files it was made from, and a digest of their content
    mapped_nbytes: int  # 0 where the file is compressed
    owned_nbytes: int


def image_bytes(spec: TokenizerSpec, engine: Any, sources: Any = None, *, compressed: bool = False) -> bytes:
    """An image of a spec and the engine made of it."""
    arrays: dict[str, NDArray[Any]] = {}

    def keep(array: NDArray[Any]) -> Any:
        name = f"spec.{len(arrays)}"
        arrays[name] = array
        return {"kept": name, "dtype": array.dtype.str}

    packed = {f.name: pack(getattr(spec, f.name), keep) for f in fields(spec)}
    arrays |= engine.tables()
    places, size = _places(arrays)
    payload = np.zeros(size, np.uint8)
    for name, (start, nbytes) in places.items():
        payload[start : start + nbytes] = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
    if compressed:
        payload = np.frombuffer(zlib.compress(payload.data, 6), np.uint8)
    head = {"digest": spec.digest().hex(), "sources": sources, "arrays": places, "size": size, "spec": packed}
    header = json.dumps(head).encode("utf-8")
    header += b" " * (-(HEAD.size + len(header)) % ALIGN)
    body = np.concatenate([np.frombuffer(header, np.uint8), payload])
    flags = COMPRESSED if compressed else 0
    return HEAD.pack(MAGIC, VERSION, flags, len(header), len(payload), _sum(body)) + body.tobytes()


def _places(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, tuple[int, int]], int]:
    """Start and bytes of each array in the file's part for arrays, and the size of that."""
    places: dict[str, tuple[int, int]] = {}
    size = 0
    for name, array in arrays.items():
        places[name] = (size, array.nbytes)
        size += array.nbytes + -array.nbytes % ALIGN
    return places, size


def read_image(path: Path) -> Image:
    """Open an image. Raises: TokenizerFileError if it is damaged or of another version, OSError."""
    with path.open("rb") as f, contextlib.suppress(ValueError):  # an empty file cannot be mapped
        mapped = mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED | POPULATE, mmap.PROT_READ)
        return _image_of(np.frombuffer(mapped, np.uint8))
    raise TokenizerFileError("the image is empty")


def _image_of(whole: NDArray[np.uint8]) -> Image:
    if len(whole) < HEAD.size:
        raise TokenizerFileError("the image is cut short")
    magic, version, flags, header_nbytes, payload_nbytes, expected = HEAD.unpack(whole[: HEAD.size].tobytes())
    if magic != MAGIC or version != VERSION:
        raise TokenizerFileError(
            f"an image of version {version}, this program reads {VERSION}: make it again"
        )
    if len(whole) != HEAD.size + header_nbytes + payload_nbytes or _sum(whole[HEAD.size :]) != expected:
        raise TokenizerFileError("the image is damaged: make it again")
    try:
        head = json.loads(whole[HEAD.size : HEAD.size + header_nbytes].tobytes())
        arrays = whole[HEAD.size + header_nbytes :]
        if flags & COMPRESSED:
            inflated = zlib.decompressobj().decompress(arrays.tobytes(), head["size"])
            arrays = np.frombuffer(inflated, np.uint8)
        views = {name: arrays[start : start + n] for name, (start, n) in head["arrays"].items()}

        def kept(name: str, dtype: str) -> NDArray[Any]:
            return views[name].view(np.dtype(dtype))

        spec = spec_of({name: unpack(value, kept) for name, value in head["spec"].items()})
        tables = {name: view for name, view in views.items() if not name.startswith("spec.")}
        held = len(whole) if not flags & COMPRESSED else 0
        digest = bytes.fromhex(head["digest"])
        return Image(spec, digest, tables, head["sources"], held, 0 if held else len(arrays))
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as e:
        raise TokenizerFileError(f"the image has an unexpected form: {e}") from e


def _sum(content: bytes | NDArray[np.uint8]) -> int:
    array = np.frombuffer(content, np.uint8) if isinstance(content, bytes) else content
    sums = _native.checksums(array, PIECE, 2)
    return int.from_bytes(
        hashlib.blake2b(np.array(sums, np.uint64).tobytes(), digest_size=8).digest(), "little"
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all. Raises: OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".part", delete=False) as f:
        try:
            f.write(content)
            f.flush()
            Path(f.name).replace(path)
        except OSError:
            Path(f.name).unlink()
            raise


# -- the images of a cache directory


@dataclass(frozen=True, slots=True)
class Place:
    """Where the image of a tokenizer file is kept, and what it has to be made from."""

    path: Path
    files: tuple[Path, ...]

    def stamp(self) -> list[Any]:
        """Size and times of each file; none for one that is not there."""
        return [_times(file) for file in self.files]

    def content(self) -> str:
        """Digest of the files' bytes; empty where they are too large to be read for this."""
        hasher = hashlib.sha256()
        for file in self.files:
            with contextlib.suppress(FileNotFoundError):
                if file.stat().st_size > LARGEST:
                    return ""
                content = file.read_bytes()
                hasher.update(f"{file.name}:{len(content)}:".encode())
                hasher.update(content)
        return hasher.hexdigest()

    def find(self) -> Image | None:
        """The image, if it is there, sound and of these files as they are."""
        settle()
        try:
            image = read_image(self.path)
            stamp, content = image.sources
            if stamp != self.stamp() and (not content or content != self.content()):
                return None
            os.utime(self.path)
        except (OSError, TokenizerFileError, TypeError, ValueError):
            return None
        return image

    def keep(self, stamp: list[Any], spec: TokenizerSpec, engine: Any) -> None:
        """`write` in a thread of its own, which nobody waits for but whoever looks for an image, and the end of Python."""
        writer = threading.Thread(target=self.write, args=(stamp, spec, engine), name="tokamak-image")
        with contextlib.suppress(RuntimeError):  # no thread to be had: the image is made another time
            writer.start()
            _WRITERS.append(writer)

    def write(self, stamp: list[Any], spec: TokenizerSpec, engine: Any) -> None:
        """Write the image if that can be done and the files are as they were; old ones go where there are too many."""
        with contextlib.suppress(OSError):
            content = self.content()
            if stamp != self.stamp():
                return
            replace_file(self.path, image_bytes(spec, engine, (stamp, content)))
            prune(self.path.parent, MOST)


@dataclass(frozen=True, slots=True)
class Source:
    """What a tokenizer is made from, as `Tokenizer.load` says."""

    path: Path
    pattern: str | None
    special_tokens: Mapping[str, int] | None
    compat: str | None

    def spec(self, file: Path) -> TokenizerSpec:
        """Read from the file that the path means. Raises: as `Tokenizer.load`."""
        from tokamak.tokenizers.files.opening import open_spec

        spec = open_spec(file, self.pattern, self.special_tokens)
        return spec if self.compat is None else replace(spec, compat=self.compat)

    def arguments(self) -> tuple[Any, ...]:
        """What a spec depends on besides its files."""
        return (self.pattern, sorted((self.special_tokens or {}).items()), self.compat)


_WRITERS: list[threading.Thread] = []  # under way


def settle() -> None:
    """Wait for the images that are being written."""
    while _WRITERS:
        with contextlib.suppress(
            IndexError, RuntimeError
        ):  # another thread took it; it was there before a fork
            _WRITERS.pop().join()


def load(
    source: Source, cache: bool | Path
) -> tuple[TokenizerSpec, Image | None, Callable[[TokenizerSpec, Any], None] | None]:
    """The spec of a file, the image it comes from, and what takes its engine to be kept for the next time.

    cache: a directory, True for that of the settings, False for none. Raises: as `Tokenizer.load`.
    """
    from tokamak.tokenizers.files.opening import file_of

    file = file_of(source.path)
    with contextlib.suppress(OSError), file.open("rb") as f:
        if f.read(len(MAGIC)) == MAGIC:
            image = read_image(file)
            return image.spec, image, None
    if cache is False:
        return source.spec(file), None, None
    place = place_of(file, source.arguments(), Settings.load().cache_dir if cache is True else cache)
    kept = None if place is None else place.find()
    if place is None or kept is not None:
        return (source.spec(file) if kept is None else kept.spec), kept, None
    stamp = place.stamp()  # before it is read: whoever changes the file meanwhile makes the image stale
    return source.spec(file), None, partial(place.keep, stamp)


def _times(file: Path) -> list[int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def place_of(file: Path, arguments: Sequence[Any], folder: Path) -> Place | None:
    """Where the image of a tokenizer file lies in a cache directory; None where it is not worth one.

    arguments: what else the tokenizer depends on.
    """
    try:
        if file.stat().st_size < SMALLEST:
            return None
        file = file.resolve()
        native = _times(Path(_native.__file__))
    except OSError:
        return None
    key = repr((str(file), VERSION, native, *arguments)).encode("utf-8", "surrogatepass")
    name = hashlib.blake2b(key, digest_size=16).hexdigest() + ".tokimage"
    return Place(folder / "tokenizers" / name, (file, *(file.parent / n for n in BESIDE)))


def prune(folder: Path, most: int) -> None:
    """Delete the images that were opened longest ago until all together have at most `most` bytes."""
    found = []
    for path in folder.glob("*.tokimage"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
