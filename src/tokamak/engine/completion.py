"""What a caller gets back: text, tokens, why it ended, what it cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokamak.sampling import TokenLogprob

FinishReason = Literal["stop", "length", "abort", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts, exact. completion_tokens includes an end-of-generation token; cached_tokens of the prompt were not computed.

    drafted_tokens: guessed ahead by speculation, accepted_tokens of them were right; shifted_tokens: dropped by context shifts.
    These three are of the whole request.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    shifted_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def tokens_cached(self) -> int:
        """The same as cached_tokens, as llama-server calls it."""
        return self.cached_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds and rates of one completion, None where there is nothing to divide.

    load_s: making the LLM. queue_s: from the call to the first step. ttft_s: from the call to the first token.
    prefill_tok_s: prompt tokens computed per second. decode_tok_s: tokens after the first per second.
    """

    load_s: float
    queue_s: float
    ttft_s: float | None
    prefill_tok_s: float | None
    decode_tok_s: float | None
    total_s: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One completion of a prompt.

    text: without what stopped it. token_ids: all that were generated, an end-of-generation token included.
    finish_reason: "stop", "length" or "abort". stop_reason: the stop string or token id that ended it.
    logprobs: one per token (with echo, the prompt's come first), None unless asked for. index: number of the
    sample (n > 1). seed: what the draws depended on. score: of a beam.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[TokenLogprob | None] | None
    usage: Usage
    timings: Timings
    index: int = 0
    seed: int = 0
    stop_reason: str | int | None = None
    score: float | None = None

    @property
    def message(self) -> dict[str, str]:
        """The completion as a message of a chat, to append to its history."""
        return {"role": "assistant", "content": self.text}
