"""The interface of tiktoken 0.14 over `tokamak.Tokenizer`: same names, same ids, same errors.

As in tiktoken, a lone surrogate becomes U+FFFD, text that the pattern does not match is dropped, and names of special
tokens in a text raise ValueError unless they are allowed. `encode_with_unstable` is refused by name.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tokamak.compat.encodings import NAMES, encoding_name_for_model, file_of, known
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.tiktoken import PUBLISHED, ranks_of, spec_from_ranks
from tokamak.tokenizers.spec import ABSENT

__all__ = [
    "Encoding",
    "encoding_for_model",
    "encoding_name_for_model",
    "get_encoding",
    "list_encoding_names",
]
All = Literal["all"]


@functools.cache
def get_encoding(encoding_name: str) -> Encoding:
    """An encoding by name, made once per process.

    Its file is taken from tokamak's or tiktoken's cache, else downloaded unless TOKAMAK_OFFLINE is set.
    Raises: ValueError for a name that is not known, UnavailableError if the file cannot be had.
    """
    named = known(encoding_name)
    published = next(p for p in PUBLISHED.values() if p.name == named.file)
    return Encoding(
        encoding_name,
        pat_str=published.pattern,
        mergeable_ranks=ranks_of(file_of(named.file)),
        special_tokens={**published.special, **named.more_special},
        explicit_n_vocab=named.explicit_n_vocab,
    )


def encoding_for_model(model_name: str) -> Encoding:
    """The encoding that a model of OpenAI uses. Raises: KeyError for a model that is not known."""
    return get_encoding(encoding_name_for_model(model_name))


def list_encoding_names() -> list[str]:
    """What get_encoding knows."""
    return list(NAMES)


class Encoding:
    """Ranks of byte strings, a pattern that cuts words, special tokens."""

    def __init__(
        self,
        name: str,
        *,
        pat_str: str,
        mergeable_ranks: Mapping[bytes, int],
        special_tokens: Mapping[str, int],
        explicit_n_vocab: int | None = None,
    ) -> None:
        self.name = name
        self._pat_str = pat_str
        self._special_tokens = dict(special_tokens)
        self.max_token_value = max(*mergeable_ranks.values(), *special_tokens.values(), 0)
        if explicit_n_vocab is not None:
            count = len(mergeable_ranks) + len(special_tokens)
            if count != explicit_n_vocab or self.max_token_value != explicit_n_vocab - 1:
                raise InvalidParams(
                    f"explicit_n_vocab = {explicit_n_vocab}, but there are {count} tokens up to {self.max_token_value}"
                )
        self._tokenizer = Tokenizer(spec_from_ranks(mergeable_ranks, pat_str, special_tokens))

    @classmethod
    def from_file(
        cls, path: str | Path, *, pat_str: str | None = None, special_tokens: Mapping[str, int] | None = None
    ) -> Encoding:
        """A .tiktoken file; beyond tiktoken. Raises: as `Tokenizer.load`."""
        tokenizer = Tokenizer.load(path, pattern=pat_str, special_tokens=special_tokens)
        made = cls.__new__(cls)
        made.name = Path(path).stem
        made._pat_str = pat_str or ""  # noqa: SLF001  its own
        made._special_tokens = tokenizer.special_tokens  # noqa: SLF001  its own
        made._tokenizer = tokenizer  # noqa: SLF001  its own
        made.max_token_value = tokenizer.vocab_size - 1
        return made

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer under this interface."""
        return self._tokenizer

    def __repr__(self) -> str:
        return f"<Encoding {self.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Encoding) and (self.name, self._tokenizer) == (other.name, other._tokenizer)

    def __hash__(self) -> int:
        return hash((self.name, self._tokenizer))

    # -- encoding

    def encode_ordinary(self, text: str) -> list[int]:
        """Ids of a text in which nothing is special."""
        return self._tokenizer.encode(text, add_special=False)

    def encode(
        self,
        text: str,
        *,
        allowed_special: All | AbstractSet[str] = frozenset(),
        disallowed_special: All | Collection[str] = "all",
    ) -> list[int]:
        """Ids of a text. allowed_special: names that are read as tokens. disallowed_special: names that raise.

        Raises: ValueError (InvalidParams) if a disallowed name is in the text.
        """
        allowed = self.special_tokens_set if allowed_special == "all" else set(allowed_special)
        forbidden = (
            self.special_tokens_set - allowed if disallowed_special == "all" else set(disallowed_special)
        )
        if forbidden and (match := _any_of(frozenset(forbidden)).search(text)):
            raise InvalidParams(_disallowed(match[0]))
        allowed &= self.special_tokens_set
        if not allowed:
            return self.encode_ordinary(text)
        if allowed == self.special_tokens_set:
            return self._tokenizer.encode(text, add_special=False, parse_special=True)
        ids: list[int] = []
        for i, part in enumerate(_any_of(frozenset(self.special_tokens_set), keep=True).split(text)):
            if i % 2 and part in allowed:
                ids.append(self._special_tokens[part])
            elif i % 2:
                return self._encode_allowed(text, allowed)  # the rest of a name may hold another
            else:
                ids += self.encode_ordinary(part)
        return ids

    def _encode_allowed(self, text: str, allowed: AbstractSet[str]) -> list[int]:
        """Names that are not allowed are text: a search goes on one character after the start of such a name."""
        names = _any_of(frozenset(self.special_tokens_set))
        ids: list[int] = []
        start = at = 0
        while match := names.search(text, at):
            if match[0] not in allowed:
                at = match.start() + 1
                continue
            ids += [*self.encode_ordinary(text[start : match.start()]), self._special_tokens[match[0]]]
            start = at = match.end()
        return ids + self.encode_ordinary(text[start:])

    def encode_to_numpy(
        self,
        text: str,
        *,
        allowed_special: All | AbstractSet[str] = frozenset(),
        disallowed_special: All | Collection[str] = "all",
    ) -> NDArray[np.uint32]:
        """The same as uint32[n]."""
        ids = self.encode(text, allowed_special=allowed_special, disallowed_special=disallowed_special)
        return np.array(ids, np.uint32)

    def encode_ordinary_batch(self, text: Sequence[str], *, num_threads: int = 8) -> list[list[int]]:
        """Ids of many texts, in order, without the GIL."""
        batch = self._tokenizer.encode_batch(text, num_threads, add_special=False)
        return [row.tolist() for row in batch]

    def encode_batch(
        self,
        text: Sequence[str],
        *,
        num_threads: int = 8,
        allowed_special: All | AbstractSet[str] = frozenset(),
        disallowed_special: All | Collection[str] = "all",
    ) -> list[list[int]]:
        """The same with special tokens as in `encode`."""
        allowed = self.special_tokens_set if allowed_special == "all" else set(allowed_special)
        if not allowed and not disallowed_special:
            return self.encode_ordinary_batch(text, num_threads=num_threads)
        return [self.encode(t, allowed_special=allowed, disallowed_special=disallowed_special) for t in text]

    def encode_with_unstable(self, text: str, **_: Any) -> Any:
        """Refused. Raises: UnsupportedError."""
        raise UnsupportedError(f"encode_with_unstable is not implemented ({len(text)} characters given)")

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """Id of exactly one token, special ones too. Raises: KeyError if there is none of that text."""
        if isinstance(text_or_bytes, str) and text_or_bytes in self._special_tokens:
            return self._special_tokens[text_or_bytes]
        data = text_or_bytes.encode("utf-8") if isinstance(text_or_bytes, str) else text_or_bytes
        if data in self._ranks:
            return self._ranks[data]
        name = data.decode("utf-8", "replace")
        if name in self._special_tokens:
            return self._special_tokens[name]
        raise KeyError(text_or_bytes)

    # -- decoding

    def decode_bytes(self, tokens: Sequence[int]) -> bytes:
        """Bytes of ids. Raises: KeyError for an id that no token has."""
        self._check(tokens)
        return self._tokenizer.decode_bytes(tokens)

    def decode(self, tokens: Sequence[int], errors: str = "replace") -> str:
        """Text of ids. errors: as in bytes.decode. Raises: KeyError for an id that no token has."""
        if errors == "replace":
            self._check(tokens)
            return self._tokenizer.decode(tokens)
        return self.decode_bytes(tokens).decode("utf-8", errors)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """Bytes of one token. Raises: KeyError for an id that no token has."""
        self._check((token,))
        return self._tokenizer.id_to_bytes(token)

    def decode_tokens_bytes(self, tokens: Sequence[int]) -> list[bytes]:
        """Bytes of each token."""
        return [self.decode_single_token_bytes(token) for token in tokens]

    def decode_with_offsets(self, tokens: Sequence[int]) -> tuple[str, list[int]]:
        """Text, and where in it (in code points) each token starts; a token that starts inside a character starts at it.

        Raises: UnicodeDecodeError if the whole is not UTF-8.
        """
        offsets = []
        length = 0
        each = self.decode_tokens_bytes(tokens)
        for data in each:
            offsets.append(max(0, length - (0x80 <= data[0] < 0xC0)))
            length += sum(1 for byte in data if not 0x80 <= byte < 0xC0)
        return b"".join(each).decode("utf-8"), offsets

    def decode_batch(
        self, batch: Sequence[Sequence[int]], *, errors: str = "replace", num_threads: int = 8
    ) -> list[str]:
        """Texts of many lists of ids."""
        del num_threads  # copying bytes is quicker than starting threads
        return [self.decode(tokens, errors) for tokens in batch]

    def decode_bytes_batch(self, batch: Sequence[Sequence[int]], *, num_threads: int = 8) -> list[bytes]:
        """Bytes of many lists of ids."""
        del num_threads
        return [self.decode_bytes(tokens) for tokens in batch]

    # -- vocabulary

    @functools.cached_property
    def _ranks(self) -> dict[bytes, int]:
        spec = self._tokenizer.spec
        ordinary = set(self._special_tokens.values())
        return {
            self._tokenizer.id_to_bytes(i): i
            for i in range(self._tokenizer.vocab_size)
            if spec.roles[i] != ABSENT and i not in ordinary
        }

    @functools.cached_property
    def _gaps(self) -> frozenset[int]:
        return frozenset(np.flatnonzero(self._tokenizer.spec.roles == ABSENT).tolist())

    def _check(self, tokens: Sequence[int]) -> None:
        size = self._tokenizer.vocab_size
        for token in tokens if self._gaps else ():
            if token in self._gaps:
                raise KeyError(f"Invalid token for decoding: {token}")
        if len(tokens) and not (min(tokens) >= 0 and max(tokens) < size):
            raise KeyError(f"Invalid token for decoding: {max(tokens)}")

    def token_byte_values(self) -> list[bytes]:
        """Bytes of every token that is not special, sorted."""
        return sorted(self._ranks)

    @property
    def eot_token(self) -> int:
        """Id of <|endoftext|>. Raises: KeyError if there is none."""
        return self._special_tokens["<|endoftext|>"]

    @functools.cached_property
    def special_tokens_set(self) -> set[str]:
        """Names of the special tokens."""
        return set(self._special_tokens)

    def is_special_token(self, token: int) -> bool:
        """Whether an id is that of a special token."""
        return token in set(self._special_tokens.values())

    @property
    def n_vocab(self) -> int:
        """One more than the highest id."""
        return self.max_token_value + 1


@functools.lru_cache(maxsize=128)
def _any_of(names: frozenset[str], keep: bool = False) -> re.Pattern[str]:
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(f"({pattern})" if keep else pattern)


def _disallowed(token: str) -> str:
    return (
        f"Encountered text corresponding to disallowed special token {token!r}.\n"
        "If you want this text to be encoded as a special token, "
        f"pass it to `allowed_special`, e.g. `allowed_special={{{token!r}, ...}}`.\n"
        f"If you want this text to be encoded as normal text, disable the check for this token "
        f"by passing `disallowed_special=(enc.special_tokens_set - {{{token!r}}})`.\n"
        "To disable this check for all special tokens, pass `disallowed_special=()`.\n"
    )
