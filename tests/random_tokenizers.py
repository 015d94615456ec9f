"""tokenizer.json files with parts drawn by chance, for comparing readers of them: every model, step and flag comes up."""

from __future__ import annotations

import random
from typing import Any

from tokamak.tokenizers.bpe import BYTE_TO_CHAR

Object = dict[str, Any]
LETTERS = [
    *"abcdeABC01 .,'-\n",
    "\u2581",
    "\u0120",
    "\u00e9",
    "e\u0301",
    "\u0130",
    "\ufb01",
    "\u4f60",
    "\uac00",
]
LETTERS += [
    "\u3042",
    "\u0661",
    "\U0001f600",
    "\u200d",
    "\u00a0",
    "\t",
    "\x00",
    "\ufffd",
    "\u0300",
    "\u01c5",
    "_",
    "#",
    "[",
    "]",
    "<",
    ">",
]
PATTERNS = [
    r"\s+",
    r"\w+|[^\w\s]+",
    r"\p{L}+",
    r"[^\s]",
    r"\p{N}{1,3}",
    r"(?i:'s|'t)| ?\p{L}+| ?[^\s\p{L}]+|\s+(?!\S)|\s+",
    "a+",
    r"ab|b",
]
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]


def text(rng: random.Random, extra: list[str]) -> str:
    """Of the letters that rules are about, and of `extra`."""
    return "".join(
        rng.choice(LETTERS if rng.random() < 0.8 or not extra else extra) for _ in range(rng.randrange(14))
    )


def tokenizer_json(rng: random.Random) -> Object:
    """A file's data, as `tokenizers` 0.23 reads it."""
    mapped = rng.random() < 0.3  # bytes by characters
    model = _model(rng, mapped)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(rng, model),
        "normalizer": _several(rng, _normalizer, "normalizers"),
        "pre_tokenizer": _pre_tokenizer_of(rng, mapped),
        "post_processor": _post_processor(rng),
        "decoder": _decoder_of(rng),
        "model": model,
    }


def _several(rng: random.Random, one: Any, name: str) -> Object | None:
    parts = [one(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else {"type": "Sequence", name: parts}


def _pattern(rng: random.Random) -> Object:
    return (
        {"Regex": rng.choice(PATTERNS)}
        if rng.random() < 0.7
        else {"String": rng.choice(["a", " ", "\u2581", "b.", "--", "0"])}
    )


def _flag(rng: random.Random) -> bool:
    return rng.random() < 0.5


def _normalizer(rng: random.Random) -> Object:
    kind = rng.choice(
        [
            "NFC",
            "NFD",
            "NFKC",
            "NFKD",
            "Lowercase",
            "StripAccents",
            "Nmt",
            "BertNormalizer",
            "Strip",
            "Replace",
            "Prepend",
        ]
    )
    part: Object = {"type": kind}
    if kind == "BertNormalizer":
        part |= {"clean_text": _flag(rng), "handle_chinese_chars": _flag(rng), "lowercase": _flag(rng)}
        part["strip_accents"] = rng.choice([None, True, False])
    elif kind == "Strip":
        part |= {"strip_left": _flag(rng), "strip_right": _flag(rng)}
    elif kind == "Replace":
        part |= {"pattern": _pattern(rng), "content": rng.choice(["", " ", "\u2581", "xy", "a"])}
    elif kind == "Prepend":
        part["prepend"] = rng.choice(["\u2581", " ", "a"])
    return part


def _pre_tokenizer_of(rng: random.Random, mapped: bool) -> Object | None:
    parts = [_pre_tokenizer(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    if mapped:
        parts.append(
            {
                "type": "ByteLevel",
                "add_prefix_space": _flag(rng),
                "trim_offsets": _flag(rng),
                "use_regex": _flag(rng),
            }
        )
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else {"type": "Sequence", "pretokenizers": parts}


def _pre_tokenizer(rng: random.Random) -> Object:
    kinds = [
        "Split",
        "Split",
        "Metaspace",
        "BertPreTokenizer",
        "Whitespace",
        "WhitespaceSplit",
        "Digits",
        "Punctuation",
    ]
    kind = rng.choice([*kinds, "CharDelimiterSplit", "FixedLength", "UnicodeScripts"])
    part: Object = {"type": kind}
    if kind == "Split":
        part |= {"pattern": _pattern(rng), "behavior": rng.choice(BEHAVIORS), "invert": _flag(rng)}
    elif kind == "Metaspace":
        part |= {
            "replacement": rng.choice("\u2581_"),
            "prepend_scheme": rng.choice(["always", "first", "never"]),
            "split": _flag(rng),
        }
    elif kind == "Digits":
        part["individual_digits"] = _flag(rng)
    elif kind == "Punctuation":
        part["behavior"] = rng.choice(BEHAVIORS)
    elif kind == "CharDelimiterSplit":
        part["delimiter"] = rng.choice(" a_")
    elif kind == "FixedLength":
        part["length"] = rng.randrange(1, 5)
    return part


def _decoder_of(rng: random.Random) -> Object | None:
    llama = ["Replace", "ByteFallback", "Fuse", "Strip"]
    if rng.random() < 0.2:
        parts: list[Object] = [{"type": kind} for kind in llama]
        parts[0] |= {"pattern": {"String": "\u2581"}, "content": " "}
        parts[3] |= {"content": " ", "start": 1, "stop": 0}
        return {"type": "Sequence", "decoders": parts}
    return None if rng.random() < 0.2 else _decoder(rng)


def _decoder(rng: random.Random) -> Object:
    kind = rng.choice(
        [
            "BPEDecoder",
            "ByteLevel",
            "WordPiece",
            "Metaspace",
            "CTC",
            "Replace",
            "Strip",
            "Fuse",
            "ByteFallback",
        ]
    )
    part: Object = {"type": kind}
    if kind == "BPEDecoder":
        part["suffix"] = rng.choice(["</w>", "@"])
    elif kind == "ByteLevel":
        part |= {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    elif kind == "WordPiece":
        part |= {"prefix": "##", "cleanup": _flag(rng)}
    elif kind == "Metaspace":
        part |= {
            "replacement": rng.choice("\u2581_"),
            "prepend_scheme": rng.choice(["always", "first", "never"]),
            "split": _flag(rng),
        }
    elif kind == "CTC":
        part |= {"pad_token": "a", "word_delimiter_token": "b", "cleanup": _flag(rng)}
    elif kind == "Replace":
        part |= {
            "pattern": {"String": rng.choice(["a", "\u2581", " ", "##"])},
            "content": rng.choice(["", " ", "xy"]),
        }
    elif kind == "Strip":
        part |= {"content": rng.choice(" a"), "start": rng.randrange(3), "stop": rng.randrange(3)}
    return part


def _post_processor(rng: random.Random) -> Object | None:
    trim = {"trim_offsets": _flag(rng), "add_prefix_space": _flag(rng)}
    ends = {"sep": ["b", 1], "cls": ["a", 0]}
    template: Object = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[A]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[A]", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"[A]": {"id": "[A]", "ids": [0, 1], "tokens": ["x", "y"]}},
    }
    level = {"type": "ByteLevel", **trim, "use_regex": True}
    choices: list[Object | None] = [None, None, template, level, {"type": "BertProcessing", **ends}]
    choices += [
        {"type": "RobertaProcessing", **ends, **trim},
        {"type": "Sequence", "processors": [level, template]},
    ]
    return rng.choice(choices)


def _symbols(rng: random.Random, mapped: bool) -> list[str]:
    if mapped:
        return list(BYTE_TO_CHAR.values())
    letters = sorted({c for part in LETTERS for c in part})
    return letters if _flag(rng) else rng.sample(letters, len(letters) * 2 // 3)


def _added(rng: random.Random, model: Object) -> list[Object]:
    vocab = model["vocab"]
    size = len(vocab)
    known = list(vocab) if isinstance(vocab, dict) else [piece for piece, _ in vocab]
    tokens: list[Object] = []
    contents = rng.sample(
        [
            "<s>",
            "ab",
            " a",
            "a ",
            "\u00e9",
            "e\u0301",
            "B",
            "<s",
            "[A]",
            ".",
            "\u2581a",
            "\u4f60",
            "a b",
            "0",
        ],
        rng.randrange(6),
    )
    for content in contents:
        at = known.index(content) if content in known else size
        size += content not in known
        flags = {name: rng.random() < 0.3 for name in ("single_word", "lstrip", "rstrip", "special")}
        tokens.append({"id": at, "content": content, **flags, "normalized": _flag(rng)})
    return tokens


def _model(rng: random.Random, mapped: bool) -> Object:
    kind = "BPE" if mapped else rng.choice(["BPE", "BPE", "Unigram", "WordPiece", "WordLevel"])
    return {"BPE": _bpe, "Unigram": _unigram, "WordPiece": _wordpiece, "WordLevel": _words}[kind](rng, mapped)


def _pieces(rng: random.Random, symbols: list[str], count: int) -> list[str]:
    common = [s for s in symbols if s in "abcdeABC01.,'-\u2581\u0120"] or symbols
    return [
        "".join(rng.choices(common if rng.random() < 0.8 else symbols, k=rng.randrange(2, 5)))
        for _ in range(count)
    ]


def _bpe(rng: random.Random, mapped: bool) -> Object:
    prefix = "" if mapped or rng.random() < 0.7 else "##"
    suffix = "" if mapped or rng.random() < 0.7 else "</w>"
    symbols = _symbols(rng, mapped)
    tokens = dict.fromkeys([*symbols, *(f"{prefix}{s}" for s in symbols), *(f"{s}{suffix}" for s in symbols)])
    tokens |= dict.fromkeys(f"{prefix}{s}{suffix}" for s in symbols)
    fallback = _flag(rng) and not mapped
    if fallback:
        tokens |= dict.fromkeys(f"<0x{b:02X}>" for b in range(256 if _flag(rng) else 200))
    merges: list[list[str]] = []
    starts = [t for t in tokens if not t.startswith("<0x")]
    usual = [t for t in starts if any(c in "abcdeABC01" for c in t)]
    for _ in range(rng.randrange(60)):
        left = rng.choice(usual if usual and rng.random() < 0.9 else starts)
        right = rng.choice(usual if usual and rng.random() < 0.9 else starts)
        if prefix and not right.startswith(prefix):
            continue
        joined = left + (right.removeprefix(prefix) if prefix else right)
        merges.append([left, right])
        tokens[joined] = None
        usual.append(joined)
    if _flag(rng):
        tokens |= dict.fromkeys(["abab", "ba.", "aab"])  # that no merge makes
    unknown = rng.choice([None, "a", "<unk>"])
    if unknown:
        tokens[unknown] = None
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": prefix or None,
        "end_of_word_suffix": suffix or None,
        "fuse_unk": _flag(rng),
        "byte_fallback": fallback,
        "ignore_merges": _flag(rng),
        "vocab": {t: i for i, t in enumerate(tokens)},
        "merges": merges,
    }


def _unigram(rng: random.Random, mapped: bool) -> Object:
    symbols = _symbols(rng, mapped)
    fallback = _flag(rng)
    pieces = ["<unk>", *symbols, *_pieces(rng, symbols, 60)]
    if fallback:
        pieces += [f"<0x{b:02X}>" for b in range(256)]
    vocab = [
        [p, -rng.choice((rng.uniform(1, 12), float(rng.randrange(1, 6))))] for p in dict.fromkeys(pieces)
    ]
    return {"type": "Unigram", "unk_id": 0, "byte_fallback": fallback, "vocab": vocab}


def _wordpiece(rng: random.Random, mapped: bool) -> Object:
    symbols = _symbols(rng, mapped)
    pieces = [*symbols, *_pieces(rng, symbols, 40)]
    tokens = dict.fromkeys(["[UNK]", *pieces, *(f"##{p}" for p in pieces if _flag(rng))])
    vocab = {t: i for i, t in enumerate(tokens)}
    most = rng.choice((3, 100))
    return {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": most,
        "vocab": vocab,
    }


def _words(rng: random.Random, mapped: bool) -> Object:
    symbols = _symbols(rng, mapped)
    tokens = dict.fromkeys(["<unk>", *symbols, *_pieces(rng, symbols, 60)])
    return {"type": "WordLevel", "unk_token": "<unk>", "vocab": {t: i for i, t in enumerate(tokens)}}
