"""What `PreTrainedTokenizerFast` gives: columns by name, as lists, NumPy arrays or tensors."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokamak.compat.hf_encoding import Encoding
from tokamak.errors import InvalidParams


class BatchEncoding(UserDict[str, Any]):
    """`input_ids` and its like by name or attribute; by number, the `Encoding` of that row."""

    def __init__(self, columns: Mapping[str, Any], encodings: Sequence[Encoding] | None) -> None:
        super().__init__(columns)
        self._encodings = None if encodings is None else list(encodings)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, str):
            return self.data[item]
        return self._of(item)

    def __getattr__(self, name: str) -> Any:
        columns = self.__dict__.get("data", {})
        if name in columns:
            return columns[name]
        raise AttributeError(name)

    def _of(self, row: int) -> Encoding:
        if self._encodings is None:
            raise InvalidParams("these rows were padded by themselves, without the encodings they come from")
        return self._encodings[row]

    @property
    def is_fast(self) -> bool:
        return self._encodings is not None

    @property
    def encodings(self) -> list[Encoding] | None:
        return self._encodings

    @property
    def n_sequences(self) -> int | None:
        return self._encodings[0].n_sequences if self._encodings else None

    def tokens(self, batch_index: int = 0) -> list[str]:
        return self._of(batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        return self._of(batch_index).word_ids

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        return self._of(batch_index).sequence_ids

    def char_to_token(
        self, batch_or_char: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        row, place = _row_and(batch_or_char, char)
        return self._of(row).char_to_token(place, sequence_index)

    def token_to_chars(self, batch_or_token: int, token: int | None = None) -> tuple[int, int] | None:
        row, place = _row_and(batch_or_token, token)
        return self._of(row).token_to_chars(place)

    def token_to_word(self, batch_or_token: int, token: int | None = None) -> int | None:
        row, place = _row_and(batch_or_token, token)
        return self._of(row).token_to_word(place)

    def word_to_tokens(
        self, batch_or_word: int, word: int | None = None, sequence_index: int = 0
    ) -> tuple[int, int] | None:
        row, place = _row_and(batch_or_word, word)
        return self._of(row).word_to_tokens(place, sequence_index)

    def word_to_chars(
        self, batch_or_word: int, word: int | None = None, sequence_index: int = 0
    ) -> tuple[int, int] | None:
        row, place = _row_and(batch_or_word, word)
        return self._of(row).word_to_chars(place, sequence_index)

    def char_to_word(
        self, batch_or_char: int, char: int | None = None, sequence_index: int = 0
    ) -> int | None:
        row, place = _row_and(batch_or_char, char)
        return self._of(row).char_to_word(place, sequence_index)

    def convert_to_tensors(self, tensor_type: str | None = None) -> BatchEncoding:
        """Turn the columns into arrays or tensors, in place."""
        self.data = tensors_of(self.data, tensor_type)
        return self

    def to(self, device: Any, *, non_blocking: bool = False) -> BatchEncoding:
        """Move tensors to a device, in place."""
        for name, value in self.data.items():
            if hasattr(value, "to"):
                self.data[name] = value.to(device, non_blocking=non_blocking)
        return self


def _row_and(first: int, second: int | None) -> tuple[int, int]:
    return (0, first) if second is None else (first, second)


def tensors_of(columns: Mapping[str, Any], kind: str | None) -> dict[str, Any]:
    """Columns as lists (None), NumPy arrays ("np") or PyTorch tensors ("pt").

    Raises: ValueError for another kind, or for rows of different lengths.
    """
    if kind is None:
        return dict(columns)
    if kind not in ("np", "pt"):
        raise InvalidParams(f"return_tensors = {kind!r}: np or pt")
    try:
        arrays = {name: np.array(column, np.int64) for name, column in columns.items()}
    except ValueError as e:
        raise InvalidParams(
            "Unable to create tensor: the rows have different lengths; use padding=True and truncation=True"
        ) from e
    if kind == "np":
        return arrays
    import torch

    return {name: torch.from_numpy(array) for name, array in arrays.items()}
