"""POST /v1/completions: texts or token ids continued, one or many."""

from __future__ import annotations

from typing import Any

from starlette.routing import Route

from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import Request, StepOutput
from tokamak.engine.ticket import Described
from tokamak.sampling import TokenLogprob
from tokamak.server.answers import CompletionLogprobs, TextChoice, TextCompletion
from tokamak.server.fim import marks_of, prompt_of
from tokamak.server.routes.generation import (
    Context,
    Generate,
    Work,
    content_entries,
    content_entry,
    failure_event,
    finish_of,
    head,
    timings_of,
    token_text,
)
from tokamak.server.schemas import CompletionRequest
from tokamak.server.state import State
from tokamak.server.stream import COMMENT, DONE, SSE, Form, event, usage_of

PATH = "/v1/completions"
OPERATIONS = ((PATH, "post", CompletionRequest, TextCompletion, "Continue prompts."),)


def routes(state: State) -> list[Route]:
    """The one route."""
    return [Route(PATH, Generate(state, CompletionRequest, plan), methods=["POST"])]


def plan(context: Context, asked: CompletionRequest) -> Work:
    """Every prompt a request of the engine."""
    llm, params, prompts = context.llm, asked.sampling_params(), asked.prompts()
    marks = marks_of(llm) if asked.suffix else None
    if asked.suffix and marks is None:
        context.scope["ignored"].append("suffix")
    elif marks is not None:
        params = params.replaced(stop_token_ids=(*params.stop_token_ids, *marks.ends))
        texts = [
            llm.tokenizer.decode(p) if llm.tokenizer and not isinstance(p, str) else str(p) for p in prompts
        ]
        prompts = [prompt_of(llm, marks, text, asked.suffix or "") for text in texts]

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        prepared = [llm.prepare(prompt, params, salt=salt) for prompt in prompts]
        return prepared, TextForm(context, asked, prepared)

    return Work(len(prompts) * asked.num_samples, ready, bool(asked.stream))


class TextForm:
    """See `Form`. Choice i * n + j is sample j of prompt i."""

    media_type, ping = SSE, COMMENT

    def __init__(self, context: Context, asked: CompletionRequest, prepared: list[Prepared]) -> None:
        self._llm, self._asked, self._prepared = context.llm, asked, prepared
        self._head = head(context, "cmpl", "text_completion", prepared)
        self._usage: dict[str, Any] = {"usage": None} if asked.include_usage else {}
        self._offsets: dict[int, Offsets] = {}  # of each choice that has begun

    def opening(self) -> list[bytes]:
        """Nothing is known yet."""
        return []

    def chunks(self, prompt: int, output: StepOutput) -> list[bytes]:
        """Text as it becomes certain, the last one with the finish reason; an echo before the first."""
        index = prompt * self._asked.num_samples + output.index
        described = self._prepared[prompt][1]
        begins = index not in self._offsets
        echo_text = self._echo_text(prompt) if begins else ""
        if begins:
            self._offsets[index] = Offsets(self._llm, echo_text)
        text = echo_text + output.text if begins else output.text
        entry, logprobs = content_entry(output), None
        if self._asked.logprobs is not None:
            echoed = described.prompt_logprobs if begins else None
            ids, entries = self._echoed(prompt) if echoed else ([], [])
            if entry is not None:
                ids, entries = [*ids, entry.token_id], [*entries, entry]
            logprobs = logprobs_of(self._llm, ids, entries, self._offsets[index]) if ids else None
        finish = finish_of(output.finish_reason)
        if not (text or logprobs or finish):
            return []
        choice = TextChoice(index=index, text=text, logprobs=logprobs, finish_reason=finish)
        return [event(TextCompletion(choices=[choice], **self._head, **self._usage))]

    def _echoed(self, prompt: int) -> tuple[list[int], list[TokenLogprob | None]]:
        """The prompt's ids and entries, without the bos that the server put before a text: no client wrote it."""
        request, described = self._prepared[prompt]
        ids, entries = (
            request.prompt.tolist(),
            described.prompt_logprobs.entries if described.prompt_logprobs else [],
        )
        tokenizer = self._llm.tokenizer
        own = tokenizer is not None and tokenizer.add_bos and len(ids) > 1 and ids[0] == tokenizer.bos_id
        return (ids[1:], entries[1:]) if own else (ids, entries)

    def _echo_text(self, prompt: int) -> str:
        """The prompt as text, for an echo."""
        tokenizer = self._llm.tokenizer
        return tokenizer.decode(self._echoed(prompt)[0]) if self._asked.echo and tokenizer else ""

    def closing(self, streams: list[AsyncStream]) -> list[bytes]:
        """No choice, only usage, if asked for; then [DONE]."""
        if not self._asked.include_usage:
            return [DONE]
        return [event(TextCompletion(choices=[], **{**self._head, "usage": usage_of(streams)})), DONE]

    def failure(self, problem: Any) -> bytes:
        """An event, and no [DONE]."""
        return failure_event(problem)

    def whole(self, streams: list[AsyncStream]) -> TextCompletion:
        """All choices."""
        choices = [
            self._choice(number, done) for number, stream in enumerate(streams) for done in stream.completions
        ]
        more: dict[str, Any] = {"usage": usage_of(streams)}
        if self._asked.timings_per_token:
            more["timings"] = timings_of(streams[0].completion)
        return TextCompletion(choices=choices, **{**self._head, **more})

    def _choice(self, prompt: int, done: Completion) -> TextChoice:
        (request, described), echo_text = self._prepared[prompt], self._echo_text(prompt)
        logprobs = None
        if self._asked.logprobs is not None:
            ids, entries = self._echoed(prompt) if described.prompt_logprobs else ([], [])
            made = content_entries(done)[request_length(request, described) :]
            ids, entries = [*ids, *done.token_ids], [*entries, *made]
            offsets = Offsets(self._llm, echo_text)
            logprobs = logprobs_of(self._llm, ids[: len(entries)], entries, offsets)
        return TextChoice(
            index=prompt * self._asked.num_samples + done.index,
            text=echo_text + done.text[len(described.echo_text) :],
            logprobs=logprobs,
            finish_reason=finish_of(done.finish_reason),
        )


def request_length(request: Request, described: Described) -> int:
    """Entries of a completion's logprobs that are the prompt's."""
    return len(request.prompt) if described.prompt_logprobs else 0


class Offsets:
    """Where each token's text begins in the text of a choice, in characters."""

    def __init__(self, llm: LLM, echo_text: str) -> None:
        self._decoder = llm.tokenizer.stream(continues=not echo_text) if llm.tokenizer else None
        self._num = 0

    def of(self, token_id: int) -> int:
        """The next token's."""
        begin = self._num
        self._num += len(self._decoder.push(token_id)) if self._decoder else 0
        return begin


def logprobs_of(
    llm: LLM, ids: list[int], entries: list[TokenLogprob | None], offsets: Offsets
) -> CompletionLogprobs:
    """Of tokens and their entries; the first token of an echoed prompt has none."""
    return CompletionLogprobs(
        tokens=[token_text(llm, i) for i in ids],
        token_logprobs=[None if entry is None else entry.logprob for entry in entries],
        top_logprobs=[None if e is None else {token_text(llm, i): p for i, p in e.top} for e in entries],
        text_offset=[offsets.of(i) for i in ids],
    )
