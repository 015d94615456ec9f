"""`Tokenizer`: text to token ids and back. What people hold; the work is in native/text.

Input is `str`, or `bytes` of UTF-8. Surrogates in a `str` are joined in pairs, a lone one becomes U+FFFD;
what invalid bytes become depends on the kind: byte-level vocabularies read U+FFFD for each, SentencePiece
ones give the byte's own token.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from tokamak import _native
from tokamak.errors import InvalidParams, TokamakError, UnsupportedError
from tokamak.tokenizers.encoding import Batch, Encoding, MemoryStats, PaddedBatch, Padding, Truncation, padded
from tokamak.tokenizers.shaping import Text, id_array, name_of, one_text, pad_id, plain, rectangle, shaped
from tokamak.tokenizers.spec import AddedToken, TokenizerSpec
from tokamak.tokenizers.stream import TextStream, WholeStream
from tokamak.tokenizers.unicode_tables import COMPAT, load_tables

if TYPE_CHECKING:
    from os import PathLike

    import numpy as np
    from numpy.typing import NDArray

    from tokamak.tokenizers.chat import ChatTemplate
    from tokamak.tokenizers.images import Image


class Tokenizer:
    """A vocabulary with its rules. Immutable; any number of threads may use one."""

    def __init__(self, spec: TokenizerSpec) -> None:
        self.spec = spec
        self._lock = threading.Lock()
        self._native: Any = None
        self._image: Image | None = None  # what the spec was read from
        self._built: Callable[[TokenizerSpec, Any], None] | None = None  # told of an engine made without one
        self._sampler: tuple[Any, Any] | None = None  # of the last encode_sampled

    @classmethod
    def from_spec(cls, spec: TokenizerSpec) -> Tokenizer:
        """Nothing is built until the first use."""
        return cls(spec)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        *,
        pattern: str | None = None,
        special_tokens: Mapping[str, int] | None = None,
        compat: str | None = None,
        cache: bool | str | PathLike[str] = True,
    ) -> Tokenizer:
        """Open a tokenizer or model file, or a directory that has one; its kind is told by its content.

        pattern, special_tokens: for .tiktoken files that are not known here, which hold neither. compat: the release whose
        Unicode tables are used, "tokenizers-0.23" (the default: Unicode 16 in patterns, 12 in normal forms)
        or "tokenizers-1.0" (17). cache: whether a large file's compiled form is kept in the cache directory, or in the
        directory given, and opened the next time.
        Raises: TokenizerFileError for a broken file, UnsupportedError for a kind that is not implemented.
        """
        if compat is not None and compat not in COMPAT:
            raise InvalidParams(f"compat = {compat!r}: one of {', '.join(COMPAT)}")
        from tokamak.tokenizers import images

        folder = cache if isinstance(cache, bool) else Path(cache)
        try:
            made_from = images.Source(Path(path), pattern, special_tokens, compat)
            spec, image, keep = images.load(made_from, folder)
        except TokamakError as e:
            raise e.located(str(path)) from e
        made = cls(spec)
        made._image, made._built = image, keep
        return made

    @property
    def _engine(self) -> Any:
        if self._native is None:
            with self._lock:
                if self._native is None:
                    self._native = self._made()
        return self._native

    def _made(self) -> Any:
        """The engine of an equal tokenizer if one is in use, else a new one."""
        with _ENGINES_LOCK:
            engine = _ENGINES.get(self.digest)
        if engine is not None:
            return engine
        name = load_tables(self.spec.compat, (step.type for step in self.spec.normalizers))
        tables = {} if self._image is None else dict(self._image.tables)
        engine = _native.make_text_engine(self.spec.parts() | {"unicode": name}, tables)
        if self._built is not None:
            self._built(self.spec, engine)
        with _ENGINES_LOCK:
            return _ENGINES.setdefault(self.digest, engine)

    @property
    def engine(self) -> Any:
        """The native engine, built now if it was not."""
        return self._engine

    # -- encoding

    def encode(self, text: Text, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Token ids of a text.

        add_special: put bos before and eos after it, where the model wants them. parse_special: read the names of
        special tokens in the text as those tokens; leave it off for text of strangers. User-defined tokens match
        always.
        """
        ids: list[int] = self._engine.encode_list(text, add_special, parse_special)
        return ids

    def encode_array(
        self, text: Text, add_special: bool = True, parse_special: bool = False
    ) -> NDArray[np.int32]:
        """The same as int32[n], without a Python object per token."""
        ids: NDArray[np.int32] = self._engine.encode_array(text, add_special, parse_special, ())
        return ids

    def encode_batch(
        self,
        texts: Iterable[Text],
        threads: int | None = None,
        add_special: bool = True,
        parse_special: bool = False,
    ) -> Batch:
        """Many texts, in order, over `threads` threads (default: the calling one) without the GIL."""
        if threads is not None and threads < 1:
            raise InvalidParams(f"threads = {threads}: at least 1")
        texts_of = [plain(t) for t in texts]
        return Batch(*self._engine.encode_batch(texts_of, add_special, parse_special, threads or 1))

    def encode_pair(
        self, first: Text, second: Text, add_special: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Ids of two texts as the model takes them together, by the file's template for pairs."""
        ids: list[int] = self.encode_full(first, add_special, parse_special, pair=second).ids.tolist()
        return ids

    def encode_padded(
        self,
        texts: Iterable[Text | tuple[Text, Text]],
        padding: Padding = Padding(),  # noqa: B008  frozen
        truncation: Truncation | None = None,
        threads: int | None = None,
        add_special: bool = True,
        parse_special: bool = False,
    ) -> PaddedBatch:
        """Many texts, or pairs of texts, as one rectangle of ids with attention mask and type ids.

        What truncation cuts off is gone; `encode_full` keeps it.
        Raises: InvalidParams where a row is longer than the padded length, or texts and pairs are mixed.
        """
        rows = list(texts)
        paired = bool(rows) and isinstance(rows[0], tuple)
        if any(isinstance(row, tuple) != paired for row in rows):
            raise InvalidParams("either all rows are pairs of texts, or none is")
        columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) if paired else [tuple(rows)]
        batches = [self.encode_batch(column, threads, False, parse_special) for column in columns]
        return rectangle(batches, self.spec, add_special, truncation, padding)

    def encode_full(
        self,
        text: Text,
        add_special: bool = True,
        parse_special: bool = False,
        *,
        pair: Text | None = None,
        truncation: Truncation | None = None,
        padding: Padding | None = None,
    ) -> Encoding:
        """Ids with pieces, spans, masks, type ids and words; of two texts with `pair`.

        Byte spans of invalid UTF-8 are exact; its characters count one per byte.
        Raises: InvalidParams where truncation cannot be done as it says.
        """
        given = (text,) if pair is None else (text, pair)
        texts = [one_text(self._engine, self.spec, t, parse_special, i) for i, t in enumerate(given)]
        encoding = shaped(texts, self.spec, add_special, truncation)
        return encoding if padding is None else self.pad([encoding], padding)[0]

    def pad(self, encodings: Sequence[Encoding], padding: Padding) -> list[Encoding]:
        """Encodings filled up to one length; one that is longer stays as it is."""
        token_id = pad_id(self.spec, padding)
        piece = self.id_to_token(token_id) if padding.piece is None else padding.piece
        width = padding.width(max((len(e) for e in encodings), default=0))
        return [padded(e, width, padding, piece, token_id) for e in encodings]

    def count(self, text: Text, add_special: bool = True, parse_special: bool = False) -> int:
        """len(encode(...)) without making the list."""
        n: int = self._engine.count(text, add_special, parse_special)
        return n

    def encode_sampled(
        self,
        text: Text,
        *,
        seed: int,
        dropout: float | None = None,
        alpha: float = 0.1,
        nbest: int = -1,
        add_special: bool = True,
        parse_special: bool = False,
    ) -> list[int]:
        """Ids of one of the ways to cut a text, drawn by `seed`.

        dropout: chance, 0 to 1, that a merge that comes up is passed over (BPE); None: the file's, else 0.1. alpha: how much likelier cuts are
        preferred, 0: not at all; nbest: draw among that many best cuts, -1: all (Unigram).
        Raises: UnsupportedError for tokenizers that have one way only.
        """
        from tokamak.tokenizers import sampled

        key = (self.spec.dropout or 0.1 if dropout is None else dropout, alpha, nbest)
        if self._sampler is None or self._sampler[0] != key:
            self._sampler = (key, sampled.sampler(self.spec, *key))
        cut = self._sampler[1]
        return sampled.encode(self._engine, self.spec, plain(text), cut, seed, add_special, parse_special)

    def warm(self, texts: Iterable[Text] = (), threads: int | None = None) -> None:
        """Build the engine now, and fill the word caches of `threads` threads with the words of texts like those to come."""
        self.engine  # noqa: B018  made when asked for
        self.encode_batch(texts, threads)

    # -- asyncio

    async def aencode(
        self,
        text: Text,
        add_special: bool = True,
        parse_special: bool = False,
        *,
        timeout: float | None = None,
    ) -> list[int]:
        """`encode` in a thread; the event loop goes on meanwhile. Raises: TimeoutError after `timeout` seconds."""
        from tokamak.tokenizers import asynchronous

        return await asynchronous.encode(self, text, add_special, parse_special, timeout)

    async def aencode_batch(
        self,
        texts: Iterable[Text],
        concurrency: int = 2,
        add_special: bool = True,
        parse_special: bool = False,
        *,
        timeout: float | None = None,
    ) -> Batch:
        """`encode_batch` in at most `concurrency` threads, in order; cancelling it stops it between stretches of texts.

        Raises: TimeoutError after `timeout` seconds.
        """
        from tokamak.tokenizers import asynchronous

        rows = list(texts)
        return await asynchronous.encode_batch(self, rows, concurrency, add_special, parse_special, timeout)

    # -- decoding

    def decode(self, ids: Iterable[int], skip_special: bool = False, continues: bool = False) -> str:
        """Text of token ids; bytes that are not UTF-8 become U+FFFD.

        continues: the ids follow other text, so the space that SentencePiece puts at a start stays.
        Raises: InvalidParams with index and value for an id outside the vocabulary.
        """
        text: str = self._engine.decode_text(id_array(ids), skip_special, not continues)
        return text

    def decode_bytes(self, ids: Iterable[int], skip_special: bool = False, continues: bool = False) -> bytes:
        """The same before it is read as UTF-8; where decoders work on text, its UTF-8."""
        data: bytes = self._engine.decode(id_array(ids), skip_special, not continues)
        return data

    def decode_batch(self, batch: Iterable[Iterable[int]], skip_special: bool = False) -> list[str]:
        """One text per list of ids."""
        return [self.decode(ids, skip_special) for ids in batch]

    def stream(self, skip_special: bool = False, continues: bool = False) -> TextStream | WholeStream:
        """Decode token by token: what push() and flush() return joins to decode() of the same ids."""
        if self.spec.decoders or self.spec.join_with_space:
            return WholeStream(lambda ids: self.decode(ids, skip_special, continues))
        skipped = set(self.special_tokens.values()) if skip_special else set()
        surface = self.spec.unk_id if self.spec.unknown_text and self.spec.unk_id is not None else -1
        skipped.discard(surface)
        token_bytes, is_byte = self._engine.token_bytes, self._engine.is_byte

        def text_of(token_id: int) -> bytes:
            data: bytes = token_bytes(token_id)
            return b"" if token_id in skipped else data

        strip = self.spec.strip_space and not continues
        each = self.spec.strip_each
        return TextStream(
            text_of,
            strip_space=strip,
            strip_each=each,
            surface_id=surface,
            is_byte=is_byte if self.spec.byte_runs else None,
        )

    # -- vocabulary

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.spec.tokens)

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """Text -> id of the tokens that parse_special and skip_special are about."""
        return {t.content: t.id for t in self.spec.added if t.special}

    @cached_property
    def added_tokens(self) -> tuple[AddedToken, ...]:
        """Every literal that is found before pre-tokenizing, special or not."""
        return self.spec.added

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        ids: dict[bytes, int] = {}
        for i, token in enumerate(self.spec.tokens):
            ids.setdefault(token, i)
        return ids

    def token_to_id(self, token: str) -> int | None:
        """Id of a token as the vocabulary writes it, or None."""
        return self._ids.get(token.encode("utf-8", "surrogateescape"))

    @cached_property
    def _renamed(self) -> dict[int, str]:
        """Added tokens of tokenizer.json in the form that is found in normalized text, as `tokenizers` names them."""
        if self.spec.raw_added or not self.spec.normalizers:
            return {}
        return {i: text.decode("utf-8", "replace") for i, text in self._engine.normalized_tokens()}

    def id_to_token(self, token_id: int) -> str:
        """A token as the vocabulary writes it, or as it is found in normalized text. Raises: InvalidParams for a bad id."""
        if not 0 <= token_id < self.vocab_size:
            raise InvalidParams(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        return self._renamed.get(token_id) or name_of(self.spec, token_id)

    def id_to_bytes(self, token_id: int) -> bytes:
        """Bytes of text that a token stands for. Raises: InvalidParams for a bad id."""
        data: bytes = self._engine.token_bytes(token_id)
        return data

    @property
    def bos_id(self) -> int | None:
        """Id of the token that starts a text."""
        return self.spec.bos_id

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a text."""
        return self.spec.eos_id

    @property
    def eog_ids(self) -> frozenset[int]:
        """Ids that end a generation: end of text, of turn, of message."""
        return self.spec.eog_ids

    @property
    def add_bos(self) -> bool:
        """Whether add_special puts bos first."""
        return self.bos_id is not None and self.bos_id in self.spec.prefix

    @property
    def notes(self) -> tuple[str, ...]:
        """What had to be assumed about the file, for people to read."""
        return self.spec.notes

    # -- chat

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The template of the file, or None."""
        from tokamak.tokenizers.chat import ChatTemplate

        return None if self.spec.chat_template is None else ChatTemplate(self.spec.chat_template)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """Text of a conversation in the model's own form; encode it with `encode_chat` or parse_special.

        messages: role and content each. template: Jinja source instead of the file's. variables: more names for the
        template (tools, enable_thinking, ...).
        Raises: UnsupportedError if there is no template, InvalidParams if it fails on these messages.
        """
        from tokamak.tokenizers.chat import ChatTemplate

        chosen = self.chat_template if template is None else ChatTemplate(template)
        if chosen is None:
            raise UnsupportedError(
                "the model has no chat template: use plain completion, or give one (template=...)"
            )
        names = {"bos_token": self._text_of(self.bos_id), "eos_token": self._text_of(self.eos_id)}
        names |= {"unk_token": self._text_of(self.spec.unk_id), "pad_token": self._text_of(self.spec.pad_id)}
        names["end_of_turn"] = "<|eot_id|>" if "<|eot_id|>" in self.special_tokens else names["eos_token"]
        return chosen.render(messages, add_generation_prompt=add_generation_prompt, **(names | variables))

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = True,
        template: str | None = None,
        begun: str = "",
        **variables: Any,
    ) -> list[int]:
        """Ids of a rendered conversation: bos once, special tokens of the template parsed, their names in messages left
        as text. begun: the beginning of the answer, put behind it as text."""
        return self.encode_chat_parts(messages, add_generation_prompt, template, begun, **variables)[0]

    def encode_chat_parts(self, messages: Any, *form: Any, **variables: Any) -> list[list[int]]:
        from tokamak.tokenizers.chat import parts_of  # which says what parts are

        encode, pieces = self._engine.encode_array, parts_of(self, messages, *form, **variables)
        ids = [encode(text, False, True, plain).tolist() for text, plain in pieces]
        bos = [self.bos_id] if self.add_bos and self.bos_id is not None else []
        return ids if ids[0][:1] == bos else [bos + ids[0], *ids[1:]]

    def _text_of(self, token_id: int | None) -> str:
        return "" if token_id is None else self.id_to_token(token_id)

    def memory_stats(self) -> MemoryStats:
        """Memory of the native engine, built now if it was not: its own, and what lies in a mapped image."""
        engine, image = self._engine, self._image
        owned = engine.nbytes - engine.cache_nbytes + (0 if image is None else image.owned_nbytes)
        return MemoryStats(owned, engine.cache_nbytes, 0 if image is None else image.mapped_nbytes)

    # -- files

    def save(self, path: str | PathLike[str], *, form: str = "auto") -> None:
        """Write to a file that `load` opens as an equal tokenizer.

        form: "tokenizer.json" (Raises: UnsupportedError for what that format cannot say), "spec" (a form of our own, for
        every tokenizer), or "auto": the first where it can be. "image" or "compressed image": compiled, opened in
        milliseconds by the versions of this program that share its layout.
        """
        if form in ("image", "compressed image"):
            from tokamak.tokenizers.images import image_bytes, replace_file

            content = image_bytes(self.spec, self._engine, compressed=form != "image")
            replace_file(Path(path), content)
            return
        from tokamak.tokenizers.files.saving import written

        Path(path).write_text(written(self.spec, form), encoding="utf-8")

    # -- identity

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that are equal exactly for equal tokenizers."""
        return self.spec.digest() if self._image is None else self._image.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and (self is other or self.digest == other.digest)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> Any:
        return (Tokenizer, (self.spec,))

    def __len__(self) -> int:
        return self.vocab_size

    def __iter__(self) -> Iterator[str]:
        return (t.decode("utf-8", "replace") for t in self.spec.tokens)

    def __repr__(self) -> str:
        return f"<Tokenizer {self.spec.kind} pre={self.spec.pre} vocab_size={self.vocab_size}>"


# Equal tokenizers share one engine as long as one of them is there.
_ENGINES: WeakValueDictionary[bytes, Any] = WeakValueDictionary()
_ENGINES_LOCK = threading.Lock()
