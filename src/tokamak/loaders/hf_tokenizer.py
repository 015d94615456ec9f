"""The tokenizer of a Hugging Face directory as `tokenizer.*` keys of GGUF.

GGUF knows a few kinds of tokenizers and names pre-tokenizers instead of writing them down. The name is found by trying: of
all pre-tokenizers known, the one that gives the original's ids on texts made to tell them apart. What is written is
read back and compared, so that a tokenizer that GGUF cannot say is noticed here, not by the reader of poor text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.errors import TokamakError, TokenizerFileError, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.gguf import spec_from_metadata
from tokamak.tokenizers.files.opening import open_spec
from tokamak.tokenizers.patterns import GPT2, PRE_TOKENIZERS
from tokamak.tokenizers.spec import (
    ABSENT,
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Step,
    TokenizerSpec,
)

__all__ = ["TokenizerKeys", "tokenizer_keys"]

SPACE = "\u2581"
# The usual name of a pre-tokenizer that has several, in the order they are tried.
USUAL = (
    "llama-bpe",
    "qwen2",
    "gpt-2",
    "deepseek-v3",
    "gpt-4o",
    "tekken",
    "starcoder",
    "falcon",
    "olmo",
    "qwen35",
    "bloom",
)
SAMPLED = 1000  # tokens of the vocabulary tried as texts
PROBES = (
    "Hello, World! It's 2024 and we've paid $1,234.56 for 3 things; isn't THAT so?\n\n  Two  spaces\tand a tab.\r\n",
    "na\u00efve caf\u00e9 \u4f60\u597d\uff0c\u4e16\u754c 12345678 \u0645\u0631\u062d\u0628\u0627 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \U0001f600\U0001f680 e\u0301",
    "def f(x_1):\n    return x_1**2  # don't\n\n\nclass HTMLParser:\n\tpass\n",
    "I'LL you'Ve 'tis 's\u00a0\u2028 a.b,c!? ((nested)) ... 3.14e-10 /path/to/File_name.txt",
    " leading and trailing ",
)


@dataclass(frozen=True, slots=True)
class TokenizerKeys:
    """metadata, and the type of each in the file. notes: where the ids of GGUF readers differ from the original's."""

    metadata: Mapping[str, Any]
    types: Mapping[str, str]
    notes: tuple[str, ...] = ()


def tokenizer_keys(folder: Path, num_rows: int) -> TokenizerKeys:
    """The keys for the tokenizer of a directory; tokens are filled up to the num_rows rows of the embedding.

    Raises: TokenizerFileError for a broken or missing one; UnsupportedError for a kind that GGUF does not have.
    """
    try:
        spec = open_spec(_file(folder))
    except TokamakError as error:
        raise error.located(str(folder)) from error
    original = Tokenizer.from_spec(spec)
    metadata = dict(_common(spec, folder))
    best: tuple[int, dict[str, Any]] | None = None
    for kind in _kinds(spec, num_rows):
        found = metadata | kind
        wrong = _differences(original, found)
        if best is None or wrong < best[0]:
            best = (wrong, found)
        if not wrong:
            break
    if best is None:
        raise UnsupportedError(f"{folder}: GGUF has no kind of tokenizer for one of {spec.kind}")
    wrong, metadata = best
    note = f"GGUF cannot say this tokenizer exactly: its readers give other ids to {wrong} of the test texts and words"
    return TokenizerKeys(metadata, {k: _type(v) for k, v in metadata.items()}, (note,) if wrong else ())


def _file(folder: Path) -> Path:
    """SentencePiece models before the tokenizer.json made from them: GGUF has their kind.

    A sentencepiece.bpe.model is no such one: XLM-R and its like count its pieces in another order than the file.
    """
    names = (
        "tokenizer.model",
        "spiece.model",
        "tokenizer.json",
        "vocab.json",
        "vocab.txt",
    )
    found = next((folder / n for n in names if (folder / n).is_file()), None)
    if found is None:
        raise TokenizerFileError(f"{folder}: has no tokenizer: none of {', '.join(names)}")
    return found


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "uint32"
    if isinstance(value, str):
        return "string"
    if isinstance(value, np.ndarray):
        return f"array[{value.dtype.name}]"
    return "array[string]"


def _common(spec: TokenizerSpec, folder: Path) -> Iterator[tuple[str, Any]]:
    """Special ids, flags, templates."""
    config = _json(folder / "tokenizer_config.json")
    texts = {t.content: t.id for t in spec.added}
    texts |= {token.decode("utf-8", "replace"): i for i, token in enumerate(spec.tokens)}

    def named(name: str, own: int | None) -> int | None:
        value = config.get(f"{name}_token")
        text = value.get("content") if isinstance(value, dict) else value
        return texts.get(text, own) if isinstance(text, str) else own

    ids = {
        "bos": named("bos", spec.bos_id),
        "eos": named("eos", spec.eos_id),
        "unknown": named("unk", spec.unk_id),
        "padding": named("pad", spec.pad_id),
        "seperator": named("sep", spec.sep_id),  # spelled so in the format
        "mask": named("mask", spec.mask_id),
    }
    for name, key in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        value = _json(folder / "config.json").get(f"{key}_token_id")
        if ids[name] is None and isinstance(value, int) and 0 <= value < len(spec.tokens):
            ids[name] = value
    if spec.kind == "wordpiece":
        ids |= {"bos": named("cls", ids["bos"]), "eos": ids["seperator"]}
    ends = _json(folder / "generation_config.json").get("eos_token_id")
    others = [i for i in ends if isinstance(i, int) and i != ids["eos"]] if isinstance(ends, list) else []
    if others:
        ids["eot"] = others[-1]
    for name, value in ids.items():
        if value is not None:
            yield f"tokenizer.ggml.{name}_token_id", int(value)
    bos, eos = ids["bos"], ids["eos"]
    yield "tokenizer.ggml.add_bos_token", bos is not None and spec.prefix[:1] == (bos,)
    yield "tokenizer.ggml.add_eos_token", eos is not None and spec.suffix[-1:] == (eos,)
    if spec.chat_template is not None:
        yield "tokenizer.chat_template", spec.chat_template
    for name, template in spec.chat_templates.items():
        yield f"tokenizer.chat_template.{name}", template


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise TokenizerFileError(f"{path}: not valid JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _kinds(spec: TokenizerSpec, num_rows: int) -> Iterator[dict[str, Any]]:
    """What a tokenizer may be in GGUF, the likeliest first."""
    tokens, types = _table(spec, num_rows)
    if spec.kind == "bpe" or (spec.kind == "characters" and _maps_bytes(spec)):
        merges = [_merge(m) for m in spec.merges or ()]
        for pre in _pre_names(spec):
            yield _keys("gpt2", tokens, types, {"pre": pre, "merges": merges})
    elif spec.kind in ("spm", "unigram"):
        step = next((s for s in spec.normalizers if s.type == "SentencePiece"), None)
        if step is None and spec.kind == "unigram":
            return
        more: dict[str, Any] = {
            "pre": "default",
            "scores": _padded(spec, num_rows),
            "add_space_prefix": bool(step.get("add_dummy_prefix", True)) if step else True,
        }
        collapse = bool(step.get("remove_extra_whitespaces", True)) if step else False
        if spec.kind == "unigram" or collapse:
            more["remove_extra_whitespaces"] = collapse
        if spec.kind == "unigram" and step is not None and (charsmap := step.get("charsmap")):
            more["precompiled_charsmap"] = np.frombuffer(charsmap, dtype=np.uint8)
        yield _keys("llama" if spec.kind == "spm" else "t5", tokens, types, more)
    elif (
        spec.kind == "characters" and spec.byte_fallback
    ):  # SentencePiece BPE as merges: ids rise as merges come
        scores = -np.arange(len(tokens), dtype=np.float32)
        for prefix in (True, False):
            more = {"pre": "default", "scores": scores, "add_space_prefix": prefix}
            yield _keys("llama", tokens, types, more)
    elif spec.kind == "wordpiece":
        turned = [_turned(t, types[i]) for i, t in enumerate(tokens)]
        lowers = any(bool(s.get("lowercase")) for s in spec.normalizers if s.type == "BertNormalizer")
        more = {"pre": "jina-v2-en", "token_type_count": 2, "normalizer.lowercase": lowers}
        yield _keys("bert", turned, types, more)


def _keys(model: str, tokens: list[bytes], types: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    found = {"model": model, "tokens": tokens, "token_type": types, **more}
    return {f"tokenizer.ggml.{name}": value for name, value in found.items()}


def _maps_bytes(spec: TokenizerSpec) -> bool:
    return any(s.type == "ByteLevel" for s in (*spec.normalizers, *spec.pre_tokenizers))


def _merge(merge: bytes) -> bytes:
    """ "left right": a space inside a part is written as the byte alphabet does it."""
    return merge.replace(b"\0", b" ")


def _pre_names(spec: TokenizerSpec) -> Iterator[str]:
    """Names of all pre-tokenizers, those that are written as this one first."""
    names = {id(PRE_TOKENIZERS[name]): name for name in reversed((*USUAL, *PRE_TOKENIZERS))}

    def unlike(name: str) -> bool:
        return _cuts(PRE_TOKENIZERS[name].steps) != _cuts(spec.pre_tokenizers)

    order = [names[i] for i in dict.fromkeys(id(PRE_TOKENIZERS[n]) for n in (*USUAL, *PRE_TOKENIZERS))]
    return iter(sorted(order, key=unlike))


def _cuts(steps: Sequence[Step]) -> list[str]:
    """What the steps cut by; putting words in the byte alphabet cuts nothing."""
    found = []
    for step in steps:
        if step.type == "ByteLevel":
            found += [GPT2] if step.get("use_regex", True) else []
        else:
            found.append(str(step.get("regex") or step.get("string") or step))
    return found


def _table(spec: TokenizerSpec, num_rows: int) -> tuple[list[bytes], Any]:
    """Tokens and their types; ids that no token has are unused."""
    size = max(num_rows, len(spec.tokens))
    tokens = [*spec.tokens, *(b"" for _ in range(size - len(spec.tokens)))]
    types = np.full(size, UNUSED, dtype=np.int32)
    roles = np.asarray(spec.roles)
    types[: len(roles)] = np.where(roles == ABSENT, UNUSED, roles)
    for added in spec.added:
        if added.id >= size:
            raise TokenizerFileError(
                f"added token {added.content!r} has id {added.id}, the model has {size} rows"
            )
        tokens[added.id] = added.content.encode("utf-8", "surrogateescape")
        if types[added.id] not in (UNKNOWN, BYTE):
            types[added.id] = CONTROL if added.special else USER_DEFINED
    if spec.kind != "bpe" and spec.byte_fallback:
        for i in np.flatnonzero(types == NORMAL).tolist():
            if len(tokens[i]) == 6 and tokens[i][:3] == b"<0x" and tokens[i][5:] == b">":
                types[i] = BYTE
    if spec.unk_id is not None and spec.kind in ("spm", "unigram", "characters"):
        types[spec.unk_id] = UNKNOWN
    for i in np.flatnonzero(types == UNUSED).tolist():
        tokens[i] = tokens[i] or f"[PAD{i}]".encode()
    return tokens, types


def _padded(spec: TokenizerSpec, num_rows: int) -> Any:
    scores = np.full(max(num_rows, len(spec.tokens)), -1000.0, dtype=np.float32)
    if spec.scores is not None:
        scores[: len(spec.scores)] = spec.scores
    return scores


def _turned(token: bytes, kind: int) -> bytes:
    """A word piece as GGUF has it: U+2581 before those that start a word, nothing before the others."""
    if kind in (CONTROL, UNUSED, UNKNOWN) or (token[:1] == b"[" and token[-1:] == b"]"):
        return token
    return token[2:] if token[:2] == b"##" else SPACE.encode() + token


def _differences(original: Tokenizer, metadata: Mapping[str, Any]) -> int:
    """How many test texts a reader of the keys gives other ids."""
    try:
        reader = Tokenizer.from_spec(spec_from_metadata(metadata))
    except UnsupportedError:
        return len(PROBES) + SAMPLED + 1
    # Words of the vocabulary itself: whether a token is found that no merges lead to.
    size = original.vocab_size
    words = [original.decode([i]) for i in range(0, size, max(1, size // SAMPLED))]
    return sum(
        list(original.encode(text, add_special=True)) != list(reader.encode(text, add_special=True))
        for text in (*PROBES, *words)
    )
