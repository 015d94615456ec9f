"""The stages of a request in the order it names: what changes all logits first, what then filters candidates.

Built once per request and shared by its samples; holds no state and draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from tokamak import _native
from tokamak.errors import UnsupportedError
from tokamak.sampling import filters, penalties
from tokamak.sampling.filters import Candidates
from tokamak.sampling.infill import infill
from tokamak.sampling.params import SamplingParams
from tokamak.types import Floats, Ints

Adjust = Callable[[Floats, Ints], None]
"""(logits f32[V], changed in place; history i32[n])."""
Stage = Callable[[Candidates, Ints], Candidates]
"""(candidates left, history) -> candidates left."""
NativeStage = tuple[str, float, float, float, int]
"""name, up to three settings, min_keep of a stage of `_native.FilterChain`."""
CHANGING = ("logit_bias", "penalties", "dry", "infill")  # which token is the largest


@dataclass(frozen=True, slots=True)
class Chain:
    """What is on. first: the stages natively as far as they have a native twin; rest: those after them, none: `first` draws too.

    At temperature 0 `first` takes the largest, which filters keep; the others count only where one changes that.
    """

    adjusts: tuple[Adjust, ...]  # before the first filter, on all logits
    stages: tuple[tuple[str, Stage], ...]
    first: _native.FilterChain
    rest: tuple[tuple[str, Stage], ...]
    last: _native.FilterChain  # draws what `rest` leaves
    skipped: tuple[
        str, ...
    ]  # stages of `rest` that do not count: those that draw by chance, at temperature 0


def build(
    params: SamplingParams,
    bias: Mapping[int, float],
    breakers: penalties.Breakers,
    vocabulary: tuple[Sequence[bytes], Collection[int]] | None = None,
) -> Chain:
    """The chain of a request. bias: by token id. breakers: of DRY, as token sequences. vocabulary: bytes and ends, of infill.

    Raises: UnsupportedError for infill without a vocabulary.
    """
    adjusts = dict(_adjusts(params, bias, breakers))
    filter_by_name = {settings[0]: stage for settings, stage in _filters(params)}
    if "infill" in params.samplers:
        if vocabulary is None or not vocabulary[1]:
            raise UnsupportedError("the infill stage needs a tokenizer with a token that ends a text")
        pieces, ends = vocabulary
        filter_by_name["infill"] = lambda c, _: infill(c, pieces, ends)
    early: list[Adjust] = []
    stages: list[tuple[str, Stage]] = []
    for name in params.samplers:
        if name in adjusts and not stages:
            early.append(adjusts[name])
        elif name in adjusts:
            stages.append((name, _on_candidates(adjusts[name])))
        elif name in filter_by_name:
            stages.append((name, filter_by_name[name]))
    first, num_native = _first(params, [name for name, _ in stages])
    last = (
        _native.FilterChain([("temperature", 0, 0, 0, 1)])
        if params.greedy
        else _native.FilterChain([], params.adaptive_target >= 0.0)
    )
    skipped = ("xtc", "temperature") if params.greedy else ()
    return Chain(tuple(early), tuple(stages), first, tuple(stages[num_native:]), last, skipped)


def _adjusts(
    params: SamplingParams, bias: Mapping[int, float], breakers: penalties.Breakers
) -> Iterator[tuple[str, Adjust]]:
    p = params
    if bias:
        ids = np.fromiter(bias, dtype=np.int32, count=len(bias))
        amounts = np.fromiter(bias.values(), dtype=np.float32, count=len(bias))
        yield "logit_bias", lambda logits, _: penalties.add_bias(logits, ids, amounts)
    if p.repetition_last_n and (p.repetition_penalty != 1.0 or p.presence_penalty or p.frequency_penalty):
        yield (
            "penalties",
            lambda logits, history: penalties.penalize(
                logits,
                penalties.window(history, p.repetition_last_n),
                p.repetition_penalty,
                p.presence_penalty,
                p.frequency_penalty,
            ),
        )
    if p.dry_multiplier > 0.0:
        yield (
            "dry",
            lambda logits, history: penalties.dry(
                logits,
                penalties.window(history, p.dry_last_n),
                p.dry_multiplier,
                p.dry_base,
                p.dry_allowed_length,
                breakers,
            ),
        )


def _filters(params: SamplingParams) -> Iterator[tuple[NativeStage, Stage]]:
    """What is on: for the native chain, and its definition."""
    p, keep = params, params.min_keep
    if p.top_n_sigma > 0.0:
        yield ("top_n_sigma", p.top_n_sigma, 0, 0, keep), lambda c, _: filters.top_n_sigma(c, p.top_n_sigma)
    if p.top_k > 0:
        k = max(p.top_k, keep)
        yield ("top_k", k, 0, 0, keep), lambda c, _: filters.top_k(c, k)
    if p.typical_p < 1.0:
        yield ("typical", p.typical_p, 0, 0, keep), lambda c, _: filters.typical(c, p.typical_p, keep)
    if p.tfs_z < 1.0:
        yield ("tail_free", p.tfs_z, 0, 0, keep), lambda c, _: filters.tail_free(c, p.tfs_z, keep)
    if p.eta_cutoff > 0.0:
        yield ("eta", p.eta_cutoff, 0, 0, keep), lambda c, _: filters.eta_cutoff(c, p.eta_cutoff, keep)
    if p.top_p < 1.0:
        yield ("top_p", p.top_p, 0, 0, keep), lambda c, _: filters.top_p(c, p.top_p, keep)
    if p.min_p > 0.0:
        yield ("min_p", p.min_p, 0, 0, keep), lambda c, _: filters.min_p(c, p.min_p, keep)
    if p.xtc_probability > 0.0:
        yield ("xtc", p.xtc_threshold, 0, 0, keep), lambda c, _: filters.xtc(c, p.xtc_threshold, keep)
    if p.temperature != 1.0 or p.dynatemp_range > 0.0:
        t, delta, exponent = p.temperature, p.dynatemp_range, p.dynatemp_exponent
        stage: NativeStage = ("temperature", t, delta, exponent, keep)
        yield stage, lambda c, _: filters.dynamic_temperature(c, t, delta, exponent)


def _first(params: SamplingParams, names: list[str]) -> tuple[_native.FilterChain, int]:
    """The longest beginning of the stages that has a native twin, and its length. Mirostat takes their place."""
    if params.greedy and not any(name in CHANGING for name in names):
        return _native.FilterChain([("temperature", 0, 0, 0, 1)]), len(names)
    if params.greedy:
        return _native.FilterChain([]), 0
    if params.mirostat:
        stages: list[NativeStage] = [
            ("temperature", params.temperature, 0, 0, 1),
            (f"mirostat_{params.mirostat}", 0, 0, 0, 1),
        ]
        return _native.FilterChain(stages), len(names)
    settings = {stage[0]: stage for stage, _ in _filters(params)}
    known = list(takewhile(lambda name: name in settings, names))
    adaptive = params.adaptive_target >= 0.0 and len(known) == len(names)
    return _native.FilterChain([settings[name] for name in known], adaptive), len(known)


def _on_candidates(adjust: Adjust) -> Stage:
    """An adjustment that stands after a filter: it sees the logits of the candidates left only."""

    def stage(candidates: Candidates, history: Ints) -> Candidates:
        width = 1 + max(int(candidates.ids.max()), int(history.max(initial=0)))
        logits = np.full(width, -np.inf, dtype=np.float32)
        logits[candidates.ids] = candidates.logits
        adjust(logits, history)
        ids = np.sort(candidates.ids)
        return Candidates(ids, logits[ids])

    return stage
