"""Text to token ids and back, for every tokenizer file; works without the rest of tokamak."""

from tokamak.tokenizers.encoding import Batch, Encoding, MemoryStats, PaddedBatch, Padding, Truncation
from tokamak.tokenizers.spec import AddedToken, Slot, Step, Strings, TokenizerSpec
from tokamak.tokenizers.stream import TextStream
from tokamak.tokenizers.tokenizer import Tokenizer

__all__ = [
    "AddedToken",
    "Batch",
    "Encoding",
    "MemoryStats",
    "PaddedBatch",
    "Padding",
    "Slot",
    "Step",
    "Strings",
    "TextStream",
    "Tokenizer",
    "TokenizerSpec",
    "Truncation",
]
