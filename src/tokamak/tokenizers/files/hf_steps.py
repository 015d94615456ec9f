"""Normalizers, pre-tokenizers and decoders of tokenizer.json, translated to `Step`s."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from tokamak.errors import TokenizerFileError, UnsupportedError
from tokamak.tokenizers.files.oniguruma import translated
from tokamak.tokenizers.patterns import DIGIT_GROUPS
from tokamak.tokenizers.spec import Step

Object = Mapping[str, Any]

# Options that each step has; one that is not listed is refused, so that nothing is lost in silence.
NORMALIZERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel"), ()),
    "BertNormalizer": ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"),
    "Strip": ("strip_left", "strip_right"),
    "Replace": ("pattern", "content"),
    "Prepend": ("prepend",),
    "Append": ("append",),
    "Precompiled": ("precompiled_charsmap",),
}
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
    "Split": ("pattern", "behavior", "invert"),
    "Metaspace": ("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"),
    **dict.fromkeys(("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts"), ()),
    "Digits": ("individual_digits",),
    "Punctuation": ("behavior",),
    "CharDelimiterSplit": ("delimiter",),
    "FixedLength": ("length",),
}
DECODERS: dict[str, tuple[str, ...]] = {
    "BPEDecoder": ("suffix",),
    "ByteLevel": ("add_prefix_space", "trim_offsets", "use_regex"),
    "WordPiece": ("prefix", "cleanup"),
    "Metaspace": ("replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"),
    "CTC": ("pad_token", "word_delimiter_token", "cleanup"),
    "Replace": ("pattern", "content"),
    "Strip": ("content", "start", "stop"),
    **dict.fromkeys(("Fuse", "ByteFallback"), ()),
}
LLAMA_DECODER = ("Replace", "ByteFallback", "Fuse", "Strip")


def _flatten(part: Object | None, list_name: str) -> list[Object]:
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [inner for p in part[list_name] for inner in _flatten(p, list_name)]


def _checked(part: Object, known: Mapping[str, tuple[str, ...]], what: str) -> dict[str, Any]:
    kind = part["type"]
    if kind not in known:
        raise UnsupportedError(f"{what} {kind!r} is not supported")
    strange = sorted(set(part) - {"type", *known[kind]})
    if strange:
        raise UnsupportedError(f"{what} {kind!r} has an option {strange[0]!r} that is not known here")
    options = {k: v for k, v in part.items() if k != "type" and v is not None}
    if "pattern" in options:
        pattern = options.pop("pattern")
        if isinstance(pattern, str):
            pattern = {"String": pattern}
        options |= (
            {"regex": translated(pattern["Regex"])} if "Regex" in pattern else {"string": pattern["String"]}
        )
    return options


def normalizer_steps(part: Object | None) -> tuple[Step, ...]:
    """The `normalizer` of a file. Raises: UnsupportedError for what is not implemented."""
    steps = []
    for p in _flatten(part, "normalizers"):
        options = _checked(p, NORMALIZERS, "normalizer")
        if p["type"] == "Precompiled":
            try:
                options = {
                    "charsmap": base64.b64decode(options.get("precompiled_charsmap", ""), validate=True)
                }
            except (binascii.Error, ValueError) as e:
                raise TokenizerFileError(f"precompiled_charsmap is not base64: {e}") from e
            if not options["charsmap"]:
                continue
        steps.append(Step.of(p["type"], **options))
    return tuple(steps)


def pre_tokenizer_steps(part: Object | None) -> tuple[Step, ...]:
    """The `pre_tokenizer` of a file. Raises: UnsupportedError for what is not implemented."""
    steps = []
    for p in _flatten(part, "pretokenizers"):
        options = _checked(p, PRE_TOKENIZERS, "pre-tokenizer")
        if p["type"] == "Metaspace":
            options = _metaspace(options)
        groups = DIGIT_GROUPS.get(options.get("regex", ""))
        if groups and options.get("behavior") == "Isolated" and not options.get("invert"):
            steps.append(groups)
            continue
        options.pop("trim_offsets", None)
        steps.append(Step.of(p["type"], **options))
    return tuple(steps)


def _metaspace(options: Mapping[str, Any]) -> dict[str, Any]:
    """Old files say add_prefix_space for what is prepend_scheme now."""
    scheme = options.get("prepend_scheme")
    if scheme is None:
        scheme = "always" if options.get("add_prefix_space", True) else "never"
    elif options.get("add_prefix_space") is False and scheme != "never":
        raise TokenizerFileError("Metaspace has add_prefix_space false and a prepend_scheme that adds one")
    replacement = options.get("replacement", "\u2581")
    return {"replacement": replacement, "prepend_scheme": scheme, "split": options.get("split", True)}


def decoder_fields(part: Object | None) -> dict[str, Any]:
    """Fields of a spec that decode as the `decoder` of a file does."""
    parts = _flatten(part, "decoders")
    if not parts:
        return {"join_with_space": True}
    kinds = tuple(p["type"] for p in parts)
    options = [_checked(p, DECODERS, "decoder") for p in parts]
    if kinds == ("ByteLevel",):
        return {"byte_texts": True}
    llama: tuple[dict[str, Any], ...] = (
        {"string": "\u2581", "content": " "},
        {},
        {},
        {"content": " ", "start": 1, "stop": 0},
    )
    if kinds == LLAMA_DECODER and tuple(options) == llama:
        return {"space_texts": True, "byte_runs": True, "strip_space": True}
    steps = []
    for kind, o in zip(kinds, options, strict=True):
        if kind == "Metaspace":
            o = _metaspace(o)  # noqa: PLW2901  the translated options
        steps.append(Step.of(kind, **{k: v for k, v in o.items() if k not in ("trim_offsets", "use_regex")}))
    return {"decoders": tuple(steps)}
