"""`LLM`: a loaded model that people call. Wires a program, a tokenizer and the engine; computes nothing itself."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tokamak.engine import state_file
from tokamak.engine.adapting import Adapters
from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.core import EngineCore
from tokamak.engine.illustrated import Illustrated, Writer, has_pictures
from tokamak.engine.infill import fim_prompt, fim_tokens
from tokamak.engine.loop import EngineLoop
from tokamak.engine.pictures import PictureLike
from tokamak.engine.prepare import Prepared, Preparer
from tokamak.engine.reading import hidden_states, pooled
from tokamak.engine.request import StepOutput
from tokamak.engine.resolve import Prompt, is_one_prompt
from tokamak.engine.speculative import ModelDrafter
from tokamak.engine.ticket import Stream, Ticket
from tokamak.errors import CapacityError, ContextOverflow, InvalidParams, UnsupportedError
from tokamak.sampling import SamplingParams
from tokamak.types import Floats, Ints, Program

if TYPE_CHECKING:
    from tokamak.engine.vision import Vision
    from tokamak.tokenizers import Tokenizer

__all__ = ["LLM", "Messages", "Prepared"]

Messages = Sequence[Mapping[str, Any]]
MAX_LOGITS_NBYTES = 1 << 33  # of one answer of `LLM.logits`


class LLM:
    """A model ready to answer. Any number of threads may call it; requests that overlap share steps.

    context: tokens of prompt and completion together. vocab_size: width of the logits. load_s: seconds to load.
    draft: a program of a smaller model with the same vocabulary, for speculation. inter_token_target_ms: longest step while
    others wait for their next token.
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
        draft: Program | None = None,
        inter_token_target_ms: float | None = None,
        adapters: Adapters | None = None,
        vision: Vision | None = None,
    ) -> None:
        self.program, self.tokenizer, self.context, self.load_s = program, tokenizer, context, load_s
        self.vocab_size, self.vision = program.vocab_size, vision
        self.facts = {**(facts or {}), "adapters": adapters.as_dicts() if adapters else []}
        self.facts["vision"] = vision.facts() if vision else None
        self._num_tokens = num_tokens or program.vocab_size
        self._preparer = Preparer(
            tokenizer,
            vocab_size=program.vocab_size,
            num_tokens=self._num_tokens,
            context=context,
            seed=seed,
            load_s=load_s,
            drafts=draft is not None,
            recurrent=program.recurrent,
            facts=self.facts,
            adapters=adapters or Adapters(()),
            picture_width=vision.hidden_size if vision else 0,
        )
        self._make_core = partial(_core, program, draft, prefix_cache_nbytes, inter_token_target_ms)
        self._loop = EngineLoop(self._make_core())
        self._weights_nbytes = program.memory().get("weights", 0)
        self._closer = weakref.finalize(self, _close, self._loop, program, draft, vision)

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
        next user message to go on. The cache is reused as long as the beginning stays the same. Where the model has an image
        encoder, content may be a list of {"type": "text", "text": ...} and {"type": "image", "image": bytes, path, or picture}
        or {"type": "image_url", "image_url": {"url": "data:..."}}.
        stream: True gives a Stream of pieces. Raises: as `generate`; UnsupportedError without a chat template, or for an
        image without an encoder; InvalidParams for what is no picture.
        """
        params = _merged(params, changes)
        prompt = self.chat_prompt(messages)
        return self.stream(prompt, params) if stream else self.generate(prompt, params)

    def astart(self, asked: Prepared) -> AsyncStream:
        """Start what `prepare` gave; `AsyncStream.next_event` gives the outputs of all its samples. In an event loop."""
        return AsyncStream(lambda on_output, room: self._submit(asked, on_output, room))

    def achat(self, messages: Messages, params: SamplingParams | None = None, **changes: Any) -> AsyncStream:
        """The same as an asynchronous stream."""
        return self.astream(self.chat_prompt(messages), params, **changes)

    def chat_prompt(self, messages: Messages, *form: Any, **variables: Any) -> list[int] | Illustrated:
        """A conversation in the model's own form, ready for the answer: token ids, and its images where it has some.

        form, variables: as of `Tokenizer.encode_chat`.  Raises: as `chat`.
        """
        return self.write_chat(messages, *form, **variables)[0]

    def write_chat(
        self, messages: Messages, *form: Any, **variables: Any
    ) -> tuple[list[int] | Illustrated, Messages]:
        """The same, and the messages as the chat template got them."""
        if self.tokenizer is None or (self.vision is None and not has_pictures(messages)):
            return self.chat_ids(messages, *form, **variables), messages
        template = form[1] if len(form) > 1 and form[1] else self.tokenizer.spec.chat_template
        writer = Writer(self.tokenizer, self.vision, self.context, template or "")
        messages, pictures = writer.written(messages)
        if not pictures:
            return self.chat_ids(messages, *form, **variables), messages
        return writer.prompt(messages, pictures, *form, **variables), messages

    def illustrate(self, text: str, images: Sequence[PictureLike]) -> Illustrated:
        """A prompt for `generate`: text with an image in place of each `<image>` in it, or all before it if it has none.

        images: bytes of files, paths, data: URLs, uint8[H, W, 3] or PIL images.
        Raises: InvalidParams for what is no picture or another number of places; UnsupportedError without an image encoder.
        """
        return Writer(self.tokenizer, self.vision, self.context).continued(text, images)

    def chat_ids(self, messages: Messages, *form: Any, **variables: Any) -> list[int]:
        """Token ids of a conversation in the model's own form, ready for the answer."""
        if self.tokenizer is None:
            raise UnsupportedError(
                "the model file has no tokenizer, so no chat template; use generate with token ids"
            )
        ids: list[int] = self.tokenizer.encode_chat(messages, *form, **variables)
        return ids

    def infill(
        self,
        prefix: str,
        suffix: str,
        params: SamplingParams | None = None,
        *,
        files: Sequence[tuple[str, str]] = (),
        suffix_first: bool = False,
        stream: bool = False,
        **changes: Any,
    ) -> Any:
        """Text for between prefix and suffix, by a model that was taught to fill in the middle.

        files: (name, text) of the same repository. suffix_first: the suffix stands first in the prompt.
        Raises: UnsupportedError for a model without the tokens that mark the parts; as `generate`.
        """
        marks = fim_tokens(self.tokenizer, self.facts.get("fim", {}))
        params = _merged(params, changes)
        params = params.replaced(stop_token_ids=(*params.stop_token_ids, *marks.ends))
        ids = self.infill_ids(prefix, suffix, files=files, suffix_first=suffix_first)
        return self.stream(ids, params) if stream else self.generate(ids, params)

    def infill_ids(
        self, prefix: str, suffix: str, *, files: Sequence[tuple[str, str]] = (), suffix_first: bool = False
    ) -> list[int]:
        """Token ids of the prompt of `infill`."""
        marks = fim_tokens(self.tokenizer, self.facts.get("fim", {}))
        if self.tokenizer is None:
            raise AssertionError("fim_tokens has refused this")
        return fim_prompt(self.tokenizer, marks, prefix, suffix, files=files, suffix_first=suffix_first)

    def save_state(self, path: str | os.PathLike[str], prompt: Prompt, *, salt: str = "") -> int:
        """Compute what is missing of a prompt's cache and write it to a file; the number of tokens saved.

        Whole blocks only, so up to block_size - 1 tokens fewer than the prompt has. salt: as of `prepare`.
        Raises: as `generate`; UnsupportedError for a model that came from no file.
        """
        ids = self._preparer.plain_ids(prompt)
        if self._preparer.reads:
            raise UnsupportedError(
                "a prompt of this model is no prefix of its cache, so there is none to save"
            )
        kind = self._kind()
        self._read(self._preparer.reading(ids, salt=salt))
        core = self._loop.core
        saved = self._loop.perform(lambda: state_file.take_out(core, ids, salt))
        state_file.write(path, kind, saved)
        return len(saved.token_ids)

    def load_state(self, path: str | os.PathLike[str], *, salt: str = "") -> list[int]:
        """Put a saved prompt into the cache, where every prompt that begins with its tokens finds it; its token ids.

        Raises: FileRefused if it is damaged or of another model, cache type, executor or instruction set; CapacityError.
        """
        saved = state_file.read(path, self._kind())
        core = self._loop.core
        self._loop.perform(lambda: state_file.put_in(core, saved, salt))
        ids: list[int] = saved.token_ids.tolist()
        return ids

    def _kind(self) -> state_file.Kind:
        path = self.facts.get("path")
        if path is None:
            raise UnsupportedError(
                "a prompt is saved with the hash of its model's file, and this model has none"
            )
        return state_file.kind_of(self.program, path)

    def logits(self, token_ids: Sequence[int] | Ints | Illustrated, source: Prompt | None = None) -> Floats:
        """Raw logits f32[n, V] of every position of token_ids, computed in chunks.

        source: the text that it is about, for a model that reads one; token_ids then begin with its start token.
        Raises: InvalidParams, ContextOverflow if there are more ids than the context, CapacityError if the array is too large.
        """
        prompt = self._preparer.ids(token_ids)
        pictures = self._preparer.pictures(token_ids)
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

        self._read(self._preparer.reading(prompt, collect, source=source, pictures=pictures))
        return logits

    def embed(self, texts: Any, *, normalize: bool = True, pooling: str | None = None) -> Floats:
        """Vectors f32[n, hidden_size] of texts: the hidden states before the head, pooled; of length 1 if normalize.

        texts: a text, token ids, or a list of such. pooling: mean, cls (first) or last; None: what the model's file says, else
        the mean.
        Raises: ContextOverflow for a text longer than the context; CapacityError while others fill the cache; InvalidParams.
        """
        how = pooling or self.facts.get("pooling") or "mean"
        if how not in ("mean", "cls", "last"):
            raise InvalidParams(f"pooling is {how!r}; it must be mean, cls or last")
        if self._preparer.reads:
            raise UnsupportedError("the model reads a text to write another; it has no vector for either")
        if not self.program.hidden:
            raise UnsupportedError("the model's output is no head's, so there are no hidden states to pool")
        core, vectors = self._loop.core, []
        gates = self._preparer.adapters.gates(None)
        for text in [texts] if is_one_prompt(texts) else texts:
            ids = self._preparer.plain_ids(text)
            if len(ids) > self.context:
                raise ContextOverflow(
                    f"a text has {len(ids)} tokens, too large for the context, {self.context}"
                )
            states = hidden_states(core, ids, gates)
            vectors.append(pooled(self._loop.each(states), how))
        out = np.array(vectors, dtype=np.float32).reshape(len(vectors), -1)
        if normalize:
            out /= np.maximum(np.linalg.norm(out, axis=1, keepdims=True), np.float32(1e-12))
        return out

    @property
    def problem(self) -> str | None:
        """Why no request can be answered any more (closed, or a defect ended the engine), None while one can."""
        return self._loop.problem

    def restart(self) -> bool:
        """Start the engine again after a defect ended it: the same weights, an empty cache; False if none did.

        Requests that were under way have failed with what it ended with. A closed LLM stays closed.
        """
        return self._loop.restart(self._make_core)

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
            "recent_blocks_total": core.recent.num_blocks if core.recent else 0,  # of layers with windows
            "recent_blocks_held": core.recent.num_held if core.recent else 0,
            "block_size": pool.block_size,
            "tokens_stored": stored,  # of sequences that run; those that share blocks count them each
            "slots_unused": max(0, pool.num_held * pool.block_size - stored),  # fragmentation
            "prefix_queried_tokens": pool.counts.queried_tokens,
            "prefix_hit_tokens": pool.counts.hit_tokens,
            "steps": core.work.steps,
            "step_s": core.work.seconds,
            "rows": core.work.rows,
            "rows_max": core.work.rows_max,
            "rows_last": core.work.rows_last if scheduler.running else 0,
            "sequences_stepped": core.work.sequences,
            "read_nbytes": core.work.steps * self._weights_nbytes,
        }

    def sequences(self) -> list[dict[str, int]]:
        """Those that are stepped now: number of the request and of the sample, tokens of the prompt, computed, generated."""
        return [
            {
                "request": s.request.id,
                "index": s.index,
                "prompt_tokens": s.request.num_prompt_tokens,
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

    def prepare(
        self, prompt: Prompt, params: SamplingParams, *, salt: str = "", tenant: str = ""
    ) -> Prepared:
        """A prompt and parameters as the engine takes them, checked; for `astart`. Any thread may call it.

        salt: cached prefixes are shared only between requests of the same salt. tenant: whose request it is; where requests
        wait, the tenant with the fewest that run is next.  Raises: as `generate`.
        """
        return self._preparer.request(prompt, params, salt=salt, tenant=tenant)

    def _read(self, asked: Prepared) -> None:
        """Run a request that only reads its prompt, to its end."""
        ticket = Ticket(self._loop, *asked, _ignore)
        try:
            ticket.wait()
        except BaseException:
            ticket.cancel()
            raise


def _merged(params: SamplingParams | None, changes: dict[str, Any]) -> SamplingParams:
    if params is not None and not isinstance(params, SamplingParams):
        raise InvalidParams(f"params is {type(params).__name__}; it must be a SamplingParams")
    return (params or SamplingParams()).replaced(**changes) if changes or params is None else params


def _single(params: SamplingParams) -> SamplingParams:
    if params.num_samples != 1:
        raise InvalidParams(
            f"{'n' if params.n > 1 else 'best_of'} is {params.num_samples}; a stream gives one completion, use generate for several"
        )
    return params


def _ignore(_: StepOutput) -> None:
    pass


def _core(
    program: Program, draft: Program | None, kept_nbytes: int | None, target_ms: float | None
) -> EngineCore:
    """An engine over programs that are loaded; kept_nbytes: of prefixes that nobody holds, None: all there is room for."""
    unheld = None
    if kept_nbytes is not None:
        fewest = min(program.limits.num_blocks, program.limits.blocks(recent=program.reach is not None))
        unheld = kept_nbytes // max(1, program.memory().get("cache", 0) // fewest)
    drafters = {} if draft is None else {"draft": ModelDrafter(draft, program.vocab_size)}
    core = EngineCore(program, max_unheld=unheld, drafters=drafters)
    if target_ms is not None:
        core.scheduler.pace.target_s = target_ms / 1000.0
    return core


def _close(loop: EngineLoop, program: Program, draft: Program | None, vision: Vision | None) -> None:
    """Not a method: the finalizer must not keep the LLM alive."""
    if vision is not None:
        vision.close()
    if loop.close():
        program.close()
        if draft is not None:
            draft.close()
