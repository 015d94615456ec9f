"""`LLM`: a loaded model that people call. Wires a program, a tokenizer and the engine; computes nothing itself."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.core import EngineCore
from tokamak.engine.loop import EngineLoop
from tokamak.engine.request import Request, StepOutput, TextDecoder
from tokamak.engine.resolve import (
    Prompt,
    breakers,
    is_one_prompt,
    max_new_tokens,
    prompt_ids,
    token_bias,
    vocabulary,
)
from tokamak.engine.ticket import Described, PromptLogprobs, Stream, Ticket
from tokamak.errors import CapacityError, ContextOverflow, InvalidParams, UnsupportedError
from tokamak.sampling import Sampler, SamplingParams, fresh_seed
from tokamak.sampling.grammar import Compiler, Grammar, source_of
from tokamak.sampling.random import GOLDEN_GAMMA, MASK64, mix64
from tokamak.types import Floats, Ints, Program

if TYPE_CHECKING:
    from tokamak.tokenizers import Tokenizer

Messages = Sequence[Mapping[str, Any]]
Prepared = tuple[Request, Described]
"""A request and what its completions will say; belongs to the LLM that made it and runs once."""
MAX_LOGITS_NBYTES = 1 << 33  # of one answer of `LLM.logits`


class LLM:
    """A model ready to answer. Any number of threads may call it; requests that overlap share steps.

    context: tokens of prompt and completion together. vocab_size: width of the logits. load_s: seconds to load.
    Use it as a context manager or call `close`; a copy inherited by a fork refuses to work.
    """

    def __init__(
        self,
        program: Program,
        tokenizer: Tokenizer | None,
        *,
        context: int,
        num_tokens: int | None = None,
        seed: int | None = None,
        load_s: float = 0.0,
        prefix_cache_nbytes: int | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.program, self.tokenizer, self.context, self.load_s = program, tokenizer, context, load_s
        self.vocab_size = program.vocab_size
        self.facts = dict(facts or {})
        self._num_tokens = num_tokens or program.vocab_size
        self._seed = None if seed is None else seed & MASK64
        self._seeds, self._ids = itertools.count(), itertools.count(1)
        self._compiler: Compiler | None = None
        unheld = None
        if prefix_cache_nbytes is not None:
            block_nbytes = program.memory().get("cache", 0) // program.limits.num_blocks
            unheld = prefix_cache_nbytes // max(1, block_nbytes)
        self._loop = EngineLoop(EngineCore(program, max_unheld=unheld))
        self._closer = weakref.finalize(self, _close, self._loop, program)

    @overload
    def generate(self, prompt: str, params: SamplingParams | None = None, **changes: Any) -> Completion: ...
    @overload
    def generate(self, prompt: Any, params: SamplingParams | None = None, **changes: Any) -> Any: ...
    def generate(self, prompt: Any, params: SamplingParams | None = None, **changes: Any) -> Any:
        """Continue a prompt, or several at once.

        prompt: a text, token ids, or a list of such. Text gets the model's special tokens (bos), and names of
        special tokens in it are read as those; give ids for anything else. params, changes: see `SamplingParams`.
        Returns: a Completion; for a list a list, in its order; with n > 1 a list of n in place of each.
        Raises: InvalidParams, ContextOverflow with both counts, CapacityError, Cancelled if the LLM is closed.
        """
        params = _merged(params, changes)
        one = is_one_prompt(prompt)
        requests = [self.prepare(p, params) for p in ([prompt] if one else prompt)]
        tickets: list[Ticket] = []
        try:
            for request, described in requests:
                tickets.append(Ticket(self._loop, request, described, _ignore))
            answers = [ticket.wait() for ticket in tickets]
        except BaseException:  # Ctrl-C, or one that failed: the others are of no use
            for ticket in tickets:
                ticket.cancel()
            raise
        singles = [answer if params.n > 1 else answer[0] for answer in answers]
        return singles[0] if one else singles

    def stream(self, prompt: Prompt, params: SamplingParams | None = None, **changes: Any) -> Stream:
        """The same for one prompt, as an iterator of pieces of text that never change again.

        Closing or dropping it cancels within one step. `Stream.completion` has the rest after the end.
        Raises: as `generate`, here and while reading.
        """
        return self._stream(self.prepare(prompt, _single(_merged(params, changes))))

    def astream(self, prompt: Prompt, params: SamplingParams | None = None, **changes: Any) -> AsyncStream:
        """The same for asyncio: `async for piece in llm.astream(...)`, inside a running event loop."""
        return self.astart(self.prepare(prompt, _single(_merged(params, changes))))

    def chat(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        stream: bool = False,
        **changes: Any,
    ) -> Any:
        """Answer a conversation, in the form the model was taught.

        messages: role ("system", "user", "assistant") and content each, oldest first; append `Completion.message` and the
        next user message to go on. The cache is reused as long as the beginning stays the same.
        stream: True gives a Stream of pieces. Raises: as `generate`; UnsupportedError without a chat template.
        """
        params = _merged(params, changes)
        ids = self.chat_ids(messages)
        return self.stream(ids, params) if stream else self.generate(ids, params)

    def astart(self, asked: Prepared) -> AsyncStream:
        """Start what `prepare` gave; `AsyncStream.next_event` gives the outputs of all its samples. In an event loop."""
        return AsyncStream(lambda on_output, room: self._submit(asked, on_output, room))

    def achat(self, messages: Messages, params: SamplingParams | None = None, **changes: Any) -> AsyncStream:
        """The same as an asynchronous stream."""
        return self.astream(self.chat_ids(messages), params, **changes)

    def chat_ids(self, messages: Messages) -> list[int]:
        """Token ids of a conversation in the model's own form, ready for the answer."""
        if self.tokenizer is None:
            raise UnsupportedError(
                "the model file has no tokenizer, so no chat template; use generate with token ids"
            )
        ids: list[int] = self.tokenizer.encode_chat(messages, add_generation_prompt=True)
        return ids

    def logits(self, token_ids: Sequence[int] | Ints) -> Floats:
        """Raw logits f32[n, V] of every position of token_ids, computed in chunks.

        Raises: InvalidParams, ContextOverflow if there are more ids than the context, CapacityError if the array is too large.
        """
        prompt = prompt_ids(token_ids, None, self.vocab_size)
        if len(prompt) > self.context:
            raise ContextOverflow(f"{len(prompt)} tokens are more than the context, {self.context}")
        nbytes = 4 * len(prompt) * self.vocab_size
        if nbytes > MAX_LOGITS_NBYTES:
            raise CapacityError(
                f"logits of {len(prompt)} positions take {nbytes} bytes; ask for fewer positions at once"
            )
        logits = np.empty((len(prompt), self.vocab_size), dtype=np.float32)

        def collect(start: int, rows: Floats) -> None:
            logits[start : start + len(rows)] = rows

        sampler = Sampler(SamplingParams(temperature=0.0), seed=0)
        request = Request(next(self._ids), prompt, 0, sampler, collect=collect)
        ticket = Ticket(self._loop, request, Described(self.load_s, 0, with_logprobs=False), _ignore)
        try:
            ticket.wait()
        except BaseException:
            ticket.cancel()
            raise
        return logits

    def embed(self, texts: str | Sequence[str]) -> Floats:
        """Vectors f32[n, hidden_size] of texts. Raises: UnsupportedError: no embedding model is implemented yet."""
        raise UnsupportedError(
            f"{self.facts.get('architecture', 'this model')} is a causal language model; it has no pooled embedding for "
            f"{len(texts)} texts. Load an embedding model"
        )

    @property
    def problem(self) -> str | None:
        """Why no request can be answered any more (closed, or a defect ended the engine), None while one can."""
        return self._loop.problem

    def stats(self) -> dict[str, int | float]:
        """What the engine does now and has done: requests, blocks, prefix hits, preemptions, turns of its thread."""
        core = self._loop.core
        pool, scheduler = core.pool, core.scheduler
        stored = sum(s.num_computed for s in list(scheduler.running))
        return {
            "running": len(scheduler.running),
            "waiting": len(scheduler.waiting),
            "preempted": scheduler.num_preempted,
            "turns": self._loop.num_turns,  # rises while there is work; a turn is a step or a look for one
            "blocks_total": pool.num_blocks,
            "blocks_held": pool.num_held,
            "blocks_kept": pool.num_unheld,
            "blocks_evicted": pool.counts.evicted_blocks,
            "block_size": pool.block_size,
            "tokens_stored": stored,  # of sequences that run; those that share blocks count them each
            "slots_unused": max(0, pool.num_held * pool.block_size - stored),  # fragmentation
            "prefix_queried_tokens": pool.counts.queried_tokens,
            "prefix_hit_tokens": pool.counts.hit_tokens,
        }

    def sequences(self) -> list[dict[str, int]]:
        """Those that are stepped now: number of the request and of the sample, tokens of the prompt, computed, generated."""
        return [
            {
                "request": s.request.id,
                "index": s.index,
                "prompt_tokens": len(s.request.prompt),
                "computed_tokens": s.num_computed,
                "new_tokens": s.num_new,
            }
            for s in list(self._loop.core.scheduler.running)
        ]

    def close(self) -> None:
        """Cancel what runs, end the engine's thread, free weights and cache. Calling it again does nothing."""
        self._closer()

    def __enter__(self) -> LLM:  # noqa: PYI034  # Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        name = self.facts.get("path") or type(self.program).__name__
        return f"<LLM {name} context={self.context} vocab_size={self.vocab_size}>"

    def _stream(self, asked: Prepared) -> Stream:
        return Stream(lambda on_output, room: self._submit(asked, on_output, room))

    def _submit(
        self,
        asked: Prepared,
        on_output: Callable[[StepOutput], None],
        room: Callable[[], bool],
    ) -> Ticket:
        request, described = asked
        request.room = room
        return Ticket(self._loop, request, described, on_output)

    def prepare(self, prompt: Prompt, params: SamplingParams, *, salt: str = "") -> Prepared:
        """A prompt and parameters as the engine takes them, checked; for `astart`. Any thread may call it.

        salt: cached prefixes are shared only between requests of the same salt.  Raises: as `generate`.
        """
        ids = prompt_ids(prompt, self.tokenizer, self.vocab_size, self.facts.get("tokenizer_tried", ()))
        tokenizer = self.tokenizer
        if tokenizer is None and params.stops:
            raise UnsupportedError(
                "stop strings need a tokenizer, and the model file has none; use stop_token_ids"
            )
        ending = frozenset(tokenizer.eog_ids) if tokenizer else frozenset()
        seed = self._next_seed() if params.seed is None else params.seed
        banned = set(range(self._num_tokens, self.vocab_size))  # rows of padding are no tokens
        sampler = Sampler(
            params,
            seed=seed,
            bias=token_bias(params, tokenizer, self.vocab_size),
            banned=banned | ending if params.ignore_eos else banned,
            breakers=breakers(params, tokenizer),
            grammar=self._grammar(params),
        )
        scored = (
            PromptLogprobs(ids.tolist(), params.logprobs)
            if params.echo and params.logprobs is not None
            else None
        )
        request = Request(
            id=next(self._ids),
            prompt=ids,
            max_new=max_new_tokens(params, len(ids), self.context),
            sampler=sampler,
            stop_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else ending),
            stops=params.stops,
            min_new=params.min_tokens,
            num_samples=params.n,
            salt=salt,
            make_decoder=_decoders(tokenizer, ids),
            collect=scored,
        )
        echo = (tokenizer.decode(ids) if tokenizer else "") if params.echo else ""
        return request, Described(self.load_s, seed, params.logprobs is not None, echo, scored)

    def _grammar(self, params: SamplingParams) -> Grammar | None:
        """The compiled constraint of a request; compilers are made when first asked for."""
        source = source_of(params)
        if source is None:
            return None
        if self._compiler is None:
            self._compiler = Compiler(vocabulary(self.tokenizer))
        return self._compiler.compile(*source, tuple(params.grammar_triggers))

    def _next_seed(self) -> int:
        if self._seed is None:
            return fresh_seed()
        return mix64((self._seed + next(self._seeds) * GOLDEN_GAMMA) & MASK64) >> 1


def _merged(params: SamplingParams | None, changes: dict[str, Any]) -> SamplingParams:
    if params is not None and not isinstance(params, SamplingParams):
        raise InvalidParams(f"params is {type(params).__name__}; it must be a SamplingParams")
    return (params or SamplingParams()).replaced(**changes) if changes or params is None else params


def _single(params: SamplingParams) -> SamplingParams:
    if params.n != 1:
        raise InvalidParams(f"n is {params.n}; a stream gives one completion, use generate for several")
    return params


def _decoders(tokenizer: Tokenizer | None, prompt: Ints) -> Callable[[], TextDecoder] | None:
    """Makes the decoder of each sample. After special tokens alone, a text begins and is decoded as one."""
    if tokenizer is None:
        return None
    continues = bool(tokenizer.decode(prompt, skip_special=True))
    return lambda: tokenizer.stream(continues=continues)


def _ignore(_: StepOutput) -> None:
    pass


def _close(loop: EngineLoop, program: Program) -> None:
    """Not a method: the finalizer must not keep the LLM alive."""
    if loop.close():
        program.close()
