"""The small objects that stand beside `Llama` in llama-cpp-python: constraints, drafts, caches, states."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class LlamaGrammar:
    """A constraint. field: of `SamplingParams`."""

    field: str
    value: Any

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:  # noqa: ARG003  # the interface
        """Of a GBNF grammar."""
        return cls("grammar", grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:  # noqa: ARG003  # the interface
        """Of a file with a GBNF grammar."""
        return cls("grammar", Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:  # noqa: ARG003  # the interface
        """Of a JSON schema."""
        return cls("json_schema", json_schema)


@dataclass(frozen=True, slots=True)
class LlamaPromptLookupDecoding:
    """A draft from what followed earlier in the text."""

    max_ngram_size: int = 2
    num_pred_tokens: int = 10


class LlamaRAMCache:
    """Prompts that may come again are always kept; this only stands where programs make one. capacity_bytes: not used."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        self.capacity_bytes = capacity_bytes


LlamaCache = LlamaRAMCache


@dataclass(frozen=True, slots=True)
class LlamaState:
    """What `save_state` keeps: the tokens read last, and their cache as a file holds it."""

    input_ids: list[int]
    data: bytes

    @property
    def n_tokens(self) -> int:
        """Number of tokens."""
        return len(self.input_ids)
