"""Importance matrices on disk: how large the activations are that meet each column of each weight.

Two formats are read: GGUF with sums and counts per tensor (general.type "imatrix"), which is also written, and the older
.dat of llama.cpp. Which is told by content.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.loaders.gguf import GgufModel, open_gguf
from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.types import Array, Floats

__all__ = ["Importance", "open_imatrix", "write_imatrix"]

SUMS, COUNTS = ".in_sum2", ".counts"
MAX_ENTRIES, MAX_NAME, MAX_VALUES = 1 << 20, 1 << 10, 1 << 31  # of a .dat, which has no other limits


@dataclass(frozen=True, slots=True)
class Importance:
    """Sums of squared activations.

    sums: by tensor name f32[M, K], a row per matrix of the tensor (1, or the experts). counts: f32[M], how many
    activations each row sums. num_chunks: of chunk_size tokens of the datasets that were read.
    """

    path: str
    sums: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    datasets: tuple[str, ...] = ()
    num_chunks: int = 0
    chunk_size: int = 0

    def of(self, name: str, num_matrices: int, columns: int) -> Floats | None:
        """Mean squares f32[M, K] for a tensor, ones where an expert was never used; None if there are none.

        Raises: InvalidParams if the entry has another shape: it is of another model.
        """
        if name not in self.sums:
            return None
        sums, counts = self.sums[name], self.counts[name]
        if sums.shape == (1, num_matrices * columns):  # a .dat knows no matrices
            sums, counts = sums.reshape(num_matrices, columns), counts.repeat(num_matrices)
        if sums.shape != (num_matrices, columns):
            raise InvalidParams(
                f"{self.path}: entry {name} is {sums.shape[0]} x {sums.shape[1]}, the tensor needs {num_matrices} x "
                f"{columns}. The importance matrix is of another model"
            )
        used = (counts > 0) & sums.any(axis=1)
        safe = np.where(counts > 0, counts, np.float32(1))[:, None]
        return np.where(used[:, None], sums / safe, np.float32(1))


def open_imatrix(path: str | Path) -> Importance:
    """Read an importance matrix.

    Raises: ModelFileError for a broken file or one that holds something else.
    """
    try:
        with Path(path).open("rb") as file:
            if file.read(4) == b"GGUF":
                return _from_gguf(open_gguf(path))
            file.seek(0)
            return _from_dat(str(path), file)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error


def _from_gguf(model: GgufModel) -> Importance:
    facts, kind = model.metadata, model.metadata.get("general.type")
    if kind != "imatrix":
        raise ModelFileError(f"{model.path}: key general.type is {kind!r:.80}, expected 'imatrix'")
    sums: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    for name, info in model.tensors.items():
        into, suffix = (sums, SUMS) if name.endswith(SUMS) else (counts, COUNTS)
        if not name.endswith(suffix) or info.format != "f32":
            raise ModelFileError(
                f"{model.path}: tensor {name} ({info.format}) is no sum or count of activations"
            )
        shape = (-1, info.shape[-1]) if into is sums else (-1,)
        into[name.removesuffix(suffix)] = info.data().view(np.float32).reshape(shape)
    for name, array in sums.items():
        if name not in counts or len(counts[name]) != len(array):
            raise ModelFileError(f"{model.path}: tensor {name}{COUNTS} is missing or of another length")
    _check(model.path, sums, counts)
    datasets = facts.get("imatrix.datasets", ())
    named = datasets.tolist() if isinstance(datasets, _native.StringTable) else ()
    return Importance(
        model.path,
        sums,
        counts,
        tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in named),
        *(_whole(facts.get(f"imatrix.chunk_{what}", 0)) for what in ("count", "size")),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0


def _check(path: str, sums: Mapping[str, Floats], counts: Mapping[str, Floats]) -> None:
    for name, array in (*sums.items(), *counts.items()):
        if not np.isfinite(array).all() or (array < 0).any():
            raise ModelFileError(f"{path}: entry {name} has values that are no sums of squares")


class _Dat:
    """Checked reads from a .dat."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.size = file.seek(0, 2)
        file.seek(0)

    def take(self, nbytes: int) -> bytes:
        if not 0 <= nbytes <= self.size - self.file.tell():
            raise ModelFileError(f"{self.path}: ends at {self.size}, inside {nbytes} bytes that it announces")
        return self.file.read(nbytes)

    def number(self, high: int) -> int:
        where = self.file.tell()
        (value,) = struct.unpack("<i", self.take(4))
        if not 0 <= value <= high:
            raise ModelFileError(
                f"{self.path}: no importance matrix: {value} at byte {where}, expected 0 to {high}"
            )
        return int(value)


def _from_dat(path: str, file: BinaryIO) -> Importance:
    """int32 entries, each: length, name, int32 calls, int32 values, f32 values; then int32 chunks, length, dataset."""
    dat = _Dat(path, file)
    sums: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    for _ in range(dat.number(MAX_ENTRIES)):
        name = dat.take(dat.number(MAX_NAME)).decode("utf-8", "replace")
        calls = dat.number(2**31 - 1)
        values = np.frombuffer(dat.take(4 * dat.number(MAX_VALUES)), dtype="<f4")
        if not name or not values.size:
            raise ModelFileError(f"{path}: entry {name!r} is empty")
        sums[name], counts[name] = values[None], np.array([max(calls, 1)], dtype=np.float32)
    _check(path, sums, counts)
    chunks, dataset = 0, ""
    if file.tell() < dat.size:  # older files end here
        chunks = dat.number(2**31 - 1)
        dataset = dat.take(dat.number(1 << 16)).decode("utf-8", "replace")
    return Importance(path, sums, counts, (dataset,) if dataset else (), chunks)


def write_imatrix(path: str | Path, matrix: Importance) -> None:
    """Write it as GGUF, as llama.cpp's quantizer reads it. Raises: InvalidParams for a name that GGUF cannot hold."""
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": Typed("array[string]", list(matrix.datasets)),
        "imatrix.chunk_count": Typed("uint32", matrix.num_chunks),
        "imatrix.chunk_size": Typed("uint32", matrix.chunk_size),
    }
    sources = []
    for name, sums in matrix.sums.items():
        counts = np.ascontiguousarray(matrix.counts[name], dtype=np.float32).reshape(-1, 1)
        for suffix, array in ((SUMS, sums), (COUNTS, counts)):
            sources.append(TensorSource(f"{name}{suffix}", "f32", array.shape, _reader(array)))
    write_gguf(path, metadata, sources)


def _reader(array: Array) -> Callable[[], Array]:
    return lambda: np.ascontiguousarray(array, dtype=np.float32).reshape(-1).view(np.uint8)
