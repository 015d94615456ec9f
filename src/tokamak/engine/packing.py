"""`optimize_layout`: a packed file of a model, for the instruction set in use here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tokamak import executors, models
from tokamak.errors import InvalidParams, TokamakError
from tokamak.ir import passes
from tokamak.loaders import open_checkpoint
from tokamak.loaders.gguf import open_gguf
from tokamak.loaders.packed import is_packed, write_packed
from tokamak.settings import Settings

__all__ = ["optimize_layout"]


def optimize_layout(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    executor: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write `source` as the kernels here read it, so that loading maps and runs; returns the instruction set.

    source: a GGUF file, its first part if it is split. out: about as large; it works with this instruction set only.
    One tensor at a time is in memory. progress(done, total): bytes.
    Raises: ModelFileError, UnsupportedError, InvalidParams if `source` is packed or is `out`.
    """
    path = os.fspath(source)
    if Path(out).exists() and Path(path).samefile(out):
        raise InvalidParams(f"{path}: the packed file needs another name than its source")
    checkpoint, model = open_checkpoint(path), open_gguf(path)
    if is_packed(model.metadata):
        raise InvalidParams(f"{path}: is packed already; give the file it was made from")
    try:
        built = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=1)
        settings = Settings.load(threads=threads)
        isa, matrices = executors.get(executor).packed(
            passes.optimize(built), checkpoint.weights, settings.threads
        )
        write_packed(out, model, checkpoint.weights, isa, matrices, progress)
    except TokamakError as error:
        raise error.located(path) from error
    return isa
