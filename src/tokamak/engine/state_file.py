"""Saved prompts: the keys and values of a text on disk, so that another process need not compute them again.

Whole cache blocks only; the rest of the text is computed when it is used. A file says of which model, cache type, executor and
instruction set it is, and is refused where any of them differs: then its numbers would be others than computed here.
Layout: MAGIC, length of the header (u64), header (JSON), blocks of each layer that keeps whole texts one after another, then of each
that keeps the latest part only, BLAKE2b of all before (32 bytes).
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.engine.blocks import Chain
from tokamak.engine.core import EngineCore
from tokamak.engine.recent import hold_prefix
from tokamak.engine.tables import Table
from tokamak.errors import CapacityError, FileRefused, InvalidParams
from tokamak.types import Array, Ints, Program

MAGIC = b"tokamak-kv-2\n"
MAX_HEADER = 1 << 26
WHOLE = 1 << 26  # files up to this size are hashed whole, of larger ones pieces
PIECE, PIECES = 1 << 16, 256


@dataclass(frozen=True, slots=True)
class Kind:
    """What two programs must have in common for their caches to mean the same."""

    model: str
    executor: str
    kv_dtype: str
    block_size: int


@dataclass(frozen=True, slots=True)
class Saved:
    """Contents of a file. contents: uint8[blocks, nbytes] of each layer; token_ids i32[blocks * block_size].

    recent: of layers that keep the latest part only, the last blocks.
    """

    token_ids: Ints
    contents: list[Array]
    recent: list[Array]


def kind_of(program: Program, path: str) -> Kind:
    """Of a program and the model file it was made from."""
    name = f"{type(program).__name__} {getattr(program, 'isa', '')}".strip()
    limits = program.limits
    return Kind(fingerprint(Path(path)), name, limits.kv_dtype, limits.block_size)


def fingerprint(path: Path) -> str:
    """Hash of a model file or directory: sizes, and all bytes of small files, 256 pieces of large ones."""
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{size}\n".encode())
        with file.open("rb") as f:
            if size <= WHOLE:
                digest.update(f.read())
                continue
            for i in range(PIECES):
                f.seek((size - PIECE) * i // (PIECES - 1))
                digest.update(f.read(PIECE))
    return digest.hexdigest()


def take_out(core: EngineCore, tokens: Ints, salt: str) -> Saved:
    """The filed blocks of a text's beginning and their contents. In the engine's thread."""
    pool, latest, program = core.pool, core.recent, core.program
    whole, recent = (Table(-(-len(tokens) // pool.block_size)) for _ in range(2))
    path = hold_prefix(whole, recent, pool, latest, pool.walk(tokens, salt))
    try:
        contents = program.read_blocks(whole.held.tolist()) if path else []
        ends = program.read_blocks(recent.held.tolist(), recent=True) if latest and path else []
    finally:
        whole.clear(pool)
        recent.clear(latest or pool)
    return Saved(tokens[: len(path) * pool.block_size].copy(), contents, ends)


def put_in(core: EngineCore, saved: Saved, salt: str) -> None:
    """Files the blocks as a prefix that nobody holds. In the engine's thread.

    Raises: CapacityError if they do not fit; FileRefused if there are too few of layers that keep the latest part only.
    """
    pool, latest, program = core.pool, core.recent, core.program
    size = pool.block_size
    count = len(saved.token_ids) // size
    first = latest.first_block(count * size) if latest else count
    if any(len(layer) != count - first for layer in saved.recent):
        raise FileRefused(
            f"the last {count - first} blocks of {count} are needed of layers that look no further back"
        )
    whole, recent = Table(count), Table(count)
    path = pool.walk(saved.token_ids, salt)
    for block, _ in path:
        pool.hold(block)
        whole.append(block)
    chains: list[Chain] = [chain for _, chain in path]
    try:
        if not whole.take(pool, len(path) * size, (count - len(path)) * size, []):
            raise CapacityError(f"the saved prompt needs {count} cache blocks; load with a larger context")
        if count > len(path):
            program.write_blocks(whole.blocks[len(path) :].tolist(), [x[len(path) :] for x in saved.contents])
        for i in range(len(path), count):
            tokens = saved.token_ids[i * size : (i + 1) * size]
            chains.append(pool.file(int(whole.ids[i]), chains[-1] if chains else salt, tokens))
        if latest is not None:
            recent.num_blocks = first
            recent.begin_at(first)
            if not recent.take(latest, first * size, (count - first) * size, []):
                raise CapacityError(
                    f"the saved prompt needs {count - first} cache blocks of recent positions"
                )
            program.write_blocks(recent.held.tolist(), saved.recent, recent=True)
            for i in range(first, count):
                latest.file_under(int(recent.ids[i]), int(chains[i]))
    finally:
        whole.clear(pool)
        recent.clear(latest or pool)


def write(path: str | os.PathLike[str], kind: Kind, saved: Saved) -> None:
    """Write a file, whole or not at all."""
    facts = {
        "token_ids": saved.token_ids.tolist(),
        "sizes": [int(layer.shape[1]) for layer in saved.contents],
        "recent_sizes": [int(layer.shape[1]) for layer in saved.recent],
        "recent_blocks": len(saved.recent[0]) if saved.recent else 0,
    }
    header = json.dumps({**asdict(kind), **facts}).encode()
    digest = hashlib.blake2b(digest_size=32)
    partial = Path(f"{os.fspath(path)}.partial-{os.getpid()}-{threading.get_ident()}")
    try:
        with partial.open("wb") as f:
            pieces: list[Any] = [MAGIC, len(header).to_bytes(8, "little"), header]
            for piece in [*pieces, *map(np.ascontiguousarray, (*saved.contents, *saved.recent))]:
                digest.update(piece)
                f.write(piece)
            f.write(digest.digest())
        partial.replace(path)
    except OSError as error:
        raise InvalidParams(f"{os.fspath(path)}: cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], kind: Kind) -> Saved:
    """Read a file and check all of it.

    Raises: FileRefused if it is damaged, or of another model, cache type, executor or instruction set.
    """
    where = os.fspath(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileRefused(f"{where}: cannot be read: {error.strerror}") from error
    start = len(MAGIC) + 8
    if not data.startswith(MAGIC) or len(data) < start + 32:
        raise FileRefused(f"{where}: is no saved prompt of tokamak")
    if hashlib.blake2b(memoryview(data)[:-32], digest_size=32).digest() != data[-32:]:
        raise FileRefused(f"{where}: the checksum does not agree, the file is damaged; delete it")
    length = int.from_bytes(data[len(MAGIC) : start], "little")
    if length > min(MAX_HEADER, len(data) - start - 32):
        raise FileRefused(f"{where}: the header has {length} bytes, more than the file")
    try:
        header = json.loads(data[start : start + length])
        return _parsed(header, memoryview(data)[start + length : -32], kind)
    except FileRefused as error:
        raise FileRefused(f"{where}: {error}") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise FileRefused(f"{where}: the header is malformed: {error}") from error


def _parsed(header: Mapping[str, Any], body: memoryview, kind: Kind) -> Saved:
    for name, here in asdict(kind).items():
        if header[name] != here:
            raise FileRefused(f"was saved with {name} {header[name]!r:.80}, here it is {here!r}")
    token_ids = np.array(header["token_ids"], dtype=np.int32)
    count, rest = divmod(len(token_ids), kind.block_size)
    latest = int(header["recent_blocks"])
    shapes = [(count, int(size)) for size in header["sizes"]]
    shapes += [(latest, int(size)) for size in header["recent_sizes"]]
    sound = token_ids.ndim == 1 and not rest and 0 <= latest <= count and all(n > 0 for _, n in shapes)
    if not sound or sum(blocks * nbytes for blocks, nbytes in shapes) != len(body):
        raise FileRefused(f"{len(token_ids)} tokens do not take the {len(body)} bytes that follow")
    contents, at = [], 0
    for blocks, nbytes in shapes:
        contents.append(np.frombuffer(body, np.uint8, blocks * nbytes, at).reshape(blocks, nbytes))
        at += blocks * nbytes
    whole = len(header["sizes"])
    return Saved(token_ids, contents[:whole], contents[whole:])
