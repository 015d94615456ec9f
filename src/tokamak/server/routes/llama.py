"""llama-server's own routes: /completion, /infill, /slots, /props, /lora-adapters."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tokamak import __version__
from tokamak.engine.async_llm import AsyncStream
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM, Prepared
from tokamak.engine.request import StepOutput
from tokamak.errors import ContextOverflow, InvalidParams
from tokamak.sampling import SamplingParams, TokenLogprob
from tokamak.server.bodies import answer
from tokamak.server.dialogue import PLAIN
from tokamak.server.fim import marks_of, prompt_of
from tokamak.server.guard import read_body
from tokamak.server.problems import Problem, retry_later
from tokamak.server.routes.generation import (
    Context,
    Generate,
    Work,
    content_entries,
    content_entry,
    failure_event,
    timings_of,
    timings_while,
    token_bytes,
    token_text,
)
from tokamak.server.schemas import MAX_PROMPTS, MAX_TOP_LOGPROBS, Sampling, Text
from tokamak.server.state import State
from tokamak.server.stream import COMMENT, SSE, Form, event

Piece = str | Annotated[int, Meta(ge=0, lt=1 << 31)]
NOTHING = [{"n_decoded": 0, "n_remain": -1, "has_next_token": False}]
Bias = list[int | str | float | bool]


class LlamaRequest(Sampling, kw_only=True):
    """What /completion and /infill share: the fields of /v1/completions' sampling under llama-server's names too.

    n_predict, max_tokens: -1, or more than the context leaves: until it ends. n_probs: log-probabilities of so many tokens;
    post_sampling_probs: probabilities after the samplers instead. logit_bias: {id: bias} or
    [[id or text, bias], ...], false bans. return_tokens: ids in the answer. response_fields: only those, "a/b": b of a, under that name.
    return_progress: a stream says how much of the prompt is read before the first token.
    """

    lenient: ClassVar[bool] = True
    unused: ClassVar[frozenset[str]] = frozenset({"cache_prompt", "id_slot", "n_keep"})
    aliases: ClassVar[dict[str, str]] = {**Sampling.aliases, "max_tokens": "n_predict", "n_cmpl": "n"}
    max_tokens: None = None
    n_predict: int | None = None
    n_probs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    logit_bias: dict[str, float] | Annotated[list[Bias], Meta(max_length=1024)] | None = None  # type: ignore[assignment]
    stop: str | list[Text] | None = None
    return_tokens: bool | None = None
    response_fields: list[str] | None = None
    return_progress: bool | None = None

    def sampling_params(self) -> SamplingParams:
        """Raises: InvalidParams."""
        limit = -1 if self.n_predict is None else self.n_predict
        more: dict[str, Any] = {"max_tokens": limit}
        if self.n_probs:
            more["logprobs"] = self.n_probs
        if isinstance(self.logit_bias, list):
            more["logit_bias"] = {self._biased(entry): self._bias(entry[1]) for entry in self.logit_bias}
            self.logit_bias = None
        return self.params(**more)

    @staticmethod
    def _biased(entry: Bias) -> int | str:
        if len(entry) != 2 or isinstance(entry[0], bool | float):
            raise InvalidParams(f"logit_bias has {entry!r:.80}; each must be [token id or text, bias]")
        return entry[0]

    @staticmethod
    def _bias(value: Any) -> float:
        if value is False:
            return float("-inf")
        if isinstance(value, str) or value is True:
            raise InvalidParams(f"logit_bias has the bias {value!r:.80}; it must be a number or false")
        return float(value)


LlamaRequest.aliases.pop("n_predict")


class PromptGiven(Struct, forbid_unknown_fields=True):
    """A prompt as llama-server's clients write it beside pictures, which are not read here."""

    prompt_string: str
    multimodal_data: Annotated[list[Any], Meta(max_length=0)] | None = None


class LlamaCompletionRequest(LlamaRequest, kw_only=True):
    """Body of /completion. prompt: a text, ids, texts and ids mixed, {prompt_string: text}, or a list of such."""

    prompt: str | PromptGiven | list[Piece | PromptGiven | list[Piece]]

    def prompts(self, llm: LLM) -> list[str | list[int]]:
        """One by one.  Raises: InvalidParams for too many."""
        if isinstance(self.prompt, PromptGiven):
            return [self.prompt.prompt_string]
        if isinstance(self.prompt, str):
            return [self.prompt]
        if any(isinstance(part, int) for part in self.prompt):
            return [mixed(llm, self.prompt)]  # type: ignore[arg-type]  # a list of lists has no int
        if not 0 < len(self.prompt) <= MAX_PROMPTS:
            raise InvalidParams(f"prompt has {len(self.prompt)} prompts; it must have 1 to {MAX_PROMPTS}")
        return [one_of(llm, part) for part in self.prompt]  # type: ignore[arg-type]  # no int, see above


def one_of(llm: LLM, part: str | PromptGiven | list[Piece]) -> str | list[int]:
    """One prompt of a list."""
    if isinstance(part, PromptGiven):
        return part.prompt_string
    return part if isinstance(part, str) else mixed(llm, part)


def mixed(llm: LLM, parts: Sequence[Piece]) -> list[int]:
    """Texts and ids one after another, as ids; special tokens only before the first."""
    ids: list[int] = []
    for number, part in enumerate(parts):
        if isinstance(part, int):
            ids.append(part)
        elif llm.tokenizer is not None:
            ids += llm.tokenizer.encode(part, add_special=number == 0, parse_special=True)
        else:
            raise InvalidParams("prompt has text, and the model file has no tokenizer; use ids")
    return ids


class ExtraFile(Struct):
    """Another file of the same project."""

    text: str
    filename: str = ""


class InfillRequest(LlamaRequest, kw_only=True):
    """Body of /infill: what stands between input_prefix (and prompt, if given) and input_suffix."""

    input_prefix: str
    input_suffix: str
    input_extra: Annotated[list[ExtraFile], Meta(max_length=256)] | None = None
    prompt: str = ""


OPERATIONS = (
    ("/completion", "post", LlamaCompletionRequest, None, "Continue prompts (llama-server)."),
    ("/completions", "post", LlamaCompletionRequest, None, "The same as /completion."),
    ("/infill", "post", InfillRequest, None, "Write what stands between two texts (llama-server)."),
    ("/slots", "get", None, None, "What the engine does, sequence by sequence."),
    ("/props", "get", None, None, "The model and the defaults of requests."),
    (
        "/lora-adapters",
        "get",
        None,
        None,
        "Adapters that were loaded with the model, and how much each counts by default.",
    ),
    ("/lora-adapters", "post", None, None, "Takes an empty list only."),
)


def routes(state: State) -> list[Route]:
    """All of them."""

    async def slots(request: Request) -> Response:
        async with state.models.use(request.query_params.get("model")) as served:
            found = slots_of(served.llm)
        if request.query_params.get("fail_on_no_slot") and all(slot["is_processing"] for slot in found):
            raise retry_later(503, "no slot is free", "no_slot")
        return answer(found)

    async def props(request: Request) -> Response:
        async with state.models.use(request.query_params.get("model")) as served:
            return answer(props_of(served.llm, served.name, state.config.defaults))

    async def adapters(request: Request) -> Response:
        if request.method == "POST" and (await read_body(request.receive, state.config)).strip() != b"[]":
            raise Problem(400, "adapters cannot be changed while a server runs", code="not_supported")
        async with state.models.use(request.query_params.get("model")) as served:
            return answer(served.llm.facts.get("adapters", []))

    complete = Generate(state, LlamaCompletionRequest, plan)
    return [
        Route("/completion", complete, methods=["POST"]),
        Route("/completions", complete, methods=["POST"]),
        Route("/infill", Generate(state, InfillRequest, plan_infill), methods=["POST"]),
        Route("/slots", slots),
        Route("/props", props),
        Route("/lora-adapters", adapters, methods=["GET", "POST"]),
    ]


def plan(context: Context, asked: LlamaCompletionRequest) -> Work:
    """Every prompt a request of the engine."""
    params, prompts = asked.sampling_params(), asked.prompts(context.llm)

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        prepared = [fitted(context, prompt, params, salt) for prompt in prompts]
        return prepared, LlamaForm(context, asked, params, prepared)

    return Work(len(prompts) * asked.num_samples, ready, bool(asked.stream))


def plan_infill(context: Context, asked: InfillRequest) -> Work:
    """One prompt of the model's marks; further marks end the completion."""
    llm, marks = context.llm, marks_of(context.llm)
    files = [(extra.filename, extra.text) for extra in asked.input_extra or ()]
    params = asked.sampling_params()
    params = params.replaced(stop_token_ids=(*params.stop_token_ids, *(marks.ends if marks else ())))

    def ready(salt: str) -> tuple[list[Prepared], Form]:
        ids = prompt_of(llm, marks, asked.input_prefix + asked.prompt, asked.input_suffix, files)
        prepared = [fitted(context, ids, params, salt)]
        return prepared, LlamaForm(context, asked, params, prepared)

    return Work(asked.num_samples, ready, bool(asked.stream))


def fitted(context: Context, prompt: str | list[int], params: SamplingParams, salt: str) -> Prepared:
    """A request of the engine; n_predict that is more than the context leaves is what it leaves, and said.

    Raises: ContextOverflow if the prompt itself does not fit.
    """
    llm, limit = context.llm, params.max_tokens
    try:
        return llm.prepare(prompt, params, salt=salt)
    except ContextOverflow as error:
        room = 0 if error.num_prompt is None else llm.context - error.num_prompt
        if limit is None or not 0 < room < limit:
            raise
        context.note(f"at most {limit} tokens are asked for; the context leaves {room}")
        return llm.prepare(prompt, params.replaced(max_tokens=room), salt=salt)


def slots_of(llm: LLM) -> list[dict[str, Any]]:
    """As many as the engine steps at once; those that run come first."""
    busy: list[dict[str, Any]] = [
        {
            "is_processing": True,
            "state": "GENERATING" if s["new_tokens"] else "PROMPT",
            "id_task": s["request"],
            "n_prompt_tokens": s["prompt_tokens"],
            "n_prompt_tokens_processed": min(s["computed_tokens"], s["prompt_tokens"]),
            "next_token": [{"n_decoded": s["new_tokens"], "has_next_token": True}],
        }
        for s in llm.sequences()
    ]
    idle: list[dict[str, Any]] = [{"is_processing": False, "state": "IDLE", "next_token": NOTHING}] * (
        llm.program.limits.max_sequences - len(busy)
    )
    return [{"id": number, "n_ctx": llm.context, **slot} for number, slot in enumerate([*busy, *idle])]


def props_of(llm: LLM, name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What clients ask a llama-server for. Of the path only the file's name is told."""
    names = set(SamplingParams.__dataclass_fields__)
    params = SamplingParams(**{name: value for name, value in defaults.items() if name in names})
    tokenizer = llm.tokenizer
    template = (tokenizer.spec.chat_template if tokenizer else None) or PLAIN
    bos, eos = (tokenizer.bos_id, tokenizer.eos_id) if tokenizer else (None, None)
    return {
        "default_generation_settings": {"n_ctx": llm.context, "params": settings_of(params)},
        "total_slots": llm.program.limits.max_sequences,
        "model_alias": name,
        "model_path": Path(str(llm.facts.get("path") or name)).name,
        "modalities": {"vision": llm.vision is not None, "audio": False},
        "chat_template": template,
        "chat_template_caps": {
            "supports_tools": "tools" in template,
            "supports_tool_calls": "tool_calls" in template,
        },
        "bos_token": "" if bos is None else token_text(llm, bos),
        "eos_token": "" if eos is None else token_text(llm, eos),
        "build_info": f"tokamak-{__version__}",
        "is_sleeping": False,
    }


def settings_of(params: SamplingParams, llm: LLM | None = None) -> dict[str, Any]:
    """Parameters as llama-server names them. llm: whose ends of text `ignore_eos` bans."""
    banned = sorted(llm.tokenizer.eog_ids) if llm and llm.tokenizer and params.ignore_eos else []
    biases = [*(params.logit_bias or {}).items(), *((token, float("-inf")) for token in banned)]
    same = (
        *("temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "top_n_sigma"),
        *("min_keep", "xtc_probability", "xtc_threshold", "typical_p", "presence_penalty"),
        *("frequency_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base"),
        *("dry_allowed_length", "ignore_eos", "seed", "adaptive_target", "adaptive_decay"),
    )
    return {
        **{name: getattr(params, name) for name in same},
        "logit_bias": [{"token": t, "bias": b if math.isfinite(b) else None} for t, b in biases],
        "repeat_penalty": params.repetition_penalty,
        "repeat_last_n": params.repetition_last_n,
        "dry_penalty_last_n": params.dry_last_n,
        "dry_sequence_breakers": list(params.dry_breakers),
        "n_predict": params.max_tokens,
        "max_tokens": params.max_tokens,
        "n_probs": params.logprobs or 0,
        "stop": list(params.stops),
        "samplers": list(params.samplers),
        "grammar": params.grammar or "",
    }


def ends_with_context(llm: LLM, done: Completion) -> bool:
    """Whether the completion could not go on."""
    usage = done.usage
    return done.finish_reason == "length" and usage.prompt_tokens + usage.completion_tokens >= llm.context


class LlamaForm:
    """See `Form`. Several completions are a list; in a stream their index tells them apart."""

    media_type, ping = SSE, COMMENT

    def __init__(
        self, context: Context, asked: LlamaRequest, params: SamplingParams, prepared: list[Prepared]
    ) -> None:
        self._llm, self._name, self._asked, self._params = context.llm, context.served.name, asked, params
        self._prepared, self._made = prepared, dict[int, int]()
        self._read, self._began_s = -1, time.perf_counter()
        self.progress = self._now_read if asked.return_progress else None

    def opening(self) -> list[bytes]:
        """Nothing but that no prompt is read yet, if that is asked for."""
        return self._progress(0)

    def _now_read(self) -> list[bytes]:
        """How much of the first prompt is read, when that has changed."""
        request = self._prepared[0][0]
        now = [s["computed_tokens"] for s in self._llm.sequences() if s["request"] == request.id]
        return self._progress(min(now[0], len(request.prompt))) if now else []

    def _progress(self, num: int) -> list[bytes]:
        total = len(self._prepared[0][0].prompt)
        if not self._asked.return_progress or not (self._read < num <= total):
            return []
        self._read = num
        ms = 1e3 * (time.perf_counter() - self._began_s) if num else 0.0
        said = {
            "total": total,
            "cache": min(num, self._prepared[0][0].cached_tokens),
            "processed": num,
            "time_ms": ms,
        }
        chunk: dict[str, Any] = {"content": "", "tokens": [], "stop": False, "prompt_progress": said}
        if self._asked.timings_per_token:
            chunk["timings"] = timings_while(num, ms)
        return [event(chunk)]

    def chunks(self, prompt: int, output: StepOutput) -> list[bytes]:
        """Text and ids as they become certain."""
        read = [] if self._made or prompt else self._progress(len(self._prepared[0][0].prompt))
        return [*read, *self._chunks(prompt, output)]

    def _chunks(self, prompt: int, output: StepOutput) -> list[bytes]:
        index = prompt * self._asked.num_samples + output.index
        made = self._made[index] = self._made.get(index, 0) + (output.token_id is not None)
        entry = content_entry(output)
        if not output.text and entry is None:
            return []
        ids = (
            [output.token_id]
            if output.token_id is not None and not isinstance(output.stop_reason, int)
            else []
        )
        chunk = {
            "index": index,
            "content": output.text,
            "tokens": ids,
            "stop": False,
            "id_slot": index,
            "tokens_predicted": made,
            "tokens_evaluated": len(self._prepared[prompt][0].prompt),
        }
        if entry is not None and self._asked.n_probs:
            chunk["completion_probabilities"] = [self._entry(entry)]
        return [event(chunk)]

    def closing(self, streams: list[AsyncStream]) -> list[bytes]:
        """How each ended, and what it took; without the text."""
        return [event({**entry, "content": "", "tokens": []}) for entry in self._every(streams)]

    def failure(self, problem: Problem) -> bytes:
        """An event with the error."""
        return failure_event(problem)

    def whole(self, streams: list[AsyncStream]) -> object:
        """One object, or a list of several."""
        every = [self._chosen(entry) for entry in self._every(streams)]
        return every[0] if len(every) == 1 else every

    def _every(self, streams: list[AsyncStream]) -> list[dict[str, Any]]:
        return [
            self._one(number, done) for number, stream in enumerate(streams) for done in stream.completions
        ]

    def _one(self, prompt: int, done: Completion) -> dict[str, Any]:
        request, described = self._prepared[prompt]
        word = done.stop_reason if isinstance(done.stop_reason, str) else ""
        kind = "limit" if done.finish_reason == "length" else "word" if word else "eos"
        index = prompt * self._asked.num_samples + done.index
        tokenizer = self._llm.tokenizer
        settings = {**settings_of(self._params, self._llm), "seed": described.seed}
        entry: dict[str, Any] = {
            "index": index,
            "content": done.text,
            "tokens": done.token_ids if self._asked.return_tokens else [],
            "id_slot": index,
            "stop": True,
            "model": self._name,
            "tokens_predicted": done.usage.completion_tokens,
            "tokens_evaluated": done.usage.prompt_tokens,
            "generation_settings": settings,
            "prompt": tokenizer.decode(request.prompt) if tokenizer else "",
            "has_new_line": "\n" in done.text,
            "truncated": done.usage.shifted_tokens > 0 or ends_with_context(self._llm, done),
            "stop_type": kind,
            "stopping_word": word,
            "tokens_cached": done.usage.prompt_tokens + max(0, done.usage.completion_tokens - 1),
            "timings": timings_of(done),
        }
        if self._asked.n_probs:
            entry["completion_probabilities"] = [self._entry(e) for e in content_entries(done) if e]
        return entry

    def _entry(self, entry: TokenLogprob) -> dict[str, Any]:
        drawn = self._params.post_sampling_probs

        def one(token_id: int, logprob: float) -> dict[str, Any]:
            data = token_bytes(self._llm, token_id)
            said = {"prob": math.exp(logprob)} if drawn else {"logprob": logprob}
            return {"id": token_id, "token": token_text(self._llm, token_id), "bytes": list(data), **said}

        likely = [one(i, p) for i, p in entry.top]
        return {**one(entry.token_id, entry.logprob), "top_probs" if drawn else "top_logprobs": likely}

    def _chosen(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Only the fields that are asked for."""
        if not self._asked.response_fields:
            return entry
        chosen: dict[str, Any] = {}
        for path in self._asked.response_fields:
            value: Any = entry
            for key in path.split("/"):
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                chosen[path] = value
        return chosen
