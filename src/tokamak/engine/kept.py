"""Packed files that `load` keeps in the cache directory: the second load of a model maps instead of packing.

A kept file belongs to one state of its source (path, size, time of change) and one instruction set; when the source
changes it is made anew and the old one removed. It is never made unasked: it is about as large as the model.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tokamak.engine.packing import optimize_layout
from tokamak.errors import TokamakError, UnsupportedError
from tokamak.executors import check_layout
from tokamak.loaders import Checkpoint, open_checkpoint
from tokamak.loaders.packed import PackedTensor
from tokamak.settings import Settings

__all__ = ["FOLDER", "open_kept"]

FOLDER = "packed"  # of the cache directory
FREE = 2  # times the size of the model that the file system must have left


def open_kept(
    path: str, executor: str, threads: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Checkpoint:
    """The checkpoint of `path` with its weights from the kept file, which is made if it is not there or not valid.

    What cannot be kept (a directory, a split or packed file, an executor without packed form, a full disk) is opened
    as it is, and a note of the checkpoint says why.
    Raises: what `open_checkpoint` raises for `path`.
    """
    settings = Settings.load(threads=threads)
    source = Path(path)
    try:
        kept = _place(source, settings, executor)
        found = _open(kept) if kept.exists() else None
        if found is None:
            _make(source, kept, executor, settings.threads, progress)
            found = open_checkpoint(kept)
    except (OSError, TokamakError) as error:
        plain = open_checkpoint(path)
        return replace(plain, notes=(*plain.notes, f"the packed weights are not kept: {error}"))
    return replace(found, path=path)


def _place(source: Path, settings: Settings, executor: str) -> Path:
    """Where the kept file of a source in its present state lies. Raises: UnsupportedError for what is never kept."""
    if not source.is_file() or "-of-" in source.stem:
        raise UnsupportedError(f"{source} is not one file")
    facts = source.stat()
    state = f"{facts.st_size} {facts.st_mtime_ns}"
    kernels = f"{executor} {settings.isa}"
    names = [
        hashlib.sha256(text.encode()).hexdigest()[:16] for text in (str(source.resolve()), kernels, state)
    ]
    return settings.cache_dir / FOLDER / f"{'-'.join(names)}.gguf"


def _open(kept: Path) -> Checkpoint | None:
    """The kept checkpoint; None if it is broken, or made by other kernels."""
    try:
        checkpoint = open_checkpoint(kept)
        forms = {w.format: w.form for w in checkpoint.weights.values() if isinstance(w, PackedTensor)}
        for name, form in forms.items():
            check_layout(form, name, form.isa)
    except TokamakError:
        return None
    return checkpoint


def _make(
    source: Path, kept: Path, executor: str, threads: int, progress: Callable[[int, int], None] | None
) -> None:
    """Write the kept file, and remove those of earlier states of the source.

    Raises: OSError; UnsupportedError where it cannot be packed or the disk is nearly full.
    """
    kept.parent.mkdir(parents=True, exist_ok=True)
    free, size = shutil.disk_usage(kept.parent).free, source.stat().st_size
    if free < FREE * size:
        raise UnsupportedError(f"{kept.parent} has {free} bytes left, {FREE} x {size} are wanted")
    optimize_layout(source, kept, executor=executor, threads=threads, progress=progress)
    stem = kept.name.rsplit("-", 1)[0]
    for old in kept.parent.glob(f"{stem}-*.gguf"):
        if old != kept:
            old.unlink(missing_ok=True)
