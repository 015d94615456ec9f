"""Bytes on disk to `Checkpoint` and back: formats of model files, told by content."""

from __future__ import annotations

from tokamak.loaders.checkpoint import Checkpoint, open_checkpoint
from tokamak.loaders.gguf import GgufModel, Tensor, TensorInfo, open_gguf
from tokamak.loaders.writer import TensorSource, Typed, write_gguf

__all__ = [
    "Checkpoint",
    "GgufModel",
    "Tensor",
    "TensorInfo",
    "TensorSource",
    "Typed",
    "open_checkpoint",
    "open_gguf",
    "write_gguf",
]
