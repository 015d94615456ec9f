"""What a tokenizer is, as data: the one form that every file format is read into.

A spec is cheap to make (arrays are borrowed from the file, nothing is indexed) and compares, hashes and
pickles by content. `Tokenizer.from_spec` turns it into something that runs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from tokamak.errors import TokenizerFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Roles of tokens, numbered as `tokenizer.ggml.token_type` in GGUF files; ABSENT: no token has this id.
ABSENT, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(7)


class Strings(Sequence[bytes]):
    """Many byte strings as one blob: string i is blob[offsets[i]:offsets[i + 1]].

    blob: uint8[N]. offsets: int64[count + 1], rising.
    """

    __slots__ = ("blob", "offsets")

    def __init__(self, blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.blob = blob
        self.offsets = offsets

    @classmethod
    def of(cls, strings: Any) -> Strings:
        """From a native string table (borrowed) or an iterable of str and bytes (copied)."""
        if isinstance(strings, Strings):
            return strings
        import numpy as np

        if hasattr(strings, "blob") and hasattr(strings, "offsets"):
            return cls(np.asarray(strings.blob, np.uint8), np.asarray(strings.offsets, np.int64))
        parts = [s.encode("utf-8", "surrogateescape") if isinstance(s, str) else bytes(s) for s in strings]
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(p) for p in parts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), offsets)

    def __len__(self) -> int:
        return max(0, len(self.offsets) - 1)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.blob[self.offsets[i] : self.offsets[i + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        whole = self.blob.tobytes()
        ends = self.offsets.tolist()
        return (whole[a:b] for a, b in itertools.pairwise(ends))


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A literal that is found in the text before a model sees it."""

    content: str
    id: int
    special: bool = False  # found only with parse_special, left out with skip_special
    lstrip: bool = False  # takes the white space before it
    rstrip: bool = False  # takes the white space after it
    single_word: bool = False  # only between characters that are not part of words
    normalized: bool = False  # found after normalizing, by its own normalized form
    verbatim: bool = False  # its content is in normalized form already


@dataclass(frozen=True, slots=True)
class Step:
    """A normalizer, pre-tokenizer or decoder, named and set up as in tokenizer.json."""

    type: str
    options: tuple[tuple[str, str | bytes | int | bool], ...] = ()

    @classmethod
    def of(cls, kind: str, **options: str | bytes | int | bool) -> Step:
        """Step.of("Split", regex="...", behavior="Isolated")."""
        return cls(kind, tuple(sorted(options.items())))

    def get(self, name: str, default: Any = None) -> Any:
        """The option of that name."""
        return dict(self.options).get(name, default)


@dataclass(frozen=True, slots=True)
class Slot:
    """A place in a post-processing template: text "A" or "B", or a token."""

    text: str = ""  # "A", "B"; "": the token
    id: int = -1
    type_id: int = 0
    overflow_too: bool = False  # type_id is also that of the parts that truncation cuts off


@dataclass(frozen=True, slots=True, eq=False)
class TokenizerSpec:
    """One tokenizer. Field names say what the native engine does with them; see native/text/build.h."""

    # bpe: merges over bytes. characters: merges over characters. spm: SentencePiece BPE by scores. unigram.
    # wordpiece. words: whole words. ranks: any pair of byte strings whose whole is a token, by score (tiktoken). trie:
    # the longest token (RWKV).
    kind: str
    tokens: Strings  # as the file writes them
    roles: NDArray[np.uint8]  # uint8[V], ABSENT ... BYTE
    scores: NDArray[np.float64] | None = None  # f64[V], spm and unigram
    merges: Strings | None = None  # "left right", or both around a NUL, in order of rank
    normalizers: tuple[Step, ...] = ()
    pre_tokenizers: tuple[Step, ...] = ()
    decoders: tuple[Step, ...] = ()  # none: tokens decode one by one
    added: tuple[AddedToken, ...] = ()
    pre: str = ""  # name of the pre-tokenizer, for people
    ignore_merges: bool = False  # a word that is a token is that token, whatever the merges say
    dropout: float = (
        0.0  # of merges, as the file asks for it: encode_sampled takes it, encode leaves nothing to chance
    )
    fuse_unknown: bool = False  # neighbouring unknown tokens become one
    byte_fallback: bool = False  # unknown characters become their bytes' tokens
    float_sums: bool = False  # unigram: add scores as sentencepiece does
    start_prefix: str = ""  # of pieces that start a word, where these are marked
    continuing_prefix: str = ""  # of pieces that do not start a word
    word_suffix: str = ""  # of pieces that end a word
    max_word: int = 100  # wordpiece: characters of a word
    replace_invalid: bool = False  # bytes that are not UTF-8 become U+FFFD instead of byte tokens
    byte_texts: bool = False  # tokens decode through the GPT-2 byte alphabet
    raw_added: bool = False  # ... but added tokens decode as they are written
    space_texts: bool = False  # U+2581 decodes to a space, <0x41> to its byte
    byte_runs: bool = False  # a run of byte tokens that is not UTF-8 decodes to one U+FFFD per byte
    strip_space: bool = False  # decoding drops the one space at the very start
    strip_each: bool = False  # ... from each token until there is text
    unknown_text: str = ""  # what the unknown token decodes to, if not its own string
    join_with_space: bool = False  # decoding puts spaces between tokens
    prefix: tuple[int, ...] = ()  # ids before and after a text with add_special
    suffix: tuple[int, ...] = ()
    single: tuple[Slot, ...] = ()  # the same with type ids, where the file has a template
    pair: tuple[Slot, ...] = ()  # ... for two texts
    trim_offsets: bool = False  # spans leave white space out
    trim_keeps_prefix: bool = False  # ... but for one space at the start of the text, which was put there
    unk_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    sep_id: int | None = None
    mask_id: int | None = None
    eog_ids: frozenset[int] = frozenset()  # ids that end a generation
    chat_template: str | None = None
    chat_templates: Mapping[str, str] = field(default_factory=dict)  # further ones by name
    compat: str = (
        "tokenizers-0.23"  # the release whose Unicode tables are used: a key of unicode_tables.COMPAT
    )
    notes: tuple[str, ...] = ()  # what had to be assumed; shown to the user

    def __post_init__(self) -> None:
        size = len(self.tokens)
        for name in ("unk_id", "bos_id", "eos_id", "pad_id", "sep_id", "mask_id"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < size:
                raise TokenizerFileError(f"{name} is {value}, but the vocabulary has {size} tokens")
        if len(self.roles) != size:
            raise TokenizerFileError(f"{len(self.roles)} token types for {size} tokens")
        if self.scores is not None and len(self.scores) != size:
            raise TokenizerFileError(f"{len(self.scores)} scores for {size} tokens")

    @property
    def patterns(self) -> tuple[str, ...]:
        """Regular expressions that cut words, of the pre-tokenizers that are such."""
        return tuple(s.get("regex") for s in self.pre_tokenizers if s.type == "Split" and s.get("regex"))

    def digest(self) -> bytes:
        """32 bytes that are equal exactly for equal tokenizers."""
        import numpy as np

        hasher = hashlib.sha256()
        for f in fields(self):
            value = getattr(self, f.name)
            hasher.update(f.name.encode() + b"\0")
            if isinstance(value, Strings):
                hasher.update(np.diff(value.offsets).astype(np.uint32).data)
                hasher.update(np.ascontiguousarray(value.blob).data)
            elif isinstance(value, np.ndarray):
                hasher.update(np.ascontiguousarray(value).data)
            else:
                stable = sorted(value) if isinstance(value, frozenset) else value
                stable = sorted(stable.items()) if isinstance(stable, Mapping) else stable
                hasher.update(repr(stable).encode("utf-8", "surrogatepass"))
        return hasher.digest()

    def parts(self) -> dict[str, Any]:
        """What `_native.make_text_engine` takes."""
        import numpy as np

        parts: dict[str, Any] = {
            "kind": self.kind,
            "tokens_blob": np.ascontiguousarray(self.tokens.blob),
            "tokens_offsets": np.ascontiguousarray(self.tokens.offsets),
            "roles": np.ascontiguousarray(self.roles, np.uint8),
            "unknown_id": -1 if self.unk_id is None else self.unk_id,
            "added": [_added_parts(t) for t in self.added],
            "prefix": list(self.prefix),
            "suffix": list(self.suffix),
        }
        for name in ("normalizers", "pre_tokenizers", "decoders"):
            parts[name] = [(s.type, _with_table(s)) for s in getattr(self, name)]
        if self.merges is not None:
            parts["merges_blob"] = np.ascontiguousarray(self.merges.blob)
            parts["merges_offsets"] = np.ascontiguousarray(self.merges.offsets)
        if self.scores is not None:
            parts["scores"] = np.ascontiguousarray(self.scores, np.float64)
        for name in ENGINE_FIELDS:
            parts[name] = getattr(self, name)
        return parts


ENGINE_FIELDS = (
    *("ignore_merges", "fuse_unknown", "byte_fallback", "float_sums", "start_prefix", "continuing_prefix"),
    *("word_suffix", "max_word"),
    *(
        "replace_invalid",
        "byte_texts",
        "raw_added",
        "space_texts",
        "byte_runs",
        "strip_space",
        "strip_each",
        "unknown_text",
        "join_with_space",
    ),
)


def _with_table(step: Step) -> tuple[tuple[str, Any], ...]:
    """Options of a step, and the table that it needs."""
    if step.type != "UnicodeScripts":
        return step.options
    from tokamak.tokenizers.unicode_tables import script_runs

    return (("runs", script_runs()),)


def _added_parts(t: AddedToken) -> tuple[Any, ...]:
    content = t.content.encode("utf-8", "surrogateescape")
    return (content, t.id, t.special, t.lstrip, t.rstrip, t.single_word, t.normalized, t.verbatim)


def roles_of(count: int, marks: Iterable[tuple[int, int]] = ()) -> NDArray[np.uint8]:
    """uint8[count] of NORMAL with (id, role) marks."""
    import numpy as np

    roles = np.full(count, NORMAL, np.uint8)
    for token_id, role in marks:
        roles[token_id] = role
    return roles
