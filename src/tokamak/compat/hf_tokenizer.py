"""`tokenizers.Tokenizer` over `tokamak.Tokenizer`: same names, ids and offsets as tokenizers 0.23.

Differences: text with lone surrogates is read with U+FFFD instead of refused; `max_length` below the tokens around a text
raises; parts are set up in the file, so `model`, `normalizer`, ... are given as data and cannot be assigned.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.compat.hf_encoding import Encoding
from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.tokenizers import Padding, Strings, TokenizerSpec, Truncation
from tokamak.tokenizers import Tokenizer as Native
from tokamak.tokenizers.encoding import Encoding as Arrays
from tokamak.tokenizers.encoding import joined
from tokamak.tokenizers.files.hf_json import rust_float, spec_from_data
from tokamak.tokenizers.files.opening import config_beside, read_json
from tokamak.tokenizers.shaping import name_of, one_text, shaped
from tokamak.tokenizers.spec import ABSENT, CONTROL, USER_DEFINED
from tokamak.tokenizers.spec import AddedToken as SpecToken


@dataclass(slots=True)
class AddedToken:
    """A token that is found in a text before the model sees it."""

    content: str
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool | None = None  # None: unless it is special
    special: bool = False
    _by_default: bool = field(default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._by_default = self._by_default or self.normalized is None
        if self._by_default:
            self.normalized = not self.special

    def __str__(self) -> str:
        return self.content


class Tokenizer:
    """A tokenizer.json, or any tokenizer of tokamak."""

    def __init__(self, tokenizer: Native, data: dict[str, Any] | None = None) -> None:
        """data: the parsed tokenizer.json it was made from, if it was."""
        if not isinstance(tokenizer, Native):
            raise UnsupportedError(
                "a Tokenizer is made from a file (from_file, from_str) or a tokamak.Tokenizer, not from parts"
            )
        self._native = tokenizer
        self._data = data
        self.encode_special_tokens = False  # read names of special tokens as text
        self._truncation: Truncation | None = None
        self._padding: Padding | None = None
        if data is not None:
            self._apply_defaults(data)

    # -- files

    @classmethod
    def from_str(cls, json: str) -> Tokenizer:
        """A tokenizer.json as text. Raises: TokenizerFileError, UnsupportedError."""
        data = read_json(json.encode("utf-8", "surrogatepass"), rust_float)
        return cls(Native(spec_from_data(data)), data)

    @classmethod
    def from_buffer(cls, buffer: bytes) -> Tokenizer:
        """A tokenizer.json as bytes."""
        data = read_json(bytes(buffer), rust_float)
        return cls(Native(spec_from_data(data)), data)

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """A tokenizer.json, or any file or directory that `tokamak.Tokenizer.load` opens."""
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        content = file.read_bytes() if file.is_file() else b""
        if content.lstrip()[:1] == b"{":
            data = read_json(content, rust_float)
            if isinstance(data.get("model"), dict):
                return cls(Native(spec_from_data(data, config_beside(file))), data)
        return cls(Native.load(path))

    @classmethod
    def from_pretrained(cls, identifier: str, revision: str = "main", token: str | None = None) -> Tokenizer:
        """A directory on this machine. Raises: UnavailableError for a name of a hub."""
        del token
        if not Path(identifier).exists():
            raise UnavailableError(
                f"{identifier!r} (revision {revision}) is no directory here: download it, then give its path"
            )
        return cls.from_file(identifier)

    def to_str(self, pretty: bool = False) -> str:
        """The tokenizer.json with added tokens, truncation and padding as they are now.

        Raises: UnsupportedError for a tokenizer that this format cannot say.
        """
        from tokamak.tokenizers.files.hf_write import added_entries, data_from_spec

        data = dict(data_from_spec(self._native.spec) if self._data is None else self._data)
        data["added_tokens"] = added_entries(self._native.spec)
        data["truncation"], data["padding"] = self._written_truncation(), self._written_padding()
        return json.dumps(data, ensure_ascii=False, indent=2 if pretty else None)

    def save(self, path: str | Path, pretty: bool = True) -> None:
        """Write the tokenizer.json."""
        Path(path).write_text(self.to_str(pretty), encoding="utf-8")

    def __reduce__(self) -> Any:
        state = (self._truncation, self._padding, self.encode_special_tokens)
        return (_restored, (self._native, self._data, state))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self._native == other._native

    def __hash__(self) -> int:
        return hash(self._native)

    def __repr__(self) -> str:
        return f"<tokamak.hf.Tokenizer {self._native.spec.kind} of {self._native.vocab_size} ids>"

    @property
    def tokenizer(self) -> Native:
        """The tokenizer under this interface."""
        return self._native

    def __getattr__(self, name: str) -> Any:
        if name in ("model", "normalizer", "pre_tokenizer", "post_processor", "decoder"):
            return None if self._data is None else self._data.get(name)
        if name in ("train", "train_from_iterator"):
            raise UnsupportedError(f"{name} is not here: use tokamak.tokenizers.training or train-tokenizer")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # -- truncation and padding

    def _apply_defaults(self, data: dict[str, Any]) -> None:
        cut, fill = data.get("truncation"), data.get("padding")
        if cut:
            strategy = {
                "LongestFirst": "longest_first",
                "OnlyFirst": "only_first",
                "OnlySecond": "only_second",
            }
            self._truncation = Truncation(
                cut["max_length"],
                strategy[cut.get("strategy", "LongestFirst")],
                cut.get("stride", 0),
                cut.get("direction", "Right").lower(),
            )
        if fill:
            length = fill.get("strategy", "BatchLongest")
            self._padding = Padding(
                length["Fixed"] if isinstance(length, dict) else None,
                fill.get("pad_to_multiple_of"),
                fill.get("direction", "Right").lower(),
                fill.get("pad_id", 0),
                fill.get("pad_type_id", 0),
                fill.get("pad_token", "[PAD]"),
            )

    def _written_truncation(self) -> dict[str, Any] | None:
        if (cut := self._truncation) is None:
            return None
        strategy = "".join(part.capitalize() for part in cut.strategy.split("_"))
        named = {"direction": cut.direction.capitalize(), "max_length": cut.max_length}
        return named | {"strategy": strategy, "stride": cut.stride}

    def _written_padding(self) -> dict[str, Any] | None:
        if (fill := self._padding) is None:
            return None
        return {
            "strategy": "BatchLongest" if fill.length is None else {"Fixed": fill.length},
            "direction": fill.direction.capitalize(),
            "pad_to_multiple_of": fill.multiple_of,
            "pad_id": fill.id,
            "pad_type_id": fill.type_id,
            "pad_token": fill.piece,
        }

    def enable_truncation(
        self, max_length: int, stride: int = 0, strategy: str = "longest_first", direction: str = "right"
    ) -> None:
        """Cut from now on. Raises: ValueError for a stride that is not below what a text may keep."""
        room = max_length - self.num_special_tokens_to_add(is_pair=False)
        if stride > max(room, 0):
            raise InvalidParams(f"tokenizer stride set to {stride}, but a text keeps {room} tokens at most")
        self._truncation = Truncation(max_length, strategy, stride, direction)

    def no_truncation(self) -> None:
        """Do not cut."""
        self._truncation = None

    @property
    def truncation(self) -> dict[str, Any] | None:
        """What enable_truncation set, or None."""
        cut = self._truncation
        if cut is None:
            return None
        named = {"max_length": cut.max_length, "stride": cut.stride}
        return named | {"strategy": cut.strategy, "direction": cut.direction}

    def enable_padding(
        self,
        direction: str = "right",
        pad_id: int = 0,
        pad_type_id: int = 0,
        pad_token: str = "[PAD]",  # noqa: S107  a token
        length: int | None = None,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        """Fill up from now on, to `length` or the longest of a batch."""
        self._padding = Padding(length, pad_to_multiple_of, direction, pad_id, pad_type_id, pad_token)

    def no_padding(self) -> None:
        """Do not fill up."""
        self._padding = None

    @property
    def padding(self) -> dict[str, Any] | None:
        """What enable_padding set, or None."""
        fill = self._padding
        if fill is None:
            return None
        named = {"length": fill.length, "pad_to_multiple_of": fill.multiple_of, "pad_id": fill.id}
        return named | {"pad_token": fill.piece, "pad_type_id": fill.type_id, "direction": fill.direction}

    # -- encoding

    def encode(
        self,
        sequence: str | Sequence[str],
        pair: str | Sequence[str] | None = None,
        is_pretokenized: bool = False,
        add_special_tokens: bool = True,
    ) -> Encoding:
        """One text or two; of words where is_pretokenized."""
        texts = [self._one(sequence, is_pretokenized, 0)]
        if pair is not None:
            texts.append(self._one(pair, is_pretokenized, 1))
        arrays = shaped(texts, self._native.spec, add_special_tokens, self._truncation)
        return Encoding(arrays if self._padding is None else self._native.pad([arrays], self._padding)[0])

    def _one(self, text: Any, is_pretokenized: bool, type_id: int) -> Arrays:
        engine, spec, special = self._native.engine, self._native.spec, not self.encode_special_tokens
        if not is_pretokenized:
            if not isinstance(text, str):
                raise TypeError(f"TextInputSequence must be str, not {type(text).__name__}")
            return one_text(engine, spec, text, special, type_id)
        if isinstance(text, str) or not all(isinstance(word, str) for word in text):
            raise TypeError("PreTokenizedInputSequence must be a list or tuple of str")
        words = [one_text(engine, spec, word, special, type_id) for word in text]
        numbered = [
            replace(word, words=np.full(len(word), i, np.int32)) for i, word in enumerate(words) if len(word)
        ]
        return joined(numbered).of_text(type_id)

    def encode_batch(
        self,
        input: Sequence[Any],  # noqa: A002  the original's name
        is_pretokenized: bool = False,
        add_special_tokens: bool = True,
    ) -> list[Encoding]:
        """Many texts or pairs (tuples of two, or lists of two where texts are strings)."""
        padding, self._padding = self._padding, None
        try:
            many = [self._any(entry, is_pretokenized, add_special_tokens).arrays for entry in input]
        finally:
            self._padding = padding
        return [Encoding(a) for a in (many if padding is None else self._native.pad(many, padding))]

    encode_batch_fast = encode_batch

    def _any(self, entry: Any, is_pretokenized: bool, add_special_tokens: bool) -> Encoding:
        pair = isinstance(entry, (list, tuple)) and len(entry) == 2
        if is_pretokenized:
            pair = pair and not any(isinstance(part, str) for part in entry)
        if pair:
            return self.encode(entry[0], entry[1], is_pretokenized, add_special_tokens)
        return self.encode(entry, None, is_pretokenized, add_special_tokens)

    def post_process(
        self, encoding: Encoding, pair: Encoding | None = None, add_special_tokens: bool = True
    ) -> Encoding:
        """Cut, put in the template and fill up what has nothing around it yet."""
        texts = [e.arrays for e in (encoding, pair) if e is not None]
        arrays = shaped(texts, self._native.spec, add_special_tokens, self._truncation)
        return Encoding(arrays if self._padding is None else self._native.pad([arrays], self._padding)[0])

    def num_special_tokens_to_add(self, is_pair: bool) -> int:
        """Tokens around one text, or two."""
        texts = [self._one("", False, i) for i in range(2 if is_pair else 1)]
        return len(shaped(texts, self._native.spec, True, None))

    async def async_encode(self, *args: Any, **kwargs: Any) -> Encoding:
        """`encode` in another thread."""
        return await asyncio.to_thread(self.encode, *args, **kwargs)

    async def async_encode_batch(self, *args: Any, **kwargs: Any) -> list[Encoding]:
        """`encode_batch` in another thread."""
        return await asyncio.to_thread(self.encode_batch, *args, **kwargs)

    async_encode_batch_fast = async_encode_batch

    # -- decoding

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of ids; those that no token has are left out."""
        size = self._native.vocab_size
        return self._native.decode([i for i in ids if 0 <= i < size], skip_special_tokens)

    def decode_batch(self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """Texts of many lists of ids."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    async def async_decode_batch(self, *args: Any, **kwargs: Any) -> list[str]:
        """`decode_batch` in another thread."""
        return await asyncio.to_thread(self.decode_batch, *args, **kwargs)

    # -- vocabulary

    def token_to_id(self, token: str) -> int | None:
        """Id of a token, or None."""
        added = {t.content: t.id for t in self._native.added_tokens}
        return added[token] if token in added else self._native.token_to_id(token)

    def id_to_token(self, id: int) -> str | None:  # noqa: A002  the original's name
        """A token, or None."""
        if not 0 <= id < self._native.vocab_size or self._native.spec.roles[id] == ABSENT:
            return None
        return self._native.id_to_token(id)

    def get_vocab(self, with_added_tokens: bool = True) -> dict[str, int]:
        """Token -> id."""
        spec = self._native.spec
        outside = self._only_added()
        vocab = {
            name_of(spec, i): i for i in np.flatnonzero(spec.roles != ABSENT).tolist() if i not in outside
        }
        return vocab | {t.content: t.id for t in spec.added} if with_added_tokens else vocab

    def _only_added(self) -> set[int]:
        """Ids of added tokens that the model does not know."""
        spec = self._native.spec
        if self._data is None:
            return {t.id for t in spec.added if spec.roles[t.id] in (USER_DEFINED, CONTROL)}
        return {t.id for t in spec.added if spec.roles[t.id] == USER_DEFINED}

    def get_vocab_size(self, with_added_tokens: bool = True) -> int:
        """Number of tokens."""
        return len(self.get_vocab(with_added_tokens))

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """Id -> added token."""
        return {
            t.id: AddedToken(t.content, t.single_word, t.lstrip, t.rstrip, t.normalized, t.special)
            for t in sorted(self._native.added_tokens, key=lambda t: t.id)
        }

    def add_tokens(self, tokens: Sequence[str | AddedToken]) -> int:
        """Add tokens that are found in texts; returns how many are new."""
        return self._add([AddedToken(t) if isinstance(t, str) else t for t in tokens])

    def add_special_tokens(self, tokens: Sequence[str | AddedToken]) -> int:
        """The same for special ones."""
        made = [
            AddedToken(t, special=True) if isinstance(t, str) else replace(t, special=True) for t in tokens
        ]
        return self._add(made)

    def _add(self, tokens: Sequence[AddedToken]) -> int:
        spec = self._native.spec
        added = {t.content: t for t in spec.added}
        texts, roles = list(spec.tokens), spec.roles.tolist()
        size = len(self.get_vocab(with_added_tokens=False))
        count = 0
        for token in tokens:
            if not token.content or token.content in added:
                continue
            known = self._native.token_to_id(token.content)
            free = max([size - 1, *(t.id for t in added.values())]) + 1
            token_id = free if known is None else known
            added[token.content] = SpecToken(
                token.content,
                token_id,
                special=token.special,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
                normalized=bool(token.normalized),
            )
            if token_id == len(texts):
                texts.append(token.content.encode("utf-8", "surrogatepass"))
                roles.append(USER_DEFINED)
            elif roles[token_id] == ABSENT:
                texts[token_id], roles[token_id] = token.content.encode("utf-8"), USER_DEFINED
            count += 1
        if count:
            self._native = Native(_extended(spec, texts, roles, tuple(added.values())))
        return count


def _extended(
    spec: TokenizerSpec, texts: list[bytes], roles: list[int], added: tuple[SpecToken, ...]
) -> TokenizerSpec:
    scores = spec.scores
    if scores is not None:
        scores = np.concatenate([scores, np.zeros(len(texts) - len(scores))])
    return replace(
        spec, tokens=Strings.of(texts), roles=np.array(roles, np.uint8), scores=scores, added=added
    )


def _restored(native: Native, data: dict[str, Any] | None, state: tuple[Any, Any, bool]) -> Tokenizer:
    made = Tokenizer(native, data)
    made._truncation, made._padding, made.encode_special_tokens = state  # noqa: SLF001  its own
    return made
