"""Text out of token ids one at a time, never a broken character.

Bytes are held back only while they are the start of a valid UTF-8 sequence, three at most; what cannot
become one turns into U+FFFD at once, exactly as in a decode of the whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class TextStream:
    """Made by `Tokenizer.stream`. The pieces that `push` and `flush` return join to the decoded whole."""

    __slots__ = ("_decoder", "_start", "_text_of")

    def __init__(self, text_of: Callable[[int], bytes], *, strip_space: bool) -> None:
        """text_of: bytes of a token, b"" for one that is skipped. strip_space: drop one space at the start."""
        self._text_of = text_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._start = strip_space

    def push(self, token_id: int) -> str:
        """Add a token; returns the text that is now certain, often empty. Raises: InvalidParams for a bad id."""
        data = self._text_of(token_id)
        if self._start and data:
            self._start = False
            data = data.removeprefix(b" ")
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What was held back, as U+FFFD; the stream then starts afresh in the middle of a text."""
        return self._decoder.decode(b"", final=True)
