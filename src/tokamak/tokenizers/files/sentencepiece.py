"""SentencePiece .model files: a protocol buffer, read field by field. The authority for ids is sentencepiece 0.2.

Fields that matter (sentencepiece_model.proto): pieces 1 {piece 1, score 2, type 3}, trainer_spec 2 {model_type 3,
treat_whitespace_as_suffix 24, byte_fallback 35, bos_id 41, eos_id 42, pad_id 43}, normalizer_spec 3
{precompiled_charsmap 2, add_dummy_prefix 3, remove_extra_whitespaces 4, escape_whitespaces 5}.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tokamak.errors import TokenizerFileError, UnsupportedError
from tokamak.tokenizers.files.end_texts import END_TEXTS
from tokamak.tokenizers.spec import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    AddedToken,
    Step,
    Strings,
    TokenizerSpec,
)

KINDS = {1: "unigram", 2: "spm", 3: "words", 4: "characters"}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise TokenizerFileError("not a SentencePiece model: a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of a message: int for varints, bytes for everything else. Raises: TokenizerFileError."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise TokenizerFileError(f"not a SentencePiece model: wire type {wire} at byte {at}")
        if size > len(data) - at:
            raise TokenizerFileError(f"not a SentencePiece model: a field at byte {at} is cut off")
        yield key >> 3, data[at : at + size]
        at += size


def looks_like_model(data: bytes) -> bool:
    """Whether bytes may be a SentencePiece model: its first field is a piece with a string and a score."""
    try:
        number, piece = next(fields(data[:4096] if len(data) > 4096 else data))
        inner = dict(fields(piece)) if isinstance(piece, bytes) else {}
    except (TokenizerFileError, StopIteration):
        return False
    return number == 1 and isinstance(inner.get(1), bytes)


def _signed(value: Any, default: int) -> int:
    if not isinstance(value, int):
        return default
    return value - (1 << 64) if value >= 1 << 63 else value


def spec_from_model(data: bytes, config: Mapping[str, Any] | None = None) -> TokenizerSpec:
    """Read a .model file; `config` is the tokenizer_config.json beside it.

    Raises: TokenizerFileError if it is malformed, UnsupportedError for a model type that is not implemented.
    """
    pieces: list[bytes] = []
    scores: list[float] = []
    types: list[int] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in fields(data):
        if number == 1 and isinstance(value, bytes):
            piece = dict(fields(value))
            text, score = piece.get(1, b""), piece.get(2, b"\0\0\0\0")
            if not isinstance(text, bytes) or not isinstance(score, bytes) or len(score) != 4:
                raise TokenizerFileError(f"piece {len(pieces)} is malformed")
            pieces.append(text)
            scores.append(struct.unpack("<f", score)[0])
            types.append(int(piece.get(3, NORMAL)) if isinstance(piece.get(3, NORMAL), int) else NORMAL)
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(fields(value))
        elif number == 3 and isinstance(value, bytes):
            normalizer = dict(fields(value))
    if not pieces:
        raise TokenizerFileError("not a SentencePiece model: it has no pieces")
    if not all(NORMAL <= t <= 6 for t in types):
        raise TokenizerFileError("a piece has a type outside 1 to 6")
    return _spec(pieces, scores, np.array(types, np.uint8), trainer, normalizer, config or {})


def _spec(
    pieces: list[bytes],
    scores: list[float],
    roles: Any,
    trainer: Mapping[int, Any],
    normalizer: Mapping[int, Any],
    config: Mapping[str, Any],
) -> TokenizerSpec:
    kind = KINDS.get(trainer.get(3, 1))
    if kind is None:
        raise UnsupportedError(f"SentencePiece model type {trainer.get(3)} is not supported")
    if kind == "spm" and (roles == UNUSED).any():
        raise UnsupportedError("a SentencePiece BPE model with unused pieces is not supported")
    unknown = np.flatnonzero(roles == UNKNOWN)
    if len(unknown) != 1:
        raise TokenizerFileError(f"the model has {len(unknown)} unknown pieces, it must have one")
    user_defined = [pieces[i] for i in np.flatnonzero(roles == USER_DEFINED).tolist()]
    return TokenizerSpec(
        kind=kind,
        tokens=Strings.of(pieces),
        roles=roles,
        scores=np.array(scores, np.float64),
        merges=Strings.of([]) if kind == "characters" else None,
        normalizers=(_normalizer(normalizer, bool(trainer.get(24, 0)), user_defined),),
        pre_tokenizers=(Step.of("Split", string="\u2581", behavior="MergedWithNext"),)
        if kind == "words"
        else (),
        added=_added(pieces, roles, kind),
        raw_added=True,
        fuse_unknown=True,
        byte_fallback=bool(trainer.get(35, 0)),
        float_sums=True,
        unk_id=int(unknown[0]),
        chat_template=t if isinstance(t := config.get("chat_template"), str) else None,
        **_decoding(trainer, normalizer),
        **_special_ids(pieces, roles, trainer, config, kind),
    )


def _decoding(trainer: Mapping[int, Any], normalizer: Mapping[int, Any]) -> dict[str, Any]:
    at_start = not trainer.get(24, 0)  # else spaces follow words
    collapse, surface = bool(normalizer.get(4, 1)), trainer.get(44)
    return {
        "space_texts": True,
        "strip_space": at_start and (collapse or bool(normalizer.get(3, 1))),
        "strip_each": at_start and collapse,
        "unknown_text": surface.decode("utf-8", "replace") if isinstance(surface, bytes) else " \u2047 ",
    }


def _special_ids(
    pieces: Sequence[bytes], roles: Any, trainer: Mapping[int, Any], config: Mapping[str, Any], kind: str
) -> dict[str, Any]:
    bos, eos, pad = (_special_id(trainer.get(n), d, len(pieces)) for n, d in ((41, 1), (42, 2), (43, -1)))
    control = np.flatnonzero(roles == CONTROL).tolist()
    ends = [i for i in control if pieces[i].decode("utf-8", "replace") in END_TEXTS]
    return {
        "bos_id": bos,
        "eos_id": eos,
        "pad_id": pad,
        "eog_ids": frozenset(ends if eos is None else [*ends, eos]),
        "prefix": (bos,) if config.get("add_bos_token", kind == "spm") and bos is not None else (),
        "suffix": (eos,) if config.get("add_eos_token", False) and eos is not None else (),
    }


def _special_id(value: Any, default: int, size: int) -> int | None:
    found = _signed(value, default)
    return found if 0 <= found < size else None


def _normalizer(normalizer: Mapping[int, Any], suffix: bool, user_defined: Sequence[bytes]) -> Step:
    symbols = b"".join(p + b"\0" for p in user_defined)
    charsmap = normalizer.get(2, b"")
    return Step.of(
        "SentencePiece",
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        symbols=symbols,
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
        escape_whitespaces=bool(normalizer.get(5, 1)),
        treat_whitespace_as_suffix=suffix,
    )


def _added(pieces: Sequence[bytes], roles: Any, kind: str) -> tuple[AddedToken, ...]:
    """Control and unknown pieces are special, as Hugging Face parses them; user-defined ones always match.

    A user-defined piece is found in the normalized text, as it stands; in unigram models by the model itself.
    """
    found = []
    for i in np.flatnonzero((roles == CONTROL) | (roles == UNKNOWN) | (roles == USER_DEFINED)).tolist():
        content = pieces[i].decode("utf-8", "surrogateescape")
        if roles[i] != USER_DEFINED:
            found.append(AddedToken(content, i, special=True))
        elif kind != "unigram":
            found.append(AddedToken(content, i, normalized=True, verbatim=True))
    return tuple(found)
