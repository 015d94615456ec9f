"""`LLM` and `SamplingParams` with the interface of vLLM's offline inference, over the public names only.

    from tokamak.compat.vllm import LLM, SamplingParams

Outputs have the same attributes. Options that place a model on several devices are taken at their default only.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tokamak import sampling
from tokamak.compat.chat_reading import plain
from tokamak.compat.hf_fast import PreTrainedTokenizerFast
from tokamak.compat.hf_tokenizer import Tokenizer
from tokamak.engine.completion import Completion
from tokamak.engine.loading import load
from tokamak.engine.resolve import is_one_prompt
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.sampling import TokenLogprob
from tokamak.types import Floats

NEUTRAL: dict[str, tuple[Any, ...]] = {  # options that may only be at these values
    "tensor_parallel_size": (1,), "pipeline_parallel_size": (1,), "quantization": (None,), "trust_remote_code": (False, True),
    "dtype": ("auto", "float32", "float16", "bfloat16", "half", "float"), "gpu_memory_utilization": (), "swap_space": (), "enforce_eager": (False, True),
    "enable_lora": (False,), "revision": (None,), "task": ("auto", "generate", "embed", None), "runner": ("auto", "generate", "pooling"),
    "tokenizer_mode": ("auto",), "skip_tokenizer_init": (False,), "disable_log_stats": (False, True), "load_format": ("auto", "gguf"),
    "enable_chunked_prefill": (None, True), "max_logprobs": (), "block_size": (None, 16, 32), "cpu_offload_gb": (0,),
    "limit_mm_per_prompt": (None,), "disable_custom_all_reduce": (False, True), "guided_decoding_backend": (), "generation_config": (), "hf_overrides": (None,), "tokenizer_revision": (None,), "download_dir": (None,),
}  # fmt: skip
KV = {"auto": "f16", "float16": "f16", "bfloat16": "bf16", "float32": "f32", "int8": "q8_0"}


@dataclass(slots=True, kw_only=True)
class StructuredOutputsParams:
    """What the text has to follow: one of these."""

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


GuidedDecodingParams = StructuredOutputsParams


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    """vLLM's parameters with vLLM's defaults, which are others than tokamak's."""

    n: int = 1
    best_of: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    logits_processors: Sequence[Callable[..., Any]] | None = None
    logit_bias: Mapping[int, float] | None = None
    allowed_token_ids: Sequence[int] | None = None
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None
    extra_args: Mapping[str, Any] | None = None

    def ours(self, tokenizer: Any, num_tokens: int) -> sampling.SamplingParams:
        """The same as tokamak's.  Raises: InvalidParams, UnsupportedError."""
        if not self.spaces_between_special_tokens or not self.detokenize:
            raise UnsupportedError(
                "detokenize and spaces_between_special_tokens are implemented as True only"
            )
        bias: dict[int | str, float] = {int(k): float(v) for k, v in (self.logit_bias or {}).items()}
        if self.allowed_token_ids is not None:
            allowed = set(self.allowed_token_ids)
            bias |= {i: -np.inf for i in range(num_tokens) if i not in allowed}
        words = self._words(tokenizer)
        bias |= {word[0]: -np.inf for word in words if len(word) == 1}
        processors = [_with_lists(p) for p in self.logits_processors or ()]
        longer = [word for word in words if len(word) > 1]
        if longer:
            processors.append(_with_lists(_without(longer)))
        wanted = self.structured_outputs or self.guided_decoding
        rules: dict[str, Any] = {}
        if wanted is not None:
            rules = {"regex": wanted.regex, "choice": wanted.choice, "grammar": wanted.grammar}
            rules["json_schema"] = {"type": "object"} if wanted.json_object else wanted.json
        return sampling.SamplingParams(
            n=self.n, best_of=self.best_of, presence_penalty=self.presence_penalty, frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty, repetition_last_n=-1, temperature=self.temperature, top_p=self.top_p,
            top_k=self.top_k, min_p=self.min_p, seed=self.seed, stop=self.stop, stop_token_ids=self.stop_token_ids or (),
            ignore_eos=self.ignore_eos, max_tokens=-1 if self.max_tokens is None else self.max_tokens, min_tokens=self.min_tokens,
            logprobs=self.logprobs if self.prompt_logprobs is None else max(self.logprobs or 0, self.prompt_logprobs),
            echo=self.prompt_logprobs is not None, logit_bias=bias,
            logits_processor=processors, **rules, **(self.extra_args or {}),
        )  # fmt: skip

    def _words(self, tokenizer: Any) -> list[list[int]]:
        """Token ids of the words that may not come, as they begin a text and after a space."""
        texts = [text for word in self.bad_words or () for text in (word, " " + word.lstrip())]
        return [ids for text in texts if (ids := tokenizer.encode(text, add_special=False))]


@dataclass(slots=True, kw_only=True)
class BeamSearchParams:
    """Parameters of `LLM.beam_search`."""

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    length_penalty: float = 1.0
    include_stop_str_in_output: bool = False


@dataclass(slots=True)
class Logprob:
    """Of one token at one place."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One completion of a prompt."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    lora_request: None = None

    def finished(self) -> bool:
        """Whether it has ended."""
        return self.finish_reason is not None


@dataclass(slots=True)
class RequestMetrics:
    """Times of a request, seconds since the epoch; first_token_latency in seconds."""

    arrival_time: float
    first_token_latency: float | None
    finished_time: float


@dataclass(slots=True)
class RequestOutput:
    """A prompt and its completions."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, Logprob] | None] | None
    outputs: list[CompletionOutput]
    finished: bool = True
    metrics: RequestMetrics | None = None
    lora_request: None = None
    num_cached_tokens: int | None = None


@dataclass(slots=True)
class EmbeddingOutput:
    """A vector."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """Its length."""
        return len(self.embedding)


@dataclass(slots=True)
class EmbeddingRequestOutput:
    """A text and its vector."""

    request_id: str
    outputs: EmbeddingOutput
    prompt_token_ids: list[int]
    finished: bool = True


@dataclass(slots=True)
class BeamSearchSequence:
    """One beam, prompt included."""

    tokens: list[int]
    cum_logprob: float
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)


@dataclass(slots=True)
class BeamSearchOutput:
    """The beams of one prompt, best first."""

    sequences: list[BeamSearchSequence]


class LLM:
    """A loaded model. max_model_len: tokens of context. max_num_seqs, max_num_batched_tokens: of one step.

    Raises: as `tokamak.load`; InvalidParams for an option that is unknown, UnsupportedError for one that is not implemented.
    """

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        max_model_len: int | None = None,
        seed: int | None = 0,
        max_num_seqs: int = 64,
        max_num_batched_tokens: int | None = None,
        enable_prefix_caching: bool | None = None,
        kv_cache_dtype: str = "auto",
        speculative_config: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if name not in NEUTRAL:
                raise InvalidParams(f"{name!r} is no option of LLM")
            if NEUTRAL[name] and value not in NEUTRAL[name]:
                raise UnsupportedError(f"{name}={value!r} is not implemented; leave it at its default")
        if kv_cache_dtype not in KV:
            raise UnsupportedError(f"kv_cache_dtype is {kv_cache_dtype!r}; there are {', '.join(KV)}")
        speculation = dict(speculative_config or {})
        self._speculation = {} if not speculation else {
            "speculation": "lookup" if speculation.get("method") == "ngram" else "draft",
            "speculation_tokens": speculation.get("num_speculative_tokens", 8),
        }  # fmt: skip
        self.llm = load(
            model,
            tokenizer=tokenizer if tokenizer != model else None,
            context=max_model_len,
            seed=seed,
            max_sequences=max_num_seqs,
            max_batch_rows=max_num_batched_tokens,
            kv_dtype=KV[kv_cache_dtype],
            prefix_cache_nbytes=0 if enable_prefix_caching is False else None,
            draft=speculation.get("model") if speculation.get("method") != "ngram" else None,
        )
        self._numbers = itertools.count()

    def get_tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's tokenizer with transformers' interface."""
        own = self._tokenizer()
        named = {
            f"{kind}_token": i for kind, i in (("bos", own.bos_id), ("eos", own.eos_id)) if i is not None
        }
        special = {name: own.id_to_bytes(i).decode("utf-8", "replace") for name, i in named.items()}
        template = own.chat_template.source if own.chat_template else None
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(own),
            chat_template=template,
            model_max_length=self.llm.context,
            **special,
        )

    def get_default_sampling_params(self) -> SamplingParams:
        """vLLM's own defaults."""
        return SamplingParams()

    def generate(
        self,
        prompts: Any,
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Any = True,  # noqa: ARG002  # the interface
        **others: Any,
    ) -> list[RequestOutput]:
        """Completions of texts, token ids, or {"prompt": ...} / {"prompt_token_ids": ...}; one or a list of them."""
        _none(others, "lora_request", "priority")
        asked = [_prompt(p) for p in ([prompts] if _is_one(prompts) else prompts)]
        return self._run(asked, sampling_params, [p if isinstance(p, str) else None for p in asked])

    def chat(
        self,
        messages: Sequence[Any],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Any = True,  # noqa: ARG002  # the interface
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        chat_template: str | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> list[RequestOutput]:
        """Answers to a conversation, or to several."""
        _none(others, "lora_request", "chat_template_content_format", "continue_final_message")
        conversations = [messages] if isinstance(messages[0], Mapping) else messages
        tokenizer = self._tokenizer()
        more: dict[str, Any] = {**(chat_template_kwargs or {}), **({"tools": list(tools)} if tools else {})}
        ids = [
            tokenizer.encode_chat([plain(m) for m in c], add_generation_prompt, chat_template, **more)
            for c in conversations
        ]
        outputs = self._run(ids, sampling_params, [None] * len(ids))
        for output in outputs:
            output.prompt = tokenizer.decode(output.prompt_token_ids)
        return outputs

    def beam_search(
        self, prompts: Sequence[Any], params: BeamSearchParams, **others: Any
    ) -> list[BeamSearchOutput]:
        """The beam_width likeliest completions of each prompt."""
        _none(others, "lora_request", "use_tqdm", "concurrency_limit")
        if params.temperature:
            raise UnsupportedError("beams are searched, not drawn: temperature must be 0")
        width = params.beam_width
        outputs = []
        for prompt in prompts:
            ids = self._ids(_prompt(prompt))
            done = self.llm.generate(
                ids, num_beams=width, n=width, max_tokens=params.max_tokens, ignore_eos=params.ignore_eos,
                length_penalty=params.length_penalty,
            )  # fmt: skip
            outputs.append(
                BeamSearchOutput(
                    [_beam(ids, one, params.length_penalty) for one in (done if width > 1 else [done])]
                )
            )
        return outputs

    def embed(self, prompts: Any, **others: Any) -> list[EmbeddingRequestOutput]:
        """Vectors of texts or token ids."""
        _none(others, "lora_request", "use_tqdm", "truncate_prompt_tokens", "pooling_params")
        ids = [self._ids(_prompt(p)) for p in ([prompts] if _is_one(prompts) else prompts)]
        vectors: Floats = self.llm.embed(ids)
        return [
            EmbeddingRequestOutput(str(next(self._numbers)), EmbeddingOutput(v), one)
            for v, one in zip(vectors.tolist(), ids, strict=True)
        ]

    def _run(self, prompts: Sequence[Any], params: Any, texts: Sequence[str | None]) -> list[RequestOutput]:
        each = list(params) if isinstance(params, Sequence) else [params or SamplingParams()] * len(prompts)
        if len(each) != len(prompts):
            raise InvalidParams(f"{len(each)} sampling_params are given for {len(prompts)} prompts")
        began = time.time()
        ours = [p.ours(self.llm.tokenizer, self.llm.vocab_size).replaced(**self._speculation) for p in each]
        if all(p == ours[0] for p in ours):
            done = self.llm.generate(list(prompts), ours[0]) if prompts else []
        else:
            done = [self.llm.generate(p, o) for p, o in zip(prompts, ours, strict=True)]
        return [
            self._output(self._ids(prompt), text, d if isinstance(d, list) else [d], p, began)
            for prompt, text, d, p in zip(prompts, texts, done, each, strict=True)
        ]

    def _output(
        self, ids: list[int], text: str | None, done: list[Completion], params: SamplingParams, began: float
    ) -> RequestOutput:
        echoed = 0 if params.prompt_logprobs is None else len(ids)
        skip = (
            len(text if text is not None else self._tokenizer().decode(ids, skip_special=True))
            if echoed
            else 0
        )
        prompt_logprobs = None
        if echoed:
            prompt_logprobs = [self._logprob(e) if e else None for e in (done[0].logprobs or [])[:echoed]]
        outputs = []
        for d in done:
            entries = None if d.logprobs is None or params.logprobs is None else d.logprobs[echoed:]
            made = None if entries is None else [self._logprob(e) for e in entries if e is not None]
            total = None if entries is None else sum(e.logprob for e in entries if e is not None)
            said, stop = d.text[skip:], d.stop_reason
            said += stop if params.include_stop_str_in_output and isinstance(stop, str) else ""
            outputs.append(
                CompletionOutput(d.index, said, d.token_ids, total, made, d.finish_reason, d.stop_reason)
            )
        timings = done[0].timings
        metrics = RequestMetrics(began, timings.ttft_s, began + timings.total_s)
        cached = done[0].usage.cached_tokens
        return RequestOutput(
            str(next(self._numbers)), text, ids, prompt_logprobs, outputs, True, metrics, None, cached
        )  # the interface

    def _logprob(self, entry: TokenLogprob) -> dict[int, Logprob]:
        """The token itself and the most likely ones."""
        decode = self._tokenizer().decode
        found = {i: Logprob(p, rank, decode([i], continues=True)) for rank, (i, p) in enumerate(entry.top, 1)}
        own = Logprob(entry.logprob, entry.rank, decode([entry.token_id], continues=True))
        return {entry.token_id: found.pop(entry.token_id, own), **found}

    def _ids(self, prompt: Any) -> list[int]:
        return (
            self._tokenizer().encode(prompt, parse_special=True) if isinstance(prompt, str) else list(prompt)
        )

    def _tokenizer(self) -> Any:
        if self.llm.tokenizer is None:
            raise UnsupportedError("the model file has no tokenizer")
        return self.llm.tokenizer


def _is_one(prompts: Any) -> bool:
    return isinstance(prompts, Mapping) or is_one_prompt(prompts)


def _prompt(prompt: Any) -> Any:
    """A text or token ids, out of the dicts vLLM takes."""
    if isinstance(prompt, Mapping):
        return prompt["prompt_token_ids"] if "prompt_token_ids" in prompt else prompt["prompt"]
    return prompt


def _none(others: Mapping[str, Any], *known: str) -> None:
    for name, value in others.items():
        if name not in known:
            raise InvalidParams(f"{name!r} is no option here")
        if name == "lora_request" and value is not None:
            raise UnsupportedError("lora_request is not implemented")


def _beam(ids: list[int], done: Completion, penalty: float) -> BeamSearchSequence:
    total = 0.0 if done.score is None else done.score * max(1, len(done.token_ids)) ** penalty
    return BeamSearchSequence([*ids, *done.token_ids], total, done.text, done.finish_reason, done.stop_reason)


def _without(words: Sequence[Sequence[int]]) -> Callable[..., Any]:
    """Bans the last token of each word where the text ends in those before it."""

    def process(made: list[int], logits: Floats) -> Floats:
        for *begun, last in words:
            if made[-len(begun) :] == begun:
                logits[last] = -np.inf
        return logits

    return process


def _with_lists(processor: Callable[..., Any]) -> Callable[..., Any]:
    """vLLM calls a processor with the tokens made so far as a list and a row of logits."""
    num_prompt: list[int] = []

    def process(ids: Any, logits: Floats) -> Any:
        num_prompt[:] = num_prompt or [len(ids)]
        return processor(ids[num_prompt[0] :].tolist(), logits)

    return process
