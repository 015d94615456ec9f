"""A request and its sequences: what is known, what is computed, where its cache lies.

There is no state of reading or writing: a sequence has `num_tokens` tokens, of which `num_computed` have their
K and V in the cache, and wants the rest computed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokamak.engine.blocks import Chain
from tokamak.engine.completion import FinishReason
from tokamak.sampling import Sampler, StopStrings, TokenLogprob
from tokamak.types import Floats, Ints


class TextDecoder(Protocol):
    """Bytes of tokens to text that never changes again; `Tokenizer.stream()` gives one."""

    def push(self, token_id: int) -> str:
        """Text that is complete after this token."""

    def flush(self) -> str:
        """What is left at the end."""


Collect = Callable[[int, Floats], None]
"""(position of the first row, logits f32[n, V] of consecutive positions, valid during the call only)."""


@dataclass(slots=True, eq=False)
class Request:
    """One prompt and how to continue it.

    prompt: i32[n], n >= 1. max_new: tokens to generate at most, 0 reads the prompt only. stop_ids: end a completion.
    sampler: of sample 0; samples 1 .. num_samples - 1 are forked from it. salt: keeps prefixes apart.
    make_decoder: None for no text. collect: gets the logits of every position; the prompt is then computed whole.
    room: asked before each step whether more output can be taken (a slow reader pauses its request).
    """

    id: int
    prompt: Ints
    max_new: int
    sampler: Sampler
    stop_ids: Collection[int] = frozenset()
    stops: tuple[str, ...] = ()
    min_new: int = 0
    num_samples: int = 1
    salt: str = ""
    make_decoder: Callable[[], TextDecoder] | None = None
    collect: Collect | None = None
    room: Callable[[], bool] | None = None
    submitted_s: float = 0.0
    started_s: float | None = None
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StepOutput:
    """What one step gave for one sequence. token_id is None when it ended without one."""

    request: Request
    index: int
    token_id: int | None
    text: str
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | None = None
    error: Exception | None = None


class Sequence:
    """One completion in the making."""

    __slots__ = (
        "_tokens",
        "chain",
        "decoder",
        "index",
        "matcher",
        "num_blocks",
        "num_computed",
        "num_filed",
        "num_tokens",
        "request",
        "sampler",
        "table",
    )

    def __init__(self, request: Request, block_size: int) -> None:
        capacity = len(request.prompt) + request.max_new
        self.request, self.index = request, 0
        self.sampler = request.sampler
        self.num_tokens, self.num_computed = len(request.prompt), 0
        self._tokens = np.empty(capacity, dtype=np.int32)
        self._tokens[: self.num_tokens] = request.prompt
        self.table = np.zeros(
            -(-capacity // block_size), dtype=np.int32
        )  # block ids, num_blocks of them valid
        self.num_blocks = 0
        self.num_filed = 0  # leading blocks that are filed as a prefix
        self.chain: Chain = request.salt
        self.decoder = request.make_decoder() if request.make_decoder else None
        self.matcher = StopStrings(request.stops) if request.stops else None

    def fork(self, index: int) -> Sequence:
        """Another sample of the same prompt with the same blocks (the caller holds them once more)."""
        other = Sequence.__new__(Sequence)
        other.request, other.index, other.sampler = self.request, index, self.sampler.fork(index)
        other.num_tokens, other.num_computed = self.num_tokens, self.num_computed
        other.num_blocks, other.num_filed, other.chain = self.num_blocks, self.num_filed, self.chain
        other._tokens, other.table = self._tokens.copy(), self.table.copy()  # noqa: SLF001  # its own class
        make, stops = self.request.make_decoder, self.request.stops
        other.decoder = make() if make else None
        other.matcher = StopStrings(stops) if stops else None
        return other

    @property
    def history(self) -> Ints:
        """Prompt and completion so far, a view i32[num_tokens]."""
        return self._tokens[: self.num_tokens]

    @property
    def blocks(self) -> Ints:
        """Block ids held, a view i32[num_blocks]."""
        return self.table[: self.num_blocks]

    @property
    def num_new(self) -> int:
        """Tokens generated so far."""
        return self.num_tokens - len(self.request.prompt)

    @property
    def num_missing(self) -> int:
        """Tokens whose K and V are not in the cache."""
        return self.num_tokens - self.num_computed

    def tokens(self, start: int, stop: int) -> Ints:
        """A view of the tokens at positions start .. stop."""
        return self._tokens[start:stop]

    def append(self, token_id: int) -> None:
        """One more token, not computed yet."""
        self._tokens[self.num_tokens] = token_id
        self.num_tokens += 1

    def append_block(self, block: int) -> None:
        """One more block at the end of the table."""
        self.table[self.num_blocks] = block
        self.num_blocks += 1

    def forget_cache(self) -> None:
        """Nothing is computed any more; the caller has released the blocks."""
        self.num_blocks = self.num_computed = self.num_filed = 0
        self.chain = self.request.salt

    def start(self) -> None:
        """Notes the time of the first step."""
        if self.request.started_s is None:
            self.request.started_s = time.perf_counter()
