"""The sampler of one completion: from a row of logits and the tokens so far to the next token.

Holds what a draw depends on and nothing about the model. The stages run in the order the request names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import numpy as np

from tokamak import _native
from tokamak.errors import InvalidParams, ModelFileError
from tokamak.sampling import penalties
from tokamak.sampling.adaptive import AdaptiveP
from tokamak.sampling.chain import build
from tokamak.sampling.filters import Candidates
from tokamak.sampling.grammar import Grammar
from tokamak.sampling.healing import Healing
from tokamak.sampling.mirostat import Mirostat
from tokamak.sampling.params import SamplingParams
from tokamak.sampling.random import XTC, uniform
from tokamak.types import Floats, Ints

if TYPE_CHECKING:
    from tokamak._native import CpuProgram

ALL_BANNED = "logit_bias, ignore_eos or a logits processor bans every token of the vocabulary"
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one token, from the softmax of the raw logits, or of what it was drawn from (post_sampling_probs)."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the most likely tokens, most likely first
    rank: int | None = None  # of the token in that order, from 1


class TextIsComplete(Exception):  # as StopIteration, an answer and no error
    """In place of a token: a constraint is met, and the tokens that could end the text are banned."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token is wanted: the arguments of `Sampler.sample`."""

    sampler: Sampler
    logits: Floats
    history: Ints
    banned_now: Collection[int]
    position: int


@dataclass(frozen=True, slots=True)
class Due:
    """One row of the native draw. logits: f32[n], of tokens ids i32[n], None: of all."""

    chain: _native.FilterChain
    logits: Floats
    coin: float
    with_xtc: bool
    aim: float
    ids: Ints | None = None

    def row(self) -> tuple[_native.FilterChain, Floats, float, bool, float]:
        """As `_native.draw_rows` takes it."""
        return self.chain, self.logits, self.coin, self.with_xtc, self.aim

    def left(self) -> Candidates:
        """What the draw is from, but for mirostat and adaptive-p; none if the logits are not numbers."""
        places, logits, ordered = self.chain.filtered(self.logits, self.with_xtc)
        return Candidates(places if self.ids is None else self.ids[places], logits, ordered)


@dataclass(frozen=True, slots=True)
class Sampled:
    """One token drawn. logprob: None unless the request asks for it."""

    token_id: int
    logprob: TokenLogprob | None = None


def log_probabilities(
    rows: Sequence[tuple[Floats, int, int]], workers: CpuProgram | None = None
) -> list[TokenLogprob]:
    """ln softmax of a token and of the num_top most likely, for rows of (logits f32[V], token id, num_top). workers: as `sample_rows`."""
    found = _native.log_rows(rows, workers)
    return [
        TokenLogprob(
            token_id,
            float(logits[token_id]) - total,
            tuple((i, float(logits[i]) - total) for i in ids),
            rank,
        )
        for (logits, token_id, _), (total, rank, ids) in zip(rows, found, strict=True)
    ]


def draw(candidates: Candidates, coin: float) -> tuple[int, float]:
    """The token whose interval of the running sum holds coin in [0, 1), and its p. Order decides the intervals."""
    weights = np.exp(candidates.logits - candidates.logits.max())
    running = np.cumsum(weights, dtype=np.float64)
    at = int(np.searchsorted(running, coin * running[-1], side="right"))
    return int(candidates.ids[at]), float(weights[at] / running[-1])


def drawn_probability(candidates: Candidates, token_id: int, num_top: int) -> TokenLogprob:
    """The same of the distribution that the token was drawn from; those without a chance are no candidates."""
    logits = candidates.logits.astype(np.float64)
    logprobs = logits - logits.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    order = np.lexsort((candidates.ids, -logprobs))[:num_top]
    top = tuple((int(candidates.ids[i]), float(logprobs[i])) for i in order if logprobs[i] > -np.inf)
    return TokenLogprob(token_id, float(logprobs[candidates.ids == token_id][0]), top)


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
        place = Place(self, logits, history, banned_now, len(history) if position is None else position)
        (sampled,) = sample_rows([place])
        if isinstance(sampled, Exception):
            raise sampled
        return sampled

    def due(self, place: Place) -> Due:
        """What the native draw of the next token needs, after what is left to Python. Nothing moves yet.  Raises: as `sample`."""
        logits = self.adjusted(place.logits, place.history, place.banned_now)
        if self._state is not None and self._state.is_complete and float(logits.max()) == -np.inf:
            raise TextIsComplete
        coin = uniform(self._seed, self.index, place.position)
        chance = self.params.xtc_probability
        with_xtc = chance > 0.0 and uniform(self._seed, self.index, place.position, XTC) < chance
        state = self._mirostat or self._adaptive
        aim = state.aim if state else 0.0
        if not self._chain.rest:
            return Due(self._chain.first, logits, coin, with_xtc, aim)
        _check_largest(float(logits.max()))
        candidates = Candidates(*self._chain.first.filtered(logits, with_xtc))
        for name, stage in self._chain.rest:
            if name not in self._chain.skipped and (name != "xtc" or with_xtc):
                candidates = stage(candidates, place.history)
        left = np.ascontiguousarray(candidates.logits, dtype=np.float32)
        return Due(self._chain.last, left, coin, with_xtc, aim, candidates.ids)

    def shown(self, due: Due) -> Candidates | None:
        """What the token will be drawn from, if the request asks for it (post_sampling_probs)."""
        if not self.params.post_sampling_probs or self.params.logprobs is None:
            return None
        left = due.left()
        if self._adaptive is None or self.params.greedy or not left:
            return left
        return self._adaptive.reshape(left)[0]

    def settle(self, due: Due, drawn: int, probability: float) -> int:
        """Notes what was drawn; the token.  Raises: as `sample`."""
        if drawn < 0:
            _check_largest(float(due.logits.max()))
        state = self._mirostat or self._adaptive
        if state is not None and not self.params.greedy:
            state.accept(probability)
        token_id = drawn if due.ids is None else int(due.ids[drawn])
        self.accept(token_id)
        return token_id

    def adjusted(self, logits: Floats, history: Ints, banned_now: Collection[int] = ()) -> Floats:
        """Logits after processors, bans and what stands before the first filter; a copy if anything changes."""
        for processor in self.params.processors:
            given = np.ascontiguousarray(processor(history.copy(), logits.copy()), dtype=np.float32)
            if given.shape != logits.shape:
                raise InvalidParams(
                    f"a logits processor gave {given.shape}; it must be all {len(logits)} logits"
                )
            logits = given
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

    def check_complete(self) -> None:
        """Raises: InvalidParams if not even a constraint that is met explains why every token is banned."""
        if self._state is None or not self._state.is_complete:
            raise InvalidParams(ALL_BANNED)


def sample_rows(places: Sequence[Place], workers: CpuProgram | None = None) -> list[Sampled | Exception]:
    """The next token of each, or why it has none; the same as one by one, in one native call without the GIL.

    Places of one sampler may not stand together. workers: whose threads share the rows, None: the caller's.
    """
    dues = [_tried(place.sampler.due, place) for place in places]
    rows = _tried(_native.draw_rows, [due.row() for due in dues if isinstance(due, Due)], workers)
    if isinstance(rows, Exception):  # a row that is refused, or no memory: nothing was drawn
        return [due if isinstance(due, Exception) else rows for due in dues]
    drawn = iter(rows)
    found: list[Sampled | Exception] = []
    for place, due in zip(places, dues, strict=True):
        if isinstance(due, Due):
            shown = place.sampler.shown(due)
            token = _tried(place.sampler.settle, due, *next(drawn))
            found.append(_sampled(token, shown, place.sampler.params) if isinstance(token, int) else token)
        else:
            found.append(due)
    asked = [
        (i, (place.logits, sampled.token_id, num_top))
        for i, (place, sampled) in enumerate(zip(places, found, strict=True))
        if isinstance(sampled, Sampled)
        and sampled.logprob is None
        and (num_top := place.sampler.params.logprobs) is not None
    ]
    for (i, (_, token_id, _)), entry in zip(
        asked, log_probabilities([row for _, row in asked], workers), strict=True
    ):
        found[i] = Sampled(token_id, entry)
    return found


def _sampled(token_id: int, shown: Candidates | None, params: SamplingParams) -> Sampled:
    return Sampled(token_id, drawn_probability(shown, token_id, params.logprobs or 0) if shown else None)


def _tried(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | Exception:
    try:
        return call(*args, **kwargs)
    except Exception as error:  # noqa: BLE001  # a caller's processor, a ban of everything: concerns this row alone
        return error


def _check_largest(largest: float) -> None:
    if largest == -np.inf:
        raise InvalidParams(ALL_BANNED)
    if not np.isfinite(largest):
        raise ModelFileError(
            f"the largest logit is {largest}: the model's weights overflow or are broken; "
            "check the file, or try kv_dtype='f32'"
        )
