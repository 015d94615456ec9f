"""Text out of token ids one at a time, never a broken character.

Bytes are held back only while they are the start of a valid UTF-8 sequence, three at most; what cannot
become one turns into U+FFFD at once, exactly as in a decode of the whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable


class TextStream:
    """Made by `Tokenizer.stream`. The pieces that `push` and `flush` return join to the decoded whole."""

    __slots__ = ("_decoder", "_each", "_is_byte", "_run", "_start", "_surface_id", "_text_of")

    def __init__(
        self,
        text_of: Callable[[int], bytes],
        *,
        strip_space: bool,
        strip_each: bool = False,
        surface_id: int = -1,
        is_byte: Callable[[int], bool] | None = None,
    ) -> None:
        """text_of: bytes of a token, b"" for one that is skipped. strip_space: drop one space at the start, strip_each: of
        every token until there is text, but not of surface_id, the unknown token.

        is_byte: which tokens are single bytes, where runs of them are valid or not as a whole: a run is then held back
        until it ends.
        """
        self._text_of = text_of
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._start = strip_space
        self._each = strip_each
        self._surface_id = surface_id
        self._is_byte = is_byte
        self._run = b""

    def push(self, token_id: int) -> str:
        """Add a token; returns the text that is now certain, often empty. Raises: InvalidParams for a bad id."""
        data = self._text_of(token_id)
        if token_id == self._surface_id:
            self._start = False
        if self._is_byte is not None and data:
            if self._is_byte(token_id):
                self._run += data
                return ""
            data = self._whole_run() + data
        return self._decoder.decode(self._stripped(data))

    def flush(self) -> str:
        """What was held back, as U+FFFD where it is no text; the stream then goes on in the middle of a text."""
        return self._decoder.decode(self._stripped(self._whole_run()), final=True)

    def _stripped(self, data: bytes) -> bytes:
        if self._start and data:
            rest = data.removeprefix(b" ")
            self._start = self._each and not rest
            return rest
        return data

    def _whole_run(self) -> bytes:
        run, self._run = self._run, b""
        try:
            run.decode("utf-8")
        except UnicodeDecodeError:
            return "\ufffd".encode() * len(run)
        return run


class WholeStream:
    """The same for decoders whose text of a token depends on its neighbours: decodes the ids so far again."""

    __slots__ = ("_decode", "_ids", "_shown")

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token_id: int) -> str:
        """Add a token; returns what it added, if all that was shown still stands."""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith("\ufffd") or not text.startswith(self._shown):
            return ""
        new = text[len(self._shown) :]
        self._shown = text
        return new

    def flush(self) -> str:
        """What is left."""
        text = self._decode(self._ids)
        new = text[len(self._shown) :] if text.startswith(self._shown) else ""
        self._ids, self._shown = [], ""
        return new
