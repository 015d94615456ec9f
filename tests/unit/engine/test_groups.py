"""Sequences that take their tokens together: guidance is the formula, beams are those of a plain search; no block is lost."""

import itertools

import numpy as np
import pytest

from core_runs import PARAMS, alone, finish, prompt_of, request, run
from hash_model import HashProgram
from tokamak.engine.beam import BeamSearch
from tokamak.engine.core import EngineCore
from tokamak.engine.guidance import Guidance
from tokamak.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, logprobs=0)


def logits_after(tokens):
    """f32[V] after a whole text."""
    kept = []
    core = EngineCore(HashProgram())
    core.add(request(tokens, max_new=0, collect=lambda _, rows: kept.append(rows[-1].copy())))
    while core.has_work:
        core.step()
    return kept[-1].astype(np.float64)


def log_softmax(x):
    x = x - x.max()
    return x - np.log(np.exp(x).sum())


class TestGuidance:
    def test_each_token_follows_the_formula(self):
        prompt, negative = prompt_of(1, 11), prompt_of(2, 6)
        core = EngineCore(HashProgram())
        r = request(prompt, max_new=8, params=GREEDY, group=Guidance(1.7, negative))
        tokens = [t for t, _ in run(core, r)[0][0]]
        made = []
        for _ in range(8):
            c, u = (log_softmax(logits_after([*p, *made])) for p in (prompt, negative))
            made.append(int((u + 1.7 * (c - u)).argmax()))
        assert tokens == made
        assert core.pool.num_held == 0

    def test_among_others_in_chunks_and_with_few_blocks_it_is_the_same(self):
        def guided(core, *others, **fields):
            r = request(prompt_of(1, 20), max_new=12, group=Guidance(2.0, prompt_of(2, 9)), **fields)
            return run(core, *others, r)[-1]

        plain = guided(EngineCore(HashProgram()))
        assert guided(EngineCore(HashProgram(max_rows=3))) == plain
        for core in (EngineCore(HashProgram()), EngineCore(HashProgram(num_blocks=16))):
            assert guided(core, *(request(prompt_of(9 + i, 10 + i), max_new=15) for i in range(4))) == plain
            assert core.pool.num_held == 0

    def test_requests_that_wait_for_each_others_blocks_all_end(self):
        core = EngineCore(HashProgram(num_blocks=14))
        requests = [
            request(prompt_of(i, 12), max_new=8, group=Guidance(2.0, prompt_of(7, 12))) for i in range(3)
        ]
        together = run(core, *requests)
        assert together == [
            run(
                EngineCore(HashProgram()),
                request(prompt_of(i, 12), max_new=8, group=Guidance(2.0, prompt_of(7, 12))),
            )[0]
            for i in range(3)
        ]

    def test_the_same_text_on_both_sides_is_the_plain_model(self):
        prompt = prompt_of(1, 11)
        guided = run(EngineCore(HashProgram()), request(prompt, params=GREEDY, group=Guidance(3.0, prompt)))[
            0
        ]
        assert [t for t, _ in guided[0]] == [t for t, _ in alone(prompt, params=GREEDY)[0]]

    def test_samples_differ_by_their_index_only(self):
        def samples(n):
            group = Guidance(1.5, prompt_of(2, 6), num_samples=n)
            return run(EngineCore(HashProgram()), request(prompt_of(1, 11), group=group, num_samples=n))[0]

        assert samples(3)[0] == samples(1)[0]
        assert len({tuple(s) for s in samples(3)}) == 3

    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_cancelling_frees_both_contexts(self, steps):
        core = EngineCore(HashProgram(max_rows=8))
        r = core.add(request(prompt_of(1, 20), group=Guidance(1.5, prompt_of(2, 6))))
        for _ in range(steps):
            core.step()
        assert [o.index for o in core.cancel(r.id)] == [0]
        assert (core.pool.num_held, core.has_work) == (0, False)


class TestBeams:
    def search(self, core, *, beams=4, samples=1, max_new=5, penalty=1.0, early=False, **fields):
        group = BeamSearch(beams, samples, penalty, early)
        r = request(fields.pop("prompt", prompt_of(1, 11)), max_new=max_new, params=PARAMS, group=group,
                    num_samples=samples, **fields)  # fmt: skip
        core.add(r)
        outputs = []
        while core.has_work:
            outputs += [o for o in core.step() if o.request is r]
        return [
            ([o.token_id for o in outputs if o.index == i and o.token_id is not None],
             next(o.score for o in outputs if o.index == i and o.finish_reason)) for i in range(samples)
        ]  # fmt: skip

    def test_a_search_as_wide_as_the_vocabulary_finds_the_most_likely_pair(self):
        prompt = prompt_of(1, 11)
        first = log_softmax(logits_after(prompt))
        scores = {}
        for token in np.argsort(-first)[:30]:
            second = log_softmax(logits_after([*prompt, token]))
            for other in np.argsort(-second)[:3]:
                scores[int(token), int(other)] = first[token] + second[other]
        best = max(scores, key=scores.get)
        core = EngineCore(HashProgram(num_blocks=256, max_sequences=97))
        ((tokens, score),) = self.search(core, beams=97, max_new=2, penalty=0.0)
        assert tuple(tokens) == best
        assert score == pytest.approx(scores[best], abs=1e-5)

    def test_one_beam_is_greedy(self):
        greedy = [t for t, _ in alone(prompt_of(1, 11), params=GREEDY)[0]]
        ((tokens, _),) = self.search(EngineCore(HashProgram()), beams=1, max_new=12)
        assert tokens == greedy

    def test_among_others_in_chunks_and_with_few_blocks_it_is_the_same(self):
        plain = self.search(EngineCore(HashProgram()), samples=3, max_new=12)
        assert (
            self.search(EngineCore(HashProgram(max_rows=2, max_sequences=3)), samples=3, max_new=12) == plain
        )
        for blocks in (64, 24):
            core = EngineCore(HashProgram(num_blocks=blocks))
            others = [core.add(request(prompt_of(9 + i, 10 + i), max_new=15)) for i in range(3)]
            assert self.search(core, samples=3, max_new=12) == plain
            assert core.pool.num_held == 0
            assert all(o.id not in core for o in others)

    def test_beams_share_the_blocks_of_their_prompt(self):
        core = EngineCore(HashProgram())
        core.add(request(prompt_of(1, 40), max_new=8, group=BeamSearch(4, 1, 1.0, early_stopping=False)))
        most = 0
        while core.has_work:
            core.step()
            most = max(most, core.pool.num_held)
        assert most <= 10 + 4 * 3  # 40 tokens are ten blocks, eight new ones at most three more for each beam

    @pytest.mark.parametrize(
        ("early", "penalty"), list(itertools.product([False, True, "never"], [0.0, 1.0, -1.0]))
    )
    def test_tokens_that_end_are_the_last_ones_and_the_best_come_first(self, early, penalty):
        ends = frozenset(range(0, 97, 4))
        found = self.search(
            EngineCore(HashProgram()), samples=4, max_new=9, penalty=penalty, early=early, stop_ids=ends
        )
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
        for tokens, _ in found:
            assert not set(tokens[:-1]) & ends
            assert tokens[-1] in ends or len(tokens) == 9

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_cancelling_frees_every_beam(self, steps):
        core = EngineCore(HashProgram())
        r = core.add(
            request(
                prompt_of(1, 20), max_new=20, group=BeamSearch(4, 2, 1.0, early_stopping=False), num_samples=2
            )
        )
        for _ in range(steps):
            core.step()
        assert [o.finish_reason for o in core.cancel(r.id)] == ["abort"]
        assert (core.pool.num_held, core.has_work) == (0, False)


def test_priority_goes_first_and_tenants_take_turns():
    core = EngineCore(HashProgram(max_sequences=1))
    kinds = [("a", 0), ("a", 0), ("b", 0), ("c", 5)]
    requests = [
        core.add(request(prompt_of(i, 6), max_new=2, tenant=t, priority=p)) for i, (t, p) in enumerate(kinds)
    ]
    order = []
    while core.has_work:
        order += [o.request for o in core.step() if o.finish_reason]
    assert order[0] is requests[3]
    assert finish(core) == []


def test_a_tenant_with_fewer_that_run_is_next():
    core = EngineCore(HashProgram(max_sequences=2))
    first = core.add(request(prompt_of(0, 6), max_new=9, tenant="a"))
    second = core.add(request(prompt_of(1, 6), max_new=9, tenant="a"))
    other = core.add(request(prompt_of(2, 6), max_new=9, tenant="b"))
    core.step()
    assert {s.request.id for s in core.scheduler.running} == {first.id, other.id}
    assert second.id in core
