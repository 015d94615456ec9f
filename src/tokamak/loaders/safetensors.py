"""Safetensors files, mapped: the tensors of one file or of the shards of a directory. Knows no model.

A file is a length (u64), a JSON object of that length and the data. Everything the header says is checked before it is
used: sizes, offsets, overlaps, duplicate names. Source: the safetensors format description.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.types import Array, Floats

__all__ = ["StoredTensor", "open_file", "open_tensors", "read_object"]

MAX_HEADER = 100_000_000  # bytes, the format's own limit
MAX_JSON = 1 << 28  # of an index or configuration
MAX_AXES = 8
# bits per element, and the weight format where there is one
DTYPES: Mapping[str, tuple[int, str]] = {
    "F64": (64, "f64"),
    "F32": (32, "f32"),
    "F16": (16, "f16"),
    "BF16": (16, "bf16"),
    "I64": (64, "i64"),
    "I32": (32, "i32"),
    "I16": (16, "i16"),
    "I8": (8, "i8"),
    **dict.fromkeys(("U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"), (8, "")),
    "U16": (16, ""),
    "U32": (32, ""),
    "U64": (64, ""),
    **dict.fromkeys(("F4", "F6_E2M3", "F6_E3M2"), (0, "")),  # whose elements are no whole bytes
}


class _File:
    """A mapped file."""

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise ModelFileError(f"{path}: cannot be read: {error}") from error
        self.bytes = np.frombuffer(self.map, dtype=np.uint8)

    def release(self, start: int, stop: int) -> None:
        page = mmap.PAGESIZE
        first, last = -(-start // page) * page, stop // page * page
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            self.map.madvise(mmap.MADV_DONTNEED, first, last - first)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor as its file lists it. dtype: a name of DTYPES. start, stop: bytes of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int
    file: _File

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    @property
    def format(self) -> str:
        """The weight format. Raises: UnsupportedError for a dtype that is none."""
        found = DTYPES[self.dtype][1]
        if not found:
            raise UnsupportedError(
                f"tensor {self.name} is {self.dtype}; f64, f32, f16, bf16 and integers are read"
            )
        return found

    def data(self) -> Array:
        """u8[nbytes], a view of the mapped file."""
        return self.file.bytes[self.start : self.stop]

    def release(self) -> None:
        """Give the mapped pages back; reading again still works."""
        self.file.release(self.start, self.stop)

    def values(self) -> Floats:
        """f32 of the tensor's shape."""
        from tokamak.quant import FORMATS

        rows = self.data().reshape(1, -1)
        if rows.size == 0:
            return np.zeros(self.shape, dtype=np.float32)
        return FORMATS[self.format].decode(rows).reshape(self.shape)


def open_file(path: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a safetensors file, by name. Raises: ModelFileError for a broken one."""
    path = Path(path)
    file = _File(path)
    size = len(file.bytes)
    length = int.from_bytes(file.map[:8], "little")
    if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
        raise ModelFileError(
            f"{path}: is no safetensors file: a header of {length} bytes in a file of {size}"
        )
    header = read_object(bytes(file.map[8 : 8 + length]), path)
    header.pop("__metadata__", None)
    found = {name: _tensor(name, entry, 8 + length, size, file, path) for name, entry in header.items()}
    end = 8 + length
    for tensor in sorted(found.values(), key=lambda t: (t.start, t.stop)):
        if tensor.start != end:
            what = "overlaps another" if tensor.start < end else "leaves a gap before it"
            raise ModelFileError(f"{path}: tensor {tensor.name} begins at byte {tensor.start} and {what}")
        end = tensor.stop
    return found


def _tensor(name: str, entry: Any, base: int, size: int, file: _File, path: Path) -> StoredTensor:
    def refuse(what: str) -> ModelFileError:
        return ModelFileError(f"{path}: tensor {name!r:.80} {what}")

    if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES:
        raise refuse(f"has no dtype known here: {entry!r:.80}")
    shape, offsets = entry.get("shape"), entry.get("data_offsets")
    if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(_is_count(n) for n in shape):
        raise refuse(f"has the shape {shape!r:.80}")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(n) for n in offsets):
        raise refuse(f"has the offsets {offsets!r:.80}")
    start, stop = base + offsets[0], base + offsets[1]
    bits = DTYPES[entry["dtype"]][0]
    if not start <= stop <= size:
        raise refuse(f"lies at bytes {start} to {stop} of a file of {size}")
    if bits and (stop - start) * 8 != bits * prod(shape):
        raise refuse(f"of {entry['dtype']}{shape} takes {bits * prod(shape) // 8} bytes, not {stop - start}")
    return StoredTensor(name, entry["dtype"], tuple(shape), start, stop, file)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def open_tensors(folder: str | Path) -> dict[str, StoredTensor]:
    """All tensors of a directory: those that its index lists, else of model.safetensors, else of every .safetensors file.

    Raises: ModelFileError for missing shards, tensors in two of them, or an index that points elsewhere.
    """
    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return _by_index(folder, index)
    one = folder / "model.safetensors"
    files = [one] if one.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelFileError(f"{folder}: has no .safetensors file")
    found: dict[str, StoredTensor] = {}
    for path in files:
        for name, tensor in open_file(path).items():
            if name in found:
                raise ModelFileError(f"{folder}: tensor {name!r:.80} is in two files, {path.name} for one")
            found[name] = tensor
    return found


def _by_index(folder: Path, index: Path) -> dict[str, StoredTensor]:
    listed = read_object(read_bytes(index), index).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ModelFileError(f"{index}: has no weight_map")
    shards: dict[str, dict[str, StoredTensor]] = {}
    found = {}
    for name, shard in listed.items():
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelFileError(f"{index}: tensor {name!r:.80} is said to be in {shard!r:.80}")
        if shard not in shards:
            shards[shard] = open_file(folder / shard)
        if name not in shards[shard]:
            raise ModelFileError(f"{index}: {shard} does not have tensor {name!r:.80}")
        found[name] = shards[shard][name]
    return found


def read_bytes(path: Path) -> bytes:
    """Content of a small file. Raises: ModelFileError if it is missing or too large."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelFileError(f"{path}: is too large to be what its name says")
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error


def read_object(content: bytes, path: Path) -> dict[str, Any]:
    """A JSON object without duplicate keys. Raises: ModelFileError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ModelFileError(f"{path}: its JSON names a key twice")
        return found

    try:
        parsed = json.loads(content.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ModelFileError(f"{path}: its JSON is no object")
    return parsed
