"""From the engine's ids and spans to finished encodings: trimmed, cut, put in the template, padded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tokamak.errors import InvalidParams
from tokamak.tokenizers.encoding import (
    Batch,
    Encoding,
    Ints,
    PaddedBatch,
    Padding,
    Truncation,
    around,
    cut,
    joined,
    lengths_within,
    room_for,
)
from tokamak.tokenizers.spec import Slot, TokenizerSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Text = str | bytes | bytearray | memoryview


def name_of(spec: TokenizerSpec, token_id: int) -> str:
    """A token as the vocabulary writes it."""
    token: bytes = spec.tokens[token_id]
    return token.decode("utf-8", "replace")


def id_array(ids: Iterable[int]) -> Any:
    """What native code reads in place: a list, a tuple or an int32 array."""
    if isinstance(ids, (list, tuple)):
        return ids
    import numpy as np

    array = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids))
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        what = f"{array.dtype} of {array.ndim} dimensions"
        raise InvalidParams(f"token ids must be a list of integers, not {what}")
    return np.ascontiguousarray(array) if array.dtype == np.int32 else array.tolist()


def plain(text: Text) -> Text:
    """Text that UTF-8 can hold: surrogate pairs joined, lone surrogates U+FFFD."""
    if isinstance(text, str):
        try:
            if not text.isascii():
                text.encode("utf-8")
        except UnicodeEncodeError:
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def template_of(spec: TokenizerSpec, num_texts: int) -> tuple[Slot, ...]:
    """What stands where with special tokens: the file's template, or for two texts what it says of one, twice."""
    given = spec.single if num_texts == 1 else spec.pair
    if given:
        return given
    before, after = (tuple(Slot("", i) for i in ids) for ids in (spec.prefix, spec.suffix))
    first = (*before, Slot("A"), *after)
    if num_texts == 1:
        return first
    if spec.kind == "wordpiece":  # as BERT: one start, the second text with type 1
        return (*first, Slot("B", -1, 1), *(replace(s, type_id=1) for s in after))
    return (*first, *before, Slot("B", -1, 1), *after)


def one_text(engine: Any, spec: TokenizerSpec, text: Text, parse_special: bool, type_id: int = 0) -> Encoding:
    """A text by itself, nothing around it."""
    import numpy as np

    text = plain(text)
    ids, flat, words, shown = engine.encode_spans(text, False, parse_special)
    spans = flat.reshape(-1, 2)
    size = len(ids)
    pieces = [name_of(spec, i) for i in ids.tolist()]
    for row, part in shown:
        pieces[row] = part.decode("utf-8", "replace")
    return Encoding(
        ids=ids,
        pieces=pieces,
        byte_spans=spans,
        char_spans=_char_spans(text, spans),
        mask=np.ones(size, np.int32),
        type_ids=np.full(size, type_id, np.int32),
        special_mask=np.zeros(size, np.int32),
        words=words,
        texts=np.full(size, type_id, np.int32),
    )


def shaped(
    texts: Sequence[Encoding],
    spec: TokenizerSpec,
    add_special: bool,
    truncation: Truncation | None,
) -> Encoding:
    """One or two texts cut to fit, then put in the template."""
    template = template_of(spec, len(texts))
    specials = add_special and any(not s.text for s in template)
    if truncation is not None:
        num_around = sum(not s.text for s in template) if specials else 0
        keep = lengths_within([len(t) for t in texts], room_for(truncation, num_around), truncation.strategy)
        texts = [cut(t, n, truncation.stride, truncation.direction) for t, n in zip(texts, keep, strict=True)]
    if spec.trim_offsets:
        texts = [trimmed(t, spec.trim_keeps_prefix) for t in texts]
    if not specials and not (spec.single or spec.pair):
        return joined([t.of_text(i) for i, t in enumerate(texts)])
    parts = []
    for slot in template:
        if slot.text:
            which = "AB".index(slot.text)
            parts.append(texts[which].of_text(which, slot.type_id, slot.overflow_too and add_special))
        elif add_special:
            parts.append(around(slot.id, name_of(spec, slot.id), slot.type_id))
    return joined(parts)


def trimmed(encoding: Encoding, keeps_prefix: bool) -> Encoding:
    """Spans without white space, as the ByteLevel post-processor of `tokenizers` has them; parts that overflow too."""
    spans, chars = encoding.byte_spans.copy(), encoding.char_spans.copy()
    for row, (piece, (start, end)) in enumerate(zip(encoding.pieces, chars.tolist(), strict=True)):
        left, right = _trim(piece, row, start, end, keeps_prefix)
        spans[row] += left - start, right - end  # a space is one byte and one character
        chars[row] = left, right
    parts = tuple(trimmed(o, keeps_prefix) for o in encoding.overflowing)
    return replace(encoding, byte_spans=spans, char_spans=chars, overflowing=parts)


def _trim(piece: str, row: int, start: int, end: int, keeps_prefix: bool) -> tuple[int, int]:
    spaces = [c == "\u0120" or c.isspace() for c in piece]
    leading = next((i for i, s in enumerate(spaces) if not s), len(spaces))
    trailing = next((i for i, s in enumerate(reversed(spaces)) if not s), len(spaces))
    if leading == 1 and keeps_prefix and (row == 0 or start == 0):
        leading = 0  # more than one were not put there
    left = min(start + leading, end)
    return left, max(end - trailing, left) if end >= trailing else end


def _char_spans(text: Text, spans: NDArray[np.int64]) -> NDArray[np.int64]:
    """Code points that byte spans touch; an invalid byte counts as a character."""
    data = text.encode("utf-8") if isinstance(text, str) else bytes(text)
    decoded = data.decode("utf-8", "surrogateescape")
    if len(decoded) == len(data):
        return spans.copy()
    import numpy as np

    widths = np.array(
        [1 if 0xDC80 <= ord(c) <= 0xDCFF else len(c.encode("utf-8")) for c in decoded], np.int64
    )
    char_of = np.repeat(np.arange(len(decoded), dtype=np.int64), widths)
    char_of = np.append(char_of, len(decoded))
    chars = np.empty_like(spans)
    chars[:, 0] = char_of[spans[:, 0]]
    chars[:, 1] = np.where(
        spans[:, 1] > spans[:, 0], char_of[np.maximum(spans[:, 1] - 1, 0)] + 1, chars[:, 0]
    )
    return chars


def rectangle(
    columns: Sequence[Batch],
    spec: TokenizerSpec,
    add_special: bool,
    truncation: Truncation | None,
    padding: Padding,
) -> PaddedBatch:
    """Rows of one or two texts each, cut and put in the template, as a rectangle. columns: first texts, second texts."""
    import numpy as np

    template = [s for s in template_of(spec, len(columns)) if s.text or add_special]
    if not any(s.text for s in template):
        template = [Slot("AB"[i], -1, i) for i in range(len(columns))]
    num_around = sum(not s.text for s in template)
    around_ids = [np.array([s.id], np.int32) for s in template]
    rows: list[Ints] = []
    types: list[Ints] = []
    for texts in zip(*columns, strict=True):
        kept: Sequence[Ints] = texts
        if truncation is not None:
            room = room_for(truncation, num_around)
            keep = lengths_within([len(t) for t in texts], room, truncation.strategy)
            left = truncation.direction == "left"
            kept = [t[len(t) - n :] if left else t[:n] for t, n in zip(texts, keep, strict=True)]
        parts = [kept["AB".index(s.text)] if s.text else i for s, i in zip(template, around_ids, strict=True)]
        rows.append(np.concatenate(parts))
        types.append(np.repeat([s.type_id for s in template], [len(p) for p in parts]).astype(np.int32))
    batch = Batch.of(rows)
    token_id = pad_id(spec, padding)
    return batch.padded(padding, token_id, Batch.of(types).ids)


def pad_id(spec: TokenizerSpec, padding: Padding) -> int:
    """Token to pad with."""
    if padding.id is not None:
        return padding.id
    return 0 if spec.pad_id is None else spec.pad_id
