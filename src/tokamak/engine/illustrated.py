"""Prompts with pictures: token ids in which runs of placeholders stand for rows that an image encoder gave."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tokamak.engine.pictures import PictureLike, is_picture_part, picture_of
from tokamak.errors import ContextOverflow, InvalidParams, UnsupportedError
from tokamak.types import Floats, Given, Ints

if TYPE_CHECKING:
    from tokamak.engine.vision import Seen, Vision
    from tokamak.tokenizers import Tokenizer

MARKS = [chr(c) for c in range(0xFDE8, 0xFDF0)]  # noncharacters: text has no use for them
MARK = "<image>"  # in texts that are no conversation
MAX_PICTURES = 64  # of a prompt


@dataclass(frozen=True, slots=True)
class Placed:
    """A picture in a prompt: rows start .. start + len(vectors). number: of its content."""

    start: int
    vectors: Floats
    number: int

    @property
    def stop(self) -> int:
        """Behind its last row."""
        return self.start + len(self.vectors)


@dataclass(frozen=True, slots=True)
class Illustrated:
    """A prompt with pictures. token_ids: where a picture is, its placeholder once for every row. Belongs to the LLM that made it."""

    token_ids: list[int]
    pictures: tuple[Placed, ...]

    def __len__(self) -> int:
        return len(self.token_ids)

    def check(self, width: int) -> None:
        """Raises: InvalidParams if its pictures do not fit the prompt, or are no rows of this width."""
        behind = 0
        for p in self.pictures:
            rows = p.vectors
            if rows.dtype != np.float32 or rows.ndim != 2 or not len(rows) or rows.shape[1] != width:
                raise InvalidParams(
                    f"a picture's rows are {rows.dtype}{list(rows.shape)}, the model's f32[n, {width}]"
                )
            if p.start < behind or p.stop > len(self.token_ids) or p.number < 1:
                raise InvalidParams(f"a picture's rows {p.start} .. {p.stop} do not fit the prompt")
            behind = p.stop


def keys(tokens: Ints, start: int, pictures: Sequence[Placed]) -> Ints:
    """Tokens from position `start` on as prefixes are filed by: rows of a picture by its number, below 0, which no token is."""
    if not any(p.start < start + len(tokens) and start < p.stop for p in pictures):
        return tokens
    out = tokens.copy()
    for p in pictures:
        out[max(p.start - start, 0) : max(p.stop - start, 0)] = -p.number
    return out


def given(spans: Iterable[tuple[Sequence[Placed], int, int, int]]) -> Given | None:
    """Rows of pictures in a step; None if it has none.

    spans: of each sequence its pictures, its first row in the step, and the positions begin .. end that it computes.
    """
    rows, vectors = [], []
    for pictures, first, begin, end in spans:
        for p in pictures:
            start, stop = max(begin, p.start), min(end, p.stop)
            if start < stop:
                rows.append(np.arange(first + start - begin, first + stop - begin, dtype=np.int32))
                vectors.append(p.vectors[start - p.start : stop - p.start])
    return Given(np.concatenate(rows), np.concatenate(vectors)) if rows else None


def has_pictures(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any message holds a picture."""
    contents = (m.get("content") for m in messages if isinstance(m, Mapping))
    return any(is_picture_part(part) for content in contents if isinstance(content, list) for part in content)


def joined(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Messages whose parts are all text as one text each, parts joined by line ends; others as they are."""
    return [_joined(m) if isinstance(m, Mapping) and _is_text(m.get("content")) else m for m in messages]


def _is_text(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(p, Mapping) and p.get("type") == "text" for p in content
    )


def _joined(message: Mapping[str, Any]) -> dict[str, Any]:
    return {**message, "content": "\n".join(str(part.get("text", "")) for part in message["content"])}


class Writer:
    """Writes prompts with pictures for one model. template: the chat template's source. context: of the model."""

    def __init__(
        self, tokenizer: Tokenizer | None, vision: Vision | None, context: int, template: str = ""
    ) -> None:
        if tokenizer is None:
            raise UnsupportedError("the model file has no tokenizer, so no text around images")
        if vision is None:
            raise UnsupportedError(
                "a message holds an image, and the model was loaded without an image encoder: give its mmproj file "
                "(mmproj=, --mmproj)"
            )
        self.tokenizer, self.vision, self.context = tokenizer, vision, context
        self.placeholder = self._placeholder()
        self.name = tokenizer.id_to_token(self.placeholder) if self.placeholder is not None else ""
        self.lists = bool(self.name) and self.name in template
        self.insists = self.lists and "is string" not in template

    def _placeholder(self) -> int | None:
        """The token that stands for an image's row; None if the vocabulary has none."""
        checkpoint, tokenizer = self.vision.checkpoint, self.tokenizer
        if checkpoint.token_id is not None and checkpoint.token_id < tokenizer.vocab_size:
            return checkpoint.token_id
        special = tokenizer.special_tokens
        return next((special[name] for name in checkpoint.tokens if name in special), None)

    def written(
        self, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], list[PictureLike]]:
        """Messages as the chat template takes them, and their pictures in order.

        A template that writes placeholders itself gets parts of type image; any other a mark in the text.
        """
        pictures: list[PictureLike] = []
        out = [self._message(message, pictures) for message in messages]
        if len(pictures) > MAX_PICTURES:
            raise InvalidParams(f"the messages hold {len(pictures)} images, at most {MAX_PICTURES} are read")
        return out, pictures

    def _message(self, message: Mapping[str, Any], pictures: list[PictureLike]) -> Mapping[str, Any]:
        content = message.get("content")
        if not isinstance(content, list):
            parts = [{"type": "text", "text": content}]
            return {**message, "content": parts} if self.insists and isinstance(content, str) else message
        parts, checkpoint = [], self.vision.checkpoint
        for part in content:
            if isinstance(part, Mapping) and MARKS[0] in str(part.get("text", "")):
                raise InvalidParams(f"a message has the character U+{ord(MARKS[0]):04X}, which no text has")
            if is_picture_part(part):
                pictures.append(picture_of(part))
                parts.append({"type": "image"} if self.lists else {"type": "text", "text": MARKS[0]})
            else:
                parts.append(part)
        if self.lists:
            return {**message, "content": parts}
        text = str(_joined({**message, "content": parts})["content"])
        for ends in ((f"\n{MARKS[0]}", MARKS[0]), (f"{MARKS[0]}\n", MARKS[0])):
            text = text.replace(*ends)
        return {
            **message,
            "content": text.replace(MARKS[0], f"{checkpoint.before}{MARKS[0]}{checkpoint.after}"),
        }

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        pictures: Sequence[PictureLike],
        *form: Any,
        **variables: Any,
    ) -> Illustrated:
        """What `written` gave as token ids. form, variables: as of `Tokenizer.encode_chat`.

        Raises: InvalidParams if the template has other places for pictures than there are pictures.
        """
        marks = {"mark": "" if self.lists else MARKS[0], "name": self.name}
        pieces = self.tokenizer.encode_chat_parts(messages, *form, **marks, **variables)
        if self.placeholder is not None:
            pieces = split(pieces[0], self.placeholder)
        if len(pieces) != len(pictures) + 1:
            raise InvalidParams(
                f"the prompt has {len(pieces) - 1} places for images and {len(pictures)} images"
            )
        return expanded(pieces, self.seen(pictures), self.placeholder or 0)

    def seen(self, pictures: Sequence[PictureLike]) -> list[Seen]:
        """Rows of pictures.  Raises: ContextOverflow, before any is encoded, if they cannot all fit."""
        least = len(pictures) * self.vision.num_rows
        if least >= self.context:
            raise ContextOverflow(
                f"{len(pictures)} images take at least {least} tokens, the context holds {self.context}"
            ).counted(least, self.context)
        return [self.vision.see(picture) for picture in pictures]

    def continued(self, text: str, pictures: Sequence[PictureLike]) -> Illustrated:
        """A text to go on with, whose pictures stand where it says `<image>`, or else before it."""
        pieces = text.split(MARK) if MARK in text else [""] * len(pictures) + [text]
        if len(pieces) != len(pictures) + 1:
            raise InvalidParams(
                f"the text has {len(pieces) - 1} places {MARK} for images and {len(pictures)} images"
            )
        encode = self.tokenizer.encode
        ids = [
            encode(one, add_special=not i, parse_special=True) if one or not i else []
            for i, one in enumerate(pieces)
        ]
        return expanded(ids, self.seen(pictures), self.placeholder or 0)


def split(ids: list[int], at: int) -> list[list[int]]:
    """The ids between those that are `at`."""
    cuts = [i for i, token in enumerate(ids) if token == at]
    return [ids[a:b] for a, b in zip([0, *(i + 1 for i in cuts)], [*cuts, len(ids)], strict=True)]


def expanded(pieces: Sequence[list[int]], seen: Sequence[Seen], placeholder: int) -> Illustrated:
    """Pictures between pieces of a text."""
    ids = list(pieces[0])
    placed = []
    for picture, piece in zip(seen, pieces[1:], strict=True):
        placed.append(Placed(len(ids), picture.vectors, picture.number))
        ids += [placeholder] * len(picture.vectors)
        ids += piece
    return Illustrated(ids, tuple(placed))
