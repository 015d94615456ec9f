"""Requests run on an engine core over the hashing program, to their last token."""

import numpy as np

from hash_model import HashProgram
from tokamak.engine.core import EngineCore
from tokamak.engine.request import Request
from tokamak.sampling import Sampler, SamplingParams

PARAMS = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, logprobs=0)
_ids = iter(range(1, 10**9))


def prompt_of(seed, length):
    return np.random.default_rng(seed).integers(0, 97, length).astype(np.int32)


def request(prompt, max_new=12, *, params=PARAMS, seed=1, **fields):
    prompt = np.asarray(prompt, dtype=np.int32)
    return Request(next(_ids), prompt, max_new, Sampler(params, seed=seed), **fields)


def run(core, *requests):
    """Tokens and log-probabilities per request and sample; the logprob shows the logits to the last bit."""
    for r in requests:
        core.add(r)
    return finish(core, *requests)


def finish(core, *requests):
    seen = {}
    for _ in range(10_000):
        if not core.has_work:
            break
        for out in core.step():
            assert out.error is None, out.error
            if out.token_id is not None:
                seen.setdefault((out.request.id, out.index), []).append((out.token_id, out.logprob.logprob))
    assert not core.has_work
    return [[seen.get((r.id, i), []) for i in range(r.num_samples)] for r in requests]


def alone(prompt, **options):
    return run(EngineCore(HashProgram(max_rows=64)), request(prompt, **options))[0]
