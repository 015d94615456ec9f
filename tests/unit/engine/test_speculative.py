"""Speculation changes when a token comes, never which: greedy or sampled, alone or among others."""

import numpy as np
import pytest

from core_runs import PARAMS, alone, finish, prompt_of, request, run
from hash_model import HashProgram
from tokamak.engine.core import EngineCore
from tokamak.engine.request import Speculation
from tokamak.engine.speculative import ModelDrafter, continuation
from tokamak.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, logprobs=0)
LOOKUP, DRAFT = Speculation("lookup", 8), Speculation("draft", 4)


class Noisy(HashProgram):
    """The same model, wrong about every third position: a draft model that is right now and then."""

    def run(self, batch):
        logits = super().run(batch)
        for row, at in enumerate(batch.logit_rows):
            if batch.positions[at] % 3 == 0:
                logits[row] = logits[row][::-1]
        return logits


class Periodic(HashProgram):
    """Repeats itself every seven positions, so that looking back is right."""

    def run(self, batch):
        super().run(batch)
        rows = [
            np.roll(np.linspace(0, 300, 97, dtype=np.float32), int(batch.positions[at]) % 7 * 13)
            for at in batch.logit_rows
        ]
        return np.array(rows, dtype=np.float32).reshape(-1, 97)


def with_draft(program=None, **limits):
    return EngineCore(HashProgram(**limits), drafters={"draft": ModelDrafter(program or Noisy())})


@pytest.mark.parametrize("params", [PARAMS, GREEDY, SamplingParams(temperature=0.7, mirostat=2, logprobs=0)])
@pytest.mark.parametrize("num", [1, 5])
def test_a_draft_model_changes_no_token_and_no_logit(params, num):
    core = with_draft()
    prompts = [prompt_of(i, 5 + 3 * i) for i in range(num)]
    requests = [request(p, max_new=30, params=params, speculation=DRAFT) for p in prompts]
    assert run(core, *requests) == [alone(p, max_new=30, params=params) for p in prompts]
    assert core.pool.num_held == core.drafters["draft"].pool.num_held == 0
    for r in requests:
        assert 0 < r.accepted_tokens < r.drafted_tokens


def test_a_draft_model_that_is_always_right_saves_steps():
    core = with_draft(HashProgram())
    r = request(prompt_of(1, 9), max_new=30, speculation=DRAFT)
    assert run(core, r)[0] == alone(prompt_of(1, 9), max_new=30)
    assert r.accepted_tokens == r.drafted_tokens
    assert len(core.program.batches) <= 8  # one for the prompt, then five tokens a step


@pytest.mark.parametrize("params", [PARAMS, GREEDY])
def test_looking_back_changes_no_token_and_saves_steps_where_the_text_repeats(params):
    prompt = prompt_of(3, 30)
    steps = {}
    for name, speculation in (("with", LOOKUP), ("without", None)):
        core = EngineCore(Periodic())
        r = request(prompt, max_new=40, params=params, speculation=speculation)
        steps[name] = run(core, r)[0], len(core.program.batches)
    assert steps["with"][0] == steps["without"][0]
    assert steps["with"][1] < steps["without"][1]


def test_it_changes_nothing_when_blocks_run_out_or_rows_are_few():
    prompts = [prompt_of(i, 4 + i) for i in range(8)]
    for core in (with_draft(num_blocks=20), with_draft(max_rows=9), with_draft(Noisy(num_blocks=6))):
        requests = [request(p, max_new=24, speculation=DRAFT) for p in prompts]
        assert run(core, *requests) == [alone(p, max_new=24) for p in prompts]
        assert core.pool.num_held == core.drafters["draft"].pool.num_held == 0


def test_samples_and_prefixes_stay_what_they_are():
    core = with_draft()
    plain = run(EngineCore(HashProgram()), request(prompt_of(1, 18), num_samples=3, max_new=20))[0]
    assert run(core, request(prompt_of(1, 18), num_samples=3, max_new=20, speculation=DRAFT))[0] == plain
    first = [t for t, _ in plain[0]]
    again = request(
        [*prompt_of(1, 18), *first, 5], max_new=6
    )  # blocks filed while drafting hold only what was kept
    assert run(core, again)[0] == alone([*prompt_of(1, 18), *first, 5], max_new=6)
    assert again.cached_tokens == 36


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_cancelled_request_leaves_no_block(steps):
    core = with_draft()
    r = core.add(request(prompt_of(1, 9), max_new=50, speculation=DRAFT))
    for _ in range(steps):
        core.step()
    core.cancel(r.id)
    assert core.pool.num_held == core.drafters["draft"].pool.num_held == 0


def test_a_stop_inside_a_draft_ends_there():
    tokens = [t for t, _ in alone(prompt_of(1, 9), max_new=30)[0]]
    core = with_draft(HashProgram())
    r = request(prompt_of(1, 9), max_new=30, speculation=DRAFT, stop_ids=frozenset([tokens[6]]))
    core.add(r)
    (sample,) = finish(core, r)[0]
    assert [t for t, _ in sample] == tokens[: tokens.index(tokens[6]) + 1]


def test_what_followed_earlier_is_found():
    def after(tokens, count=4):
        return continuation(np.array(tokens, dtype=np.int32), count)

    assert after([1, 2, 3, 4, 9, 1, 2, 3]) == [4, 9, 1, 2]
    assert after([7, 1, 2, 5, 7, 1, 2, 6, 1, 2]) == [6, 1, 2]  # the latest
    assert after([1, 2, 3]) == []
    assert (
        after([0x01000000, 0x00000001, 0x0100, 0x01, 0x01000000]) == []
    )  # equal bytes, but not equal tokens


class Few(HashProgram):
    """Four tokens, whose logits depend on the position and the last token only, so that every beginning occurs often."""

    def run(self, batch):
        super().run(batch)
        last, at = batch.token_ids[batch.logit_rows], batch.positions[batch.logit_rows]
        return np.array([few_logits(*both) for both in zip(last, at, strict=True)], dtype=np.float32)


def few_logits(last, position):
    return np.sin(np.arange(4) * (1.0 + last) + position)


@pytest.mark.parametrize("kind", ["draft", "lookup"])
def test_draws_have_the_distribution_of_the_model(kind):
    """Chi-square over 240 seeds at each of eight positions, against the softmax after each token."""
    core = EngineCore(Few(4, max_rows=64), drafters={"draft": ModelDrafter(Few(4, max_rows=64))})
    prompt = np.array([1, 2, 3, 1, 2, 3, 0, 2], dtype=np.int32)
    counts = np.zeros((8, 4, 4))  # position, token before, token
    drafted = accepted = 0
    for start in range(0, 240, 8):
        asked = [
            request(prompt, max_new=8, seed=start + i, speculation=Speculation(kind, 4)) for i in range(8)
        ]
        for (sample,), r in zip(run(core, *asked), asked, strict=True):
            drafted, accepted = drafted + r.drafted_tokens, accepted + r.accepted_tokens
            tokens = [2, *(token for token, _ in sample)]
            for at in range(8):
                counts[at, tokens[at], tokens[at + 1]] += 1
    assert accepted > 50
    assert drafted > accepted or kind == "draft"  # the draft model is the model, with the same coins
    chi, freedom = 0.0, 0
    for at in range(8):
        for before in range(4):
            weights = np.exp(few_logits(before, 7 + at))
            expected = counts[at, before].sum() * weights / weights.sum()
            if expected.min() >= 4:
                chi += ((counts[at, before] - expected) ** 2 / expected).sum()
                freedom += 3
    assert freedom >= 24
    assert chi < freedom + 4 * np.sqrt(2 * freedom)  # a chance of about one in ten thousand
