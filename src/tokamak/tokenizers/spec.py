"""What a tokenizer is, as data: the one form that every file format is read into.

A spec is cheap to make (arrays are borrowed from the file, nothing is indexed) and compares, hashes and
pickles by content. `Tokenizer.from_spec` turns it into something that runs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokamak.errors import TokenizerFileError

# Roles of tokens, numbered as `tokenizer.ggml.token_type` in GGUF files.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


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

    def digest(self, hasher: Any) -> None:
        """Feed the content to a hash object."""
        hasher.update(self.offsets.tobytes())
        hasher.update(self.blob.tobytes())


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A literal that is found in the text before anything else looks at it."""

    content: str
    id: int
    special: bool = False  # found only with parse_special, left out with skip_special
    lstrip: bool = False  # takes the white space before it
    rstrip: bool = False  # takes the white space after it
    single_word: bool = False  # only between characters that are not part of words


@dataclass(frozen=True, slots=True, eq=False)
class TokenizerSpec:
    """One tokenizer. Field names say what the native engine does with them; see native/text/build.h."""

    kind: str  # "bpe": byte-level BPE; "spm": SentencePiece BPE
    tokens: Strings  # as the file writes them
    roles: NDArray[np.uint8]  # uint8[V], NORMAL ... BYTE
    scores: NDArray[np.float32] | None = None  # f32[V], spm
    merges: Strings | None = None  # "left right" in order of rank, bpe
    pre: str = "default"  # name of the pre-tokenizer, for people
    patterns: tuple[str, ...] = ()  # pre-tokenizer: each cuts what the one before left
    added: tuple[AddedToken, ...] = ()
    ignore_merges: bool = False  # a word that is a token is that token, whatever the merges say
    byte_level: bool = False  # tokens are written in the GPT-2 byte alphabet
    replace_invalid: bool = False  # bytes that are not UTF-8 become U+FFFD instead of byte tokens
    space_symbol: bool = False  # spaces are U+2581 in tokens
    prefix_space: bool = False  # a space is put before every stretch of text
    collapse_spaces: bool = False  # runs of spaces become one
    strip_space: bool = False  # decoding drops the one space at the very start
    fuse_unknown: bool = False  # neighbouring unknown tokens become one
    unk_id: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    sep_id: int | None = None
    mask_id: int | None = None
    add_bos: bool = False
    add_eos: bool = False
    eog_ids: frozenset[int] = frozenset()  # ids that end a generation
    chat_template: str | None = None
    chat_templates: Mapping[str, str] = field(default_factory=dict)  # further ones by name
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

    def digest(self) -> bytes:
        """32 bytes that are equal exactly for equal tokenizers."""
        hasher = hashlib.blake2b(digest_size=32)
        for f in fields(self):
            value = getattr(self, f.name)
            hasher.update(f.name.encode() + b"\0")
            if isinstance(value, Strings):
                value.digest(hasher)
            elif isinstance(value, np.ndarray):
                hasher.update(value.tobytes())
            else:
                stable = sorted(value) if isinstance(value, frozenset) else value
                stable = sorted(stable.items()) if isinstance(stable, Mapping) else stable
                hasher.update(repr(stable).encode("utf-8", "surrogatepass"))
        return hasher.digest()

    def parts(self) -> dict[str, Any]:
        """What `_native.make_text_engine` takes."""
        parts: dict[str, Any] = {
            "kind": self.kind,
            "tokens_blob": np.ascontiguousarray(self.tokens.blob),
            "tokens_offsets": np.ascontiguousarray(self.tokens.offsets),
            "roles": np.ascontiguousarray(self.roles, np.uint8),
            "unknown_id": -1 if self.unk_id is None else self.unk_id,
            "added": [
                (
                    t.content.encode("utf-8", "surrogateescape"),
                    t.id,
                    t.special,
                    t.lstrip,
                    t.rstrip,
                    t.single_word,
                )
                for t in self.added
            ],
            "patterns": list(self.patterns),
            "prefix": present(self.bos_id if self.add_bos else None),
            "suffix": present(self.eos_id if self.add_eos else None),
        }
        if self.merges is not None:
            parts["merges_blob"] = np.ascontiguousarray(self.merges.blob)
            parts["merges_offsets"] = np.ascontiguousarray(self.merges.offsets)
        if self.scores is not None:
            parts["scores"] = np.ascontiguousarray(self.scores, np.float32)
        for name in FLAGS:
            parts[name] = getattr(self, name)
        return parts


FLAGS = (
    "ignore_merges",
    "byte_level",
    "replace_invalid",
    "space_symbol",
    "prefix_space",
    "collapse_spaces",
    "strip_space",
    "fuse_unknown",
)


def present(*ids: int | None) -> list[int]:
    """The ids that are there."""
    return [i for i in ids if i is not None]


def roles_of(count: int, marks: Iterable[tuple[int, int]] = ()) -> NDArray[np.uint8]:
    """uint8[count] of NORMAL with (id, role) marks."""
    roles = np.full(count, NORMAL, np.uint8)
    for token_id, role in marks:
        roles[token_id] = role
    return roles
