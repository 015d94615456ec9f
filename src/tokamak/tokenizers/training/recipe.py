"""From texts to a tokenizer: which parts it has, how words are counted, which trainer runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tokamak.errors import InvalidParams
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.files.hf_json import spec_from_data
from tokamak.tokenizers.shaping import Text
from tokamak.tokenizers.tokenizer import Tokenizer
from tokamak.tokenizers.training.bpe import BpeOptions, train_bpe
from tokamak.tokenizers.training.unigram import UnigramOptions, train_unigram

KINDS = ("bpe", "unigram", "wordpiece")
Object = Mapping[str, Any]
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_SPACES = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
_BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
_BERT |= {"strip_accents": None, "lowercase": True}
_WORDPIECE = {"type": "WordPiece", "prefix": "##", "cleanup": True}
PARTS: dict[str, dict[str, Any]] = {  # unless the recipe says otherwise
    "bpe": {"normalizer": None, "pre_tokenizer": _BYTE_LEVEL, "decoder": _BYTE_LEVEL},
    "unigram": {"normalizer": {"type": "NFKC"}, "pre_tokenizer": _SPACES, "decoder": _SPACES},
    "wordpiece": {"normalizer": _BERT, "pre_tokenizer": {"type": "BertPreTokenizer"}, "decoder": _WORDPIECE},
}
SPECIAL = {"bpe": ("<|endoftext|>",), "unigram": ("<unk>", "<s>", "</s>")}
SPECIAL |= {"wordpiece": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to train."""

    kind: str = "bpe"  # one of KINDS
    vocab_size: int = 8000  # special tokens included
    special_tokens: Sequence[str] | None = None  # None: the usual ones of the kind
    min_frequency: int = 0  # bpe, wordpiece: of a pair
    limit_alphabet: int | None = None  # bpe, wordpiece
    initial_alphabet: Sequence[str] | None = (
        None  # None: all bytes where bytes are written as characters, else nothing
    )
    max_token_length: int | None = None  # bpe: characters; unigram: 16 if None
    word_suffix: str = ""  # bpe: of tokens that end a word, as "</w>"
    unknown_token: str | None = None  # None: <unk>, [UNK] where the kind has one
    parts: Object = field(
        default_factory=dict
    )  # normalizer, pre_tokenizer, decoder, post_processor of tokenizer.json

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidParams(f"kind = {self.kind!r}: one of {', '.join(KINDS)}")
        if self.vocab_size < 1:
            raise InvalidParams(f"vocab_size = {self.vocab_size}: at least 1")
        strange = sorted(set(self.parts) - {"normalizer", "pre_tokenizer", "decoder", "post_processor"})
        if strange:
            raise InvalidParams(f"parts has {strange[0]!r}, which is no part of a tokenizer.json to set")

    @property
    def specials(self) -> tuple[str, ...]:
        """The special tokens."""
        return tuple(SPECIAL[self.kind] if self.special_tokens is None else self.special_tokens)

    @property
    def unknown(self) -> str | None:
        """Text of the unknown token; bytes leave nothing unknown."""
        usual = {"unigram": "<unk>", "wordpiece": "[UNK]"}
        return usual.get(self.kind) if self.unknown_token is None else self.unknown_token


def train_files(files: Iterable[str | Path], recipe: Recipe) -> Tokenizer:
    """Train on the lines of UTF-8 files, line ends included. Raises: InvalidParams for what cannot be read or be."""
    return train_texts(_lines(files), recipe)


def _lines(files: Iterable[str | Path]) -> Iterator[bytes]:
    for file in map(Path, files):
        if not file.is_file():
            raise InvalidParams(f"{file} is no file that can be read")
        with file.open("rb") as f:
            yield from f


def train_texts(texts: Iterable[Text], recipe: Recipe) -> Tokenizer:
    """Train on texts, each cut on its own. Equal texts and recipe give an equal tokenizer.

    Raises: InvalidParams if the vocabulary cannot hold the characters, UnsupportedError for parts that are not known.
    """
    parts = PARTS[recipe.kind] | dict(recipe.parts)
    words = count_words(texts, parts)
    model = _model(recipe, words, _writes_bytes(parts))
    vocab = (
        model["vocab"]
        if isinstance(model["vocab"], dict)
        else {p: i for i, (p, _) in enumerate(model["vocab"])}
    )
    named = [*recipe.specials, *([recipe.unknown] if recipe.unknown else [])]
    data = {
        "added_tokens": [
            {"id": vocab[t], "content": t, "special": True, "normalized": False}
            for t in dict.fromkeys(named)
            if t in vocab
        ],
        "post_processor": None,
        **parts,
        "model": model,
    }
    return Tokenizer(spec_from_data(data))


def count_words(texts: Iterable[Text], parts: Object) -> dict[str, int]:
    """How often each word occurs after normalizer and pre-tokenizer, in the order of their first occurrence."""
    empty = {"type": "BPE", "vocab": {"a": 0}, "merges": []}  # it is not asked
    data = {
        "normalizer": parts.get("normalizer"),
        "pre_tokenizer": parts.get("pre_tokenizer"),
        "model": empty,
    }
    spec = spec_from_data(data)
    steps = tuple(
        replace(s, options=tuple(sorted({**dict(s.options), "map_bytes": True}.items())))
        if s.type == "ByteLevel"
        else s
        for s in spec.pre_tokenizers
    )
    engine = Tokenizer(replace(spec, kind="characters", pre_tokenizers=steps)).engine
    counts: Counter[bytes] = Counter()
    for text in texts:
        counts.update(engine.words(text, False))
    return {word.decode("utf-8", "replace"): count for word, count in counts.items()}


def _writes_bytes(parts: Object) -> bool:
    found: list[Any] = [parts.get("normalizer"), parts.get("pre_tokenizer")]
    while found:
        part = found.pop()
        if part is not None:
            if part["type"] == "ByteLevel":
                return True
            found += part.get("normalizers", part.get("pretokenizers", []))
    return False


def _model(recipe: Recipe, words: Mapping[str, int], over_bytes: bool) -> dict[str, Any]:
    initial = recipe.initial_alphabet
    if initial is None:
        initial = list(BYTE_TO_CHAR.values()) if over_bytes else []
    if recipe.kind == "unigram":
        options = UnigramOptions(
            vocab_size=recipe.vocab_size,
            special_tokens=recipe.specials,
            unknown_token=recipe.unknown,
            initial_alphabet=initial,
            max_piece_length=recipe.max_token_length or 16,
        )
        pieces, unknown = train_unigram(words, options)
        return {
            "type": "Unigram",
            "unk_id": unknown,
            "vocab": [list(p) for p in pieces],
            "byte_fallback": False,
        }
    prefix = "##" if recipe.kind == "wordpiece" else ""
    result = train_bpe(
        words,
        BpeOptions(
            vocab_size=recipe.vocab_size,
            min_frequency=recipe.min_frequency,
            special_tokens=recipe.specials,
            initial_alphabet=initial,
            limit_alphabet=recipe.limit_alphabet,
            continuing_prefix=prefix,
            word_suffix=recipe.word_suffix,
            max_token_length=recipe.max_token_length,
        ),
    )
    if recipe.kind == "wordpiece":
        unknown_text = recipe.unknown or "[UNK]"
        named: dict[str, Any] = {"type": "WordPiece", "unk_token": unknown_text}
        named |= {"continuing_subword_prefix": prefix}
        return named | {"max_input_chars_per_word": 100, "vocab": result.ids}
    pairs = [[result.tokens[a], result.tokens[b]] for a, b in result.merges]
    unknown_token = recipe.unknown if recipe.unknown in result.ids else None
    named = {"type": "BPE", "unk_token": unknown_token, "end_of_word_suffix": recipe.word_suffix or None}
    return named | {"vocab": result.ids, "merges": pairs}
