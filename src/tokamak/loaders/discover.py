"""Which tokenizer a model gets: strategies in a fixed order, and why each that was passed over was.

1. explicit: a path that the caller gives always wins; a wrong one is an error, never a fallback.
2. embedded: the vocabulary inside the model file.
3. colocated: a complete tokenizer file beside the model, one of COLOCATED, that fits its vocabulary.
No strategy guesses, and none makes up a tokenizer; a mock is there for who asks for it by name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tokamak.errors import TokamakError, TokenizerFileError
from tokamak.loaders.checkpoint import Checkpoint
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files import mock

__all__ = ["COLOCATED", "Found", "find_tokenizer"]

# Files that hold a whole tokenizer; a lone merges.txt or special_tokens_map.json does not.
COLOCATED = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
    "rwkv_vocab_v20230424.txt",
)


@dataclass(frozen=True, slots=True)
class Found:
    """A tokenizer, or None; the strategy that gave it; and what the others said, in order."""

    tokenizer: Tokenizer | None
    strategy: str
    tried: tuple[str, ...]


def find_tokenizer(checkpoint: Checkpoint, explicit: str | os.PathLike[str] | None = None) -> Found:
    """The tokenizer of a checkpoint by the first strategy that gives one. explicit: a path, or "mock:bytes".

    Raises: TokenizerFileError, UnsupportedError if the explicit path cannot be read or does not fit the model.
    """
    if explicit == mock.NAME:
        spec = mock.mock_spec(int(str(checkpoint.config["vocab_size"])))
        return Found(_fitting(Tokenizer.from_spec(spec), mock.NAME, checkpoint), "mock", ())
    if explicit is not None:
        return Found(_fitting(Tokenizer.load(explicit), os.fspath(explicit), checkpoint), "explicit", ())
    tried = ["explicit: no path was given"]
    if checkpoint.tokenizer is not None:
        return Found(Tokenizer.from_spec(checkpoint.tokenizer), "embedded", tuple(tried))
    tried.append(f"embedded: {'; '.join(checkpoint.notes) or 'the model file has no vocabulary'}")
    path = Path(checkpoint.path)
    folder = path if path.is_dir() else path.parent
    for name in COLOCATED:
        if (folder / name).is_file():
            try:
                return Found(
                    _fitting(Tokenizer.load(folder / name), str(folder / name), checkpoint),
                    "colocated",
                    tuple(tried),
                )
            except TokamakError as error:
                tried.append(f"colocated: {error}")
    if len(tried) == 2:
        tried.append(f"colocated: none of {', '.join(COLOCATED)} lies in {folder}")
    return Found(None, "none", tuple(tried))


def _fitting(tokenizer: Tokenizer, path: str, checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of `path`, if its ids all have a row in the model's embedding."""
    rows = checkpoint.config["vocab_size"]
    if tokenizer.vocab_size > int(str(rows)):
        raise TokenizerFileError(
            f"{path}: has {tokenizer.vocab_size} tokens, but {checkpoint.path} has only {rows} rows of embedding; "
            "it belongs to another model"
        )
    return tokenizer
