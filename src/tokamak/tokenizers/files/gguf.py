"""The tokenizer inside a GGUF file: `tokenizer.*` metadata to TokenizerSpec.

Nothing is indexed here, so reading it costs next to nothing beside mapping the file. What the file leaves
out is filled in as its converters mean it, and said in `TokenizerSpec.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokamak.errors import TokenizerFileError, UnsupportedError
from tokamak.tokenizers.files.end_texts import END_TEXTS
from tokamak.tokenizers.patterns import isolated, pre_tokenizer
from tokamak.tokenizers.spec import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    AddedToken,
    Step,
    Strings,
    TokenizerSpec,
    roles_of,
)

# What BitNet files without a template were trained on.
BITNET = (
    "{% for message in messages %}{{ bos_token if loop.first else '' }}"
    "{{ message['role'] | capitalize }}: {{ message['content'] | trim }}{{ end_of_turn }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
BITNET_TOKENS = 128256  # vocabulary of the official BitNet files, which name no pre-tokenizer


ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def literal_bytes(token: bytes) -> bytes:
    """Bytes of a token that is written with backslash escapes."""

    def byte(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code[1:], 16)]) if len(code) == 3 else ESCAPED.get(code, code)

    return ESCAPE.sub(byte, token)


def spec_from_metadata(metadata: Mapping[str, Any], architecture: str = "") -> TokenizerSpec:
    """Read `tokenizer.*`.

    metadata: of a GGUF file; strings as str or bytes, arrays as NumPy arrays, lists or native string tables.
    Raises: TokenizerFileError where keys are missing or contradict each other, UnsupportedError for a
    model kind or pre-tokenizer that is not implemented.
    """
    return _Reader(metadata, architecture).read()


class _Reader:
    def __init__(self, metadata: Mapping[str, Any], architecture: str) -> None:
        self.metadata = metadata
        self.architecture = architecture
        self.notes: list[str] = []

    def read(self) -> TokenizerSpec:
        model = self.text("tokenizer.ggml.model")
        if model is None:
            raise TokenizerFileError("the file has no tokenizer: tokenizer.ggml.model is missing")
        tokens = self.strings("tokenizer.ggml.tokens")
        if tokens is None or len(tokens) == 0:
            raise TokenizerFileError("tokenizer.ggml.tokens is missing or empty")
        kinds = {
            "llama": self.sentencepiece,
            "gpt2": self.byte_level,
            "bert": self.wordpiece,
            "t5": self.unigram,
        }
        kinds |= {"rwkv": self.longest_match, "gemma4": self.characters}
        if model not in kinds:
            raise UnsupportedError(
                f"tokenizer.ggml.model = {model!r} is not supported (supported: {', '.join(kinds)})"
            )
        fields = kinds[model](tokens)
        roles = self.roles(tokens)
        add_eos = fields.pop("add_eos", bool(self.metadata.get("tokenizer.ggml.add_eos_token", False)))
        bos, eos = (fields.get(name) for name in ("bos_id", "eos_id"))
        return TokenizerSpec(
            tokens=fields.pop("tokens", tokens),
            roles=roles,
            added=fields.pop("added") if "added" in fields else self.added(tokens, roles),
            raw_added=True,
            prefix=(bos,) if fields.pop("add_bos") and bos is not None else (),
            suffix=(eos,) if add_eos and eos is not None else (),
            eog_ids=self.end_ids(tokens, roles, eos),
            pad_id=self.token_id("padding"),
            sep_id=self.token_id("seperator"),  # spelled so in the format
            mask_id=self.token_id("mask"),
            chat_template=self.chat_template(),
            chat_templates=self.named_templates(),
            notes=tuple(self.notes),
            **fields,
        )

    def sentencepiece(self, tokens: Strings) -> dict[str, Any]:
        scores = self.metadata.get("tokenizer.ggml.scores")
        if scores is None:
            raise TokenizerFileError("tokenizer.ggml.scores is missing, which the model kind 'llama' needs")
        prefix = bool(self.metadata.get("tokenizer.ggml.add_space_prefix", True))
        collapse = bool(self.metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
        spaces = Step.of(
            "SentencePiece", add_dummy_prefix=prefix, remove_extra_whitespaces=collapse, keep_invalid=True
        )
        return {
            "kind": "spm",
            "scores": np.asarray(scores, np.float64),
            "normalizers": (spaces,),
            "space_texts": True,
            "strip_space": prefix,
            "bos_id": self.token_id("bos", 1, tokens),
            "eos_id": self.token_id("eos", 2, tokens),
            "unk_id": self.unknown(tokens, 0),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", True)),
        }

    def byte_level(self, tokens: Strings) -> dict[str, Any]:
        merges = self.strings("tokenizer.ggml.merges")
        if merges is None:
            raise TokenizerFileError("tokenizer.ggml.merges is missing, which the model kind 'gpt2' needs")
        pre = self.text("tokenizer.ggml.pre") or self.assumed_pre(len(tokens))
        row = pre_tokenizer(pre)
        return {
            "kind": "characters" if any(step.get("map_bytes") for step in row.steps) else "bpe",
            "merges": merges,
            "pre": pre,
            "normalizers": row.normalizers,
            "pre_tokenizers": row.steps,
            "ignore_merges": row.ignore_merges,
            "byte_texts": True,
            "replace_invalid": True,
            "bos_id": self.token_id("bos"),
            "eos_id": self.token_id("eos"),
            "unk_id": self.token_id("unknown"),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", row.add_bos)),
        }

    def wordpiece(self, tokens: Strings) -> dict[str, Any]:
        """Converters write BERT's pieces the other way round: U+2581 in front of those that start a word."""
        said = self.metadata.get("tokenizer.ggml.normalizer.lowercase")
        cased = any(
            t.lower() != t
            for t in (b.decode("utf-8", "replace").removeprefix("\u2581") for b in tokens)
            if t[:1] != "["
        )
        if isinstance(said, bool):
            cased = not said
        elif cased:
            self.notes.append("the vocabulary has upper-case words: assuming a model that keeps case")
        bos, eos = self.token_id("bos"), self.token_id("eos")
        bos = bos if bos is not None else self.token_id("cls")
        sep = self.token_id("seperator")
        return {
            "kind": "wordpiece",
            "start_prefix": "\u2581",
            "normalizers": (Step.of("BertNormalizer", lowercase=not cased),),
            "pre_tokenizers": (Step.of("BertPreTokenizer"),),
            "decoders": (
                Step.of("Replace", string="\u2581", content=" "),
                Step.of("Fuse"),
                Step.of("Strip", content=" ", start=1, stop=0),
            ),
            "replace_invalid": True,
            "bos_id": bos,
            "eos_id": eos if eos is not None else sep,
            "unk_id": self.token_id("unknown", 100, tokens),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", True)),
            "add_eos": bool(self.metadata.get("tokenizer.ggml.add_eos_token", True)),
        }

    def unigram(self, tokens: Strings) -> dict[str, Any]:
        scores = self.metadata.get("tokenizer.ggml.scores")
        if scores is None:
            raise TokenizerFileError("tokenizer.ggml.scores is missing, which the model kind 't5' needs")
        charsmap = self.metadata.get("tokenizer.ggml.precompiled_charsmap")
        prefix = bool(self.metadata.get("tokenizer.ggml.add_space_prefix", True))
        spaces = Step.of(
            "SentencePiece",
            charsmap=b"" if charsmap is None else np.asarray(charsmap).astype(np.uint8).tobytes(),
            add_dummy_prefix=prefix,
            remove_extra_whitespaces=bool(self.metadata.get("tokenizer.ggml.remove_extra_whitespaces", True)),
        )
        return {
            "kind": "unigram",
            "scores": np.asarray(scores, np.float64),
            "float_sums": True,
            "normalizers": (spaces,),
            "space_texts": True,
            "strip_space": prefix,
            "bos_id": self.token_id("bos"),
            "eos_id": self.token_id("eos", 1, tokens),
            "unk_id": self.unknown(tokens, 2),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", False)),
            "add_eos": bool(self.metadata.get("tokenizer.ggml.add_eos_token", True)),
        }

    def longest_match(self, tokens: Strings) -> dict[str, Any]:
        """RWKV: tokens are written with the escapes of a Python literal."""
        plain = [literal_bytes(t) for t in tokens]
        return {
            "kind": "trie",
            "tokens": Strings.of(plain),
            "bos_id": self.token_id("bos", 0, tokens),
            "eos_id": self.token_id("eos", 0, tokens),
            "unk_id": None,
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", False)),
        }

    def characters(self, tokens: Strings) -> dict[str, Any]:
        """Gemma 4: merges over characters, spaces as U+2581, lines apart from each other."""
        del tokens
        merges = self.strings("tokenizer.ggml.merges")
        if merges is None:
            raise TokenizerFileError("tokenizer.ggml.merges is missing, which the model kind 'gemma4' needs")
        return {
            "kind": "characters",
            "merges": merges,
            "normalizers": (Step.of("Replace", string=" ", content="\u2581"),),
            "pre_tokenizers": isolated(r"[^\n]+|[\n]+"),
            "byte_fallback": True,
            "fuse_unknown": True,
            "replace_invalid": True,
            "space_texts": True,
            "byte_runs": True,
            "bos_id": self.token_id("bos"),
            "eos_id": self.token_id("eos"),
            "unk_id": self.token_id("unknown"),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", True)),
        }

    def assumed_pre(self, num_tokens: int) -> str:
        if self.architecture.startswith("bitnet") and num_tokens == BITNET_TOKENS:
            self.notes.append(
                "the file names no pre-tokenizer (tokenizer.ggml.pre); a BitNet model of "
                f"{BITNET_TOKENS} tokens uses the one of Llama 3: assuming llama-bpe"
            )
            return "llama-bpe"
        if self.architecture == "gptneox":
            self.notes.append(
                "the file names no pre-tokenizer (tokenizer.ggml.pre): assuming the one of GPT-NeoX"
            )
            return "gpt-neox"
        self.notes.append(
            "the file names no pre-tokenizer (tokenizer.ggml.pre): assuming the default of llama.cpp; "
            "if the text comes out worse than expected, convert the model again"
        )
        return "default"

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if value is not None and not isinstance(value, str):
            raise TokenizerFileError(f"{key} is not a string")
        return value

    def strings(self, key: str) -> Strings | None:
        value = self.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, (str, bytes, int, float)):
            raise TokenizerFileError(f"{key} is not an array of strings")
        return Strings.of(value)

    def token_id(self, name: str, default: int | None = None, tokens: Strings | None = None) -> int | None:
        key = f"tokenizer.ggml.{name}_token_id"
        value = self.metadata.get(key)
        if value is None:
            return default if tokens is not None and default is not None and default < len(tokens) else None
        size = len(tokens if tokens is not None else self.metadata["tokenizer.ggml.tokens"])
        if value in (-1, 0xFFFFFFFF):  # converters write these for "none"
            return None
        if not 0 <= int(value) < size:
            raise TokenizerFileError(f"{key} is {value}, but the vocabulary has {size} tokens")
        return int(value)

    def unknown(self, tokens: Strings, default: int) -> int | None:
        """The file's unknown token, else the one of that type, else the usual place."""
        marked = np.flatnonzero(self.roles(tokens) == UNKNOWN)
        return self.token_id("unknown", int(marked[0]) if len(marked) else default, tokens)

    def roles(self, tokens: Strings) -> NDArray[np.uint8]:
        types = self.metadata.get("tokenizer.ggml.token_type")
        if types is None:
            return roles_of(len(tokens))
        types = np.asarray(types)
        if len(types) != len(tokens):
            raise TokenizerFileError(f"{len(types)} tokenizer.ggml.token_type for {len(tokens)} tokens")
        roles = np.where((types < NORMAL) | (types > BYTE), NORMAL, types).astype(np.uint8)
        for i in np.flatnonzero(
            roles == USER_DEFINED
        ).tolist():  # some converters call an end token user-defined
            if tokens[i].decode("utf-8", "replace") in END_TEXTS:
                roles[i] = CONTROL
        return roles

    def added(self, tokens: Strings, roles: NDArray[np.uint8]) -> tuple[AddedToken, ...]:
        """Control and unknown tokens are special; user-defined ones always match."""
        name = (self.text("general.name") or "").lower()
        phi3 = "phi-3" in name or "phi3" in name  # its tokenizer.json has rstrip, which GGUF cannot say
        keep = {"<unk>", "<s>", "<|endoftext|>"}
        found = []
        for i in np.flatnonzero((roles == CONTROL) | (roles == UNKNOWN) | (roles == USER_DEFINED)).tolist():
            content = tokens[i].decode("utf-8", "surrogateescape")
            special = int(roles[i]) != USER_DEFINED
            found.append(AddedToken(content, i, special, rstrip=phi3 and special and content not in keep))
        return tuple(found)

    def end_ids(self, tokens: Strings, roles: NDArray[np.uint8], eos_id: int | None) -> frozenset[int]:
        named = (self.token_id("eot"), self.token_id("eom"), eos_id)
        marked = np.flatnonzero(roles == CONTROL).tolist()
        by_text = [i for i in marked if tokens[i].decode("utf-8", "replace") in END_TEXTS]
        return frozenset([i for i in named if i is not None] + by_text)

    def chat_template(self) -> str | None:
        template = self.text("tokenizer.chat_template")
        if template is None and self.architecture.startswith("bitnet"):
            self.notes.append(
                "the file has no chat template: assuming 'User: ... Assistant: ' as BitNet models have it"
            )
            return BITNET
        return template

    def named_templates(self) -> dict[str, str]:
        start = "tokenizer.chat_template."
        keys = [k for k in self.metadata if k.startswith(start)]
        return {k[len(start) :]: self.text(k) or "" for k in keys}
