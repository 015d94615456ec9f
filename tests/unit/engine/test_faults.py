"""What goes wrong for one request is that request's: the engine and the others go on, and no block is lost."""

import numpy as np

from core_runs import PARAMS, alone, prompt_of, request
from hash_model import HashProgram
from tokamak.engine.core import EngineCore
from tokamak.engine.request import Speculation
from tokamak.engine.speculative import ModelDrafter
from tokamak.errors import CapacityError, ModelFileError
from tokamak.sampling import Sampler

DRAFT = Speculation("draft", 4)


class Broken(HashProgram):
    """A draft model whose weights overflow."""

    def run(self, batch):
        return np.full_like(super().run(batch), np.nan)


class Turning(HashProgram):
    """Takes a shift of its blocks as done."""

    def shift_blocks(self, blocks, delta, *, recent=False):
        pass


def stepped(core, requests, most=2000):
    """Tokens and errors by request, until all have ended."""
    tokens, errors = {r.id: [] for r in requests}, {}
    for r in requests:
        core.add(r)
    for _ in range(most):
        if not core.has_work:
            return tokens, errors
        for out in core.step():
            if out.token_id is not None and out.request.id in tokens:
                tokens[out.request.id].append(out.token_id)
            if out.error is not None:
                errors[out.request.id] = out.error
    raise AssertionError("the engine does not come to an end")


def plain_tokens(prompt, **options):
    return [token for token, _ in alone(prompt, **options)[0]]


def test_a_broken_draft_model_ends_only_those_who_asked_for_drafts():
    drafter = ModelDrafter(Broken())
    core = EngineCore(HashProgram(), drafters={"draft": drafter})
    asked, plain = request(prompt_of(1, 9), speculation=DRAFT), request(prompt_of(2, 9))
    tokens, errors = stepped(core, [asked, plain])
    assert isinstance(errors[asked.id], ModelFileError)
    assert plain.id not in errors
    assert tokens[plain.id] == plain_tokens(prompt_of(2, 9))
    assert core.pool.num_held == drafter.pool.num_held == 0


def test_a_request_that_bans_all_that_the_draft_model_knows_goes_on_without_drafts():
    """The draft model's vocabulary ends at 50; a logit bias may ban exactly those."""
    drafter = ModelDrafter(HashProgram(vocab_size=50), vocab_size=97)
    core = EngineCore(HashProgram(), drafters={"draft": drafter})
    made = []
    for speculation in (DRAFT, None):
        r = request(prompt_of(1, 9), speculation=speculation)
        r.sampler = Sampler(PARAMS, seed=1, banned=range(50))
        tokens, errors = stepped(core, [r])
        assert not errors
        made.append(tokens[r.id])
    assert made[0] == made[1]
    assert len(made[0]) == 12
    assert core.pool.num_held == drafter.pool.num_held == 0


def test_shifted_contexts_that_fill_the_cache_end_the_latest_and_the_first_goes_on():
    """Contexts of 8 blocks in a cache of 13. The second shifts just after the first, then both grow and neither can start over."""
    core = EngineCore(Turning(num_blocks=13, max_rows=64))
    first = request(prompt_of(1, 17), max_new=200, context=32)
    core.add(first)
    while not core.scheduler.running or not core.scheduler.running[0].shifted:
        core.step()
    second = request(prompt_of(2, 30), max_new=200, context=32)
    _, errors = stepped(core, [second])
    assert list(errors) == [second.id]
    assert isinstance(errors[second.id], CapacityError)
    assert first.shifted_tokens > 100  # it went on to its end
    assert core.pool.num_held == 0


def test_a_slow_reader_that_has_to_start_over_keeps_nobody_out():
    """It waits first in line, and its reader takes nothing; whoever comes after it is admitted all the same."""
    core = EngineCore(HashProgram(num_blocks=12, max_sequences=2))
    room = [True]
    slow = request(prompt_of(1, 9), max_new=12, room=lambda: room[0])
    core.add(slow)
    core.step()
    room[0] = False
    (sequence,) = core.scheduler.running
    core.scheduler.remove(sequence)
    core.scheduler.waiting.appendleft(sequence)  # as a preemption leaves it
    other = request(prompt_of(2, 9))
    core.add(other)
    tokens = []
    for _ in range(30):
        tokens += [out.token_id for out in core.step() if out.request is other]
    assert tokens == plain_tokens(prompt_of(2, 9))
    room[0] = True
    while core.has_work:
        core.step()
    assert core.pool.num_held == 0
