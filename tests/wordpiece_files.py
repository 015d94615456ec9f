"""A tokenizer.json of a BERT in small: thirteen words, with a template for one text and two."""

from __future__ import annotations

from typing import Any

WORDS = ["hello", "world", "foo", "##bar", "a", "b", "na", "##ive", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "."]
VOCAB = {w: i for i, w in enumerate(WORDS)}
SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]")


def _special(name: str, type_id: int = 0) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": type_id}}


def _part(which: str, type_id: int) -> dict[str, Any]:
    return {"Sequence": {"id": which, "type_id": type_id}}


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [_special("[CLS]"), _part("A", 0), _special("[SEP]")],
    "pair": [_special("[CLS]"), _part("A", 0), _special("[SEP]"), _part("B", 1), _special("[SEP]", 1)],
    "special_tokens": {n: {"id": n, "ids": [VOCAB[n]], "tokens": [n]} for n in ("[CLS]", "[SEP]")},
}


def tokenizer_json(post_processor: dict[str, Any] | None = TEMPLATE, **fields: Any) -> dict[str, Any]:
    """The data of the file; `fields` replace its own."""
    flags = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": VOCAB[n], "content": n, **flags} for n in SPECIAL],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
        | {"strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": post_processor,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
        | {"max_input_chars_per_word": 100, "vocab": VOCAB},
        **fields,
    }
