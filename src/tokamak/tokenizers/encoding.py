"""What encoding gives: one text in full, or many as arrays, and how such results are cut, joined and padded.

Cutting, joining and padding give what `tokenizers` 0.23 gives for the same settings, parts that overflow included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from tokamak.errors import InvalidParams

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Ints: TypeAlias = "NDArray[np.int32]"
STRATEGIES = ("longest_first", "only_first", "only_second")
DIRECTIONS = ("right", "left")


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes of memory of a tokenizer."""

    owned_nbytes: int  # of this process alone: tables that were made here
    cache_nbytes: int  # of this process alone: word caches of as many calls as ran at once
    mapped_nbytes: int  # of an image, which all processes that have it open share

    @property
    def total_nbytes(self) -> int:
        """All of it."""
        return self.owned_nbytes + self.cache_nbytes + self.mapped_nbytes


@dataclass(frozen=True, slots=True)
class Truncation:
    """At most `max_length` ids, those that are put around a text included; what is cut off overflows."""

    max_length: int
    strategy: str = "longest_first"  # which of two texts gives: one of STRATEGIES
    stride: int = 0  # ids that a part shares with the one before it, below the length of a part
    direction: str = "right"  # the end that is cut off

    def __post_init__(self) -> None:
        if self.max_length < 0 or self.stride < 0:
            raise InvalidParams(f"max_length = {self.max_length}, stride = {self.stride}: at least 0")
        _one_of("strategy", self.strategy, STRATEGIES)
        _one_of("direction", self.direction, DIRECTIONS)


@dataclass(frozen=True, slots=True)
class Padding:
    """Fill up to `length` ids, or to the longest of a batch, rounded up to a multiple."""

    length: int | None = None  # None: the longest
    multiple_of: int | None = None
    direction: str = "right"  # the end that is filled
    id: int | None = None  # None: the tokenizer's padding token, else 0
    type_id: int = 0
    piece: str | None = None  # None: the token's own text

    def __post_init__(self) -> None:
        if (self.length or 0) < 0 or (self.multiple_of or 0) < 0:
            raise InvalidParams(f"length = {self.length}, multiple_of = {self.multiple_of}: at least 0")
        _one_of("direction", self.direction, DIRECTIONS)

    def width(self, longest: int) -> int:
        """Ids of every row when the longest has `longest`."""
        width = longest if self.length is None else self.length
        return width + (-width % self.multiple_of if self.multiple_of else 0)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise InvalidParams(f"{name} = {value!r}: one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text, or two, in full. Spans are [start, end) in the original text; (0, 0) for tokens that were added."""

    ids: Ints  # i32[n]
    pieces: list[str]  # as the vocabulary writes them
    byte_spans: NDArray[np.int64]  # i64[n, 2], in UTF-8
    char_spans: NDArray[np.int64]  # i64[n, 2], in code points: every character of which a byte belongs to it
    mask: Ints  # i32[n], 1: attend to it; 0: padding
    type_ids: Ints  # i32[n], 0 and 1 for the first and second text, unless the model numbers them otherwise
    special_mask: Ints  # i32[n], 1: was put around the text, or padding
    words: (
        Ints  # i32[n], which piece of pre-tokenizing, counted from 0 in each text; -1 where special_mask is 1
    )
    texts: Ints  # i32[n], 0 or 1: the text it comes from; -1 where special_mask is 1
    overflowing: tuple[Encoding, ...] = ()  # what truncation cut off, each part finished like this one

    @property
    def attention_mask(self) -> Ints:
        """`mask`, by its longer name."""
        return self.mask

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, start: int, stop: int) -> Encoding:
        """Tokens [start, stop), without what overflows."""
        arrays: dict[str, Any] = {name: getattr(self, name)[start:stop] for name in _ARRAYS}
        return Encoding(pieces=self.pieces[start:stop], **arrays)

    def of_text(self, text: int, type_id: int | None = None, overflow_too: bool = False) -> Encoding:
        """The same as the first (0) or second (1) text; parts that overflow keep their type ids unless overflow_too."""
        import numpy as np

        inner = type_id if overflow_too else None
        size = len(self)
        return replace(
            self,
            texts=np.full(size, text, np.int32),
            type_ids=self.type_ids if type_id is None else np.full(size, type_id, np.int32),
            overflowing=tuple(o.of_text(text, inner) for o in self.overflowing),
        )


_ARRAYS = ("ids", "byte_spans", "char_spans", "mask", "type_ids", "special_mask", "words", "texts")


def around(token_id: int, piece: str, type_id: int = 0, count: int = 1, mask: int = 1) -> Encoding:
    """`count` tokens that stand for no text."""
    import numpy as np

    spans = np.zeros((count, 2), np.int64)
    types, none = np.full(count, type_id, np.int32), np.full(count, -1, np.int32)
    masks = (np.full(count, mask, np.int32), types, np.ones(count, np.int32))
    return Encoding(
        np.full(count, token_id, np.int32), [piece] * count, spans, spans.copy(), *masks, none, none
    )


def joined(parts: Sequence[Encoding]) -> Encoding:
    """One after the other; each part that overflows is joined with each of the other parts."""
    if not parts:
        return around(0, "", count=0)
    whole = _plain_join(parts)
    overflowing: list[list[Encoding]] = []  # choices of parts, other than the first choice everywhere
    done: list[Encoding] = []
    for part in parts:
        choices = [[*chosen, part] for chosen in overflowing]
        combined: list[list[Encoding]] = []
        for plain in choices:
            combined.append(plain)
            combined += [[*plain[:-1], other] for other in part.overflowing]
        combined += [[*done, other] for other in part.overflowing]
        overflowing = combined
        done.append(part)
    return replace(whole, overflowing=tuple(_plain_join(chosen) for chosen in overflowing))


def _plain_join(parts: Sequence[Encoding]) -> Encoding:
    import numpy as np

    if len(parts) == 1:
        return replace(parts[0], overflowing=())
    arrays: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _ARRAYS}
    return Encoding(pieces=[piece for p in parts for piece in p.pieces], **arrays)


def cut(encoding: Encoding, length: int, stride: int, direction: str) -> Encoding:
    """The first `length` tokens (from the end, for direction "left"); what follows overflows in parts as long."""
    size = len(encoding)
    if length >= size:
        return encoding
    if length == 0:
        return replace(encoding.part(0, 0), overflowing=(encoding,))
    if stride >= length:
        raise InvalidParams(
            f"stride = {stride} must be below the {length} tokens that truncation leaves of a text"
        )
    parts = []
    for at in range(0, size, length - stride):
        start, stop = at, min(at + length, size)
        if direction == "left":
            start, stop = size - stop, size - start
        parts.append(encoding.part(start, stop))
        if at + length >= size:
            break
    return replace(parts[0], overflowing=tuple(parts[1:]))


def lengths_after(first: int, second: int, limit: int) -> tuple[int, int]:
    """Lengths of two texts of which the longer gives up tokens first, until both together have at most `limit`."""
    low, high = sorted((first, second))
    high = low if low > limit else max(low, limit - low)
    if low + high > limit:
        low = limit // 2
        high = low + limit % 2
    return (low, high) if first <= second else (high, low)


def room_for(truncation: Truncation, num_around: int) -> int:
    """Tokens of text beside those around it. Raises: InvalidParams if there is less than none."""
    room = truncation.max_length - num_around
    if room < 0:
        raise InvalidParams(
            f"max_length = {truncation.max_length} is less than the {num_around} tokens around a text"
        )
    return room


def lengths_within(sizes: Sequence[int], room: int, strategy: str) -> list[int]:
    """How many tokens of each text (one, or two) stay when together there is room for `room`.

    Raises: InvalidParams if the strategy names a text that is not there or is too short to give that much.
    """
    excess = sum(sizes) - room
    if room == 0:
        return [0] * len(sizes)
    if excess <= 0:
        return list(sizes)
    if strategy == "longest_first":
        return [room] if len(sizes) == 1 else list(lengths_after(sizes[0], sizes[1], room))
    which = STRATEGIES.index(strategy) - 1
    if which >= len(sizes):
        raise InvalidParams("truncation only_second needs a second text")
    if sizes[which] <= excess:
        raise InvalidParams(
            f"truncation {strategy}: {excess} tokens are too many, that text has {sizes[which]}"
        )
    return [n - excess if i == which else n for i, n in enumerate(sizes)]


def padded(encoding: Encoding, width: int, padding: Padding, piece: str, token_id: int) -> Encoding:
    """`encoding`, and what overflows, filled up to `width` tokens."""
    parts = tuple(padded(o, width, padding, piece, token_id) for o in encoding.overflowing)
    missing = width - len(encoding)
    if missing <= 0:
        return replace(encoding, overflowing=parts)
    fill = around(token_id, piece, padding.type_id, missing, mask=0)
    pair = (fill, encoding) if padding.direction == "left" else (encoding, fill)
    return replace(_plain_join(pair), overflowing=parts)


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Ids of many texts as one rectangle."""

    ids: Ints  # i32[texts, width]
    attention_mask: Ints  # i32[texts, width], 1: attend to it; 0: padding
    type_ids: Ints  # i32[texts, width]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def waste(self) -> float:
        """Share of the rectangle that is padding, 0 to 1."""
        return 1.0 - float(self.attention_mask.mean()) if self.ids.size else 0.0


@dataclass(frozen=True, slots=True)
class Batch(Sequence[Ints]):
    """Ids of many texts without padding: text i has ids[offsets[i]:offsets[i + 1]]."""

    ids: Ints
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return self.ids[self.offsets[i] : self.offsets[i + 1]]

    @classmethod
    def of(cls, rows: Sequence[Ints]) -> Batch:
        """Rows one after the other."""
        import numpy as np

        offsets = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(r) for r in rows], out=offsets[1:])
        return cls(np.concatenate([np.empty(0, np.int32), *rows]), offsets)

    def padded(self, padding: Padding, token_id: int, type_ids: Ints | None = None) -> PaddedBatch:
        """As a rectangle. type_ids: of `ids`, flat; zeros if None. Raises: InvalidParams for a row that is too long."""
        import numpy as np

        lengths = np.diff(self.offsets)
        longest = int(lengths.max(initial=0))
        width = padding.width(longest)
        if longest > width:
            raise InvalidParams(
                f"a text has {longest} tokens, more than the {width} to pad to: truncate it, or pad further"
            )
        columns = np.arange(width)
        filled = columns < lengths[:, None]
        if padding.direction == "left":
            filled = columns >= width - lengths[:, None]
        ids = np.full(filled.shape, token_id, np.int32)
        ids[filled] = self.ids
        types = np.full(filled.shape, padding.type_id, np.int32)
        types[filled] = 0 if type_ids is None else type_ids
        return PaddedBatch(ids, filled.astype(np.int32), types)
