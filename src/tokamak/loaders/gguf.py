"""GGUF files as tensors and metadata: one file, or the parts of a split one. Nothing here knows a family of models.

The parsing and its checks are native (`native/gguf`); this adds split files and the lazy, row-reordering `Tensor`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tokamak import _native
from tokamak.errors import ModelFileError, TokamakError
from tokamak.quant import FORMATS
from tokamak.types import Array

__all__ = ["GgufModel", "Tensor", "TensorInfo", "open_gguf"]

_TYPES = {i: (name, block, size) for i, name, block, size in _native.gguf_tensor_types()}
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
MAX_PARTS = 99999  # five digits in the name


class Part(Protocol):
    """One file of a model, as far as tensors need it; `_native.GgufFile` is one."""

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""

    @property
    def value_types(self) -> dict[str, str]:
        """The type of every metadata value: "uint32", "array[string]", ..."""

    def data(self, name: str) -> NDArray[np.uint8]:
        """The bytes of a tensor: u8[nbytes]."""

    def release(self, name: str) -> None:
        """Give its mapped pages back."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor as its file lists it. shape: outermost first. offset: bytes from the start of its file."""

    name: str
    format: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    part: Part

    def data(self) -> Array:
        """The bytes: u8[nbytes], a read-only view of the mapped file."""
        return self.part.data(self.name)


@dataclass(frozen=True, slots=True)
class GgufModel:
    """Metadata of the first part and tensors of all parts, in the order of the files."""

    path: str
    parts: tuple[_native.GgufFile, ...]
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    directory: Part | None = None  # where it is none of GGUF files, but read in their terms

    @property
    def nbytes(self) -> int:
        """Bytes of all files together."""
        return self.directory.nbytes if self.directory else sum(part.nbytes for part in self.parts)

    @property
    def value_types(self) -> dict[str, str]:
        """The type in the file of every metadata value: "uint32", "array[string]", ..."""
        return self.directory.value_types if self.directory else self.parts[0].value_types


@dataclass(frozen=True, slots=True)
class Tensor:
    """A `types.Weight`: some rows of a tensor of a file, in the order the model expects.

    first: the row it starts at. turn: (head_dim, rotary_dim) when rows of each head must be brought from pairs into
    half-split order, None otherwise. every: (of, count): `count` rows from `first` of every `of`, None: all from it on.
    A vector is one row of elements, but `first`, `turn` and `every` count its elements.
    """

    info: TensorInfo
    shape: tuple[int, ...]
    first: int = 0
    turn: tuple[int, int] | None = None
    every: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """Its name in the file."""
        return self.info.name

    @property
    def format(self) -> str:
        return self.info.format

    @property
    def nbytes(self) -> int:
        return self.info.nbytes * prod(self.shape) // prod(self.info.shape)

    def rows(self) -> NDArray[np.uint8]:
        """uint8[prod(shape[:-1]), row_nbytes]: a view of the file, or a copy where rows are reordered.

        A format whose tensor is not made of rows (i2_s, tl1) comes as one row of all its bytes.
        """
        data = self.info.data()
        if not _ROW_NBYTES.get(self.format):
            return data.reshape(1, -1)
        if self.every is None and self.shape[1:] != self.info.shape[1:]:  # another shape of the whole
            return data.reshape(int(np.prod(self.shape[:-1], dtype=np.int64)), -1)
        pieces = data.reshape(self.info.shape[0], -1)
        if self.every is None:
            pieces = pieces[self.first : self.first + self.shape[0]]
        else:
            of, count = self.every
            pieces = pieces.reshape(-1, of, pieces.shape[1])[:, self.first : self.first + count]
            pieces = pieces.reshape(self.shape[0], -1)
        if self.turn is not None:
            pieces = pieces[half_split_order(self.shape[0], *self.turn)]
        return pieces.reshape(int(np.prod(self.shape[:-1], dtype=np.int64)), -1)

    def release(self) -> None:
        """Give the mapped pages back; reading again still works."""
        self.info.part.release(self.info.name)


# Formats made of rows; i2_s in its layouts, tl1 and what else belongs to a whole tensor are not here, or 0.
_ROW_NBYTES = {name: size for name, _block, size in _TYPES.values()} | {"i2_f16": 10, "qk256": 64}


def half_split_order(num_rows: int, head_dim: int, rotary_dim: int) -> NDArray[np.intp]:
    """Row i of the half-split layout is row order[i] of the paired one, head by head; columns past rotary_dim stay."""
    head = np.arange(head_dim)
    head[:rotary_dim] = head[:rotary_dim].reshape(rotary_dim // 2, 2).T.reshape(-1)
    starts = np.arange(0, num_rows, head_dim)
    return (starts[:, None] + head).reshape(-1)


def open_gguf(path: str | Path, *, prefault: bool = False) -> GgufModel:
    """Open a GGUF file, and the other parts if it is split.

    prefault: read the whole file into memory now instead of on first use.
    Raises: ModelFileError for broken files and missing parts; UnsupportedError for other versions and byte orders.
    """
    first = _open(Path(path), prefault)
    count = _count(first.metadata, str(path))
    if count <= 1:
        return _join(str(path), (first,))
    match = _PART.fullmatch(Path(path).name)
    if match is None or int(match["count"]) != count:
        raise ModelFileError(
            f"{path}: is one of {count} parts, but its name does not end in -00001-of-{count:05}.gguf, so the others "
            "cannot be found. Give the parts the names they were published with"
        )
    parts = []
    for number in range(count):
        name = f"{match['stem']}-{number + 1:05}-of-{count:05}.gguf"
        part = _open(Path(path).with_name(name), prefault)
        if part.metadata.get("split.no") != number or _count(part.metadata, name) != count:
            raise ModelFileError(f"{path}: {name} does not say that it is part {number + 1} of {count}")
        parts.append(part)
    return _join(str(path), tuple(parts))


def _open(path: Path, prefault: bool) -> _native.GgufFile:
    try:
        return _native.GgufFile(str(path), prefault=prefault)
    except TokamakError as error:
        raise error.located(str(path)) from None


def _count(metadata: Mapping[str, Any], where: str) -> int:
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_PARTS:
        raise ModelFileError(f"{where}: key split.count is {count!r:.80}, expected 1 to {MAX_PARTS}")
    return count


def _format(type_id: int, shape: tuple[int, ...], nbytes: int) -> str:
    """The format of a tensor: by its type id, and for that of i2_s by its size too."""
    name = _TYPES[type_id][0]
    if name == "i2_s" and nbytes != prod(shape) // 4 + FORMATS["i2_s"].tail:
        return "qk256" if nbytes == prod(shape) // 4 else "i2_f16"
    return name


def _join(path: str, parts: tuple[_native.GgufFile, ...]) -> GgufModel:
    tensors: dict[str, TensorInfo] = {}
    for part in parts:
        for name, type_id, shape, offset, nbytes in part.tensors:
            if name in tensors:
                raise ModelFileError(f"{path}: tensor {name!r} is in two parts")
            tensors[name] = TensorInfo(name, _format(type_id, shape, nbytes), shape, offset, nbytes, part)
    metadata = parts[0].metadata
    promised = metadata.get("split.tensors.count", len(tensors))
    if len(parts) > 1 and promised != len(tensors):
        raise ModelFileError(
            f"{path}: the parts hold {len(tensors)} tensors, key split.tensors.count says {promised!r:.80}"
        )
    return GgufModel(path, parts, metadata, tensors)
