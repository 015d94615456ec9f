"""A TokenizerSpec as tokenizer.json: the way back from `hf_json.py`. Whether anything was lost is checked by reading it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from tokamak.errors import UnsupportedError
from tokamak.tokenizers.patterns import DIGIT_GROUPS
from tokamak.tokenizers.shaping import template_of
from tokamak.tokenizers.spec import ABSENT, USER_DEFINED, Slot, Step, TokenizerSpec

_MODELS = {
    "bpe": "BPE",
    "characters": "BPE",
    "unigram": "Unigram",
    "wordpiece": "WordPiece",
    "words": "WordLevel",
}


def data_from_spec(spec: TokenizerSpec) -> dict[str, Any]:
    """The parsed tokenizer.json. Raises: UnsupportedError for a kind or step that the format does not have."""
    if spec.kind not in _MODELS:
        raise UnsupportedError(f"tokenizer.json has no model of the kind {spec.kind!r}")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_entries(spec),
        "normalizer": _sequence(parts_of(spec)["normalizers"], "normalizers"),
        "pre_tokenizer": _sequence(parts_of(spec)["pre_tokenizers"], "pretokenizers"),
        "post_processor": _post_processor(spec),
        "decoder": _decoder(spec),
        "model": _model(spec),
    }


# The alphabet of bytes alone: bpe models here read bytes without being told.
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def parts_of(spec: TokenizerSpec) -> dict[str, list[dict[str, Any]]]:
    """Normalizers and pre-tokenizers, every option written out."""
    cutting = [_pre_tokenizer(s) for s in spec.pre_tokenizers]
    if spec.kind == "bpe" and (not cutting or cutting[-1]["type"] != "ByteLevel"):
        cutting.append(_BYTES)
    return {"normalizers": [_normalizer(s) for s in spec.normalizers], "pre_tokenizers": cutting}


def added_entries(spec: TokenizerSpec) -> list[dict[str, Any]]:
    """The list `added_tokens`, in order of ids as its readers want it."""
    return [
        {"id": t.id, "content": t.content, "single_word": t.single_word, "lstrip": t.lstrip}
        | {"rstrip": t.rstrip, "normalized": t.normalized, "special": t.special}
        for t in sorted(spec.added, key=lambda t: t.id)
    ]


def _texts(spec: TokenizerSpec) -> list[str]:
    return [t.decode("utf-8", "surrogateescape") for t in spec.tokens]


def _vocab(spec: TokenizerSpec) -> dict[str, int]:
    """Tokens of the model itself."""
    only_added = {t.id for t in spec.added if spec.roles[t.id] == USER_DEFINED}
    return {text: i for i, text in enumerate(_texts(spec)) if spec.roles[i] != ABSENT and i not in only_added}


def _model(spec: TokenizerSpec) -> dict[str, Any]:
    vocab, kind = _vocab(spec), _MODELS[spec.kind]
    unknown = None if spec.unk_id is None else spec.tokens[spec.unk_id].decode("utf-8", "surrogateescape")
    if kind == "BPE":
        merges = [m.decode("utf-8", "surrogateescape") for m in spec.merges or ()]
        return {
            "type": kind,
            "dropout": spec.dropout or None,
            "unk_token": unknown,
            "continuing_subword_prefix": spec.continuing_prefix or None,
            "end_of_word_suffix": spec.word_suffix or None,
            "fuse_unk": spec.fuse_unknown,
            "byte_fallback": spec.byte_fallback,
            "ignore_merges": spec.ignore_merges,
            "vocab": vocab,
            "merges": [m.split("\0") if "\0" in m else m for m in merges],
        }
    if kind == "Unigram":
        assert spec.scores is not None
        pieces = [[text, float(spec.scores[i])] for text, i in vocab.items()]
        if list(vocab.values()) != list(range(len(pieces))):
            raise UnsupportedError("a Unigram model of tokenizer.json has no gaps between ids")
        return {"type": kind, "unk_id": spec.unk_id, "vocab": pieces, "byte_fallback": spec.byte_fallback}
    if kind == "WordLevel":
        return {"type": kind, "vocab": vocab, "unk_token": unknown or "<unk>"}
    return {
        "type": kind,
        "unk_token": unknown or "[UNK]",
        "continuing_subword_prefix": spec.continuing_prefix,
        "max_input_chars_per_word": spec.max_word,
        "vocab": vocab,
    }


def _sequence(parts: Sequence[dict[str, Any]], name: str) -> dict[str, Any] | None:
    if len(parts) < 2:
        return parts[0] if parts else None
    return {"type": "Sequence", name: list(parts)}


def _options(step: Step) -> dict[str, Any]:
    options: dict[str, Any] = dict(step.options)
    for key, form in (("regex", "Regex"), ("string", "String")):
        if key in options:
            options["pattern"] = {form: options.pop(key)}
    return options


def _normalizer(step: Step) -> dict[str, Any]:
    if step.type == "SentencePiece":
        raise UnsupportedError("tokenizer.json has no normalizer that does what sentencepiece does")
    options = _options(step)
    if step.type == "Precompiled":
        options = {"precompiled_charsmap": base64.b64encode(step.get("charsmap", b"")).decode("ascii")}
    if step.type == "BertNormalizer":
        defaults = {
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        }
        options = defaults | options
    return {"type": step.type, **options}


def _pre_tokenizer(step: Step) -> dict[str, Any]:
    for pattern, groups in DIGIT_GROUPS.items():
        if step == groups:
            return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    options = _options(step)
    if step.type == "ByteLevel":
        options.pop("map_bytes", None)
        options = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True} | options
    if step.type == "Split":
        options = {"invert": False} | options
    return {"type": step.type, **options}


def _post_processor(spec: TokenizerSpec) -> dict[str, Any] | None:
    parts = []
    if spec.trim_offsets:
        parts.append(
            {
                "type": "ByteLevel",
                "add_prefix_space": spec.trim_keeps_prefix,
                "trim_offsets": True,
                "use_regex": True,
            }
        )
    template, pair = template_of(spec, 1), template_of(spec, 2)
    if len(template) > 1 or spec.pair:
        ids = {s.id for s in (*template, *pair)} - {-1}
        names = {i: spec.tokens[i].decode("utf-8", "replace") for i in ids}
        parts.append(
            {
                "type": "TemplateProcessing",
                "single": [_piece(s, names) for s in template],
                "pair": [_piece(s, names) for s in pair],
                "special_tokens": {n: {"id": n, "ids": [i], "tokens": [n]} for i, n in sorted(names.items())},
            }
        )
    return _sequence(parts, "processors")


def _piece(slot: Slot, names: dict[int, str]) -> dict[str, Any]:
    if slot.text:
        return {"Sequence": {"id": slot.text, "type_id": slot.type_id}}
    return {"SpecialToken": {"id": names[slot.id], "type_id": slot.type_id}}


def _decoder(spec: TokenizerSpec) -> dict[str, Any] | None:
    if spec.decoders:
        return _sequence([_decoder_part(s) for s in spec.decoders], "decoders")
    if spec.join_with_space:
        return None
    if spec.byte_texts:
        return {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    if spec.space_texts and spec.byte_runs and spec.strip_space:
        parts: list[dict[str, Any]] = [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
            *({"type": "ByteFallback"}, {"type": "Fuse"}),
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]
        return _sequence(parts, "decoders")
    raise UnsupportedError("tokenizer.json has no decoder that does what this tokenizer's does")


def _decoder_part(step: Step) -> dict[str, Any]:
    given = (
        {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        if step.type == "ByteLevel"
        else {}
    )
    return {"type": step.type, **given, **_options(step)}
