"""The tokenizer inside a GGUF file: `tokenizer.*` metadata to TokenizerSpec.

Nothing is indexed here, so reading it costs next to nothing beside mapping the file. What the file leaves
out is filled in as its converters mean it, and said in `TokenizerSpec.notes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokamak.errors import TokenizerFileError, UnsupportedError
from tokamak.tokenizers.patterns import pre_tokenizer
from tokamak.tokenizers.spec import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    AddedToken,
    Strings,
    TokenizerSpec,
    roles_of,
)

# Texts of tokens that end a turn in some model family; files name only one of them as eos.
END_TEXTS = frozenset(
    {
        *(
            "<|eot_id|>",
            "<|eom_id|>",
            "<|im_end|>",
            "<|end|>",
            "<|return|>",
            "<|call|>",
            "<end_of_turn>",
            "<turn|>",
        ),
        *(
            "<|endoftext|>",
            "<|end_of_text|>",
            "<EOT>",
            "<|END_OF_TURN_TOKEN|>",
            "<|end_of_turn|>",
            "<|endofturn|>",
        ),
        *(
            "<end_of_utterance>",
            "<\uff5cend\u2581of\u2581sentence\uff5c>",
            "</s>",
            "<eos>",
            "[EOS]",
            "[EOT]",
            "_<EOT>",
            "<|endofmessage|>",
        ),
    }
)
# What BitNet files without a template were trained on.
BITNET = (
    "{% for message in messages %}{{ bos_token if loop.first else '' }}"
    "{{ message['role'] | capitalize }}: {{ message['content'] | trim }}{{ end_of_turn }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant: {% endif %}"
)
BITNET_TOKENS = 128256  # vocabulary of the official BitNet files, which name no pre-tokenizer


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
        if model == "llama":
            fields = self.sentencepiece(tokens)
        elif model == "gpt2":
            fields = self.byte_level(tokens)
        else:
            raise UnsupportedError(
                f"tokenizer.ggml.model = {model!r} is not supported (supported: llama, gpt2)"
            )
        roles = self.roles(tokens)
        return TokenizerSpec(
            tokens=tokens,
            roles=roles,
            added=self.added(tokens, roles),
            eog_ids=self.end_ids(tokens, roles, fields.get("eos_id")),
            pad_id=self.token_id("padding"),
            sep_id=self.token_id("seperator"),  # spelled so in the format
            mask_id=self.token_id("mask"),
            add_eos=bool(self.metadata.get("tokenizer.ggml.add_eos_token", False)),
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
        return {
            "kind": "spm",
            "scores": np.asarray(scores, np.float32),
            "space_symbol": True,
            "prefix_space": prefix,
            "strip_space": prefix,
            "collapse_spaces": bool(self.metadata.get("tokenizer.ggml.remove_extra_whitespaces", False)),
            "bos_id": self.token_id("bos", 1, tokens),
            "eos_id": self.token_id("eos", 2, tokens),
            "unk_id": self.token_id("unknown", 0, tokens),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", True)),
        }

    def byte_level(self, tokens: Strings) -> dict[str, Any]:
        merges = self.strings("tokenizer.ggml.merges")
        if merges is None:
            raise TokenizerFileError("tokenizer.ggml.merges is missing, which the model kind 'gpt2' needs")
        pre = self.text("tokenizer.ggml.pre") or self.assumed_pre(len(tokens))
        row = pre_tokenizer(pre)
        return {
            "kind": "bpe",
            "merges": merges,
            "pre": pre,
            "patterns": row.patterns,
            "ignore_merges": row.ignore_merges,
            "byte_level": True,
            "replace_invalid": True,
            "bos_id": self.token_id("bos"),
            "eos_id": self.token_id("eos"),
            "unk_id": self.token_id("unknown"),
            "add_bos": bool(self.metadata.get("tokenizer.ggml.add_bos_token", row.add_bos)),
        }

    def assumed_pre(self, num_tokens: int) -> str:
        if self.architecture.startswith("bitnet") and num_tokens == BITNET_TOKENS:
            self.notes.append(
                "the file names no pre-tokenizer (tokenizer.ggml.pre); a BitNet model of "
                f"{BITNET_TOKENS} tokens uses the one of Llama 3: assuming llama-bpe"
            )
            return "llama-bpe"
        self.notes.append(
            "the file names no pre-tokenizer (tokenizer.ggml.pre): assuming the one of GPT-2; "
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
