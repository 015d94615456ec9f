"""`LLM`: what it accepts, returns and refuses; threads, streams, cancelling. On a program that hashes its cache."""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time

import numpy as np
import pytest

from hash_model import HashProgram, LetterTokenizer
from tokamak import errors
from tokamak.engine.llm import LLM
from tokamak.engine.ticket import UNREAD
from tokamak.sampling import SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)


@contextlib.contextmanager
def loaded(*, context=200, slow_s=0.0, **limits):
    program = HashProgram(**({"num_blocks": 128} | limits))
    if slow_s:
        quick = program.run

        def run(batch):
            if program.cancelled.wait(slow_s):
                raise errors.Cancelled("the step was cancelled")
            return quick(batch)

        program.run = run
    with LLM(program, LetterTokenizer(), context=context, seed=7) as llm:
        yield llm


def wait_until(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)


def idle(llm):
    return lambda: (
        not llm.stats()["running"] and not llm.stats()["waiting"] and not llm.stats()["blocks_held"]
    )


class TestWhatGoesInAndOut:
    def test_text_and_its_ids_give_the_same(self):
        with loaded() as llm:
            a = llm.generate("Once upon", GREEDY)
            b = llm.generate(llm.tokenizer.encode("Once upon"), GREEDY)
            c = llm.generate(np.array(llm.tokenizer.encode("Once upon")), GREEDY)
        assert a.token_ids == b.token_ids == c.token_ids
        assert a.text == llm.tokenizer.decode(a.token_ids)
        assert (a.finish_reason, len(a.token_ids)) == ("length", 8)
        assert (a.usage.prompt_tokens, a.usage.completion_tokens, a.usage.total_tokens) == (9, 8, 17)

    def test_a_list_gives_a_list_in_its_order(self):
        with loaded() as llm:
            prompts = ["one", "two two", [3, 4, 5], "four"]
            together = llm.generate(prompts, GREEDY)
            assert [c.token_ids for c in together] == [llm.generate(p, GREEDY).token_ids for p in prompts]
            assert llm.generate([], GREEDY) == []

    def test_keywords_change_the_parameters_given(self):
        with loaded() as llm:
            assert len(llm.generate("a", GREEDY, max_tokens=3).token_ids) == 3
            with pytest.raises(errors.InvalidParams, match="max_token "):
                llm.generate("a", max_token=3)

    def test_several_samples_give_a_list_per_prompt(self):
        with loaded() as llm:
            params = SamplingParams(n=3, max_tokens=5, seed=1, temperature=2.0, ignore_eos=True)
            three = llm.generate("abc", params)
            assert [c.index for c in three] == [0, 1, 2]
            assert len({tuple(c.token_ids) for c in three}) == 3
            assert three[0].token_ids == llm.generate("abc", params, n=1).token_ids
            assert [len(x) for x in llm.generate(["abc", "d"], params)] == [3, 3]

    def test_a_seed_repeats_and_none_is_drawn_and_reported(self):
        hot = SamplingParams(temperature=1.5, max_tokens=12, ignore_eos=True)
        with loaded() as llm:
            first, second = llm.generate("abc", hot), llm.generate("abc", hot)
            assert first.seed != second.seed
            assert first.token_ids != second.token_ids
            assert llm.generate("abc", hot, seed=first.seed).token_ids == first.token_ids
        with loaded() as again:  # the same seed of the LLM
            assert again.generate("abc", hot).token_ids == first.token_ids

    def test_echo_puts_the_prompt_first_with_its_logprobs(self):
        with loaded() as llm:
            out = llm.generate("abcdef", GREEDY, echo=True, logprobs=2)
            assert out.text.startswith("abcdef")
            assert [e.token_id for e in out.logprobs[1:]] == [*llm.tokenizer.encode("bcdef"), *out.token_ids]
            assert out.logprobs[0] is None
            logits = llm.logits(llm.tokenizer.encode("abcdef")).astype(np.float64)
            exact = logits[2] - np.log(np.exp(logits[2]).sum())
            assert out.logprobs[3].logprob == pytest.approx(exact[llm.tokenizer.encode("d")[0]], abs=1e-6)
            assert [i for i, _ in out.logprobs[3].top] == np.argsort(-exact)[:2].tolist()
            assert len(out.logprobs[-1].top) == 2
            scored = llm.generate("abcdef", GREEDY, echo=True, logprobs=0, max_tokens=0)
            assert (scored.text, scored.token_ids, len(scored.logprobs)) == ("abcdef", [], 6)

    def test_ending_tokens_stop_and_can_be_ignored(self):
        with loaded() as llm:
            plain = llm.generate("abc", GREEDY, max_tokens=20)
            third = plain.token_ids[2]
            out = llm.generate("abc", GREEDY, stop_token_ids=[third])
            assert (out.token_ids, out.finish_reason, out.stop_reason) == (plain.token_ids[:3], "stop", third)
            assert out.text == plain.text[:2]
            ended = llm.generate("abc", GREEDY, ignore_eos=False, logit_bias={96: 100.0})
            assert (ended.token_ids, ended.text, ended.finish_reason) == ([96], "", "stop")
            assert llm.generate("abc", GREEDY, logit_bias={96: 100.0}).token_ids == plain.token_ids[:8]
            late = llm.generate("abc", GREEDY, ignore_eos=False, logit_bias={96: 100.0}, min_tokens=3)
            assert (len(late.token_ids), late.token_ids[-1]) == (4, 96)

    def test_a_stop_string_is_cut_and_named(self):
        with loaded() as llm:
            plain = llm.generate("abc", GREEDY, max_tokens=20)
            out = llm.generate("abc", GREEDY, max_tokens=20, stop=plain.text[4:7])
            assert (out.text, out.stop_reason) == (plain.text[:4], plain.text[4:7])
            assert "".join(llm.stream("abc", GREEDY, max_tokens=20, stop=plain.text[4:7])) == plain.text[:4]

    def test_bias_by_string_biases_its_tokens(self):
        with loaded() as llm:
            out = llm.generate("abc", GREEDY, logit_bias={"q": 1000.0})
            assert out.text == "q" * 8

    def test_max_tokens_none_is_128_or_what_the_context_leaves(self):
        with loaded(context=150) as llm:
            assert len(llm.generate("abc", GREEDY, max_tokens=None).token_ids) == 128
            assert len(llm.generate("a" * 100, GREEDY, max_tokens=None).token_ids) == 50
            assert len(llm.generate("a" * 20, GREEDY, max_tokens=-1).token_ids) == 130

    def test_what_does_not_fit_the_context_is_refused_with_both_counts(self):
        with loaded(context=20) as llm:
            with pytest.raises(
                errors.ContextOverflow, match=r"16 tokens and max_tokens is 5, together 21.* 20"
            ):
                llm.generate("a" * 16, GREEDY, max_tokens=5)
            with pytest.raises(errors.ContextOverflow, match=r"20 tokens.* 20"):
                llm.generate("a" * 20)
            assert len(llm.generate("a" * 16, GREEDY, max_tokens=4).token_ids) == 4
            with pytest.raises(errors.ContextOverflow, match=r"21 tokens.* 20"):
                llm.logits([1] * 21)

    @pytest.mark.parametrize(
        ("prompt", "what"),
        [
            ("", "no tokens"),
            ([97], "prompt token 0 is 97"),
            ([5, -1], "prompt token 1 is -1"),
            ([2**40], "ids of this model"),
            ([[1.5, 2.0]], "list of token ids"),
            ([None], "list of token ids"),
            ([{"role": "user"}], "list of token ids"),
        ],
    )
    def test_a_bad_prompt_is_refused(self, prompt, what):
        with loaded() as llm, pytest.raises(errors.InvalidParams, match=what):
            llm.generate(prompt, GREEDY)

    def test_logits_of_every_position_do_not_depend_on_what_was_cached(self):
        with loaded(max_rows=7) as llm:
            ids = llm.tokenizer.encode("a long enough text to be computed in chunks")
            cold = llm.logits(ids)
            llm.generate(ids, GREEDY)
            assert np.array_equal(cold, llm.logits(ids))
            assert cold.shape == (len(ids), 97)
            assert np.array_equal(llm.logits(ids[:9]), cold[:9])

    def test_a_chat_is_rendered_and_its_history_found_in_the_cache(self):
        with loaded() as llm:
            history = [{"role": "user", "content": "hello there"}]
            first = llm.chat(history, GREEDY)
            history += [first.message, {"role": "user", "content": "go on"}]
            second = llm.chat(history, GREEDY)
            assert second.usage.cached_tokens >= 24
            assert "".join(llm.chat(history, GREEDY, stream=True)) == second.text

    def test_embedding_without_hidden_states_is_refused(self):
        with loaded() as llm, pytest.raises(errors.UnsupportedError, match="hidden states"):
            llm.embed(["a"])

    def test_without_a_tokenizer_ids_work_and_text_is_refused(self):
        with LLM(HashProgram(), None, context=50) as llm:
            assert len(llm.generate([1, 2, 3], GREEDY).token_ids) == 8
            for call in (
                lambda: llm.generate("abc"),
                lambda: llm.chat([]),
                lambda: llm.generate([1], stop="a"),
            ):
                with pytest.raises(errors.UnsupportedError, match="tokenizer"):
                    call()

    def test_timings_are_of_this_completion(self):
        with loaded(slow_s=0.01, max_rows=4) as llm:
            t = llm.generate("abcdefgh", GREEDY).timings
        assert t.ttft_s >= 0.02  # two chunks
        assert t.prefill_tok_s <= 8 / 0.02
        assert 10 < t.decode_tok_s <= 100
        assert t.total_s >= 0.09


class TestStreams:
    def test_pieces_join_to_the_whole_and_the_first_comes_before_the_end(self):
        with loaded(slow_s=0.002) as llm:
            stream = llm.stream("abc", GREEDY, max_tokens=30)
            first = next(stream)
            assert llm.stats()["running"] == 1
            assert first + "".join(stream) == llm.generate("abc", GREEDY, max_tokens=30).text
            assert stream.completion.text == llm.generate("abc", GREEDY, max_tokens=30).text
            assert stream.completion.finish_reason == "length"

    def test_bad_parameters_are_refused_before_reading(self):
        with loaded() as llm:
            with pytest.raises(errors.InvalidParams):
                llm.stream("abc", temperature=-1)
            with pytest.raises(errors.InvalidParams, match="n is 2"):
                llm.stream("abc", n=2)

    @pytest.mark.parametrize("way", ["close", "drop", "with", "break"])
    def test_closing_or_dropping_cancels(self, way):
        with loaded(slow_s=0.002) as llm:
            stream = llm.stream("abc", GREEDY, max_tokens=150)
            next(stream)
            if way == "close":
                stream.close()
                assert list(stream) == []
            elif way == "with":
                with stream:
                    pass
            elif way == "break":
                for _ in stream:
                    break
                del stream
            else:
                del stream
                gc.collect()
            wait_until(idle(llm))

    def test_dropping_cancels_within_one_step_while_the_prompt_is_read(self):
        with loaded(slow_s=0.02, max_rows=2) as llm:
            stream = llm.stream("a" * 150, GREEDY, max_tokens=5)
            wait_until(lambda: llm.stats()["running"] == 1)
            steps = len(llm.program.batches)
            del stream
            wait_until(idle(llm))
            assert len(llm.program.batches) <= steps + 2  # the one that ran, and one that had begun

    def test_a_slow_reader_pauses_only_its_own_request(self):
        with loaded() as llm:
            stream = llm.stream("abc", GREEDY, max_tokens=190)
            wait_until(lambda: stream._queue.qsize() >= UNREAD)
            assert len(llm.generate("other", GREEDY).token_ids) == 8
            assert stream._queue.qsize() == UNREAD
            assert len("".join(stream)) == 190

    def test_an_error_of_a_processor_reaches_the_reader(self):
        def broken(tokens, logits):
            raise ZeroDivisionError("mine")

        with loaded() as llm:
            with pytest.raises(ZeroDivisionError, match="mine"):
                list(llm.stream("abc", logits_processor=[broken]))
            with pytest.raises(ZeroDivisionError, match="mine"):
                llm.generate(["abc", "def"], logits_processor=[broken])
            wait_until(idle(llm))
            assert len(llm.generate("abc", GREEDY).token_ids) == 8

    def test_asynchronous_pieces_join_to_the_whole(self):
        with loaded() as llm:

            async def read(prompt):
                return "".join([piece async for piece in llm.astream(prompt, GREEDY, max_tokens=150)])

            async def several():
                return await asyncio.gather(*(read(p) for p in ("abc", "defg", "h")))

            assert asyncio.run(several()) == [
                llm.generate(p, GREEDY, max_tokens=150).text for p in ("abc", "defg", "h")
            ]

    def test_cancelling_an_asynchronous_reader_cancels_the_request(self):
        with loaded(slow_s=0.005) as llm:

            async def read():
                async for _ in llm.astream("abc", GREEDY, max_tokens=190):
                    pass

            async def impatient():
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(read(), 0.05)

            asyncio.run(impatient())
            wait_until(idle(llm))

    def test_leaving_an_event_loop_with_a_stream_open_cancels_it(self):
        with loaded(slow_s=0.005) as llm:

            async def first():
                async for piece in llm.astream("abc", GREEDY, max_tokens=190):
                    return piece
                return None

            assert asyncio.run(first())
            gc.collect()
            wait_until(idle(llm))


class TestThreadsAndProcesses:
    def test_many_threads_get_what_one_gets(self):
        prompts = [f"prompt {i} {'x' * i}" for i in range(12)]
        with loaded() as llm:
            expected = [llm.generate(p, GREEDY).token_ids for p in prompts]
            got = [None] * len(prompts)

            def work(i):
                got[i] = llm.generate(prompts[i], GREEDY).token_ids

            threads = [threading.Thread(target=work, args=(i,)) for i in range(len(prompts))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        assert got == expected

    def test_requests_of_several_threads_share_steps(self):
        with loaded(slow_s=0.003) as llm:
            streams = [llm.stream(f"p{i}", GREEDY, max_tokens=30) for i in range(4)]
            for s in streams:
                "".join(s)
            assert max(len(b.lengths) for b in llm.program.batches) == 4

    def test_ctrl_c_stops_waiting_and_cancels(self):
        with loaded(slow_s=0.01) as llm:
            timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                llm.generate("abc", GREEDY, max_tokens=190)
            wait_until(idle(llm), 0.5)
            timer.join()

    def test_ctrl_c_in_a_stream_cancels_too(self):
        with loaded(slow_s=0.2, max_rows=1) as llm:
            stream = llm.stream("abcdefgh" * 5, GREEDY)
            timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                next(stream)
            wait_until(idle(llm), 1.0)
            timer.join()

    def test_closing_ends_what_runs_and_refuses_what_comes(self):
        with loaded(slow_s=0.01) as llm:
            stream = llm.stream("abc", GREEDY, max_tokens=190)
            failures = []

            def blocked():
                try:
                    llm.generate("def", GREEDY, max_tokens=190)
                except errors.Cancelled as error:
                    failures.append(error)

            thread = threading.Thread(target=blocked)
            thread.start()
            wait_until(lambda: llm.stats()["running"] == 2)
            llm.close()
            thread.join(5)
            assert len(failures) == 1
            with pytest.raises(errors.Cancelled):
                "".join(stream)
            assert stream.completion.finish_reason == "abort"
            assert llm.program.closed
            with pytest.raises(errors.Cancelled, match="closed"):
                llm.generate("abc")
            llm.close()

    def test_closing_does_not_wait_for_a_long_step(self):
        began = time.monotonic()
        with loaded(slow_s=30.0) as llm:
            stream = llm.stream("abc", GREEDY)
            wait_until(lambda: llm.stats()["running"] == 1)
            llm.close()
        assert time.monotonic() - began < 5.0
        with pytest.raises(errors.Cancelled):
            next(stream)

    def test_streams_opened_and_dropped_at_random_leave_nothing(self):
        rng = np.random.default_rng(4)
        with loaded() as llm:
            open_streams = []
            for _ in range(150):
                prompt = rng.integers(0, 90, rng.integers(1, 60)).tolist()
                open_streams.append(llm.stream(prompt, GREEDY, max_tokens=int(rng.integers(1, 60))))
                for _ in range(int(rng.integers(0, 4))):
                    next(open_streams[-1], None)
                if len(open_streams) > 6:
                    open_streams.pop(int(rng.integers(len(open_streams))))
            open_streams.clear()
            wait_until(idle(llm))
            wait_until(lambda: not llm._loop._deliver)
            assert not llm._loop.core.has_work
            assert llm.stats()["blocks_held"] == 0

    def test_a_dropped_llm_ends_its_thread(self):
        llm = LLM(HashProgram(), LetterTokenizer(), context=50)
        llm.generate("abc", GREEDY)
        thread = llm._loop._thread
        del llm
        gc.collect()
        thread.join(5)
        assert not thread.is_alive()

    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_fork_refuses_to_work_and_does_not_hang(self):
        with loaded() as llm:
            llm.generate("abc", GREEDY)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                try:
                    llm.generate("abc", GREEDY)
                    os.write(write, b"worked")
                except errors.UnavailableError as error:
                    os.write(write, b"refused" if "fork" in str(error) else b"other")
                    llm.close()
                finally:
                    os._exit(0)
            os.close(write)
            assert os.read(read, 100) == b"refused"
            os.waitpid(child, 0)
            os.close(read)
            assert len(llm.generate("abc", GREEDY).token_ids) == 8
