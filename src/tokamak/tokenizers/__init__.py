"""Text to token ids and back, for every tokenizer file; works without the rest of tokamak."""

from tokamak.tokenizers.spec import AddedToken, Slot, Step, Strings, TokenizerSpec
from tokamak.tokenizers.stream import TextStream
from tokamak.tokenizers.tokenizer import Batch, Encoding, Tokenizer

__all__ = [
    "AddedToken",
    "Batch",
    "Encoding",
    "Slot",
    "Step",
    "Strings",
    "TextStream",
    "Tokenizer",
    "TokenizerSpec",
]
