"""The sampler of one completion: from a row of logits and the tokens so far to the next token.

Holds what a draw depends on and nothing about the model. The stages run in the order the request names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.sampling import filters, penalties
from tokamak.sampling.filters import Candidates
from tokamak.sampling.mirostat import Mirostat
from tokamak.sampling.params import SamplingParams
from tokamak.sampling.random import XTC, uniform
from tokamak.types import Floats, Ints

NativeChain = tuple[int, float, float, float, int]
"""top_k, top_p, min_p, temperature, min_keep of `_native.draw_token`."""
Stage = Callable[[Candidates], Candidates]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one token, from the softmax of the raw logits."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens, most likely first


@dataclass(frozen=True, slots=True)
class Sampled:
    """One token drawn. logprob: None unless the request asks for it."""

    token_id: int
    logprob: TokenLogprob | None = None


def log_probability(logits: Floats, token_id: int, num_top: int) -> TokenLogprob:
    """ln softmax(logits f32[V]) of a token and of the num_top most likely, summed in float64."""
    largest = float(logits.max())
    log_total = largest + float(np.log(np.exp(logits - largest).sum(dtype=np.float64)))
    top: tuple[tuple[int, float], ...] = ()
    if num_top > 0:
        best = filters.top_k(filters.everything(logits), num_top)
        best = filters.ordered(best)
        top = tuple((int(i), float(x) - log_total) for i, x in zip(best.ids, best.logits, strict=True))
    return TokenLogprob(token_id, float(logits[token_id]) - log_total, top)


def draw(candidates: Candidates, coin: float) -> tuple[int, float]:
    """The token whose interval of the running sum holds coin in [0, 1), and its p. Order decides the intervals."""
    weights = np.exp(candidates.logits - candidates.logits.max())
    running = np.cumsum(weights, dtype=np.float64)
    at = int(np.searchsorted(running, coin * running[-1], side="right"))
    return int(candidates.ids[at]), float(weights[at] / running[-1])


class Sampler:
    """Draws the tokens of one completion.

    seed, index: what the draws depend on, with the position. bias: logit_bias by token id, strings resolved.
    banned: token ids that are never drawn. breakers: those of DRY as token sequences.
    """

    __slots__ = (
        "_bias",
        "_bias_ids",
        "_mirostat",
        "_native",
        "_seed",
        "_stages",
        "breakers",
        "index",
        "params",
    )

    def __init__(
        self,
        params: SamplingParams,
        *,
        seed: int,
        index: int = 0,
        bias: Mapping[int, float] | None = None,
        banned: Iterable[int] = (),
        breakers: penalties.Breakers | None = None,
    ) -> None:
        self.params, self.index, self._seed = params, index, seed
        merged = dict(bias or {}) if "logit_bias" in params.samplers else {}
        merged.update(dict.fromkeys(banned, -np.inf))
        self._bias_ids = np.fromiter(merged, dtype=np.int32, count=len(merged))
        self._bias = np.fromiter(merged.values(), dtype=np.float32, count=len(merged))
        self.breakers = breakers or penalties.Breakers()
        self._mirostat = (
            Mirostat(params.mirostat, params.mirostat_tau, params.mirostat_eta) if params.mirostat else None
        )
        self._stages = [] if params.greedy else _filters_of(params)
        self._native = _native_chain(params, [name for name, _ in self._stages])

    def fork(self, index: int) -> Sampler:
        """The sampler of another completion of the same prompt, before anything was drawn."""
        other = Sampler(self.params, seed=self._seed, index=index, breakers=self.breakers)
        other._bias_ids, other._bias = self._bias_ids, self._bias
        return other

    def sample(self, logits: Floats, history: Ints, banned_now: Collection[int] = ()) -> Sampled:
        """The next token.

        logits: f32[V], not changed. history: i32[n], prompt and completion so far; n is the position drawn.
        banned_now: ids banned at this position only.
        Raises: ModelFileError if the logits are not numbers, InvalidParams if every token is banned.
        """
        adjusted = self._adjusted(logits, history, banned_now)
        position = len(history)
        if self.params.greedy:
            token_id = int(adjusted.argmax())
            _check_largest(float(adjusted[token_id]))
        elif self._native is not None:
            token_id = _native.draw_token(adjusted, *self._native, uniform(self._seed, self.index, position))
            if token_id < 0:
                _check_largest(float(adjusted.max()))
        else:
            _check_largest(float(adjusted.max()))
            token_id = self._drawn(adjusted, position)
        if self.params.logprobs is None:
            return Sampled(token_id)
        return Sampled(token_id, log_probability(logits, token_id, self.params.logprobs))

    def _adjusted(self, logits: Floats, history: Ints, banned_now: Collection[int]) -> Floats:
        """Logits after processors, bias, penalties and DRY, in that order; a copy if anything changes."""
        params = self.params
        for processor in params.logits_processors:
            logits = np.ascontiguousarray(processor(history.copy(), logits.copy()), dtype=np.float32)
        penal = "penalties" in params.samplers and params.repetition_last_n != 0
        penal &= bool(params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty)
        use_dry = "dry" in params.samplers and params.dry_multiplier > 0.0
        if not (penal or use_dry or len(self._bias_ids) or banned_now):
            return logits
        logits = logits.copy()
        if len(self._bias_ids):
            penalties.add_bias(logits, self._bias_ids, self._bias)
        if penal:
            recent = penalties.window(history, params.repetition_last_n)
            penalties.penalize(
                logits, recent, params.repetition_penalty, params.presence_penalty, params.frequency_penalty
            )
        if use_dry:
            recent = penalties.window(history, params.dry_last_n)
            penalties.dry(
                logits,
                recent,
                params.dry_multiplier,
                params.dry_base,
                params.dry_allowed_length,
                self.breakers,
            )
        if banned_now:
            logits[list(banned_now)] = -np.inf
        return logits

    def _drawn(self, logits: Floats, position: int) -> int:
        candidates = filters.everything(logits)
        coin = uniform(self._seed, self.index, position)
        if self._mirostat is not None:
            candidates = filters.temperature(candidates, self.params.temperature)
            candidates = self._mirostat.cut(candidates, len(logits))
            token_id, probability = draw(candidates, coin)
            self._mirostat.accept(probability)
            return token_id
        for name, stage in self._stages:
            if (
                name == "xtc"
                and uniform(self._seed, self.index, position, XTC) >= self.params.xtc_probability
            ):
                continue
            candidates = stage(candidates)
        return draw(candidates, coin)[0]


def _check_largest(largest: float) -> None:
    if largest == -np.inf:
        raise InvalidParams("logit_bias, ignore_eos or a logits processor bans every token of the vocabulary")
    if not np.isfinite(largest):
        raise ModelFileError(
            f"the largest logit is {largest}: the model's weights overflow or are broken; "
            "check the file, or try kv_dtype='f32'"
        )


def _native_chain(params: SamplingParams, stages: list[str]) -> NativeChain | None:
    """Arguments of the native draw if these stages are its chain: top-k on, then some of the others in its order."""
    p, order = params, ["top_k", "top_p", "min_p", "temperature"]
    if p.greedy or p.mirostat or p.dynatemp_range or stages[:1] != ["top_k"]:
        return None
    if stages != [name for name in order if name in stages] or max(p.top_k, p.min_keep) > _native.MAX_TOP_K:
        return None
    return (
        p.top_k,
        p.top_p if "top_p" in stages else 1.0,
        p.min_p if "min_p" in stages else 0.0,
        p.temperature if "temperature" in stages else 1.0,
        p.min_keep,
    )


def _filters_of(params: SamplingParams) -> list[tuple[str, Stage]]:
    """The filters that are on, in the order of `params.samplers`, which also says which are off."""
    p, keep = params, params.min_keep
    every: dict[str, tuple[bool, Stage]] = {
        "top_n_sigma": (p.top_n_sigma > 0.0, lambda c: filters.top_n_sigma(c, p.top_n_sigma)),
        "top_k": (p.top_k > 0, lambda c: filters.top_k(c, max(p.top_k, keep))),
        "typical": (p.typical_p < 1.0, lambda c: filters.typical(c, p.typical_p, keep)),
        "tail_free": (p.tfs_z < 1.0, lambda c: filters.tail_free(c, p.tfs_z, keep)),
        "eta": (p.eta_cutoff > 0.0, lambda c: filters.eta_cutoff(c, p.eta_cutoff, keep)),
        "top_p": (p.top_p < 1.0, lambda c: filters.top_p(c, p.top_p, keep)),
        "min_p": (p.min_p > 0.0, lambda c: filters.min_p(c, p.min_p, keep)),
        "xtc": (p.xtc_probability > 0.0, lambda c: filters.xtc(c, p.xtc_threshold, keep)),
        "temperature": (
            p.temperature != 1.0 or p.dynatemp_range > 0.0,
            lambda c: filters.dynamic_temperature(c, p.temperature, p.dynatemp_range, p.dynatemp_exponent),
        ),
    }
    return [(name, every[name][1]) for name in p.samplers if name in every and every[name][0]]
