"""A request as the engine takes it, and what a step gives for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from tokamak.engine.completion import FinishReason
from tokamak.sampling import Sampler, TokenLogprob
from tokamak.types import Floats, Ints

if TYPE_CHECKING:
    from tokamak.engine.core import EngineCore
    from tokamak.engine.illustrated import Placed
    from tokamak.engine.sequence import Sequence
    from tokamak.engine.source import Source


class TextDecoder(Protocol):
    """Bytes of tokens to text that never changes again; `Tokenizer.stream()` gives one."""

    def push(self, token_id: int) -> str:
        """Text that is complete after this token."""

    def flush(self) -> str:
        """What is left at the end."""


Collect = Callable[[int, Floats], None]
"""(position of the first row, logits f32[n, V] of consecutive positions, valid during the call only)."""


class Group(Protocol):
    """Sequences of one request that take their next token together: guidance, beams. One per request."""

    def num_blocks(self, prompt: int, max_new: int, block_size: int) -> int:
        """Cache blocks that all of them need at most."""

    def begin(self, first: Sequence, block_size: int) -> list[Sequence]:
        """The sequences to start with, `first` among them."""

    def advance(self, core: EngineCore, sequences: list[Sequence]) -> list[StepOutput]:
        """Called when each of them has its logits, in `Sequence.pending`: gives every one a token, or ends it."""


@dataclass(frozen=True, slots=True)
class Speculation:
    """kind: "lookup" proposes what followed the last tokens earlier, "draft" asks a smaller model. tokens: at most, a step."""

    kind: Literal["lookup", "draft"]
    tokens: int


@dataclass(slots=True, eq=False)
class Request:
    """One prompt and how to continue it.

    prompt: i32[n], n >= 1. max_new: tokens to generate at most, 0 reads the prompt only. stop_ids: end a completion.
    sampler: of sample 0; samples 1 .. num_samples - 1 are forked from it. salt: keeps prefixes apart.
    make_decoder: None for no text. collect: gets the logits of every position; the prompt is then computed whole.
    room: asked before each step whether more output can be taken (a slow reader pauses its request).
    priority: higher is admitted first. tenant: whose it is; those that run least go first.
    context: tokens that the cache may hold of it; beyond, the oldest after the first `keep` make room. None: no limit.
    gates: f32[A], how much each adapter counts; salt tells requests of other gates apart.
    pictures: in the prompt, whose tokens there are placeholders.
    source: the text that it is about, for models that read one; prompt is then how a completion begins.
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
    priority: int = 0
    tenant: str = ""
    group: Group | None = None
    speculation: Speculation | None = None
    context: int | None = None
    keep: int = 0
    source: Source | None = None
    pictures: Many[Placed] = ()
    gates: Floats | None = None
    submitted_s: float = 0.0
    started_s: float | None = None
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    shifted_tokens: int = 0

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that were given: of the source where there is one, else of the prompt."""
        return len(self.prompt if self.source is None else self.source.token_ids)


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
    score: float | None = None  # of a beam, with its last token
