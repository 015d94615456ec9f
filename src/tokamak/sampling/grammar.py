"""Constraints: the text follows a GBNF grammar, a JSON schema, a regular expression or is one of some strings.

The automata are llguidance's (an extra, imported here only). Compiling happens when a request is made, never in a
step; a state masks the tokens whose bytes the automaton rejects, and lets a text end only where it is complete.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.sampling.params import SamplingParams
from tokamak.types import Floats


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a constraint has to know of a tokenizer.

    tokens: bytes of each id, b"" for one that stands for no text. special: ids that no text spells.
    ends: ids that end a text. encode: text to ids, without special tokens.
    """

    tokens: Sequence[bytes]
    special: frozenset[int]
    ends: frozenset[int]

    def spellers(self) -> np.ndarray:
        """i64[V]: the id that speaks for each: itself, or the last one with the same bytes (byte tokens repeat letters)."""
        last = {
            piece: i for i, piece in enumerate(self.tokens) if i not in self.special and i not in self.ends
        }
        hidden = self.special | self.ends
        return np.array(
            [i if i in hidden or not b else last[b] for i, b in enumerate(self.tokens)], dtype=np.int64
        )


class Grammar:
    """A compiled constraint; `start` gives the state of one completion."""

    def __init__(self, matcher: Any, tokenizer: Any, vocabulary: Vocabulary, triggers: Sequence[str]) -> None:
        self.matcher, self.tokenizer, self.tokens = matcher, tokenizer, vocabulary.tokens
        self.spellers = vocabulary.spellers()
        self.repeats = np.flatnonzero(
            self.spellers != np.arange(len(self.spellers))
        )  # ids another speaks for
        self.triggers = tuple(trigger.encode() for trigger in triggers)

    def start(self) -> GrammarState:
        """A state before the first token."""
        return GrammarState(self)


class GrammarState:
    """Where one completion stands. With triggers it is off until the text holds one, and then counts from its beginning."""

    __slots__ = ("_grammar", "_matcher", "_text", "_triggers")

    def __init__(self, grammar: Grammar) -> None:
        self._grammar, self._matcher = grammar, grammar.matcher.deep_copy()
        self._triggers, self._text = grammar.triggers, b""

    def fork(self) -> GrammarState:
        """The same place in another completion."""
        other = GrammarState(self._grammar)
        other._matcher, other._triggers, other._text = self._matcher.deep_copy(), self._triggers, self._text
        return other

    def mask(self, logits: Floats) -> None:
        """-inf, in place on f32[V], for every token that may not come next."""
        if self._triggers:
            return
        np.copyto(logits, -np.inf, where=~self.allowed(len(logits)))

    def allowed(self, vocab_size: int) -> np.ndarray:
        """bool[V]: the tokens that may come next."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        if self._matcher.is_error():
            raise UnsupportedError(f"the grammar is too complex: {self._matcher.get_error()}")
        spellers, repeats = self._grammar.spellers, self._grammar.repeats
        known = np.unpackbits(bits, count=len(spellers), bitorder="little").view(np.bool_)
        known[repeats] = known[spellers[repeats]]
        if len(known) == vocab_size:
            return known
        mask = np.zeros(vocab_size, dtype=bool)
        mask[: len(known)] = known[:vocab_size]
        return mask

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here."""
        return not self._triggers and bool(self._matcher.is_accepting())

    def accept(self, token_id: int) -> None:
        """The token drawn; looks for a trigger while there has been none."""
        if not self._triggers:
            if not self._matcher.is_stopped():
                self._matcher.consume_token(int(self._grammar.spellers[token_id]))
            return
        self._text += self._grammar.tokens[token_id]
        found = [at for trigger in self._triggers if (at := self._text.find(trigger)) >= 0]
        if found:
            self._triggers = ()
            begun = self._text[min(found) :]
            tokens = self._grammar.tokenizer.greedy_tokenize(begun.decode("utf-8", "replace"))
            if self._matcher.consume_tokens(tokens) is False or self._matcher.is_error():
                raise InvalidParams(
                    f"the text {begun!r}, which begins with a trigger, does not fit the grammar"
                )


def source_of(params: SamplingParams) -> tuple[str, str] | None:
    """(kind, text) of the constraint a request asks for; None without one."""
    if params.grammar is not None:
        return "gbnf", params.grammar
    if params.json_schema is not None:
        schema = params.json_schema
        return "json_schema", schema if isinstance(schema, str) else json.dumps(schema)
    if params.regex is not None:
        return "regex", params.regex
    if params.choice is not None:
        return "choice", json.dumps(list(params.choice))
    return None


class Compiler:
    """Compiles constraints for one vocabulary and keeps the last 64.  Raises: UnavailableError without llguidance."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        try:
            import llguidance
        except ImportError:
            raise UnavailableError("constraints need llguidance; install tokamak[grammar]") from None
        self._library, self._vocabulary = llguidance, vocabulary
        wrapper = llguidance.TokenizerWrapper(_Adapter(vocabulary))
        self._tokenizer = llguidance.LLTokenizer(wrapper, eos_token=sorted(vocabulary.ends) or None)
        self.compile = lru_cache(maxsize=64)(self._compile)

    def _compile(self, kind: str, text: str, triggers: tuple[str, ...]) -> Grammar:
        """The constraint.  Raises: InvalidParams with the compiler's message."""
        try:
            lark = self._lark(kind, text)
        except Exception as error:  # noqa: BLE001  # the converter raises bare ones for mistakes in a grammar
            raise InvalidParams(f"{kind}: {error}") from None
        matcher = self._library.LLMatcher(self._tokenizer, lark, log_level=0)
        if matcher.is_error():
            raise InvalidParams(f"{kind}: {matcher.get_error()}")
        return Grammar(matcher, self._tokenizer, self._vocabulary, triggers)

    def _lark(self, kind: str, text: str) -> str:
        """The constraint as a grammar of llguidance."""
        if kind == "json_schema":
            schema = json.loads(text)
            _check_bases(schema)
            rules = f"start: %json {json.dumps(schema)}"
        elif kind == "regex":
            rules = "start: /" + _SLASH.sub(lambda m: "\\/" if m.group() == "/" else m.group(), text) + "/"
        elif kind == "choice":
            rules = "start: " + " | ".join(json.dumps(option) for option in json.loads(text))
        else:
            source = self._library.gbnf_to_lark.any_to_lark(any_character(text))
            rules = source.removeprefix("%llguidance {}")
        # without forcing, the mask has every token that fits, not only the usual spelling of what must come
        return '%llguidance {"no_forcing": true}\n' + rules


def _check_bases(schema: Any) -> None:
    """Refuses an $id beside a $ref, which moves the base of the reference in some drafts and not in others."""
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str) and isinstance(schema.get("$id"), str):
            raise InvalidParams(
                f"$id {schema['$id']} beside $ref {schema['$ref']} is ambiguous; drop the $id"
            )
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            _check_bases(part)


def any_character(gbnf: str) -> str:
    """GBNF with the class of all characters for its `.`, which matches line ends too."""
    return _DOT.sub(lambda m: _EVERY if m.group() == "." else m.group(), gbnf)


_SLASH = re.compile(r"\\.|/", re.DOTALL)  # what is escaped already, and what is not
_DOT = re.compile(
    r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*|\.', re.DOTALL
)  # literals, classes, comments, dots
_EVERY = "([^x] | [x])"


class _Adapter:
    """The vocabulary as llguidance asks for it. A token without text, or whose text another spells, gets a name no text has."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = min(vocabulary.ends, default=0)
        self.bos_token_id = None
        hidden = vocabulary.special | vocabulary.ends
        self.tokens = [
            b"\xff<%d>" % i if i in hidden or not piece else piece
            for i, piece in enumerate(vocabulary.tokens)
        ]
        self.special_token_ids = sorted(hidden)

    def __call__(self, _: str | bytes) -> list[int]:
        return []  # the usual spelling of a text; only forcing, which is off, would ask for it
