"""tokenizer.json of Hugging Face: every part is translated or refused by name, nothing is skipped.

The authority for ids is `tokenizers` 0.23. Truncation and padding that a file sets are not part of a
`TokenizerSpec`: `tokamak.hf.Tokenizer` applies them, `tokamak.Tokenizer` does what its arguments say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tokamak.errors import TokenizerFileError, UnsupportedError
from tokamak.tokenizers.bpe import BYTE_TO_CHAR
from tokamak.tokenizers.files.end_texts import END_TEXTS
from tokamak.tokenizers.files.hf_steps import decoder_fields, normalizer_steps, pre_tokenizer_steps
from tokamak.tokenizers.files.hf_vocabulary import ParsedVocabulary, ScannedVocabulary, Vocabulary, table
from tokamak.tokenizers.spec import AddedToken, Slot, Step, Strings, TokenizerSpec

Object = Mapping[str, Any]
_POWERS = [float(f"1e{k}") for k in range(309)]


def rust_float(text: str) -> float:
    """A number of JSON as serde_json reads it for `tokenizers`: all digits as one integer, rounded, then scaled.

    It is up to a unit in the last place from the nearest float, which decides between equally good cuts of a Unigram model.
    Source: measured, 8,341 of the 32,000 scores of XLNet are not the nearest floats.
    """
    if len(text) <= 20 and "e" not in text and "E" not in text:  # nearly all
        whole, _, fraction = text.partition(".")
        return float(int(whole + fraction)) / _POWERS[len(fraction)]
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits, scale = int(whole + fraction), int(exponent or 0) - len(fraction)
    while abs(digits) >> 64:  # those that 64 bits do not hold are left out
        digits, scale = (abs(digits) // 10) * (1 if digits > 0 else -1), scale + 1
    if not -308 <= scale <= 308:
        return float(text)
    return float(digits) * _POWERS[scale] if scale >= 0 else float(digits) / _POWERS[-scale]


def spec_from_data(data: Object, config: Object | None = None, columns: Any = None) -> TokenizerSpec:
    """Read a parsed tokenizer.json; `config` is the tokenizer_config.json beside it, for special tokens and template.

    columns: the `_native.JsonColumns` of the file, if `data` is what that left of it.
    Raises: TokenizerFileError if it is malformed, UnsupportedError for a part that is not implemented.
    """
    if not isinstance(data.get("model"), dict):
        raise TokenizerFileError("not a tokenizer.json: it has no model")
    try:
        return _Reader(data, config or {}, columns).read()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as e:
        if isinstance(e, (TokenizerFileError, UnsupportedError)):
            raise
        raise TokenizerFileError(f"a part of the file has an unexpected form: {type(e).__name__}: {e}") from e


class _Reader:
    def __init__(self, data: Object, config: Object, columns: Any) -> None:
        self.data = data
        self.columns = columns
        self.config = config
        self.model: Object = data["model"]

    def read(self) -> TokenizerSpec:
        normalizers = normalizer_steps(self.data.get("normalizer"))
        pre_tokenizers = pre_tokenizer_steps(self.data.get("pre_tokenizer"))
        vocab = (
            ParsedVocabulary(self.model.get("vocab"))
            if self.columns is None
            else ScannedVocabulary(self.columns)
        )
        added = self.added(vocab)
        fields = getattr(self, f"read_{self.kind()}")(vocab)
        if fields["kind"] == "characters":
            fields, pre_tokenizers = self.over_bytes_if_equal(fields, vocab, normalizers, pre_tokenizers)
        tokens, roles = table(vocab, added, self.kind() == "unigram")
        scores = vocab.scores
        if scores is not None:
            scores = np.concatenate([scores, np.zeros(len(tokens) - len(scores), np.float64)])
        decoding = decoder_fields(self.data.get("decoder"))
        return TokenizerSpec(
            tokens=tokens,
            roles=roles,
            scores=scores,
            normalizers=normalizers,
            pre_tokenizers=pre_tokenizers,
            added=added,
            replace_invalid=True,
            **fields,
            **decoding,
            **self.post_processing(),
            **self.special_ids(vocab, added),
        )

    def kind(self) -> str:
        names = {"BPE": "bpe", "Unigram": "unigram", "WordPiece": "wordpiece", "WordLevel": "words"}
        kind = self.model.get("type")
        if kind is None:  # files of old versions
            kind = "BPE" if "merges" in self.model else "Unigram" if "unk_id" in self.model else None
            kind = kind or ("WordPiece" if "max_input_chars_per_word" in self.model else "WordLevel")
        if kind not in names:
            raise UnsupportedError(f"model type {kind!r} is not supported")
        return names[kind]

    def read_bpe(self, vocab: Vocabulary) -> dict[str, Any]:
        dropout = float(self.model.get("dropout") or 0)
        if not 0 <= dropout <= 1:
            raise TokenizerFileError(f"model.dropout is {dropout}: it is between 0 and 1")
        note = f"the file asks for dropout {dropout}: encode does without, encode_sampled takes it"
        merges = self.model["merges"]
        if self.columns is None:
            texts = (m if isinstance(m, str) else "\0".join(m) for m in merges)
            merges = [m for m in texts if not m.startswith("#version")]
        unknown = self.model.get("unk_token")
        return {
            "kind": "characters",
            "dropout": dropout,
            "notes": (note,) if dropout else (),
            "merges": Strings.of(merges) if self.columns is None else Strings(*self.columns.merges),
            "unk_id": None if unknown is None else vocab.get(unknown),
            "fuse_unknown": bool(self.model.get("fuse_unk")),
            "byte_fallback": bool(self.model.get("byte_fallback")),
            "ignore_merges": bool(self.model.get("ignore_merges")),
            "continuing_prefix": self.model.get("continuing_subword_prefix") or "",
            "word_suffix": self.model.get("end_of_word_suffix") or "",
        }

    def over_bytes_if_equal(
        self,
        fields: dict[str, Any],
        vocab: Vocabulary,
        normalizers: Sequence[Step],
        steps: tuple[Step, ...],
    ) -> tuple[dict[str, Any], tuple[Step, ...]]:
        """Merge bytes instead of the characters that stand for them where that gives the same ids."""
        last = bool(steps) and steps[-1].type == "ByteLevel"
        plain = not (fields["byte_fallback"] or fields["continuing_prefix"] or fields["word_suffix"])
        known = fields["unk_id"] is None or all(c in vocab for c in BYTE_TO_CHAR.values())
        mapped = any(s.type == "ByteLevel" for s in (*normalizers, *steps[:-1]))
        if last and plain and known and not mapped:
            return fields | {"kind": "bpe"}, steps
        return fields, tuple(
            Step.of("ByteLevel", **(dict(s.options) | {"map_bytes": True})) if s.type == "ByteLevel" else s
            for s in steps
        )

    def read_unigram(self, vocab: Vocabulary) -> dict[str, Any]:
        del vocab
        unknown = self.model.get("unk_id")
        return {"kind": "unigram", "unk_id": unknown, "byte_fallback": bool(self.model.get("byte_fallback"))}

    def read_wordpiece(self, vocab: Vocabulary) -> dict[str, Any]:
        return {
            "kind": "wordpiece",
            "unk_id": vocab.get(self.model.get("unk_token", "[UNK]")),
            "continuing_prefix": self.model.get("continuing_subword_prefix", "##"),
            "max_word": int(self.model.get("max_input_chars_per_word", 100)),
        }

    def read_words(self, vocab: Vocabulary) -> dict[str, Any]:
        return {"kind": "words", "unk_id": vocab.get(self.model.get("unk_token", "<unk>"))}

    def added(self, vocab: Vocabulary) -> tuple[AddedToken, ...]:
        """Ids are those of the model's own token of that text, else the next free ones, as Hugging Face gives them."""
        free = len(vocab)  # above all ids so far
        ids: dict[str, int] = {}
        found: dict[str, AddedToken] = {}
        for entry in self.data.get("added_tokens") or ():
            content = entry["content"]
            if not content:
                continue
            known = ids.get(content)
            known = vocab.get(content) if known is None else known
            known = free if known is None else known
            free = max(free, known + 1)
            ids[content] = known
            found[content] = AddedToken(
                content,
                known,
                special=bool(entry.get("special")),
                lstrip=bool(entry.get("lstrip")),
                rstrip=bool(entry.get("rstrip")),
                single_word=bool(entry.get("single_word")),
                normalized=bool(entry.get("normalized")),
            )
        return tuple(found.values())

    def post_processing(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        post = self.data.get("post_processor")
        for part in post["processors"] if post and post["type"] == "Sequence" else [post] if post else []:
            fields |= self.post_processor(part)
        return fields

    def post_processor(self, part: Object) -> dict[str, Any]:
        kind = part["type"]
        if kind == "ByteLevel":
            return _trimming(part)
        if kind == "TemplateProcessing":
            single, pair = (self.slots(part[name], part["special_tokens"]) for name in ("single", "pair"))
            return _around(single) | {"pair": pair}
        if kind in ("BertProcessing", "RobertaProcessing"):
            cls, sep = Slot("", part["cls"][1]), Slot("", part["sep"][1])
            second = 1 if kind == "BertProcessing" else 0
            middle = (sep,) if kind == "BertProcessing" else (sep, sep)
            whole = kind == "RobertaProcessing"
            last = (Slot("B", -1, second, whole), Slot("", sep.id, second))
            pair = (cls, Slot("A"), *middle, *last)
            trim = _trimming(part) if whole else {}
            return _around((cls, Slot("A"), sep)) | {"pair": pair} | trim
        raise UnsupportedError(f"post-processor {kind!r} is not supported")

    @staticmethod
    def slots(template: Sequence[Object], special: Object) -> tuple[Slot, ...]:
        found: list[Slot] = []
        for piece in template:
            if "Sequence" in piece:
                found.append(Slot(piece["Sequence"]["id"], -1, piece["Sequence"].get("type_id", 0)))
            else:
                token = piece["SpecialToken"]
                found += [Slot("", i, token.get("type_id", 0)) for i in special[token["id"]]["ids"]]
        return tuple(found)

    def special_ids(self, vocab: Vocabulary, added: Sequence[AddedToken]) -> dict[str, Any]:
        ids = {t.content: t.id for t in added}

        def named(name: str) -> int | None:
            value = self.config.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if not isinstance(text, str):
                return None
            return ids[text] if text in ids else vocab.get(text)

        names = ("bos", "eos", "pad", "sep", "mask")
        found: dict[str, Any] = {f"{n}_id": i for n in names if (i := named(f"{n}_token")) is not None}
        ends = {t.id for t in added if t.special and t.content in END_TEXTS}
        found["eog_ids"] = frozenset(ends | ({found["eos_id"]} if "eos_id" in found else set()))
        template = self.config.get("chat_template")
        if isinstance(template, str):
            found["chat_template"] = template
        elif isinstance(template, list):
            named_ones = {t["name"]: t["template"] for t in template}
            found["chat_template"] = named_ones.pop("default", None)
            found["chat_templates"] = named_ones
        return found


def _trimming(part: Object) -> dict[str, Any]:
    keeps = bool(part.get("add_prefix_space", True))
    return {"trim_offsets": bool(part.get("trim_offsets", True)), "trim_keeps_prefix": keeps}


def _around(single: Sequence[Slot]) -> dict[str, Any]:
    """Ids before and after the text of a template for one text."""
    place = next((i for i, s in enumerate(single) if s.text == "A"), None)
    if place is None or any(s.text for i, s in enumerate(single) if i != place):
        raise UnsupportedError("a template for one text that does not have the text once is not supported")
    before, after = (tuple(s.id for s in part) for part in (single[:place], single[place + 1 :]))
    return {"prefix": before, "suffix": after, "single": tuple(single)}
