"""The sampler of one completion: from a row of logits and the tokens so far to the next token.

Holds what a draw depends on and nothing about the model. The stages run in the order the request names.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.sampling import filters, penalties
from tokamak.sampling.adaptive import AdaptiveP
from tokamak.sampling.chain import build
from tokamak.sampling.filters import Candidates
from tokamak.sampling.grammar import Grammar
from tokamak.sampling.healing import Healing
from tokamak.sampling.mirostat import Mirostat
from tokamak.sampling.params import SamplingParams
from tokamak.sampling.random import XTC, uniform
from tokamak.types import Floats, Ints

ADJUSTING = ("logit_bias", "penalties", "dry")


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
    """ln softmax(logits f32[V]) of a token and of the num_top most likely, summed in float64, natively."""
    log_total = _native.log_total(logits)
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
    grammar: what the text has to follow. healing: what its beginning has to spell.
    vocabulary: bytes of each token and the ids that end a text, for infill.
    """

    __slots__ = (
        "_adaptive",
        "_banned",
        "_chain",
        "_healing",
        "_mirostat",
        "_seed",
        "_state",
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
        grammar: Grammar | None = None,
        healing: Healing | None = None,
        vocabulary: tuple[Sequence[bytes], Collection[int]] | None = None,
    ) -> None:
        self.params, self.index, self._seed = params, index, seed
        self._banned = np.array(sorted(banned), dtype=np.int32)
        self._healing = healing
        self._state = grammar.start() if grammar else None
        self._chain = build(params, bias or {}, breakers or penalties.Breakers(), vocabulary)
        self._mirostat = (
            Mirostat(params.mirostat, params.mirostat_tau, params.mirostat_eta) if params.mirostat else None
        )
        target = params.adaptive_target
        self._adaptive = None if target < 0.0 else AdaptiveP(target, params.adaptive_decay)

    def fork(self, index: int) -> Sampler:
        """The sampler of another completion that goes on from here."""
        other = copy.copy(self)
        other._continue(index)  # noqa: SLF001  # its own class
        return other

    def _continue(self, index: int) -> None:
        """Own copies of what moves with the text."""
        self.index = index
        self._state = self._state.fork() if self._state is not None else None
        self._healing = self._healing.fork() if self._healing is not None else None
        self._mirostat, self._adaptive = copy.copy(self._mirostat), copy.copy(self._adaptive)

    def stateless(self) -> Sampler:
        """One that draws with the same coins and stages but keeps nothing: for guesses, which may be taken back."""
        other = copy.copy(self)
        other._forget()  # noqa: SLF001  # its own class
        return other

    def _forget(self) -> None:
        self.params = self.params.replaced(
            logprobs=None, logits_processor=(), mirostat=0, adaptive_target=-1.0
        )
        self._state = self._healing = self._mirostat = self._adaptive = None

    def accept(self, token_id: int) -> None:
        """Notes a token that somebody else chose."""
        if self._state is not None:
            self._state.accept(token_id)
        if self._healing is not None:
            self._healing.accept(token_id)

    def sample(
        self,
        logits: Floats,
        history: Ints,
        banned_now: Collection[int] = (),
        *,
        position: int | None = None,
    ) -> Sampled:
        """The next token.

        logits: f32[V], not changed. history: i32[n], prompt and completion so far. position: tokens before this one, n by
        default. banned_now: ids banned at this position only.
        Raises: ModelFileError if the logits are not numbers, InvalidParams if every token is banned.
        """
        position = len(history) if position is None else position
        adjusted = self.adjusted(logits, history, banned_now)
        native = self._chain.native
        if native is not None:
            token_id = _native.draw_token(adjusted, *native, uniform(self._seed, self.index, position))
            if token_id < 0:
                _check_largest(float(adjusted.max()))
        elif self.params.greedy:
            token_id = self._largest(adjusted, history)
        else:
            token_id = self._drawn(adjusted, history, position)
        self.accept(token_id)
        if self.params.logprobs is None:
            return Sampled(token_id)
        return Sampled(token_id, log_probability(logits, token_id, self.params.logprobs))

    def adjusted(self, logits: Floats, history: Ints, banned_now: Collection[int] = ()) -> Floats:
        """Logits after processors, bans and what stands before the first filter; a copy if anything changes."""
        for processor in self.params.processors:
            logits = np.ascontiguousarray(processor(history.copy(), logits.copy()), dtype=np.float32)
        if not (self._chain.adjusts or len(self._banned) or banned_now or self._state or self._healing):
            return logits
        logits = logits.copy()
        logits[self._banned] = -np.inf
        if banned_now:
            logits[list(banned_now)] = -np.inf
        for adjust in self._chain.adjusts:
            adjust(logits, history)
        if self._state is not None:
            self._state.mask(logits)
        if self._healing is not None:
            self._healing.mask(logits)
        return logits

    def _largest(self, logits: Floats, history: Ints) -> int:
        """Greedy. Filters keep the largest, so they count only where an adjustment follows one."""
        token_id = int(logits.argmax())
        _check_largest(float(logits[token_id]))
        if all(name not in ADJUSTING for name, _ in self._chain.stages):
            return token_id
        candidates = filters.everything(logits)
        for name, stage in self._chain.stages:
            if name not in ("xtc", "temperature"):
                candidates = stage(candidates, history)
        return int(filters.temperature(candidates, 0.0).ids[0])

    def _drawn(self, logits: Floats, history: Ints, position: int) -> int:
        coin = uniform(self._seed, self.index, position)
        with_xtc = uniform(self._seed, self.index, position, XTC) < self.params.xtc_probability
        first, state = self._chain.first, self._mirostat or self._adaptive
        if not self._chain.rest:
            token_id, probability = first.draw(logits, coin, with_xtc, state.aim if state else 0.0)
            if token_id < 0:
                _check_largest(float(logits.max()))
            if state is not None:
                state.accept(probability)
            return token_id
        _check_largest(float(logits.max()))
        candidates = Candidates(*first.filtered(logits, with_xtc))
        for name, stage in self._chain.rest:
            if name != "xtc" or with_xtc:
                candidates = stage(candidates, history)
        if self._adaptive is None:
            return draw(candidates, coin)[0]
        reshaped, before = self._adaptive.reshape(candidates)
        token_id, _ = draw(reshaped, coin)
        self._adaptive.accept(float(before[reshaped.ids == token_id][0]))
        return token_id


def _check_largest(largest: float) -> None:
    if largest == -np.inf:
        raise InvalidParams("logit_bias, ignore_eos or a logits processor bans every token of the vocabulary")
    if not np.isfinite(largest):
        raise ModelFileError(
            f"the largest logit is {largest}: the model's weights overflow or are broken; "
            "check the file, or try kv_dtype='f32'"
        )
