"""The vocabulary of a tokenizer.json: parsed as JSON, or in the columns that native code scanned it into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tokamak.errors import TokenizerFileError
from tokamak.tokenizers.spec import ABSENT, BYTE, NORMAL, USER_DEFINED, AddedToken, Strings

MOST = 4_000_000  # ids


class Vocabulary(Protocol):
    """Tokens of a model with their ids."""

    scores: NDArray[np.float64] | None  # f64[len(self)] of a vocabulary that is a list of pairs

    def __len__(self) -> int: ...
    def __contains__(self, token: object) -> bool: ...
    def get(self, token: str) -> int | None:
        """The id of a token."""

    def table(self) -> tuple[Strings, NDArray[np.uint8]]:
        """Tokens and roles (NORMAL or ABSENT) by id."""


class ParsedVocabulary:
    """Of a parsed file. Raises: TokenizerFileError where it is malformed."""

    def __init__(self, vocab: Any) -> None:
        self.scores: NDArray[np.float64] | None = None
        if isinstance(vocab, list):
            self.ids: dict[str, int] = {}
            for i, (piece, _) in enumerate(vocab):
                self.ids.setdefault(piece, i)  # a piece listed twice keeps its place in the list of scores
            self.scores = np.array([score for _, score in vocab], np.float64)
        elif isinstance(vocab, dict):
            self.ids = vocab
        else:
            raise TokenizerFileError("model.vocab is missing")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, token: object) -> bool:
        return token in self.ids

    def get(self, token: str) -> int | None:
        """The id of a token."""
        return self.ids.get(token)

    def table(self) -> tuple[Strings, NDArray[np.uint8]]:
        """Tokens and roles by id."""
        size = max(self.ids.values(), default=-1) + 1
        check_size(size)
        tokens = [""] * size
        roles = np.full(size, ABSENT, np.uint8)
        for token, i in self.ids.items():
            tokens[i] = token
        roles[list(self.ids.values())] = NORMAL
        return Strings.of(t.encode("utf-8", "surrogatepass") for t in tokens), roles


class ScannedVocabulary:
    """Of `_native.JsonColumns`."""

    def __init__(self, columns: Any) -> None:
        self.columns = columns
        self.scores: NDArray[np.float64] | None = columns.scores

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and self.get(token) is not None

    def get(self, token: str) -> int | None:
        """The id of a token."""
        found: int | None = self.columns.find(token.encode("utf-8", "surrogatepass"))
        return found

    def table(self) -> tuple[Strings, NDArray[np.uint8]]:
        """Tokens and roles by id."""
        return Strings(*self.columns.tokens), np.array(self.columns.present)  # 1 is NORMAL


def check_size(size: int) -> None:
    """Raises: TokenizerFileError for more ids than there can be."""
    if size > MOST:
        raise TokenizerFileError(f"an id of the vocabulary is {size - 1}: more than there can be tokens")


def table(
    vocab: Vocabulary, added: Sequence[AddedToken], byte_roles: bool
) -> tuple[Strings, NDArray[np.uint8]]:
    """Tokens and roles by id, with the added tokens that the model itself does not know as USER_DEFINED.

    byte_roles: whether <0x41> is the token of a byte.
    """
    tokens, roles = vocab.table()
    own = {t.id: t.content for t in added if t.id >= len(roles) or roles[t.id] == ABSENT}
    if own:
        size = max(len(roles), max(own) + 1)
        check_size(size)
        roles = np.concatenate([roles, np.full(size - len(roles), ABSENT, np.uint8)])
        roles[list(own)] = USER_DEFINED
        tokens = _with(tokens, own, size)
    if byte_roles:
        names = (vocab.get(f"<0x{b:02X}>") for b in range(256))
        roles[[i for i in names if i is not None]] = BYTE
    return tokens, roles


def _with(tokens: Strings, own: Mapping[int, str], size: int) -> Strings:
    if min(own) < len(tokens):  # in a hole between the model's tokens
        strings = [*tokens, *[b""] * (size - len(tokens))]
        for i, content in own.items():
            strings[i] = content.encode("utf-8", "surrogatepass")
        return Strings.of(strings)
    more = Strings.of(own.get(i, "").encode("utf-8", "surrogatepass") for i in range(len(tokens), size))
    offsets = np.concatenate([tokens.offsets, more.offsets[1:] + tokens.offsets[-1]])
    return Strings(np.concatenate([tokens.blob, more.blob]), offsets)
