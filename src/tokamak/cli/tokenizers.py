"""Opens the tokenizer that a verb asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokamak.cli.console import remark

if TYPE_CHECKING:
    from tokamak.tokenizers.tokenizer import Tokenizer


def open_tokenizer(model: str | None, *, quiet: bool) -> Tokenizer:
    """The tokenizer of MODEL, or of the embedded model; what had to be assumed goes to stderr.

    Raises: TokenizerFileError, UnsupportedError, InvalidParams.
    """
    from tokamak.engine.loading import default_model
    from tokamak.tokenizers import Tokenizer

    tokenizer = Tokenizer.load(default_model() if model is None else model)
    for note in tokenizer.notes:
        remark(f"tokamak: {note}", quiet=quiet)
    return tokenizer
