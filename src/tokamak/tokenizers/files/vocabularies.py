"""Vocabularies that are plain lists: vocab.json with merges.txt (GPT-2), vocab.txt (BERT), RWKV's list of literals."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

import numpy as np

from tokamak.errors import TokenizerFileError, UnsupportedError
from tokamak.tokenizers.files.hf_json import spec_from_data
from tokamak.tokenizers.spec import ABSENT, CONTROL, NORMAL, AddedToken, Strings, TokenizerSpec

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def spec_from_vocab_and_merges(
    vocab: Mapping[str, Any], merges: bytes, config: Mapping[str, Any]
) -> TokenizerSpec:
    """A byte-level BPE in the two files of GPT-2.

    Raises: TokenizerFileError if they are malformed, UnsupportedError if words are marked as in CLIP.
    """
    if not vocab or not all(isinstance(i, int) for i in vocab.values()):
        raise TokenizerFileError("not a vocab.json: it does not map tokens to ids")
    if any(t.endswith("</w>") for t in vocab):
        raise UnsupportedError(
            "a vocabulary with </w> needs its tokenizer.json, which says how words are cut"
        )
    try:
        lines = merges.decode("utf-8").split("\n")
    except UnicodeDecodeError as e:
        raise TokenizerFileError(f"merges.txt is not UTF-8: {e}") from e
    roberta = vocab.get("<s>") == 0  # in GPT-2's own vocabulary such names are words like any
    names = ("<s>", "</s>", "<unk>", "<pad>", "<mask>") if roberta else ("<|endoftext|>",)
    special = [t for t in names if t in vocab]
    data = {
        "model": {
            "type": "BPE",
            "vocab": dict(vocab),
            "merges": [m for m in lines if m and not m.startswith("#version")],
        },
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": bool(config.get("add_prefix_space", False)),
        },
        "decoder": {"type": "ByteLevel"},
        "added_tokens": [{"id": vocab[t], "content": t, "special": True} for t in special],
    }
    return spec_from_data(data, {"eos_token": "<|endoftext|>", **config})


def looks_like_wordpiece(data: bytes) -> bool:
    """Whether there is a line [UNK]."""
    return b"\n[UNK]\n" in b"\n" + data.replace(b"\r\n", b"\n") + b"\n"


def spec_from_wordpiece(data: bytes, config: Mapping[str, Any]) -> TokenizerSpec:
    """A BERT vocabulary, one token a line. Case is kept where the config says so, or else a token has upper case."""
    lines = data.decode("utf-8", "surrogateescape").replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    vocab = {token: i for i, token in enumerate(lines)}
    special = [t for t in BERT_SPECIAL if t in vocab]
    cased = any(t.removeprefix("##").lower() != t.removeprefix("##") for t in vocab if t not in special)
    lowercase = bool(config.get("do_lower_case", not cased))
    accents = config.get("strip_accents")
    template = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    template.append({"SpecialToken": {"id": "[SEP]", "type_id": 0}})
    second = [{"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    parsed = {
        "model": {
            "type": "WordPiece",
            "vocab": vocab,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
        },
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": bool(config.get("tokenize_chinese_chars", True)),
            "strip_accents": accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "added_tokens": [{"id": vocab[t], "content": t, "special": True} for t in special],
    }
    if "[CLS]" in vocab and "[SEP]" in vocab:
        parsed["post_processor"] = {
            "type": "TemplateProcessing",
            "single": template,
            "pair": template + second,
            "special_tokens": {t: {"id": t, "ids": [vocab[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")},
        }
    named = {"pad_token": "[PAD]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return spec_from_data(parsed, {**named, **config})


def looks_like_rwkv(data: bytes) -> bool:
    """Whether the first line is a number, a Python literal, a number."""
    parts = data[: data.find(b"\n")].split(b" ")
    return len(parts) >= 3 and parts[0].isdigit() and parts[-1].strip().isdigit() and parts[1][:1] in b"'\"b"


def _rwkv_token(number: int, line: str) -> tuple[int, bytes]:
    try:
        first, rest = line.split(" ", 1)
        literal, size = rest.rsplit(" ", 1)
        value = ast.literal_eval(literal)
        token = value.encode("utf-8") if isinstance(value, str) else bytes(value)
        if len(token) == int(size):
            return int(first), token
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as e:
        raise TokenizerFileError(f"line {number} is not an id, a literal and its length: {e}") from e
    raise TokenizerFileError(f"line {number}: the length {size} is not that of the token")


def spec_from_rwkv(data: bytes) -> TokenizerSpec:
    """RWKV's vocabulary: id, Python literal of str or bytes, and its length in bytes, on each line."""
    tokens = dict(
        _rwkv_token(number, line) for number, line in enumerate(data.decode("utf-8").splitlines(), 1)
    )
    count = max(tokens, default=-1) + 1
    if not 0 < count <= 2_000_000:
        raise TokenizerFileError(f"the highest id is {count - 1}")
    roles = np.full(count, ABSENT, np.uint8)
    roles[list(tokens)] = NORMAL
    if 0 not in tokens:
        tokens[0] = b"<|endoftext|>"
        roles[0] = CONTROL
    return TokenizerSpec(
        kind="trie",
        added=(AddedToken("<|endoftext|>", 0, special=True),) if roles[0] == CONTROL else (),
        raw_added=True,
        tokens=Strings.of(tokens.get(i, b"") for i in range(count)),
        roles=roles,
        bos_id=0,
        eos_id=0,
        eog_ids=frozenset([0]),
    )
