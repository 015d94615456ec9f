"""Packed files: the weights of a model as the kernels of one instruction set read them, so that loading maps and runs.

The container is GGUF, so that its reader checks every length. Its metadata are the source's, with `tokamak.packed.*`
beside them: format version, instruction set, SHA-256 of the source, the source's list of tensors, and a fingerprint of
each packed layout. Matrices are tensors of bytes under their parameter's name; small tensors stay as they were. The
last tensors are a checksum per MiB of every other, and a digest of the header and of these. See docs/formats/packed.md.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokamak import _native
from tokamak.errors import ModelFileError, UnsupportedError
from tokamak.loaders.gguf import GgufModel, Tensor, TensorInfo
from tokamak.loaders.writer import TensorSource, Typed, write_gguf
from tokamak.quant import FORMATS
from tokamak.types import Array, PackedBytes, PackedMatrix

__all__ = ["PackedTensor", "is_packed", "packed_weights", "source_model", "write_packed"]

VERSION = 1
PREFIX = "tokamak.packed."
SUMS, DIGEST = PREFIX + "sums", PREFIX + "digest"  # tensors of the container
PIECE = 1 << 20  # bytes that share a checksum
ALIGNMENT = 64  # the kernels' loads


class Verification:
    """Compares every byte with its checksum, in a thread of its own: reading the pages brings them into memory too."""

    def __init__(self, part: _native.GgufFile, names: Iterable[str], threads: int) -> None:
        self._part, self._names, self._threads = part, list(names), threads
        self._problem: str | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if nobody has: when the first matrix is taken, so that who only looks at a file reads nothing."""
        with self._lock:
            if self._thread is None:  # no daemon: native code must not be cut off when the interpreter ends
                self._thread = threading.Thread(target=self._run, name="tokamak-verify")
                self._thread.start()

    def wait(self) -> None:
        """Return once everything was compared. Raises: ModelFileError if something differs."""
        self.start()
        if self._thread is not None:
            self._thread.join()
        if self._problem is not None:
            raise ModelFileError(self._problem)

    def _run(self) -> None:
        expected = self._part.data(SUMS).view(np.uint64)
        at = 0
        for name in self._names:
            sums = np.array(_native.checksums(self._part.data(name), PIECE, self._threads), np.uint64)
            wrong = np.flatnonzero(sums != expected[at : at + len(sums)])
            if len(wrong):
                self._problem = (
                    f"tensor {name}: the bytes from {int(wrong[0]) * PIECE} on do not match their checksum; the packed "
                    "file is damaged. Make it again with 'tokamak convert --optimize-layout'"
                )
                return
            at += len(sums)


@dataclass(frozen=True, slots=True)
class PackedTensor:
    """A `types.PackedWeight`: a matrix of the source whose bytes are there in packed form only."""

    name: str  # in the source
    format: str
    shape: tuple[int, ...]
    form: PackedBytes
    verification: Verification

    @property
    def nbytes(self) -> int:
        return self.form.panels.nbytes

    def packed(self) -> PackedBytes:
        """The packed bytes, and for which kernels; comparing them with their checksums begins."""
        self.verification.start()
        return self.form

    def rows(self) -> NDArray[np.uint8]:
        """Raises: UnsupportedError. The rows of the source are not in a packed file."""
        raise UnsupportedError(
            f"tensor {self.name} is packed for {self.form.isa}; only the cpu executor reads it. Use the source file"
        )

    def release(self) -> None:
        """Nothing: the kernels read the mapped pages."""


def is_packed(metadata: Mapping[str, Any]) -> bool:
    """Whether a GGUF file is a packed one."""
    return PREFIX + "version" in metadata


def source_model(model: GgufModel) -> GgufModel:
    """The source as its packed file describes it: its metadata and its list of tensors.

    Raises: UnsupportedError for another version, ModelFileError for what is damaged or does not hold together.
    """
    metadata = model.metadata
    if metadata[PREFIX + "version"] != VERSION:
        raise UnsupportedError(
            f"packed layout version {metadata[PREFIX + 'version']!r:.40}; this program reads {VERSION}. Make the file "
            "again from its source with 'tokamak convert --optimize-layout'"
        )
    _check_digest(model)
    own = {key: value for key, value in metadata.items() if not key.startswith(PREFIX)}
    return GgufModel(model.path, model.parts, own, {info.name: info for info in _directory(model)})


def _check_digest(model: GgufModel) -> None:
    try:
        stored = bytes(model.tensors[DIGEST].data())
        found = _digest(model.parts[0], model.path)
    except (KeyError, OSError) as error:
        raise ModelFileError("the packed file has no digest; it was not written to its end") from error
    if stored != found:
        raise ModelFileError(
            "the header of the packed file does not match its digest; it was changed or damaged"
        )


def _digest(part: _native.GgufFile, path: str | Path) -> bytes:
    with Path(path).open("rb") as file:
        head = file.read(part.data_offset)
    return hashlib.sha256(head + bytes(part.data(SUMS))).digest()


def _directory(model: GgufModel) -> Iterable[TensorInfo]:
    metadata = model.metadata
    try:
        names, formats = (_texts(metadata[PREFIX + key]) for key in ("names", "formats"))
        ranks, extents = (list(map(int, metadata[PREFIX + key])) for key in ("ranks", "extents"))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"the packed file does not list the tensors of its source: {error}") from error
    if (
        not len(names) == len(formats) == len(ranks)
        or sum(ranks) != len(extents)
        or min(ranks, default=1) < 1
    ):
        raise ModelFileError("the packed file's list of tensors does not hold together")
    at = 0
    for name, format_, rank in zip(names, formats, ranks, strict=True):
        shape = tuple(extents[at : at + rank])
        at += rank
        stored = model.tensors.get(name)
        if format_ not in FORMATS or (stored and (stored.format, stored.shape) != (format_, shape)):
            raise ModelFileError(f"tensor {name} is listed as {format_!r:.40}{list(shape)}, which it is not")
        yield TensorInfo(name, format_, shape, 0, stored.nbytes if stored else 0, model.parts[0])


def _texts(table: Any) -> list[str]:
    return [item.decode() for item in table.tolist()]


def packed_weights(
    model: GgufModel, weights: Mapping[str, Tensor | PackedTensor], threads: int
) -> dict[str, Tensor | PackedTensor]:
    """The parameters, those that are packed with their packed bytes.

    model: the container. weights: what the source's list of tensors gives. Raises: ModelFileError if one is absent.
    """
    isa = str(model.metadata[PREFIX + "isa"])
    layouts = dict(
        zip(*(_texts(model.metadata[PREFIX + key]) for key in ("layouts", "fingerprints")), strict=True)
    )
    verification = Verification(
        model.parts[0], (n for n in model.tensors if n not in (SUMS, DIGEST)), threads
    )
    out: dict[str, Tensor | PackedTensor] = {}
    for name, weight in weights.items():
        if name in model.tensors:
            form = PackedBytes(
                isa, layouts.get(weight.format, ""), model.tensors[name].data(), verification.wait
            )
            out[name] = PackedTensor(weight.name, weight.format, weight.shape, form, verification)
        elif weight.name in model.tensors:
            out[name] = weight
        else:
            raise ModelFileError(f"the packed file has neither {name} nor tensor {weight.name}")
    return out


def write_packed(
    path: str | os.PathLike[str],
    source: GgufModel,
    weights: Mapping[str, Tensor | PackedTensor],
    isa: str,
    matrices: Mapping[str, PackedMatrix],
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the packed file of `source`; it appears under `path` only when it is whole.

    weights: the parameters of the source. matrices: those of them that are packed. One is in memory at a time.
    Raises: InvalidParams for names that a GGUF file cannot hold.
    """
    sums: list[int] = []

    def summed(read: Callable[[], Array]) -> Array:
        content = np.ascontiguousarray(read()).reshape(-1)
        sums.extend(_native.checksums(content, PIECE, 1))
        return content

    bodies = [
        TensorSource(name, "i8", (m.nbytes,), lambda m=m: summed(m.read))  # type: ignore[misc]
        for name, m in matrices.items()
    ]
    packed = {weights[name].name for name in matrices}
    plain = [info for info in source.tensors.values() if info.name not in packed]
    bodies += [
        TensorSource(i.name, i.format, i.shape, lambda i=i: summed(i.data))  # type: ignore[misc]
        for i in plain
    ]
    count = sum(-(-body.nbytes // PIECE) for body in bodies)
    tail = [
        TensorSource(SUMS, "i8", (8 * max(count, 1),), lambda: _padded(np.array(sums, np.uint64))),
        TensorSource(DIGEST, "i8", (32,), lambda: np.zeros(32, np.uint8)),
    ]
    partial = Path(path).with_name(f".{Path(path).name}.{os.getpid()}.packing")
    try:
        metadata = _metadata(source, isa, matrices)
        write_gguf(partial, metadata, [*bodies, *tail], alignment=ALIGNMENT, progress=progress)
        _seal(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _padded(sums: NDArray[np.uint64]) -> Array:
    return (sums if len(sums) else np.zeros(1, np.uint64)).view(np.uint8)


def _seal(path: Path) -> None:
    """Put the digest in, now that everything it covers is written."""
    part = _native.GgufFile(str(path))
    offset = next(offset for name, _, _, offset, _ in part.tensors if name == DIGEST)
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(_digest(part, path))
        file.flush()
        os.fsync(file.fileno())


def _metadata(source: GgufModel, isa: str, matrices: Mapping[str, PackedMatrix]) -> dict[str, Any]:
    part, infos = source.parts[0], list(source.tensors.values())
    kept = {
        key: Typed(part.value_types[key], value)
        for key, value in source.metadata.items()
        if not key.startswith(("split.", PREFIX)) and key != "general.alignment"
    }
    layouts = {m.format: m.fingerprint for m in matrices.values()}
    own = {
        "version": Typed("uint32", VERSION),
        "isa": isa,
        "source": Path(source.path).name,
        "source_sha256": _sha256(source),
        "names": Typed("array[string]", [i.name for i in infos]),
        "formats": Typed("array[string]", [i.format for i in infos]),
        "ranks": Typed("array[uint32]", [len(i.shape) for i in infos]),
        "extents": Typed("array[uint64]", [n for i in infos for n in i.shape]),
        "layouts": Typed("array[string]", list(layouts)),
        "fingerprints": Typed("array[string]", list(layouts.values())),
    }
    return kept | {PREFIX + key: value for key, value in own.items()}


def _sha256(source: GgufModel) -> str:
    digest = hashlib.sha256()
    for path in _paths(source):
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()


def _paths(source: GgufModel) -> list[Path]:
    count = len(source.parts)
    if count == 1:
        return [Path(source.path)]
    stem = Path(source.path).name.rpartition("-00001-of-")[0]
    return [Path(source.path).with_name(f"{stem}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]
