"""From what a caller wrote to what the engine runs: prompts to token ids, strings in parameters to tokens, limits to counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tokamak.engine.illustrated import Illustrated
from tokamak.errors import ContextOverflow, InvalidParams, UnsupportedError
from tokamak.sampling import SamplingParams
from tokamak.sampling.grammar import Vocabulary
from tokamak.sampling.penalties import Breakers
from tokamak.types import Ints

if TYPE_CHECKING:
    from tokamak.tokenizers import Tokenizer

Prompt = str | Sequence[int] | Ints | Illustrated
DEFAULT_MAX_TOKENS = 128
LONGEST_BREAKER = 20  # tokens of a DRY breaker that are compared


def is_one_prompt(prompt: Any) -> bool:
    """Whether this is a text or token ids, not a list of such."""
    if isinstance(prompt, str | Illustrated):
        return True
    if isinstance(prompt, np.ndarray):
        return prompt.ndim == 1
    return len(prompt) > 0 and all(isinstance(x, int | np.integer) for x in prompt)


def prompt_ids(
    prompt: Prompt, tokenizer: Tokenizer | None, vocab_size: int, tried: Sequence[str] = ()
) -> Ints:
    """Token ids i32[n] of a prompt, n >= 1. Text gets the model's special tokens, and names of special tokens in it count.

    Raises: InvalidParams for an empty prompt, a bad type or an id outside the vocabulary; UnsupportedError for text
    without a tokenizer.
    """
    if isinstance(prompt, str):
        if tokenizer is None:
            looked = "".join(f"\n  {reason}" for reason in tried)
            raise UnsupportedError(
                f"text needs a tokenizer, and none was found; name a file with tokenizer=, or give token ids.{looked}"
            )
        ids: Ints = tokenizer.encode_array(prompt, add_special=True, parse_special=True)
    else:
        prompt = prompt.token_ids if isinstance(prompt, Illustrated) else prompt
        try:
            wide = np.asarray(prompt)
        except (ValueError, OverflowError):
            wide = np.empty(0, dtype=object)
        if wide.ndim != 1 or (wide.size and wide.dtype.kind not in "iu"):
            raise InvalidParams(
                f"prompt is {type(prompt).__name__}; it must be a string or a list of token ids"
            )
        outside = np.flatnonzero((wide < 0) | (wide >= vocab_size))
        if outside.size:
            at = int(outside[0])
            raise InvalidParams(
                f"prompt token {at} is {wide[at]}; ids of this model are 0 to {vocab_size - 1}"
            )
        ids = wide.astype(np.int32)
    if ids.size == 0:
        raise InvalidParams("the prompt has no tokens, and the model adds none; give at least one")
    return ids


def max_new_tokens(params: SamplingParams, num_prompt: int, context: int) -> int:
    """Tokens to generate at most.

    Raises: ContextOverflow with both counts if the prompt and the tokens asked for do not fit the context.
    """
    room = context - num_prompt
    asked = params.max_tokens
    if params.context_shift and room >= 1:
        return DEFAULT_MAX_TOKENS if asked is None else room if asked < 0 else asked
    if asked is None or asked < 0:
        if room < max(1, params.min_tokens):
            raise ContextOverflow(
                f"the prompt has {num_prompt} tokens and at least {max(1, params.min_tokens)} should follow; the "
                f"context holds {context}. Shorten the prompt or load with a larger context"
            ).counted(num_prompt, context)
        return room if asked is not None else min(room, max(DEFAULT_MAX_TOKENS, params.min_tokens))
    if asked > room:
        raise ContextOverflow(
            f"the prompt has {num_prompt} tokens and max_tokens is {asked}, together {num_prompt + asked}; the context "
            f"holds {context}. Shorten the prompt, ask for fewer tokens or load with a larger context"
        ).counted(num_prompt, context)
    return asked


def token_bias(params: SamplingParams, tokenizer: Tokenizer | None, vocab_size: int) -> dict[int, float]:
    """logit_bias by token id; a string biases each of its tokens, and what falls on one token adds up."""
    bias: dict[int, float] = {}
    for key, value in (params.logit_bias or {}).items():
        if isinstance(key, str):
            if tokenizer is None:
                raise UnsupportedError(
                    f"logit_bias of {key!r}: the model file has no tokenizer; use token ids"
                )
            ids = tokenizer.encode(key, add_special=False, parse_special=True)
        else:
            ids = [key]
        for token_id in ids:
            if token_id >= vocab_size:
                raise InvalidParams(
                    f"logit_bias has token {token_id}; ids of this model are 0 to {vocab_size - 1}"
                )
            bias[token_id] = bias.get(token_id, 0.0) + value
    return bias


def breakers(params: SamplingParams, tokenizer: Tokenizer | None) -> Breakers:
    """The DRY breakers as token sequences, as llama.cpp takes them: every token whose bytes hold the breaker, or end in
    the beginning of it and are followed by the rest."""
    if params.dry_multiplier == 0.0 or tokenizer is None:
        return Breakers()
    wanted = [text.encode() for text in params.dry_breakers]
    sequences: list[list[int]] = []
    for token_id in range(tokenizer.vocab_size):
        piece = tokenizer.id_to_bytes(token_id)
        for breaker in wanted:
            if breaker in piece:
                sequences.append([token_id])
                continue
            for length in range(min(len(piece), len(breaker) - 1), 0, -1):
                if piece.endswith(breaker[:length]):
                    rest = tokenizer.encode(breaker[length:].decode("utf-8", "replace"), add_special=False)
                    sequences.append([token_id, *rest[:LONGEST_BREAKER]])
    return Breakers(sequences)


def vocabulary(tokenizer: Tokenizer | None) -> Vocabulary:
    """A tokenizer as constraints see it.  Raises: UnsupportedError without one."""
    if tokenizer is None:
        raise UnsupportedError("a grammar is about text, and the model file has no tokenizer")
    return Vocabulary(
        tokens=[tokenizer.id_to_bytes(i) for i in range(tokenizer.vocab_size)],
        special=frozenset(tokenizer.special_tokens.values()),
        ends=frozenset(tokenizer.eog_ids),
    )
