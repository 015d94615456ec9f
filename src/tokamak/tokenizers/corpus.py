"""A corpus to arrays of ids: read, encode, write at once, in order, in bounded memory, and on after a kill.

Ids go to OUT.part and boundaries of documents to OUT.part.offsets. OUT.part.json says how much of both is safe and
where in the sources that ends; it is replaced as a whole, after the data is on disk. What lies beyond it is cut off
when a run goes on. The finished files are renamed into place.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tokamak.errors import InvalidParams, UnavailableError
from tokamak.tokenizers.encoding import Batch
from tokamak.tokenizers.tokenizer import Tokenizer

UNITS = ("line", "file", "jsonl")
HEADER = 128  # bytes of a .npy file before its data
AHEAD = 2  # chunks that are read ahead of the encoders
Progress = Callable[[int, int, int], None]  # source bytes done, source bytes in all, ids


@dataclass(frozen=True, slots=True)
class CorpusOptions:
    """How sources become documents, and documents ids."""

    unit: str = (
        "line"  # a document is: a line that is not empty, a file, or a member of each line's JSON object
    )
    field: str = "text"  # jsonl: that member
    add_special: bool = True
    parse_special: bool = False
    threads: int = 1
    chunk_nbytes: int = (
        4 << 20
    )  # of text per piece of work; memory is a small multiple of (threads + 4) times that
    safe_every_s: float = 1.0  # how often what is written is made safe against a kill

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InvalidParams(f"unit = {self.unit!r}: one of {', '.join(UNITS)}")
        if self.threads < 1 or self.chunk_nbytes < 1:
            raise InvalidParams("threads and chunk_nbytes: at least 1")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the sources a chunk ends, and what was written up to there."""

    source: int = 0
    offset: int = 0
    documents: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """What a finished run did."""

    out: Path
    documents: int
    tokens: int
    source_nbytes: int
    resumed_at: int  # documents that an earlier run had done
    took_s: float


@dataclass(frozen=True, slots=True)
class _Chunk:
    documents: list[bytes | str]
    source: int
    offset: int  # in the source, where the chunk ends


def tokenize_corpus(
    tokenizer: Tokenizer,
    sources: Sequence[str | Path],
    out: str | Path,
    options: CorpusOptions = CorpusOptions(),
    progress: Progress | None = None,
) -> CorpusReport:
    """Write the ids of every document of `sources`, in order.

    out: X.npy gets int32[tokens], and X.offsets.npy int64[documents + 1]; X.arrow gets one column of lists (pyarrow).
    A run that was killed goes on where it was safe when it is started again with the same arguments.
    Raises: InvalidParams for arguments or sources that are not those of the run that is to go on, or for a line that
    is not a JSON object with that member.
    """
    started = time.perf_counter()
    out, files = Path(out), [Path(s) for s in sources]
    if out.suffix not in (".npy", ".arrow") or not files:
        raise InvalidParams(f"out = {str(out)!r} must end with .npy or .arrow, and there must be sources")
    if out.suffix == ".arrow":
        _pyarrow()
    journal = _Journal(out, _identity(tokenizer, files, options))
    place = journal.place
    _take_back(out, place)
    sizes = [f.stat().st_size for f in files]
    with _Writer(out, place) as writer:
        _run(tokenizer, files, sizes, options, journal, writer, progress)
        done = writer.place
    _finish(out, done)
    journal.remove()
    return CorpusReport(
        out, done.documents, done.tokens, sum(sizes), place.documents, time.perf_counter() - started
    )


def _run(
    tokenizer: Tokenizer,
    files: Sequence[Path],
    sizes: Sequence[int],
    options: CorpusOptions,
    journal: _Journal,
    writer: _Writer,
    progress: Progress | None,
) -> None:
    before = [sum(sizes[:i]) for i in range(len(sizes))]

    def encode(chunk: _Chunk) -> Batch:
        return tokenizer.encode_batch(chunk.documents, None, options.add_special, options.parse_special)

    def write(chunk: _Chunk, work: Future[Batch]) -> None:
        writer.write(work.result(), chunk)
        if time.monotonic() - journal.safe_at >= options.safe_every_s:
            writer.sync()
            journal.keep(writer.place)
        if progress is not None:
            progress(before[chunk.source] + chunk.offset, sum(sizes), writer.place.tokens)

    pending: deque[tuple[_Chunk, Future[Batch]]] = deque()
    with ThreadPoolExecutor(options.threads, "tokamak-corpus") as pool:
        try:
            for chunk in _ahead(_chunks(files, options, journal.place)):
                pending.append((chunk, pool.submit(encode, chunk)))
                if len(pending) > options.threads + 1:
                    write(*pending.popleft())
            while pending:
                write(*pending.popleft())
        finally:
            for _, work in pending:
                work.cancel()
    writer.sync()
    journal.keep(writer.place)


def _ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """The same, read by a thread at most AHEAD chunks ahead."""
    ready: queue.Queue[_Chunk | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: _Chunk | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def read() -> None:
        try:
            for chunk in chunks:
                put(chunk)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as e:  # noqa: BLE001  raised again where it is waited for
            put(e)

    reader = threading.Thread(target=read, name="tokamak-corpus-reader", daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        reader.join()


def _chunks(files: Sequence[Path], options: CorpusOptions, place: Place) -> Iterator[_Chunk]:
    for source in range(place.source, len(files)):
        offset = place.offset if source == place.source else 0
        with files[source].open("rb") as f:
            f.seek(offset)
            if options.unit == "file":
                if offset == 0:
                    yield _Chunk([f.read()], source, f.tell())
                continue
            yield from _lines(f, source, offset, options, files[source])


def _lines(f: BinaryIO, source: int, offset: int, options: CorpusOptions, file: Path) -> Iterator[_Chunk]:
    documents: list[bytes | str] = []
    size = 0
    for line in f:
        offset += len(line)
        size += len(line)
        text = line.rstrip(b"\r\n")
        if text:
            documents.append(
                text if options.unit == "line" else _member(text, options.field, file, offset - len(line))
            )
        if size >= options.chunk_nbytes:
            yield _Chunk(documents, source, offset)
            documents, size = [], 0
    if size:
        yield _Chunk(documents, source, offset)


def _member(line: bytes, name: str, file: Path, offset: int) -> str:
    try:
        text = json.loads(line)[name]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise InvalidParams(f"{file}, byte {offset}: not a JSON object with a member {name!r}: {e}") from e
    if not isinstance(text, str):
        raise InvalidParams(f"{file}, byte {offset}: {name!r} is not a string")
    return text


def _identity(tokenizer: Tokenizer, files: Sequence[Path], options: CorpusOptions) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    try:
        stats = [f.stat() for f in files]
    except OSError as e:
        raise InvalidParams(f"a source cannot be read: {e}") from e
    kept = {
        k: v for k, v in asdict(options).items() if k in ("unit", "field", "add_special", "parse_special")
    }
    sources = [[str(f), s.st_size, s.st_mtime_ns] for f, s in zip(files, stats, strict=True)]
    return {"tokenizer": tokenizer.digest.hex(), "sources": sources, **kept}


class _Journal:
    """OUT.part.json."""

    def __init__(self, out: Path, identity: dict[str, Any]) -> None:
        self._path = out.with_name(out.name + ".part.json")
        self._identity = identity
        self.place = Place()
        self.safe_at = time.monotonic()
        if self._path.is_file():
            try:
                found = json.loads(self._path.read_text(encoding="utf-8"))
                self.place = Place(**found.pop("place"))
            except (ValueError, KeyError, TypeError) as e:
                raise InvalidParams(
                    f"{self._path} is not the record of a run; delete it to start again"
                ) from e
            if found != identity:
                changed = sorted(k for k in identity if found.get(k) != identity[k])
                raise InvalidParams(
                    f"{self._path}: that run had another {', '.join(changed)}; give the same, or delete it to start again"
                )

    def keep(self, place: Place) -> None:
        part = self._path.with_suffix(".tmp")
        with part.open("w", encoding="utf-8") as f:
            json.dump({**self._identity, "place": asdict(place)}, f)
            f.flush()
            os.fsync(f.fileno())
        part.replace(self._path)
        self.place, self.safe_at = place, time.monotonic()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


class _Writer:
    """OUT.part and OUT.part.offsets, cut to what was safe."""

    def __init__(self, out: Path, place: Place) -> None:
        self.place = place
        self._ids = _opened(out.with_name(out.name + ".part"), HEADER + 4 * place.tokens)
        self._offsets = _opened(out.with_name(out.name + ".part.offsets"), HEADER + 8 * (place.documents + 1))
        if place.documents == 0:
            self._offsets.seek(HEADER)
            self._offsets.write(np.zeros(1, np.int64).tobytes())

    def __enter__(self) -> _Writer:  # noqa: PYI034  Self is not in Python 3.10
        return self

    def __exit__(self, *_: object) -> None:
        self._ids.close()
        self._offsets.close()

    def write(self, batch: Batch, chunk: _Chunk) -> None:
        self._ids.write(np.ascontiguousarray(batch.ids, "<i4").data)
        self._offsets.write(np.ascontiguousarray(batch.offsets[1:] + self.place.tokens, "<i8").data)
        documents, tokens = self.place.documents + len(batch), self.place.tokens + len(batch.ids)
        self.place = Place(chunk.source, chunk.offset, documents, tokens)

    def sync(self) -> None:
        for file in (self._ids, self._offsets):
            file.flush()
            os.fsync(file.fileno())


def _opened(path: Path, size: int) -> BinaryIO:
    if not path.is_file() or path.stat().st_size < size:
        if size > HEADER + 8:
            raise InvalidParams(f"{path} is shorter than its record says; delete {path}.json to start again")
        path.write_bytes(b"\0" * size)
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _header(dtype: str, count: int) -> bytes:
    """The first HEADER bytes of a .npy file of one dimension. Source: numpy.lib.format, version 1.0."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({count},), }}"
    return (
        b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little") + text.ljust(HEADER - 11).encode() + b"\n"
    )


def _finish(out: Path, place: Place) -> None:
    ids, offsets = (out.with_name(out.name + end) for end in (".part", ".part.offsets"))
    for path, dtype, count in ((ids, "<i4", place.tokens), (offsets, "<i8", place.documents + 1)):
        with path.open("r+b") as f:
            f.write(_header(dtype, count))
    if out.suffix == ".npy":
        offsets.replace(out.with_suffix(".offsets.npy"))
        ids.replace(out)
        return
    _write_arrow(ids, offsets, out)
    ids.unlink()
    offsets.unlink()


def _take_back(out: Path, place: Place) -> None:
    """A run that was killed while it renamed: its files are parts again."""
    for end, final in ((".part", out), (".part.offsets", out.with_suffix(".offsets.npy"))):
        part = out.with_name(out.name + end)
        if place.documents and out.suffix == ".npy" and final.is_file() and not part.is_file():
            final.replace(part)


def _write_arrow(ids: Path, offsets: Path, out: Path, rows: int = 65536) -> None:
    """One column `ids` of lists of int32, in batches of `rows` documents."""
    pa = _pyarrow()
    flat = np.memmap(ids, "<i4", "r", HEADER) if ids.stat().st_size > HEADER else np.empty(0, np.int32)
    bounds = np.memmap(offsets, "<i8", "r", HEADER)
    schema = pa.schema([("ids", pa.large_list(pa.int32()))])
    part = out.with_name(out.name + ".part.arrow")
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(bounds) - 1, rows):
            cut = np.asarray(bounds[start : start + rows + 1])
            values = pa.array(np.asarray(flat[cut[0] : cut[-1]]))
            column = pa.LargeListArray.from_arrays(pa.array(cut - cut[0]), values)
            writer.write_batch(pa.record_batch([column], schema=schema))
    part.replace(out)


def _pyarrow() -> Any:
    try:
        importlib.import_module("pyarrow.ipc")
        return importlib.import_module("pyarrow")
    except ImportError as e:
        raise UnavailableError(".arrow files need pyarrow: pip install tokamak[arrow], or write .npy") from e
