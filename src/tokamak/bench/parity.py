"""How fast we are beside a peer on this machine: the same work in turns, so that what disturbs one disturbs the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokamak.bench.peers import Peer
from tokamak.errors import InvalidParams

if TYPE_CHECKING:
    from tokamak.engine.llm import LLM

__all__ = ["MOST_SECONDS", "Pace", "Performance", "measure", "paced"]

MOST_SECONDS = 30.0  # of a whole report
FEWEST = 3  # pairs that a spread is stated of
MOST = 15
WARMUP = 8  # the part of the work that is done once for nothing
REST_S = 0.02  # between two engines: threads that spin after their work end that


@dataclass(frozen=True, slots=True)
class Pace:
    """tokens: read or written per run. ours, theirs: median tokens per second. ratio: median of ours over theirs, pair by pair;
    spread: (greatest - least) / median of these ratios. pairs: how many there are."""

    name: str
    tokens: int
    ours: float
    theirs: float
    ratio: float
    spread: float
    pairs: int


@dataclass(frozen=True, slots=True)
class Performance:
    """Reading a prompt and writing after it. seconds: that the report took."""

    prompt: Pace
    decode: Pace
    seconds: float


Work = Callable[
    [Sequence[int], int], tuple[float, float]
]  # seconds to read the ids, to write so many tokens after them


def paced(llm: LLM) -> Work:
    """What we take, with scheduler and sampler. The model must be loaded without a cache of prefixes."""

    def work(ids: Sequence[int], num_tokens: int) -> tuple[float, float]:
        made = llm.generate(list(ids), max_tokens=num_tokens + 1, temperature=0.0, ignore_eos=True).timings
        first = made.ttft_s or made.total_s
        return first, made.total_s - first

    return work


def measure(
    ours: Work, peer: Peer, ids: Sequence[int], num_tokens: int, *, seconds: float = MOST_SECONDS
) -> Performance:
    """Both engines in turns (ours first, then the peer first, ...) until the time is up: 3 to 15 pairs.

    ids: the prompt. num_tokens: written after it; of a model too slow for three pairs both are cut. seconds: 1 to 30, of everything.
    Raises: InvalidParams for a time or counts that measure nothing.
    """
    if not 1 <= seconds <= MOST_SECONDS or len(ids) < 1 or num_tokens < 1:
        raise InvalidParams(
            f"{seconds} s for {len(ids)} + {num_tokens} tokens: 1 to 30 s and a token of each kind are needed"
        )
    began = time.perf_counter()
    works = (ours, peer.seconds)
    ids, num_tokens = _fitting(works, ids, num_tokens, seconds)
    pairs: list[tuple[tuple[float, float], tuple[float, float]]] = []
    longest = 0.0
    while len(pairs) < MOST:
        start = time.perf_counter()
        if len(pairs) >= FEWEST and start - began + longest > seconds:
            break
        taken = [(0.0, 0.0), (0.0, 0.0)]
        for which in (0, 1) if len(pairs) % 2 == 0 else (1, 0):
            time.sleep(REST_S)
            taken[which] = works[which](ids, num_tokens)
        pairs.append((taken[0], taken[1]))
        longest = max(longest, time.perf_counter() - start)
    prompt = _pace("prompt", len(ids), [(a[0], b[0]) for a, b in pairs])
    decode = _pace("decode", num_tokens, [(a[1], b[1]) for a, b in pairs])
    return Performance(prompt, decode, time.perf_counter() - began)


def _fitting(
    works: Sequence[Work], ids: Sequence[int], num_tokens: int, seconds: float
) -> tuple[Sequence[int], int]:
    """Prompt and count of which three pairs fit into the time, told by an eighth of them, which also warms both engines."""
    prompt, count = ids[: -(-len(ids) // WARMUP)], -(-num_tokens // WARMUP)
    taken = sum(sum(work(prompt, count)) for work in works)
    share = min(1.0, 0.8 * (seconds - taken) / max(FEWEST * WARMUP * taken, 1e-9))
    if share >= 1:
        return ids, num_tokens
    return ids[: max(1, int(share * len(ids)))], max(1, int(share * num_tokens))


def _pace(name: str, tokens: int, pairs: Sequence[tuple[float, float]]) -> Pace:
    ratios = [theirs / ours for ours, theirs in pairs]
    middle = statistics.median(ratios)
    return Pace(
        name,
        tokens,
        ours=tokens / statistics.median(a for a, _ in pairs),
        theirs=tokens / statistics.median(b for _, b in pairs),
        ratio=middle,
        spread=(max(ratios) - min(ratios)) / middle,
        pairs=len(pairs),
    )
