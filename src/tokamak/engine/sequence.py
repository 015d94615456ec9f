"""One completion in the making: what is known, what is computed, where its cache lies.

There is no state of reading or writing: a sequence has `num_tokens` tokens, of which `num_computed` have their K and V in the
cache, and wants the rest computed. Behind them may stand a draft: tokens that are computed on trial.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Tokens

import numpy as np

from tokamak.engine.blocks import BlockPool, Chain
from tokamak.engine.illustrated import keys
from tokamak.engine.request import Request
from tokamak.engine.tables import Table
from tokamak.sampling import StopStrings
from tokamak.types import Floats, Ints


class Sequence:
    """See above. prompt: i32[n], that of the request by default; index: of the sample, -1 for one nobody reads."""

    __slots__ = (
        "_tokens",
        "chain",
        "decoder",
        "holds_source",
        "index",
        "matcher",
        "num_computed",
        "num_drafted",
        "num_filed",
        "num_new",
        "num_tokens",
        "partner",
        "pending",
        "recent",
        "request",
        "sampler",
        "score",
        "shifted",
        "trust",
        "whole",
    )

    def __init__(
        self, request: Request, block_size: int, *, prompt: Ints | None = None, index: int = 0
    ) -> None:
        prompt = request.prompt if prompt is None else prompt
        capacity = len(prompt) + request.max_new
        if request.context is not None:
            capacity = min(capacity, max(request.context, len(prompt)) + 1)  # the one for which room is made
        self.request, self.index = request, index
        self.sampler = request.sampler
        self.num_tokens, self.num_computed = len(prompt), 0
        self.num_new = self.num_drafted = 0  # tokens generated; tokens on trial behind the last
        self._tokens = np.empty(capacity, dtype=np.int32)
        self._tokens[: self.num_tokens] = prompt
        kept = -(-request.keep // block_size) if request.context is not None else 0
        self.whole = Table(-(-capacity // block_size), kept)
        self.recent = Table(len(self.whole.ids), kept)  # of layers that keep the latest part only
        self.num_filed = 0  # leading blocks that are filed as a prefix
        self.chain: Chain = request.salt
        self.holds_source = False
        self.shifted = False  # positions have moved: what is computed cannot be computed again
        self.pending: Floats | None = None  # logits that wait for the rest of a group
        self.partner: Sequence | None = None  # the other context of guidance
        self.score = 0.0  # sum of log-probabilities of a beam
        self.trust = 0  # tokens to draft next
        self.decoder = request.make_decoder() if request.make_decoder and index >= 0 else None
        self.matcher = StopStrings(request.stops) if request.stops else None

    def fork(self, index: int, pool: BlockPool, recent: BlockPool | None) -> Sequence:
        """Another continuation with the same blocks, each held once more. Text begins anew."""
        other = Sequence.__new__(Sequence)
        other.request, other.index, other.sampler = self.request, index, self.sampler.fork(index)
        other.num_tokens, other.num_computed, other.num_new = self.num_tokens, self.num_computed, self.num_new
        other.num_filed, other.chain = self.num_filed, self.chain
        other._tokens = self._tokens.copy()  # noqa: SLF001  # its own class
        other.whole, other.recent = self.whole.fork(pool), self.recent.fork(recent or pool)
        other.holds_source = False
        other.num_drafted, other.trust, other.shifted, other.score = 0, 0, self.shifted, self.score
        other.pending = other.partner = None
        make, stops = self.request.make_decoder, self.request.stops
        other.decoder = make() if make and index >= 0 else None
        other.matcher = StopStrings(stops) if stops else None
        return other

    @property
    def history(self) -> Ints:
        """Prompt and completion so far, a view i32[num_tokens]."""
        return self._tokens[: self.num_tokens]

    @property
    def capacity(self) -> int:
        """Tokens it can hold."""
        return len(self._tokens)

    @property
    def position(self) -> int:
        """Tokens before the next one, those that made room included: what a draw depends on."""
        return len(self.request.prompt) + self.num_new

    @property
    def num_missing(self) -> int:
        """Tokens whose K and V are not in the cache."""
        return self.num_tokens - self.num_computed

    def tokens(self, start: int, stop: int) -> Ints:
        """A view of the tokens at positions start .. stop."""
        return self._tokens[start:stop]

    def keys(self, start: int, stop: int) -> Ints:
        """The same as prefixes are filed by: pictures by what they show."""
        tokens, pictures = self._tokens[start:stop], self.request.pictures
        return keys(tokens, start, pictures) if pictures else tokens

    def append(self, token_id: int) -> None:
        """One more token, not computed yet."""
        self._tokens[self.num_tokens] = token_id
        self.num_tokens += 1
        self.num_new += 1

    def draft(self, token_ids: Tokens[int]) -> None:
        """Puts tokens on trial behind the last, as many as there is room for (the last one of all is never a draft)."""
        left = min(self.request.max_new - self.num_new - 1, self.capacity - self.num_tokens - 1)
        self.num_drafted = max(0, min(len(token_ids), left))
        self._tokens[self.num_tokens : self.num_tokens + self.num_drafted] = token_ids[: self.num_drafted]

    def drop(self, start: int, stop: int) -> None:
        """Takes the tokens at positions start .. stop out; later ones move up."""
        self._tokens[start : self.num_tokens - (stop - start)] = self._tokens[stop : self.num_tokens].copy()
        self.num_tokens -= stop - start
        self.num_computed -= stop - start

    def forget_cache(self) -> None:
        """Nothing is computed any more; the caller has cleared the tables."""
        self.num_computed = self.num_filed = self.num_drafted = 0
        self.chain = self.request.salt
        self.pending = None

    def start(self) -> None:
        """Notes the time of the first step."""
        if self.request.started_s is None:
            self.request.started_s = time.perf_counter()
