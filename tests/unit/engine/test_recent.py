"""Layers that look back a limited way: their blocks are given back while a sequence runs, and nothing else changes."""

import itertools

import numpy as np
import pytest

from core_runs import finish, prompt_of, request, run
from hash_model import WindowedHashProgram
from tokamak.engine import state_file
from tokamak.engine.beam import BeamSearch
from tokamak.engine.core import EngineCore
from tokamak.errors import CapacityError
from tokamak.types import Reach

KINDS = [(10, 0, True), (10, 0, False), (0, 12, True), (0, 12, False), (2, 0, True), (1, 0, False)]


@pytest.fixture(params=KINDS, ids=str)
def kind(request):
    window, chunk, mixed = request.param
    return lambda **limits: WindowedHashProgram(window, chunk, mixed=mixed, **limits)


def everything_kept(kind, prompt, **fields):
    """What a request gives where no block is given back before its end."""
    program = kind(max_rows=64, recent_blocks=64)
    program.reach = Reach(frozenset({(10**6, 0)}))
    seen = program.reach, kind().reach
    core = EngineCore(program)
    program.reach = seen[1]  # what the program itself reads
    return run(core, request(prompt, **fields))[0]


@pytest.mark.parametrize("max_rows", [1, 7, 64])
def test_a_text_longer_than_the_pool_of_its_windows_gives_the_same(kind, max_rows):
    prompt = prompt_of(1, 100)
    core = EngineCore(kind(max_rows=max_rows, recent_blocks=6))
    assert run(core, request(prompt, max_new=60))[0] == everything_kept(kind, prompt, max_new=60)
    assert (core.pool.num_held, core.recent.num_held) == (0, 0)


def test_a_running_sequence_holds_no_more_than_its_window(kind):
    core = EngineCore(kind())
    core.add(request(prompt_of(1, 8), max_new=192))
    held = []
    while core.has_work:
        core.step()
        held.append(core.recent.num_held)
    window = core.recent.reach
    assert max(held[8:]) <= window.num_blocks(4)
    assert core.pool.num_blocks * 4 >= 200 > 4 * window.num_blocks(4)


def test_among_others_and_after_preemption_it_gives_the_same(kind):
    prompts = [prompt_of(i, 4 + 5 * i) for i in range(8)]
    core = EngineCore(kind(recent_blocks=12, num_blocks=40))
    together = run(core, *(request(p, max_new=24) for p in prompts))
    assert together == [everything_kept(kind, p, max_new=24) for p in prompts]
    assert (core.pool.num_held, core.recent.num_held) == (0, 0)


def test_forks_and_beams_give_the_same_as_where_everything_is_kept(kind):
    prompt = prompt_of(3, 30)
    core = EngineCore(kind(recent_blocks=32))
    assert run(core, request(prompt, num_samples=4, max_new=20))[0] == everything_kept(
        kind, prompt, num_samples=4, max_new=20
    )
    found = []
    for blocks in (20, 64):
        core = EngineCore(kind(recent_blocks=blocks))
        wide = request(prompt, max_new=20, group=BeamSearch(3, 1, 1.0, early_stopping=False))
        core.add(wide)
        outputs = list(itertools.chain.from_iterable(core.step() for _ in range(300) if core.has_work))
        found.append([o.token_id for o in outputs])
        assert (core.has_work, core.recent.num_held) == (False, 0)
    assert found[0] == found[1]


def test_a_prefix_is_found_as_long_as_its_window_is_there(kind):
    core = EngineCore(kind())
    shared = prompt_of(1, 42)
    run(core, request(shared, max_new=1))
    longer = np.concatenate([shared[:41], prompt_of(2, 9)])
    warm = request(longer, max_new=5)
    assert run(core, warm)[0] == everything_kept(kind, longer, max_new=5)
    assert warm.cached_tokens == 40
    run(
        core, *(request(prompt_of(10 + i, 40), max_new=1) for i in range(4))
    )  # windows of others take its place
    late = request(longer, max_new=5)
    assert run(core, late)[0] == everything_kept(kind, longer, max_new=5)


def test_a_prefix_whose_window_is_gone_is_not_claimed():
    core = EngineCore(WindowedHashProgram(10, recent_blocks=24))
    prompt = prompt_of(1, 42)
    run(core, request(prompt, max_new=1))
    core.recent.clear()
    again = request(prompt, max_new=5)
    found = run(core, again)[0]
    assert again.cached_tokens == 0
    assert found == everything_kept(lambda **x: WindowedHashProgram(10, **x), prompt, max_new=5)


def test_a_saved_prompt_brings_its_window_along(kind, tmp_path):
    prompt = prompt_of(1, 44)
    core, other = EngineCore(kind()), EngineCore(kind())
    run(core, request(prompt, max_new=1))
    saved = state_file.take_out(core, prompt, "")
    what = state_file.Kind("m", "hash", "f16", 4)
    state_file.write(tmp_path / "kv", what, saved)
    state_file.put_in(other, state_file.read(tmp_path / "kv", what), "")
    assert (other.pool.num_held, other.recent.num_held) == (0, 0)
    longer = np.concatenate([prompt, prompt_of(2, 5)])
    warm = request(longer, max_new=5)
    assert run(other, warm)[0] == everything_kept(kind, longer, max_new=5)
    assert warm.cached_tokens == 44


def test_what_can_never_fit_is_refused():
    core = EngineCore(WindowedHashProgram(40, recent_blocks=8))
    run(core, request(prompt_of(1, 16), max_new=8))
    with pytest.raises(CapacityError, match=r"11 cache blocks, there are 8"):
        core.add(request(prompt_of(1, 100), max_new=8))
    assert finish(core) == []
