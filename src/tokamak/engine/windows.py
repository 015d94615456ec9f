"""A text cut for measuring a model: windows of whole contexts, each begun as the model begins a text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tokamak.errors import InvalidParams
from tokamak.tokenizers import Tokenizer
from tokamak.types import Ints

__all__ = ["Windows", "cut"]


@dataclass(frozen=True, slots=True)
class Windows:
    """token_ids: i32[N, context], in the order of the text; what does not fill a window is left out.

    first: in each window the first token is replaced with this one (the model's bos) when it is read, None: not.
    """

    token_ids: Ints
    first: int | None

    @property
    def context(self) -> int:
        """Tokens per window."""
        return int(self.token_ids.shape[1])

    def __len__(self) -> int:
        return len(self.token_ids)

    def __iter__(self) -> Iterator[Ints]:
        """What the model reads: i32[context]."""
        for row in self.token_ids:
            read = row.copy()
            if self.first is not None:
                read[0] = self.first
            yield read


def cut(text: str, tokenizer: Tokenizer, context: int, chunks: int | None = None) -> Windows:
    """Tokenise `text` as a model begins it and cut it in windows of `context` tokens, at most `chunks` of them.

    Raises: InvalidParams for less than one window of text, or a context below 4.
    """
    if context < 4 or (chunks is not None and chunks < 1):
        raise InvalidParams(f"windows of {context} tokens, {chunks} of them: at least 4 and 1 are needed")
    ids = np.asarray(tokenizer.encode(text, add_special=True), dtype=np.int32)
    count = len(ids) // context
    if not count:
        raise InvalidParams(
            f"the text has {len(ids)} tokens, less than one window of {context}: give a longer text or a smaller --context"
        )
    count = min(count, chunks or count)
    first = tokenizer.bos_id if tokenizer.add_bos else None
    return Windows(ids[: count * context].reshape(count, context), first)
