"""Writes GGUF version 3: metadata of every type, tensors in any format, streamed.

The other half of `native/gguf`: what is written here reads back there, and writing what was read gives the same
bytes for files of this writer. Nothing here quantises; tensors come as bytes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams
from tokamak.quant import FORMATS
from tokamak.types import Array

__all__ = ["TensorSource", "Typed", "write_gguf"]

_IDS = {
    "uint8": 0,
    "int8": 1,
    "uint16": 2,
    "int16": 3,
    "uint32": 4,
    "int32": 5,
    "float32": 6,
    "bool": 7,
    "string": 8,
    "array": 9,
    "uint64": 10,
    "int64": 11,
    "float64": 12,
}
_PACK = {
    "uint8": "<B",
    "int8": "<b",
    "uint16": "<H",
    "int16": "<h",
    "uint32": "<I",
    "int32": "<i",
    "float32": "<f",
    "bool": "<?",
    "uint64": "<Q",
    "int64": "<q",
    "float64": "<d",
}
MAX_NAME = 64  # bytes of a tensor name; the format's limit


@dataclass(frozen=True, slots=True)
class Typed:
    """A metadata value with its type in the file: "uint32", "string", "array[float32]", ..."""

    type: str
    value: Any


@dataclass(frozen=True, slots=True)
class TensorSource:
    """A tensor to be written. `read` is called once, when its bytes are due, so that only one need be in memory.

    shape: outermost first. format: a name of `quant.FORMATS`. read: returns the bytes, any uint8 array of `nbytes`.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def nbytes(self) -> int:
        rows, fmt = int(np.prod(self.shape[:-1], dtype=np.int64)), FORMATS[self.format]
        if fmt.tail:  # made of one row for the whole tensor
            return fmt.row_nbytes(rows * self.shape[-1])
        return rows * fmt.row_nbytes(self.shape[-1])


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Iterable[TensorSource],
    *,
    alignment: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a GGUF file; it appears under `path` only when it is whole.

    metadata: values as `_native.GgufFile.metadata` gives them, or `Typed` where the type matters; a bare int becomes
    uint32 (int32 if negative, 64 bits if it must), a float float32, a list the array of its first element's type.
    progress: called with (bytes of tensors written, bytes in all).
    Raises: InvalidParams for a value, name or tensor that the format cannot hold.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    sources = list(tensors)
    try:
        with partial.open("wb") as out:
            _write_header(out, {**metadata}, sources, alignment)
            _write_tensors(out, sources, alignment, progress)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _write_header(
    out: BinaryIO, metadata: dict[str, Any], sources: list[TensorSource], alignment: int
) -> None:
    if alignment < 1 or alignment & (alignment - 1):
        raise InvalidParams(f"alignment {alignment} is no power of two")
    if alignment != 32 or "general.alignment" in metadata:
        metadata["general.alignment"] = Typed("uint32", alignment)
    out.write(b"GGUF" + struct.pack("<IQQ", 3, len(sources), len(metadata)))
    out.writelines(_entry(key, value) for key, value in metadata.items())
    offset, names = 0, set()
    for source in sources:
        name = source.name.encode()
        if not 0 < len(name) <= MAX_NAME or name in names:
            raise InvalidParams(
                f"tensor name {source.name!r} is empty, longer than {MAX_NAME} bytes or repeated"
            )
        if not 1 <= len(source.shape) <= 4 or min(source.shape) < 1:
            raise InvalidParams(
                f"tensor {source.name!r} has shape {source.shape}; 1 to 4 extents above 0 are possible"
            )
        names.add(name)
        dims = struct.pack(f"<I{len(source.shape)}Q", len(source.shape), *reversed(source.shape))
        out.write(_string(name) + dims + struct.pack("<IQ", FORMATS[source.format].type_id, offset))
        offset += -(-source.nbytes // alignment) * alignment


def _write_tensors(
    out: BinaryIO,
    sources: list[TensorSource],
    alignment: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    total, done = sum(s.nbytes for s in sources), 0
    if sources:
        out.write(bytes(-out.tell() % alignment))
    for source in sources:
        content = np.ascontiguousarray(source.read())
        if content.nbytes != source.nbytes or content.dtype != np.uint8:
            raise InvalidParams(
                f"tensor {source.name!r} of format {source.format} and shape {source.shape} takes {source.nbytes} "
                f"bytes of uint8, its source gave {content.nbytes} of {content.dtype}"
            )
        out.write(content.data)
        out.write(bytes(-out.tell() % alignment))
        done += source.nbytes
        if progress is not None:
            progress(done, total)


def _string(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def _entry(key: str, value: Any) -> bytes:
    try:
        return b"".join(_encoded(key, value))
    except (struct.error, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InvalidParams(f"metadata key {key!r} cannot hold {value!r:.80}: {error}") from error


def _encoded(key: str, value: Any) -> Iterator[bytes]:
    typed = value if isinstance(value, Typed) else _infer(value)
    yield _string(key.encode())
    if typed.type.startswith("array["):
        yield struct.pack("<I", _IDS["array"])
        yield from _array(typed.type[len("array[") : -1], typed.value)
    else:
        yield struct.pack("<I", _IDS[typed.type])
        yield (
            _string(_bytes(typed.value))
            if typed.type == "string"
            else struct.pack(_PACK[typed.type], typed.value)
        )


def _array(element: str, values: Any) -> Iterator[bytes]:
    yield struct.pack("<IQ", _IDS[element], len(values))
    if element == "string":
        for item in values.tolist() if isinstance(values, _native.StringTable) else values:
            yield _string(_bytes(item))
    elif isinstance(values, np.ndarray) and values.dtype.name == element:
        yield np.ascontiguousarray(values).tobytes()
    else:  # struct is strict where NumPy would round or wrap
        yield struct.pack(f"<{len(values)}{_PACK[element][1]}", *values)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _infer(value: Any) -> Typed:
    """The type that a bare Python value gets in a file."""
    if isinstance(value, _native.StringTable):
        return Typed("array[string]", value)
    if isinstance(value, np.ndarray):
        return Typed(f"array[{value.dtype.name}]", value)
    if isinstance(value, (list, tuple)):
        kinds = {_infer(item).type for item in value}
        if len(kinds) == 1:
            return Typed(f"array[{kinds.pop()}]", value)
        if kinds and kinds <= {"uint32", "int32"}:
            return Typed("array[int32]", value)
        raise TypeError("a list needs elements of one type; say which with Typed")
    return Typed(_scalar_type(value), value)


def _scalar_type(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "bool"
    if isinstance(value, (int, np.integer)):
        if value >= 0:
            return "uint32" if value < 2**32 else "uint64"
        return "int32" if value >= -(2**31) else "int64"
    if isinstance(value, (float, np.floating)):
        return "float32"
    if isinstance(value, (str, bytes)):
        return "string"
    raise TypeError(f"{type(value).__name__} has no type in a GGUF file")
