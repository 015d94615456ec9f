"""The engine gives a request the same tokens and logits whatever else it does."""

import dataclasses
import time
import timeit

import numpy as np
import pytest

import tokamak
from core_runs import PARAMS, alone, finish, prompt_of, request, run
from hash_model import HashProgram, LetterDecoder
from tokamak.engine.core import EngineCore
from tokamak.errors import CapacityError
from tokamak.sampling import Sampler, SamplingParams


def test_alone_and_among_eight_give_the_same():
    prompts = [prompt_of(i, 3 + 5 * i) for i in range(8)]
    together = run(EngineCore(HashProgram()), *(request(p) for p in prompts))
    assert together == [alone(p) for p in prompts]


@pytest.mark.parametrize("max_rows", [1, 7, 16, 64])
def test_any_chunk_of_the_prompt_gives_the_same(max_rows):
    prompt = prompt_of(1, 50)
    assert run(EngineCore(HashProgram(max_rows=max_rows)), request(prompt))[0] == alone(prompt)


def test_chunks_set_on_the_scheduler_give_the_same():
    core = EngineCore(HashProgram())
    core.scheduler.chunk_rows = 7
    prompt = prompt_of(1, 50)
    assert run(core, request(prompt))[0] == alone(prompt)
    assert max(len(b.token_ids) for b in core.program.batches) == 7


def test_a_warm_prefix_gives_the_same_and_is_not_computed_again():
    core = EngineCore(HashProgram())
    shared = prompt_of(1, 21)
    run(core, request(shared))
    rows_before = sum(len(b.token_ids) for b in core.program.batches)
    longer = np.concatenate([shared, prompt_of(2, 9)])
    warm = request(longer, max_new=1)
    assert run(core, warm)[0] == alone(longer, max_new=1)
    assert warm.cached_tokens == 20  # 21 tokens fill five blocks of four
    assert sum(len(b.token_ids) for b in core.program.batches) - rows_before == len(longer) - 20


def test_generated_tokens_are_a_prefix_too():
    core = EngineCore(HashProgram())
    prompt = prompt_of(1, 8)
    tokens = [t for t, _ in run(core, request(prompt, max_new=9))[0][0]]
    again = request([*prompt, *tokens, 5], max_new=3)
    assert run(core, again)[0] == alone([*prompt, *tokens, 5], max_new=3)
    assert again.cached_tokens == 16


def test_a_prefix_that_differs_in_one_token_is_not_reused():
    core = EngineCore(HashProgram())
    prompt = prompt_of(1, 20)
    run(core, request(prompt))
    other = prompt.copy()
    other[5] += 1
    changed = request(other)
    assert run(core, changed)[0] == alone(other)
    assert changed.cached_tokens == 4


def test_the_last_token_of_a_known_prompt_is_still_computed():
    core = EngineCore(HashProgram())
    prompt = prompt_of(1, 16)
    first = run(core, request(prompt))[0]
    again = request(prompt)
    assert run(core, again)[0] == first
    assert again.cached_tokens == 12


def test_a_salt_keeps_prefixes_apart():
    core = EngineCore(HashProgram())
    prompt = prompt_of(1, 20)
    run(core, request(prompt, salt="a"))
    other, same = request(prompt, salt="b"), request(prompt, salt="a")
    run(core, other, same)
    assert (other.cached_tokens, same.cached_tokens) == (0, 16)


def test_without_a_prefix_cache_nothing_is_kept():
    core = EngineCore(HashProgram(), max_unheld=0)
    prompt = prompt_of(1, 20)
    run(core, request(prompt))
    again = request(prompt)
    assert run(core, again)[0] == alone(prompt)
    assert (again.cached_tokens, core.pool.num_unheld) == (0, 0)


def test_blocks_of_cancelled_requests_are_reused_and_change_nothing():
    core = EngineCore(HashProgram(num_blocks=16))
    prompt = prompt_of(9, 30)
    for round_ in range(6):
        victims = [request(prompt_of(100 + 10 * round_ + i, 20 + i), 10) for i in range(3)]
        for v in victims:
            core.add(v)
        for _ in range(round_ + 1):
            core.step()
        for v in victims:
            core.cancel(v.id)
        assert core.pool.num_held == 0
        assert run(core, request(prompt))[0] == alone(prompt)


def test_cancelling_while_the_prompt_is_read_frees_its_blocks_at_once():
    core = EngineCore(HashProgram())
    r = core.add(request(prompt_of(1, 60)))
    core.step()
    assert core.pool.num_held > 0
    outputs = core.cancel(r.id)
    assert [o.finish_reason for o in outputs] == ["abort"]
    assert (core.pool.num_held, core.has_work, core.step()) == (0, False, [])
    assert core.cancel(r.id) == []


def test_running_out_of_blocks_gives_the_same_tokens():
    """Eight requests of up to 10 blocks on 20 blocks: some must give theirs back and start over."""
    core = EngineCore(HashProgram(num_blocks=20))
    prompts = [prompt_of(i, 4 + i) for i in range(8)]
    assert run(core, *(request(p, max_new=24) for p in prompts)) == [alone(p, max_new=24) for p in prompts]
    assert core.scheduler.num_preempted > 0
    assert core.pool.num_held == 0


def test_samples_share_the_prompt_and_equal_themselves_alone():
    """Sample i depends on the index only; the prompt is computed once and its blocks are shared until they part."""
    core = EngineCore(HashProgram())
    prompt = prompt_of(1, 18)
    four = request(prompt, num_samples=4, max_new=6)
    core.add(four)
    while not (outputs := core.step()):
        pass
    assert sorted(o.index for o in outputs) == [0, 1, 2, 3]
    assert core.pool.num_held == 5  # 18 tokens, nothing copied yet
    rows = sum(len(b.token_ids) for b in core.program.batches)
    assert rows == 18
    core.step()
    assert core.pool.num_held == 8  # the block that was half full, once for each
    core.cancel(four.id)

    def sample_alone(i):
        r = dataclasses.replace(request(prompt, max_new=6), sampler=Sampler(PARAMS, seed=1, index=i))
        return run(EngineCore(HashProgram()), r)[0][0]

    assert run(core, request(prompt, num_samples=4, max_new=6))[0] == [sample_alone(i) for i in range(4)]
    assert core.pool.num_held == 0


def test_samples_survive_running_out_of_blocks():
    core = EngineCore(HashProgram(num_blocks=14))
    r = request(prompt_of(1, 10), num_samples=5, max_new=20)
    roomy = run(EngineCore(HashProgram()), request(prompt_of(1, 10), num_samples=5, max_new=20))[0]
    assert run(core, r)[0] == roomy
    assert core.scheduler.num_preempted > 0


def test_more_samples_than_a_step_has_sequences_all_finish():
    r = request(prompt_of(1, 5), num_samples=11, max_new=4)
    samples = run(EngineCore(HashProgram(max_sequences=3)), r)[0]
    assert [len(s) for s in samples] == [4] * 11


def test_a_request_that_joins_changes_nothing_for_those_that_run():
    core = EngineCore(HashProgram())
    first = core.add(request(prompt_of(1, 10), max_new=20))
    early = {}
    for _ in range(5):
        for o in core.step():
            early.setdefault(o.request.id, []).append((o.token_id, o.logprob.logprob))
    second = core.add(request(prompt_of(2, 40), max_new=20))
    rest = finish(core, first, second)
    assert early[first.id] + rest[0][0] == alone(prompt_of(1, 10), max_new=20)[0]
    assert rest[1] == alone(prompt_of(2, 40), max_new=20)


def test_a_long_prompt_never_keeps_others_waiting_for_more_than_a_step():
    core = EngineCore(HashProgram())
    short = core.add(request(prompt_of(1, 4), max_new=20))
    core.step()
    core.add(request(prompt_of(2, 150), max_new=1))
    for _ in range(9):  # 15 rows a step are left for the prompt
        assert [o.request.id for o in core.step()] == [short.id]


def test_a_request_larger_than_the_cache_is_refused_with_the_counts():
    core = EngineCore(HashProgram(num_blocks=4))
    with pytest.raises(
        CapacityError, match="12 prompt tokens and up to 5 more need 5 cache blocks, there are 4"
    ):
        core.add(request(prompt_of(1, 12), max_new=5))


def test_every_position_is_collected_in_any_chunks_and_equals_generation():
    prompt = prompt_of(1, 40)
    logits = np.zeros((40, 97), dtype=np.float32)

    def collect(start, rows):
        logits[start : start + len(rows)] = rows

    core = EngineCore(HashProgram(max_rows=7))
    run(core, request(prompt))  # a warm prefix must not hide rows
    outputs = []
    core.add(request(prompt, max_new=0, collect=collect))
    while core.has_work:
        outputs += core.step()
    assert [(o.token_id, o.finish_reason) for o in outputs] == [(None, "length")]
    for position in (0, 6, 7, 25, 39):
        one = np.zeros((1, 97), dtype=np.float32)

        def keep(start, rows, one=one, position=position):
            if start <= position < start + len(rows):
                one[0] = rows[position - start]

        run(EngineCore(HashProgram()), request(prompt[: position + 1], max_new=0, collect=keep))
        assert np.array_equal(one[0], logits[position])


def test_a_failing_request_fails_alone():
    def broken(tokens, logits):
        raise ZeroDivisionError("mine")

    core = EngineCore(HashProgram())
    bad = core.add(request(prompt_of(1, 5), params=SamplingParams(logits_processor=[broken])))
    good = core.add(request(prompt_of(2, 5)))
    seen = []
    while core.has_work:
        seen += core.step()
    assert [(type(o.error), o.finish_reason) for o in seen if o.request is bad] == [
        (ZeroDivisionError, "abort")
    ]
    assert len([o for o in seen if o.request is good]) == 12
    assert core.pool.num_held == 0


def test_a_program_that_fails_fails_every_request_of_the_step():
    core = EngineCore(HashProgram())
    core.add(request(prompt_of(1, 5), num_samples=3))
    core.add(request(prompt_of(2, 5)))
    core.step()
    core.program.close()
    outputs = core.step()
    assert [o.finish_reason for o in outputs] == ["abort"] * 4
    assert all(o.error is not None for o in outputs)
    assert (core.has_work, core.pool.num_held) == (False, 0)


def test_a_reader_without_room_pauses_its_request_only():
    room = False
    core = EngineCore(HashProgram())
    slow = core.add(request(prompt_of(1, 5), room=lambda: room))
    assert core.step() == []
    assert core.stalled
    fast = core.add(request(prompt_of(2, 5)))
    core.scheduler.waiting.rotate(1)
    assert {o.request.id for o in core.step()} == {fast.id}
    room = True
    assert finish(core, slow)[0] == alone(prompt_of(1, 5))


class TestText:
    """Stops, lengths and reasons, over a decoder that holds text back."""

    def outputs(self, **fields):
        core = EngineCore(HashProgram())
        core.add(request(prompt_of(3, 6), make_decoder=LetterDecoder, **fields))
        seen = []
        while core.has_work:
            seen += core.step()
        return (
            "".join(o.text for o in seen),
            [o.token_id for o in seen],
            seen[-1].finish_reason,
            seen[-1].stop_reason,
        )

    def test_length(self):
        text, ids, reason, stop = self.outputs(max_new=10)
        assert text == "".join(chr(97 + i % 26) for i in ids)  # what the decoder held is given out at the end
        assert (len(ids), reason, stop) == (10, "length", None)

    def test_a_stop_id_ends_and_its_text_is_not_given_out(self):
        text, ids, _, _ = self.outputs(max_new=10)
        cut, cut_ids, reason, stop = self.outputs(max_new=10, stop_ids=frozenset([ids[4]]))
        assert (cut_ids, cut, reason, stop) == (ids[:5], text[:4], "stop", ids[4])

    def test_a_stop_id_counts_before_a_stop_string_of_the_same_token(self):
        text, ids, _, _ = self.outputs(max_new=10)
        cut, _, reason, stop = self.outputs(max_new=10, stop_ids=frozenset([ids[4]]), stops=(text[3:5],))
        assert (cut, reason, stop) == (text[:4], "stop", ids[4])

    def test_looking_a_stop_id_up_costs_the_same_among_one_and_thousands(self):
        """Of the sets that requests hold: what `prepare` makes of stop_token_ids and the model's ends."""
        with tokamak.load(threads=1, context=64) as llm:
            asked = [
                llm.prepare("Once", tokamak.SamplingParams(stop_token_ids=range(n)))[0].stop_ids
                for n in (1, 200)
            ]
        few, many = asked[0], asked[1] | set(range(1000, 9000))

        def ns(ids) -> float:
            return (
                min(timeit.repeat(lambda: 777_777 in ids, number=20_000, repeat=7, timer=time.thread_time_ns))
                / 2e4
            )

        assert all(isinstance(ids, frozenset) for ids in asked)
        assert ns(many) < 4 * ns(few) + 50  # nanoseconds; a list of thousands takes tens of thousands

    def test_a_stop_string_cuts_and_is_not_given_out(self):
        text, ids, _, _ = self.outputs(max_new=10)
        cut, cut_ids, reason, stop = self.outputs(max_new=10, stops=(text[3:6],))
        assert (cut, reason, stop) == (text[:3], "stop", text[3:6])
        assert cut_ids == ids[: len(cut_ids)]
        assert 6 <= len(cut_ids) <= 7

    def test_a_stop_string_completed_by_the_last_text_held_still_cuts(self):
        text, ids, _, _ = self.outputs(max_new=10)
        held = next(i for i in range(3, 10) if ids[i] % 7 == 0)
        cut, _, reason, stop = self.outputs(max_new=held + 1, stops=(text[held - 1 : held + 1],))
        assert (cut, reason, stop) == (text[: held - 1], "stop", text[held - 1 : held + 1])

    def test_stops_wait_for_the_minimum(self):
        text, ids, _, _ = self.outputs(max_new=10)
        _, banned_ids, reason, _ = self.outputs(max_new=10, min_new=4, stop_ids=frozenset(ids[:4]))
        assert not set(banned_ids[:4]) & set(ids[:4])
        assert len(banned_ids) >= 5 or reason == "stop"
        _, kept_ids, _, _ = self.outputs(max_new=10, min_new=6, stops=(text[1:3],))
        assert kept_ids == ids[: len(kept_ids)]
        assert len(kept_ids) >= 6
