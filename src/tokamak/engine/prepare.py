"""From a prompt and parameters to a request: everything that is checked, compiled and looked up before the engine sees it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tokamak.engine.adapting import Adapters
from tokamak.engine.beam import BeamSearch
from tokamak.engine.guidance import Guidance
from tokamak.engine.illustrated import Illustrated, Placed
from tokamak.engine.request import Collect, Group, Request, Speculation, TextDecoder
from tokamak.engine.resolve import (
    Prompt,
    breakers,
    max_new_tokens,
    prompt_ids,
    token_bias,
    vocabulary,
)
from tokamak.engine.source import Source
from tokamak.engine.ticket import Described, PromptLogprobs
from tokamak.errors import ContextOverflow, InvalidParams, UnsupportedError
from tokamak.sampling import Sampler, SamplingParams, fresh_seed
from tokamak.sampling.grammar import Compiler, Grammar, source_of
from tokamak.sampling.healing import Healing, taken_back
from tokamak.sampling.random import GOLDEN_GAMMA, MASK64, mix64
from tokamak.types import Floats, Ints

if TYPE_CHECKING:
    from tokamak.tokenizers import Tokenizer

Prepared = tuple[Request, Described]
"""A request and what its completions will say; belongs to the LLM that made it and runs once."""


class Preparer:
    """What requests of one LLM have in common. Any number of threads may use it.

    num_tokens: ids that exist, the logits may be wider. drafts: whether there is a draft model. recurrent: whether the model
    keeps state that cannot go back. picture_width: of the rows of pictures, 0: it takes none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None,
        *,
        vocab_size: int,
        num_tokens: int,
        context: int,
        seed: int | None,
        load_s: float,
        drafts: bool,
        recurrent: bool,
        facts: Mapping[str, Any],
        adapters: Adapters,
        picture_width: int = 0,
    ) -> None:
        self.tokenizer, self.vocab_size, self.context = tokenizer, vocab_size, context
        self._num_tokens, self._load_s, self._facts = num_tokens, load_s, facts
        self._drafts, self._recurrent, self.adapters = drafts, recurrent, adapters
        self._picture_width = picture_width
        self._start: int | None = facts.get("decoder_start")
        self._seed = None if seed is None else seed & MASK64
        self._seeds, self._ids = itertools.count(), itertools.count(1)
        self._compiler: Compiler | None = None
        self._compiling = threading.Lock()

    def ids(self, prompt: Prompt) -> Ints:
        """Token ids of a prompt; see `prompt_ids`."""
        return prompt_ids(prompt, self.tokenizer, self.vocab_size, self._facts.get("tokenizer_tried", ()))

    @property
    def reads(self) -> bool:
        """Whether a prompt is a text that the model reads, to begin another after a token of its own."""
        return self._start is not None

    def reading(
        self,
        prompt: Ints,
        collect: Collect | None = None,
        *,
        salt: str = "",
        source: Prompt | None = None,
        pictures: Sequence[Placed] = (),
    ) -> Prepared:
        """A request that only reads, for the logits of every position or for its place in the cache."""
        if self.reads != (source is not None):
            raise InvalidParams("a source is what models read that write another text, and they need one")
        sampler = Sampler(SamplingParams(temperature=0.0), seed=0)
        about = None if source is None else self._source(self.ids(source))
        gates = self.adapters.gates(None)
        request = Request(next(self._ids), prompt, 0, sampler, collect=collect, source=about, gates=gates)
        request.salt, request.pictures = salt + _salt(gates), pictures
        return request, Described(self._load_s, 0, with_logprobs=False)

    def request(
        self, prompt: Prompt, params: SamplingParams, *, salt: str = "", tenant: str = ""
    ) -> Prepared:
        """See `LLM.prepare`."""
        tokenizer = self.tokenizer
        if tokenizer is None and params.stops:
            raise UnsupportedError(
                "stop strings need a tokenizer, and the model file has none; use stop_token_ids"
            )
        ids, source = self._begun(prompt, params)
        healing, ids = self._healing(params, ids)
        ending = frozenset(tokenizer.eog_ids) if tokenizer else frozenset()
        seed = self._next_seed() if params.seed is None else params.seed
        wants_logprobs = params.logprobs is not None
        ranked = params.num_samples if params.num_samples > params.n else None
        if ranked and not wants_logprobs:  # for the choice of the best
            params = params.replaced(logprobs=0)
        scored = (
            PromptLogprobs(ids.tolist(), params.logprobs or 0) if params.echo and wants_logprobs else None
        )
        gates = self.adapters.gates(params.adapters)
        request = Request(
            id=next(self._ids),
            prompt=ids,
            max_new=max_new_tokens(params, len(ids), self.context),
            sampler=self._sampler(params, seed, ending, healing),
            stop_ids=self._stop_ids(params) | (frozenset() if params.ignore_eos else ending),
            stops=params.stops,
            min_new=params.min_tokens,
            num_samples=params.num_samples,
            salt=params.cache_salt + salt + _salt(gates) + (source.salt() if source else ""),
            make_decoder=_decoders(tokenizer, ids, healing),
            collect=scored,
            priority=params.priority,
            tenant=tenant,
            group=self._group(params),
            speculation=self._speculation(params),
            context=self.context if params.context_shift else None,
            keep=params.keep,
            source=source,
            gates=gates,
            pictures=self.pictures(prompt, params),
        )
        echo = self._text(prompt) if params.echo else ""
        best = params.n if ranked else None
        return request, Described(self._load_s, seed, wants_logprobs, echo, scored, best)

    def _stop_ids(self, params: SamplingParams) -> frozenset[int]:
        unknown = next((i for i in params.stop_token_ids if i >= self.vocab_size), None)
        if unknown is not None:
            raise InvalidParams(
                f"stop_token_ids has {unknown}; ids of this model are 0 to {self.vocab_size - 1}"
            )
        return frozenset(params.stop_token_ids)

    def _begun(self, prompt: Prompt, params: SamplingParams) -> tuple[Ints, Source | None]:
        """The tokens that a completion continues, and the text that it is about where the model reads one."""
        ids = self.ids(prompt)
        if self._start is None:
            return ids, None
        _check_reading(params)
        return np.array([self._start], dtype=np.int32), self._source(ids)

    def pictures(self, prompt: Prompt, params: SamplingParams | None = None) -> tuple[Placed, ...]:
        """Those of a prompt.  Raises: UnsupportedError for what would move or lose them; InvalidParams for another model's."""
        if not isinstance(prompt, Illustrated) or not prompt.pictures:
            return ()
        prompt.check(self._picture_width)
        asked = params and {
            "negative_prompt": params.negative_prompt is not None,
            "context_shift": params.context_shift,
            "token_healing": params.token_healing,
        }
        if named := next((name for name, is_asked in (asked or {}).items() if is_asked), None):
            raise UnsupportedError(f"{named}: not with images in the prompt")
        return prompt.pictures

    def plain_ids(self, prompt: Prompt) -> Ints:
        """Token ids of a prompt.  Raises: UnsupportedError if it has pictures."""
        if isinstance(prompt, Illustrated) and prompt.pictures:
            raise UnsupportedError("this is not implemented for prompts with images")
        return self.ids(prompt)

    def _text(self, prompt: Prompt) -> str:
        """A prompt as text; "" where ids cannot be read."""
        if isinstance(prompt, str):
            return prompt
        return self.tokenizer.decode(self.ids(prompt), skip_special=True) if self.tokenizer else ""

    def _source(self, ids: Ints) -> Source:
        if len(ids) > self.context:
            raise ContextOverflow(f"the text has {len(ids)} tokens, the context holds {self.context}")
        return Source(ids)

    def _sampler(
        self, params: SamplingParams, seed: int, ending: frozenset[int], healing: Healing | None
    ) -> Sampler:
        banned = set(range(self._num_tokens, self.vocab_size))  # rows of padding are no tokens
        return Sampler(
            params,
            seed=seed,
            bias=token_bias(params, self.tokenizer, self.vocab_size),
            banned=banned | ending if params.ignore_eos else banned,
            breakers=breakers(params, self.tokenizer),
            grammar=self._grammar(params),
            healing=healing,
            vocabulary=(self.pieces, ending) if "infill" in params.samplers else None,
        )

    @cached_property
    def pieces(self) -> list[bytes]:
        """Bytes of text of each token id; b"" for those that stand for none."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise UnsupportedError("this is about the text of tokens, and the model file has no tokenizer")
        special = set(tokenizer.special_tokens.values())
        return [b"" if i in special else tokenizer.id_to_bytes(i) for i in range(tokenizer.vocab_size)]

    def _healing(self, params: SamplingParams, ids: Ints) -> tuple[Healing | None, Ints]:
        """What the completion has to spell first, and the prompt without it."""
        if not params.token_healing:
            return None, ids
        count = taken_back(ids.tolist(), self.pieces)
        if not count:
            return None, ids
        prefix = b"".join(self.pieces[i] for i in ids[-count:].tolist())
        return Healing(self.pieces, prefix), ids[:-count]

    def _grammar(self, params: SamplingParams) -> Grammar | None:
        """The compiled constraint of a request; compilers are made when first asked for."""
        source = source_of(params)
        if source is None:
            return None
        with self._compiling:
            if self._compiler is None:
                self._compiler = Compiler(vocabulary(self.tokenizer))
        return self._compiler.compile(*source, tuple(params.grammar_triggers))

    def _group(self, params: SamplingParams) -> Group | None:
        if params.num_beams > 1:
            early = params.early_stopping
            kind = "never" if early == "never" else bool(early)
            return BeamSearch(params.num_beams, params.n, params.length_penalty, kind)  # type: ignore[arg-type]
        if params.negative_prompt is None:
            return None
        negative = self.ids(params.negative_prompt)
        max_new_tokens(params, len(negative), self.context)
        return Guidance(params.guidance_scale, negative, params.num_samples)

    def _speculation(self, params: SamplingParams) -> Speculation | None:
        kind = params.speculation
        if kind == "draft" and not self._drafts:
            raise InvalidParams("speculation is 'draft', and the LLM was loaded without a draft model")
        if kind in ("draft", "lookup") and self._recurrent:
            raise UnsupportedError("the model keeps a state that cannot go back to before a wrong guess")
        if kind == "off" or (kind == "auto" and not self._drafts) or self._recurrent or params.num_beams > 1:
            return None
        return Speculation("lookup" if kind == "lookup" else "draft", params.speculation_tokens)

    def _next_seed(self) -> int:
        if self._seed is None:
            return fresh_seed()
        return mix64((self._seed + next(self._seeds) * GOLDEN_GAMMA) & MASK64) >> 1


def _salt(gates: Floats | None) -> str:
    """Keeps prefixes apart that other adapters computed; they have to be the same bits."""
    return "" if gates is None or not gates.any() else f"\0adapters {gates.tobytes().hex()}"


def _check_reading(params: SamplingParams) -> None:
    """Raises: UnsupportedError for what asks for a prompt that the completion continues."""
    asked = {
        "negative_prompt": params.negative_prompt is not None,
        "token_healing": params.token_healing,
        "echo with logprobs": params.echo and params.logprobs is not None,
    }
    if named := next((name for name, is_asked in asked.items() if is_asked), None):
        raise UnsupportedError(
            f"{named}: the model reads its prompt and writes another text, it continues none"
        )


class HealedText:
    """A decoder that leaves out the text the prompt had already."""

    __slots__ = ("_inner", "_left")

    def __init__(self, inner: TextDecoder, known: str) -> None:
        self._inner, self._left = inner, len(known)

    def push(self, token_id: int) -> str:
        """See `TextDecoder`."""
        return self._without(self._inner.push(token_id))

    def flush(self) -> str:
        """See `TextDecoder`."""
        return self._without(self._inner.flush())

    def _without(self, text: str) -> str:
        known = min(self._left, len(text))
        self._left -= known
        return text[known:]


def _decoders(
    tokenizer: Tokenizer | None, prompt: Ints, healing: Healing | None
) -> Callable[[], TextDecoder] | None:
    """Makes the decoder of each sample. After special tokens alone, a text begins and is decoded as one."""
    if tokenizer is None:
        return None
    continues = bool(tokenizer.decode(prompt, skip_special=True))
    if healing is None:
        return lambda: tokenizer.stream(continues=continues)
    known = healing.left.decode("utf-8", "replace")
    if not continues and known.startswith(" ") and tokenizer.spec.strip_space:
        known = known[1:]  # decoding drops it at the start of a text
    return lambda: HealedText(tokenizer.stream(continues=continues), known)
