"""`Llama` with the interface of llama-cpp-python, over the public names only.

    from tokamak.compat.llama_cpp import Llama

Answers are dicts of the same shape. Options that only tune the other engine (offloading, mmap, flash attention) are taken and mean
nothing here; those that would change the result and are not implemented raise UnsupportedError.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokamak.compat import openai_shapes as shapes
from tokamak.compat.chat_reading import Reading, constraint, plain
from tokamak.compat.llama_parts import (
    LlamaCache,
    LlamaGrammar,
    LlamaPromptLookupDecoding,
    LlamaRAMCache,
    LlamaState,
)
from tokamak.compat.openai_shapes import Json
from tokamak.engine.completion import Completion
from tokamak.engine.llm import LLM
from tokamak.engine.loading import load
from tokamak.engine.replies import ToolParser
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.sampling import SamplingParams, TokenLogprob
from tokamak.tokenizers.chat_formats import FORMATS
from tokamak.types import Floats

__all__ = ["Llama", "LlamaCache", "LlamaGrammar", "LlamaPromptLookupDecoding", "LlamaRAMCache", "LlamaState"]

DEFAULT_SEED = 0xFFFFFFFF  # draws one
KV_TYPES = {None: "f16", 0: "f32", 1: "f16", 2: "q4_0", 8: "q8_0", 30: "bf16"}  # numbers of ggml
IGNORED = {
    *("n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "use_mmap", "use_mlock", "offload_kqv", "flash_attn"),
    *("op_offload", "swa_full", "no_perf", "numa", "verbose", "n_ubatch", "logits_all", "embedding", "type_v"),
    *("pooling_type", "attention_type", "lora_scale"),
}  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {  # options that may only be at their default
    "vocab_only": (False,), "kv_overrides": (None,), "rope_scaling_type": (-1, None), "rope_freq_base": (0.0,), "rope_freq_scale": (0.0,),
    "yarn_ext_factor": (-1.0,), "yarn_attn_factor": (1.0,), "yarn_beta_fast": (32.0,), "yarn_beta_slow": (1.0,), "yarn_orig_ctx": (0,),
    "lora_base": (None,), "lora_path": (None,), "chat_handler": (None,), "tokenizer": (None,),
}  # fmt: skip
SAME: tuple[str, ...] = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "tfs_z",
    "frequency_penalty",
    "presence_penalty",
)
SAME += ("mirostat_tau", "mirostat_eta")
Criterion = Callable[[Any, Any], bool]


class Llama:
    """A loaded model. model_path: a file or directory. n_ctx: 0 is what the model was trained for. n_batch: rows of a step.

    draft_model: LlamaPromptLookupDecoding, or the path of a smaller model. chat_format: one of FORMATS, None: the model's own template.
    Raises: as `tokamak.load`; InvalidParams for an option that is unknown, UnsupportedError for one that is not implemented.
    """

    def __init__(
        self,
        model_path: str,
        *,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        seed: int = DEFAULT_SEED,
        type_k: int | None = None,
        last_n_tokens_size: int = 64,
        draft_model: LlamaPromptLookupDecoding | str | None = None,
        spm_infill: bool = False,
        chat_format: str | None = None,
        **others: Any,
    ) -> None:
        _check_options(others)
        if chat_format is not None and chat_format not in FORMATS:
            raise UnsupportedError(f"chat_format is {chat_format!r}; there are {', '.join(FORMATS)}")
        self.chat_format = chat_format
        if type_k not in KV_TYPES:
            raise UnsupportedError(
                f"type_k is {type_k}; there are {sorted(k for k in KV_TYPES if k is not None)}"
            )
        self.model_path, self.verbose = model_path, bool(others.get("verbose", True))
        self._last_n, self._suffix_first, self._input_ids = last_n_tokens_size, spm_infill, list[int]()
        self._lookup = draft_model if isinstance(draft_model, LlamaPromptLookupDecoding) else None
        self.llm: LLM = load(
            model_path,
            context=n_ctx or None,
            threads=n_threads,
            threads_batch=n_threads_batch,
            seed=None if seed == DEFAULT_SEED else seed,
            kv_dtype=KV_TYPES[type_k],
            max_batch_rows=n_batch,
            draft=draft_model if isinstance(draft_model, (str, os.PathLike)) else None,
        )

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        *,
        local_dir: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Llama:
        """Of a folder on this machine: repo_id itself, or local_dir. filename: the file in it, wildcards allowed.

        Raises: UnsupportedError if it is not here; nothing is downloaded.
        """
        folder = Path(local_dir if local_dir is not None else repo_id)
        if not folder.is_dir():
            raise UnsupportedError(
                f"{folder} is no folder here; download the model first and name its folder"
            )
        found = sorted(folder.glob(filename)) if filename else [folder]
        if len(found) != 1:
            raise InvalidParams(f"{filename!r} names {len(found)} files of {folder}; it must name one")
        for name in ("additional_files", "local_dir_use_symlinks", "cache_dir"):
            options.pop(name, None)
        return cls(str(found[0]), **options)

    # -- tokens

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Token ids of UTF-8."""
        ids: list[int] = self.tokenizer().encode(text, add_special=False, parse_special=special)
        bos = self.llm.tokenizer.bos_id if self.llm.tokenizer else None
        return [bos, *ids] if add_bos and bos is not None else ids

    def detokenize(
        self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False
    ) -> bytes:
        """UTF-8 of token ids."""
        data: bytes = self.tokenizer().decode_bytes(
            tokens, skip_special=not special, continues=prev_tokens is not None
        )
        return data

    def tokenizer(self) -> Any:
        """The model's tokenizer.  Raises: UnsupportedError without one."""
        if self.llm.tokenizer is None:
            raise UnsupportedError("the model file has no tokenizer")
        return self.llm.tokenizer

    def token_bos(self) -> int:
        """Id of the token that starts a text, -1 if there is none."""
        bos = self.tokenizer().bos_id
        return -1 if bos is None else bos

    def token_eos(self) -> int:
        """Id of the token that ends a text, -1 if there is none."""
        eos = self.tokenizer().eos_id
        return -1 if eos is None else eos

    def token_nl(self) -> int:
        """Id of a line end, -1 if there is none."""
        ids = self.tokenizer().encode("\n", add_special=False)
        return ids[-1] if ids else -1

    def n_ctx(self) -> int:
        """Tokens of context."""
        return self.llm.context

    def n_vocab(self) -> int:
        """Width of the logits."""
        return self.llm.vocab_size

    def n_embd(self) -> int:
        """Width of the hidden states."""
        return int(self.llm.embed("a").shape[1])

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known of the loaded model."""
        return dict(self.llm.facts)

    # -- text

    def create_completion(
        self, prompt: str | list[int], suffix: str | None = None, max_tokens: int | None = 16, **options: Any
    ) -> Any:
        """A completion, or with stream=True an iterator of its pieces. options: as llama-cpp-python's."""
        stream, model, logprobs = (
            options.pop("stream", False),
            options.pop("model", None) or self.model_path,
            options.get("logprobs"),
        )
        params = self._params(max_tokens, options)
        ids: str | list[int] = prompt
        if suffix is not None:
            text = prompt if isinstance(prompt, str) else self.tokenizer().decode(prompt)
            ids = self.llm.infill_ids(text, suffix, suffix_first=self._suffix_first)
        answer = shapes.head("cmpl", "text_completion", model)
        if stream:
            return self._text_chunks(answer, ids, params)
        done = self._done(ids, params)
        entries = done.logprobs
        start = 0 if params.echo else len(prompt) if isinstance(prompt, str) else 0
        made = (
            None
            if entries is None or logprobs is None
            else shapes.text_logprobs(entries, self.tokenizer(), start)
        )
        text = done.text + (suffix or "" if params.echo else "")
        choice = {"text": text, "index": 0, "logprobs": made, "finish_reason": done.finish_reason}
        return {**answer, "choices": [choice], "usage": shapes.usage(done)}

    __call__ = create_completion

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: Any = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        **options: Any,
    ) -> Any:
        """An answer to a conversation, or with stream=True an iterator of its pieces. options: as llama-cpp-python's."""
        stream, model = options.pop("stream", False), options.pop("model", None) or self.model_path
        for name in ("functions", "function_call"):
            if options.pop(name, None) is not None:
                raise UnsupportedError(f"{name} is the older form; use tools and tool_choice")
        options.setdefault("temperature", 0.2)
        wanted = None if tool_choice == "none" else tools
        named = tool_choice["function"]["name"] if isinstance(tool_choice, Mapping) else None
        options |= constraint(response_format, wanted, named)
        if logprobs:
            options["logprobs"] = top_logprobs or 0
        params = self._params(max_tokens, options)
        more = {"tools": list(tools)} if tools else {}
        own, form = self.tokenizer().chat_template, FORMATS.get(self.chat_format or "")
        ids = self.tokenizer().encode_chat([plain(m) for m in messages], True, form, **more)
        tail = self.tokenizer().decode(ids[-64:], continues=True)
        source = form or (own.source if own else None)
        parser = ToolParser.for_template(source, tools=list(wanted or ()), prompt=tail)
        reading = Reading(parser, named)
        if stream:
            return self._chat_chunks(
                shapes.head("chatcmpl", "chat.completion.chunk", model), ids, params, reading
            )
        done = self._done(ids, params)
        message, reason = reading.whole(done)
        entries = shapes.chat_logprobs(done.logprobs or [], self.tokenizer()) if logprobs else None
        choice = {"index": 0, "message": message, "logprobs": entries, "finish_reason": reason}
        answer = shapes.head("chatcmpl", "chat.completion", model)
        return {**answer, "choices": [choice], "usage": shapes.usage(done)}

    def generate(self, tokens: Sequence[int], *, temp: float = 0.8, **options: Any) -> Iterator[int]:
        """Token ids that continue token ids, one by one, until the text or the context ends."""
        for name in ("reset", "penalize_nl"):
            options.pop(name, None)
        params = self._params(None, {"temperature": temp, **options})
        with self.llm.stream(list(tokens), params) as stream:
            for event in stream.events():
                if event.token_id is not None:
                    yield event.token_id

    # -- vectors and logits

    def embed(
        self,
        input: str | list[str],  # noqa: A002  # the interface
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """Vectors as lists of floats, one for a text, a list for a list. Texts that do not fit are cut if truncate."""
        texts = [input] if isinstance(input, str) else list(input)
        ids = [self.tokenizer().encode(text) for text in texts]
        if truncate:
            ids = [one[: self.llm.context] for one in ids]
        vectors = self.llm.embed(ids, normalize=normalize)
        found = vectors.tolist()
        out = found[0] if isinstance(input, str) else found
        return (out, sum(map(len, ids))) if return_count else out

    def create_embedding(self, input: str | list[str], model: str | None = None) -> Json:  # noqa: A002  # the interface
        """Vectors in the shape of OpenAI's API."""
        vectors, count = self.embed([input] if isinstance(input, str) else input, return_count=True)
        data = [{"object": "embedding", "embedding": v, "index": i} for i, v in enumerate(vectors)]
        used = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data, "model": model or self.model_path, "usage": used}

    def eval(self, tokens: Sequence[int]) -> None:
        """Read more tokens; `scores` then has their logits."""
        self._input_ids += [int(t) for t in tokens]

    def reset(self) -> None:
        """Forget what was read."""
        self._input_ids = []

    @property
    def n_tokens(self) -> int:
        """Tokens read by `eval`."""
        return len(self._input_ids)

    @property
    def scores(self) -> Floats:
        """Logits f32[n_tokens, n_vocab] of what `eval` read."""
        return self.llm.logits(self._input_ids)

    def sample(self, *, temp: float = 0.8, idx: int | None = None, **options: Any) -> int:
        """The token that comes next, or after the first idx + 1 tokens that `eval` read. options: as of a completion."""
        read = self._input_ids if idx is None else self._input_ids[: idx + 1]
        for name in ("penalize_nl", "logits_processor", "grammar"):
            if options.pop(name, None) not in (None, True):
                raise UnsupportedError(f"{name} is not implemented here; use create_completion")
        params = self._params(1, {"temperature": temp, **options}).replaced(ignore_eos=False)
        done: Completion = self.llm.generate(read, params)
        return done.token_ids[0]

    def set_cache(self, cache: LlamaRAMCache | None) -> None:
        """Takes a cache for the sake of programs that set one: beginnings are found again in any case."""

    # -- state

    def save_state(self) -> LlamaState:
        """What was read last, with its cache."""
        if not self._input_ids:
            return LlamaState([], b"")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state"
            self.llm.save_state(path, self._input_ids)
            return LlamaState(list(self._input_ids), path.read_bytes())

    def load_state(self, state: LlamaState) -> None:
        """Go on from there.  Raises: FileRefused for a state of another model."""
        self._input_ids = list(state.input_ids)
        if state.data:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "state"
                path.write_bytes(state.data)
                self.llm.load_state(path)

    def close(self) -> None:
        """Free the model."""
        self.llm.close()

    # -- inside

    def _params(self, max_tokens: int | None, options: dict[str, Any]) -> SamplingParams:
        o = dict(options)
        given = {name: o.pop(name) for name in SAME if name in o}
        given |= {
            "echo": o.pop("echo", False),
            "stop": o.pop("stop", None) or None,
            "logprobs": o.pop("logprobs", None),
        }
        given |= {"repetition_penalty": o.pop("repeat_penalty", 1.0), "repetition_last_n": self._last_n}
        given |= {"seed": o.pop("seed", None), "mirostat": o.pop("mirostat_mode", 0)}
        given["logit_bias"] = {int(k): v for k, v in (o.pop("logit_bias", None) or {}).items()}
        processors = list(o.pop("logits_processor", None) or ())
        criteria = list(o.pop("stopping_criteria", None) or ())
        ends = self.llm.tokenizer.eos_id if self.llm.tokenizer else None
        given["logits_processor"] = [*processors, *([_stopping(criteria, ends)] if criteria else [])]
        grammar = o.pop("grammar", None)
        if grammar is not None:
            given[grammar.field] = grammar.value
        given |= {name: o.pop(name) for name in ("json_schema",) if name in o}
        if o:
            raise InvalidParams(f"{next(iter(o))!r} is no option of a completion")
        given["max_tokens"] = -1 if max_tokens is None or max_tokens <= 0 else max_tokens
        if self._lookup is not None:
            given |= {"speculation": "lookup", "speculation_tokens": self._lookup.num_pred_tokens}
        return SamplingParams(**given)

    def _done(self, prompt: str | list[int], params: SamplingParams) -> Completion:
        done: Completion = self.llm.generate(prompt, params)
        self._remember(prompt, done)
        return done

    def _remember(self, prompt: str | list[int], done: Completion) -> None:
        ids = self.tokenizer().encode(prompt, parse_special=True) if isinstance(prompt, str) else list(prompt)
        self._input_ids = [*ids, *done.token_ids]

    def _text_chunks(self, answer: Json, prompt: str | list[int], params: SamplingParams) -> Iterator[Json]:
        with self.llm.stream(prompt, params.replaced(echo=False)) as stream:
            if params.echo and isinstance(prompt, str):
                yield {
                    **answer,
                    "choices": [{"text": prompt, "index": 0, "logprobs": None, "finish_reason": None}],
                }
            held: list[TokenLogprob | None] = []
            start = len(prompt) if isinstance(prompt, str) else 0
            for event in stream.events():
                held += [] if event.logprob is None else [event.logprob]
                if event.text or event.finish_reason:
                    made = shapes.text_logprobs(held, self.tokenizer(), start) if held else None
                    start += sum(map(len, made["tokens"])) if made else 0
                    held = []
                    choice = {
                        "text": event.text,
                        "index": 0,
                        "logprobs": made,
                        "finish_reason": event.finish_reason,
                    }
                    yield {**answer, "choices": [choice]}
            self._remember(prompt, stream.completion)

    def _chat_chunks(
        self, answer: Json, ids: list[int], params: SamplingParams, reading: Reading
    ) -> Iterator[Json]:
        held: list[TokenLogprob | None] = []  # of tokens that no piece has brought yet

        def chunk(delta: Json, reason: str | None = None) -> Json:
            made = shapes.chat_logprobs(held, self.tokenizer()) if held else None
            held.clear()
            return {
                **answer,
                "choices": [{"index": 0, "delta": delta, "logprobs": made, "finish_reason": reason}],
            }

        yield chunk({"role": "assistant"})
        with self.llm.stream(ids, params) as stream:
            for event in stream.events():
                held += [] if event.logprob is None else [event.logprob]
                for delta in reading.push(event.text):
                    yield chunk(delta)
            for delta in reading.finish():
                yield chunk(delta)
            yield chunk({}, reading.reason(stream.completion))
            self._remember(ids, stream.completion)


def _check_options(others: Mapping[str, Any]) -> None:
    for name, value in others.items():
        if name in IGNORED:
            continue
        if name not in NEUTRAL:
            raise InvalidParams(f"{name!r} is no option of Llama")
        if value not in NEUTRAL[name]:
            raise UnsupportedError(f"{name}={value!r} is not implemented; leave it at its default")


def _stopping(criteria: Sequence[Criterion], eos_id: int | None) -> Callable[[Any, Floats], Floats]:
    """Ends the text where one of the criteria (token ids, logits) -> bool holds."""

    def process(ids: Any, logits: Floats) -> Floats:
        if any(criterion(ids, logits) for criterion in criteria):
            if eos_id is None:
                raise UnsupportedError(
                    "stopping_criteria need a token that ends a text, and the model has none"
                )
            logits.fill(-np.inf)
            logits[eos_id] = 0.0
        return logits

    return process
