"""`tokenizers.Encoding` over `tokamak.tokenizers.Encoding`: lists for arrays, and the ways between characters, words, tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tokamak.errors import InvalidParams
from tokamak.tokenizers import Padding
from tokamak.tokenizers.encoding import Encoding as Arrays
from tokamak.tokenizers.encoding import cut, joined, padded


class Encoding:
    """What `Tokenizer.encode` gives. Sequence ids of tokens around a text and of padding are None, always."""

    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __repr__(self) -> str:
        names = "ids, type_ids, tokens, offsets, attention_mask, special_tokens_mask, overflowing"
        return f"Encoding(num_tokens={len(self)}, attributes=[{names}])"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Encoding):
            return NotImplemented
        names = ("ids", "tokens", "offsets", "attention_mask", "type_ids", "word_ids", "overflowing")
        return all(getattr(self, n) == getattr(other, n) for n in names)

    __hash__ = None  # type: ignore[assignment]  # it can change, as the original can

    @cached_property
    def ids(self) -> list[int]:
        ids: list[int] = self.arrays.ids.tolist()
        return ids

    @property
    def tokens(self) -> list[str]:
        return list(self.arrays.pieces)

    @cached_property
    def offsets(self) -> list[tuple[int, int]]:
        return [(a, b) for a, b in self.arrays.char_spans.tolist()]

    @property
    def attention_mask(self) -> list[int]:
        mask: list[int] = self.arrays.mask.tolist()
        return mask

    @property
    def type_ids(self) -> list[int]:
        types: list[int] = self.arrays.type_ids.tolist()
        return types

    @property
    def special_tokens_mask(self) -> list[int]:
        mask: list[int] = self.arrays.special_mask.tolist()
        return mask

    @property
    def overflowing(self) -> list[Encoding]:
        return [Encoding(part) for part in self.arrays.overflowing]

    @property
    def word_ids(self) -> list[int | None]:
        return [None if w < 0 else w for w in self.arrays.words.tolist()]

    words = word_ids

    @property
    def sequence_ids(self) -> list[int | None]:
        return [None if t < 0 else t for t in self.arrays.texts.tolist()]

    @property
    def n_sequences(self) -> int:
        return max(1, int(self.arrays.texts.max(initial=0)) + 1)

    # -- between characters, words and tokens; None where there is nothing

    def char_to_token(self, char_pos: int, sequence_index: int = 0) -> int | None:
        """The first token that holds a character of a text."""
        spans, texts = self.arrays.char_spans, self.arrays.texts
        found = np.flatnonzero(
            (texts == sequence_index) & (spans[:, 0] <= char_pos) & (char_pos < spans[:, 1])
        )
        return int(found[0]) if len(found) else None

    def char_to_word(self, char_pos: int, sequence_index: int = 0) -> int | None:
        token = self.char_to_token(char_pos, sequence_index)
        return None if token is None else self.token_to_word(token)

    def token_to_sequence(self, token_index: int) -> int | None:
        if not 0 <= token_index < len(self):
            return None
        text = int(self.arrays.texts[token_index])
        return None if text < 0 else text

    def token_to_chars(self, token_index: int) -> tuple[int, int] | None:
        return None if self.token_to_sequence(token_index) is None else self.offsets[token_index]

    def token_to_word(self, token_index: int) -> int | None:
        return None if self.token_to_sequence(token_index) is None else self.word_ids[token_index]

    def word_to_tokens(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        """[first, last + 1) of the tokens of a word."""
        same = (self.arrays.texts == sequence_index) & (self.arrays.words == word_index)
        found = np.flatnonzero(same)
        return (int(found[0]), int(found[-1]) + 1) if len(found) else None

    def word_to_chars(self, word_index: int, sequence_index: int = 0) -> tuple[int, int] | None:
        tokens = self.word_to_tokens(word_index, sequence_index)
        if tokens is None:
            return None
        return self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1]

    # -- changes in place, as in the original

    def _replace(self, arrays: Arrays) -> None:
        self.arrays = arrays
        for name in ("ids", "offsets"):
            self.__dict__.pop(name, None)

    def set_sequence_id(self, sequence_id: int) -> None:
        self._replace(self.arrays.of_text(sequence_id))

    def truncate(self, max_length: int, stride: int = 0, direction: str = "right") -> None:
        """Keep max_length tokens; the rest overflows."""
        if direction not in ("left", "right"):
            raise InvalidParams(f"direction = {direction!r}: left or right")
        self._replace(cut(self.arrays, max_length, stride, direction))

    def pad(
        self,
        length: int,
        direction: str = "right",
        pad_id: int = 0,
        pad_type_id: int = 0,
        pad_token: str = "[PAD]",  # noqa: S107  a token
    ) -> None:
        """Fill up to `length` tokens."""
        padding = Padding(length, None, direction, pad_id, pad_type_id, pad_token)
        self._replace(padded(self.arrays, length, padding, pad_token, pad_id))

    @staticmethod
    def merge(encodings: Sequence[Encoding], growing_offsets: bool = True) -> Encoding:
        """One after the other. growing_offsets: each continues where the one before ended."""
        parts: list[Arrays] = []
        at = 0
        for encoding in encodings:
            part = encoding.arrays
            if growing_offsets and at:
                part = _moved(part, at)
            at = max(at, int(part.char_spans[:, 1].max(initial=0)))
            parts.append(part)
        return Encoding(joined(parts))


def _moved(arrays: Arrays, by: int) -> Arrays:
    fields: dict[str, Any] = {name: getattr(arrays, name) for name in Arrays.__slots__}
    fields["char_spans"] = arrays.char_spans + by
    return Arrays(**fields)
