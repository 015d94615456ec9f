"""What a caller may ask of a completion, checked once when it is made.

Not the state of a completion (`Sampler`) and not the server's wire format, which maps onto this.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokamak.errors import InvalidParams
from tokamak.types import Floats, Ints

LogitsProcessor = Callable[[Ints, Floats], Floats]
"""(token ids so far i32[n], logits f32[V], a copy that may be changed) -> logits f32[V]."""

# Defaults of the fields a preset may set: llama.cpp's chain.
DEFAULTS: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "repetition_penalty": 1.0,
}
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"temperature": 0.0, "top_k": 1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0},
    "balanced": {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.0, "repetition_penalty": 1.0},
    "quality": {"temperature": 0.8, "top_k": 100, "top_p": 0.95, "min_p": 0.0, "repetition_penalty": 1.1},
}
STAGES = (
    "logit_bias",
    "penalties",
    "dry",
    "top_n_sigma",
    "top_k",
    "typical",
    "tail_free",
    "eta",
    "top_p",
    "min_p",
    "xtc",
    "temperature",
)
OPTIONAL_STAGES = ("infill",)  # on only where `samplers` names them
ALIASES = {
    "typ_p": "typical",
    "temp": "temperature",
    "tfs_z": "tail_free",
    "tfs": "tail_free",
    "top_nsigma": "top_n_sigma",
}

# field -> (lowest, highest, whole number); both ends belong to the range
_RANGES: dict[str, tuple[float, float, bool]] = {
    "max_tokens": (-1, 2**31 - 1, True),
    "min_tokens": (0, 2**31 - 1, True),
    "temperature": (0.0, 100.0, False),
    "dynatemp_range": (0.0, 100.0, False),
    "dynatemp_exponent": (0.0, 100.0, False),
    "top_k": (-1, 2**31 - 1, True),
    "top_p": (0.0, 1.0, False),
    "min_p": (0.0, 1.0, False),
    "typical_p": (0.0, 1.0, False),
    "tfs_z": (0.0, 1.0, False),
    "eta_cutoff": (0.0, 1.0, False),
    "top_n_sigma": (-1.0, 100.0, False),
    "xtc_probability": (0.0, 1.0, False),
    "xtc_threshold": (0.0, 1.0, False),
    "min_keep": (1, 2**31 - 1, True),
    "mirostat": (0, 2, True),
    "mirostat_tau": (0.0, 100.0, False),
    "mirostat_eta": (0.0, 1.0, False),
    "adaptive_target": (-1.0, 1.0, False),
    "adaptive_decay": (0.0, 0.99, False),
    "repetition_penalty": (1e-3, 100.0, False),
    "repetition_last_n": (-1, 2**31 - 1, True),
    "presence_penalty": (-2.0, 2.0, False),
    "frequency_penalty": (-2.0, 2.0, False),
    "dry_multiplier": (0.0, 100.0, False),
    "dry_base": (1.0, 100.0, False),
    "dry_allowed_length": (1, 2**31 - 1, True),
    "dry_last_n": (-1, 2**31 - 1, True),
    "logprobs": (0, 1024, True),
    "n": (1, 128, True),
    "best_of": (1, 128, True),
    "num_beams": (1, 128, True),
    "length_penalty": (-10.0, 10.0, False),
    "guidance_scale": (0.0, 100.0, False),
    "speculation_tokens": (1, 64, True),
    "keep": (0, 2**31 - 1, True),
    "seed": (0, 2**64 - 1, True),
}
CONSTRAINTS = ("grammar", "json_schema", "regex", "choice")
_OPTIONAL = {"max_tokens", "logprobs", "seed", "best_of"}
SPECULATIONS = ("auto", "off", "lookup", "draft")
MAX_STOPS = 64
MOST_BIAS = 1e30  # a logit stays a float32 with it


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to continue a prompt. Every field is optional; the defaults are llama.cpp's.

    max_tokens: tokens to generate; None: 128, fewer if the context ends sooner; -1: until the context ends; 0: only read the prompt.
    min_tokens: end-of-generation tokens are banned, and stops not looked for, before so many.
    temperature: 0 is greedy (largest logit after bias and penalties, lowest id on ties). Default 0.8.
    dynatemp_range, dynatemp_exponent: temperature +- range, by entropy; 0 off.
    top_k (default 40; 0 or -1 off), top_p (0.95; 1 off), min_p (0.05; 0 off), typical_p, tfs_z (1 off), eta_cutoff (0 off),
    top_n_sigma (<= 0 off), xtc_probability (0 off) with xtc_threshold: filters as in docs/guides/sampling.md.
    min_keep: tokens that every filter leaves at least.
    mirostat: 0 off, 1 or 2; with mirostat_tau (bits) and mirostat_eta it replaces every filter but the temperature.
    adaptive_target: mean probability of the tokens drawn, < 0 off; after the filters. adaptive_decay: weight of the past.
    repetition_penalty (1 off), presence_penalty, frequency_penalty (0 off): over the last repetition_last_n tokens of prompt and
    completion; -1 all, 0 none.
    dry_*: penalty for continuing repeated sequences; dry_multiplier 0 off; dry_last_n -1 all.
    logit_bias: token id, or a string (each of its tokens), to a float added to the logit; -inf bans.
    logprobs: None off; else log-probabilities of the token drawn and of so many of the most likely, from the raw logits.
    post_sampling_probs: those of what the token was drawn from, after all stages; tokens that these leave out are not among them.
    n: completions of one prompt, which share its cache.
    seed: None draws one, reported in the completion. A draw depends on (seed, sample index, position) only.
    stop: strings that end the completion, not part of its text. stop_token_ids: the same for ids.
    ignore_eos: end-of-generation tokens are banned. echo: the text (and logprobs) begin with the prompt's.
    logits_processor: one or several, called in order before everything else; see `LogitsProcessor`.
    samplers: the order of the stages; one that is left out is off.
    grammar (GBNF, rule root), json_schema, regex, choice (one of some strings): the text follows it to its end; at most one.
    grammar_triggers: strings, the grammar is off until the text holds one and then counts from its beginning.
    best_of: draws so many and gives the n with the highest mean log-probability; not in a stream.
    num_beams: > 1 searches instead of drawing, with length_penalty (sum of log p / length^penalty) and early_stopping (True, False,
    "never"), as transformers does; n of the beams are given.
    guidance_scale: 1 off; else log-probabilities u + scale * (c - u), c of the prompt and u of negative_prompt.
    token_healing: the end of the prompt is taken back and must be spelled again, with whatever a longer token adds.
    speculation: "auto" (a draft model where the LLM has one), "off", "lookup" (what followed earlier in the text) or "draft"; with
    speculation_tokens at most a step. The completion stays the same.
    context_shift: where the context ends, the oldest tokens after the first `keep` make room; otherwise it ends there.
    adapters: of those the LLM was loaded with, by name or number, how much each counts; those not named count nothing. None: as
    loaded.
    cache_salt: cached prefixes are shared only under the same one. priority: higher is started first.
    preset: "fast", "balanced" or "quality": other defaults, each field given still wins.
    Raises: InvalidParams naming field, value and range.
    """

    preset: str | None = None
    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = None  # type: ignore[assignment]  # None: of the preset
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    top_k: int = None  # type: ignore[assignment]
    top_p: float = None  # type: ignore[assignment]
    min_p: float = None  # type: ignore[assignment]
    typical_p: float = 1.0
    tfs_z: float = 1.0
    eta_cutoff: float = 0.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    min_keep: int = 1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    repetition_penalty: float = None  # type: ignore[assignment]
    repetition_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_last_n: int = -1
    dry_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    logit_bias: Mapping[int | str, float] | None = None
    logprobs: int | None = None
    post_sampling_probs: bool = False
    n: int = 1
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    echo: bool = False
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] = ()
    samplers: Sequence[str] = STAGES
    grammar: str | None = None
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar_triggers: Sequence[str] = ()
    best_of: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    guidance_scale: float = 1.0
    negative_prompt: str | Sequence[int] | None = None
    token_healing: bool = False
    speculation: str = "auto"
    speculation_tokens: int = 8
    context_shift: bool = False
    keep: int = 0
    adapters: Mapping[int | str, float] | None = None
    cache_salt: str = ""
    priority: int = 0

    def __post_init__(self) -> None:
        if self.preset is not None and self.preset not in PRESETS:
            raise InvalidParams(f"preset is {self.preset!r}; it must be one of {', '.join(PRESETS)}")
        preset = DEFAULTS if self.preset is None else PRESETS[self.preset]
        for name, value in preset.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        for name, (low, high, whole) in _RANGES.items():
            _check_number(name, getattr(self, name), low, high, whole)
        for name in ("ignore_eos", "echo", "token_healing", "context_shift", "post_sampling_probs"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParams(f"{name} is {getattr(self, name)!r}; it must be True or False")
        object.__setattr__(self, "stop", _stop_strings(self.stop))
        object.__setattr__(self, "stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids))
        object.__setattr__(self, "logit_bias", _bias(self.logit_bias))
        object.__setattr__(self, "samplers", _stages(self.samplers))
        object.__setattr__(self, "logits_processor", _callables(self.logits_processor))
        object.__setattr__(self, "adapters", _scales(self.adapters))
        _check_together(self)
        _check_constraint(self)
        _check_search(self)

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return self.stop if isinstance(self.stop, tuple) else ()

    @property
    def processors(self) -> tuple[LogitsProcessor, ...]:
        """The logits processors as a tuple."""
        return self.logits_processor if isinstance(self.logits_processor, tuple) else ()

    @property
    def num_samples(self) -> int:
        """Completions that are made, of which n are given."""
        return self.n if self.best_of is None else self.best_of

    @property
    def greedy(self) -> bool:
        """Whether no number is drawn. A mirostat sampler draws at every temperature but 0."""
        return self.temperature == 0.0

    def replaced(self, **changes: Any) -> SamplingParams:
        """A copy with other fields; with `preset` among them, that preset's fields too unless they are given.

        Raises: InvalidParams, also for a name that is not a field.
        """
        for name in changes:
            if name not in SamplingParams.__dataclass_fields__:
                raise InvalidParams(f"{name} is not a sampling parameter; known are {', '.join(FIELDS)}")
        if changes.get("preset") is not None:
            changes = {**dict.fromkeys(DEFAULTS), **changes}
        return dataclasses.replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """Every field that is not at its default, as JSON holds it: `SamplingParams(**params.as_dict())` is the same again.

        Raises: InvalidParams if there are logits processors, which are code.
        """
        if self.processors:
            raise InvalidParams("logits_processor has functions, which no text can hold")
        usual = SamplingParams()
        changed = {
            name: getattr(self, name) for name in FIELDS if getattr(self, name) != getattr(usual, name)
        }
        return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items() if k != "preset"}


FIELDS = tuple(SamplingParams.__dataclass_fields__)


def _check_number(name: str, value: Any, low: float, high: float, whole: bool) -> None:
    if value is None and name in _OPTIONAL:
        return
    kind = "a whole number" if whole else "a number"
    fits = not isinstance(value, bool) and isinstance(value, int if whole else (int, float))
    if not fits or not low <= value <= high:  # nan fails the comparison
        raise InvalidParams(f"{name} is {value!r}; it must be {kind} from {low} to {high}")


def _check_together(params: SamplingParams) -> None:
    limit = params.max_tokens
    if limit is not None and limit >= 0 and params.min_tokens > limit:
        raise InvalidParams(f"min_tokens is {params.min_tokens}; it must be at most max_tokens, {limit}")


def _check_constraint(params: SamplingParams) -> None:
    given = [name for name in CONSTRAINTS if getattr(params, name) is not None]
    if len(given) > 1:
        raise InvalidParams(f"{' and '.join(given)} are given; a completion can follow one of them only")
    for name in given:
        value = getattr(params, name)
        kind = (str, Mapping) if name == "json_schema" else Sequence if name == "choice" else str
        if not isinstance(value, kind) or not value:
            raise InvalidParams(f"{name} is {value!r}; see SamplingParams for what it takes")
    if params.grammar_triggers and not given:
        raise InvalidParams("grammar_triggers are given without a grammar to turn on")


def _check_search(params: SamplingParams) -> None:
    p = params
    if p.early_stopping not in (True, False, "never"):
        raise InvalidParams(f'early_stopping is {p.early_stopping!r}; it must be True, False or "never"')
    if p.speculation not in SPECULATIONS:
        raise InvalidParams(f"speculation is {p.speculation!r}; it must be one of {', '.join(SPECULATIONS)}")
    if p.best_of is not None and p.best_of < p.n:
        raise InvalidParams(f"best_of is {p.best_of}; it must be at least n, {p.n}")
    if (p.guidance_scale != 1.0) != (p.negative_prompt is not None):
        raise InvalidParams("guidance_scale and negative_prompt are used together: give both or neither")
    if p.token_healing and (p.grammar or p.json_schema or p.regex or p.choice):
        raise InvalidParams(
            "token_healing changes how the text begins, and a grammar fixes it; use one of them"
        )
    if p.post_sampling_probs and (p.mirostat or p.echo or p.best_of or p.num_beams > 1):
        raise InvalidParams(
            "post_sampling_probs does not go with mirostat, echo, best_of or num_beams; leave one of them out"
        )
    if p.num_beams > 1:
        if p.n > p.num_beams:
            raise InvalidParams(f"n is {p.n}; of {p.num_beams} beams at most so many are given")
        given = {
            "stop": p.stops,
            "logprobs": p.logprobs is not None,
            "best_of": p.best_of,
            "mirostat": p.mirostat,
        }
        given |= {"negative_prompt": p.negative_prompt is not None, "context_shift": p.context_shift}
        for name, value in given.items():
            if value:
                raise InvalidParams(f"{name} does not go with num_beams; leave one of them out")
    if p.context_shift and p.negative_prompt is not None:
        raise InvalidParams("context_shift does not go with negative_prompt; leave one of them out")


def _stop_strings(stop: Any) -> tuple[str, ...]:
    stops: tuple[str, ...] = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
    if len(stops) > MAX_STOPS:
        raise InvalidParams(f"stop has {len(stops)} strings; at most {MAX_STOPS} are looked for")
    for text in stops:
        if not isinstance(text, str) or not text:
            raise InvalidParams(f"stop has {text!r}; each must be a string of at least one character")
    return stops


def _token_ids(name: str, ids: Any) -> tuple[int, ...]:
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < 2**31:
            raise InvalidParams(f"{name} has {token_id!r}; token ids are whole numbers from 0 to {2**31 - 1}")
    return tuple(ids)


def _bias(bias: Any) -> dict[int | str, float]:
    checked: dict[int | str, float] = {}
    for key, value in dict(bias or {}).items():
        if (
            isinstance(key, bool)
            or not isinstance(key, int | str)
            or key == ""
            or (isinstance(key, int) and key < 0)
        ):
            raise InvalidParams(f"logit_bias has the key {key!r}; it must be a token id or a string")
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not (value == -math.inf or abs(value) <= MOST_BIAS)  # not: nan fails the comparison
        ):
            raise InvalidParams(
                f"logit_bias of {key!r} is {value!r}; it must be -inf or a number from -1e30 to 1e30"
            )
        checked[key] = float(value)
    return checked


def _scales(adapters: Any) -> dict[int | str, float] | None:
    if adapters is None:
        return None
    for key, scale in dict(adapters).items():
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
            raise InvalidParams(f"adapters has {scale!r} for {key!r}; a scale is a finite number")
    return {key: float(scale) for key, scale in dict(adapters).items()}


def _stages(samplers: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = tuple(ALIASES.get(name, name) for name in samplers)
    known = (*STAGES, *OPTIONAL_STAGES)
    for name in names:
        if name not in known or names.count(name) > 1:
            raise InvalidParams(f"samplers has {name!r}; each of {', '.join(known)} may stand there once")
    return names


def _callables(given: Any) -> tuple[LogitsProcessor, ...]:
    processors: tuple[LogitsProcessor, ...] = (given,) if callable(given) else tuple(given)
    for processor in processors:
        if not callable(processor):
            raise InvalidParams(f"logits_processor has {processor!r}, which cannot be called")
    return processors
