"""Threads of the CPU program: named, bound only when asked, more for prompts than for decoding, same bits anyway."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import graphs
import programs
from tokamak import _native
from tokamak.errors import InvalidParams
from tokamak.ir import passes
from tokamak.types import Tuning

ALLOWED = _native.allowed_cpus()
linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed in /proc")


def program(**limits):
    graph = passes.optimize(graphs.graph("llama"))
    return programs.compiled(graph, programs.weights(graphs.params(graph)), **{"num_blocks": 8, **limits})


def prompt(count=40):
    return graphs.batch(([2, 5], list(range(count)), count), every_row=True, block=programs.BLOCK)


def names():
    """Names of this process's threads, and where each may run."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        name = (task / "comm").read_text().strip()
        found.setdefault(name, set()).add(tuple(sorted(os.sched_getaffinity(int(task.name)))))
    return found


@linux
def test_workers_have_names_that_tools_show():
    before = {name for name in names() if name.startswith("tokamak-cpu-")}
    p = program(threads=3)
    p.run(prompt())
    assert {"tokamak-cpu-1", "tokamak-cpu-2"} <= {*before, *names()}
    p.close()


@linux
@pytest.mark.skipif(len(ALLOWED) < 2, reason="needs two CPUs")
def test_bound_threads_stay_on_their_cpus_and_the_caller_gets_its_mask_back():
    before = os.sched_getaffinity(0)
    p = program(threads=2, affinity=(ALLOWED[1], ALLOWED[0]))
    out = p.run(prompt())
    assert (ALLOWED[0],) in names()["tokamak-cpu-1"]
    assert os.sched_getaffinity(0) == before
    assert np.array_equal(out, program(threads=2).run(prompt()))
    p.close()


@pytest.mark.parametrize(
    ("affinity", "word"),
    [
        ((8191, *ALLOWED), "8191"),
        ((ALLOWED[0], ALLOWED[0]), "twice"),
        ((ALLOWED[0],), "2 threads"),
        ((-1, 0), "-1"),
    ],
)
def test_an_affinity_that_cannot_be_is_refused(affinity, word):
    with pytest.raises(InvalidParams, match=word):
        program(threads=2, affinity=affinity)


def test_threads_of_prompts_and_of_decoding_differ_and_the_bits_do_not():
    expected = program(threads=1).run(prompt())
    one = graphs.batch(([2, 5], list(range(41)), 1), block=programs.BLOCK)
    plain = program(threads=1)
    plain.run(prompt())
    after = plain.run(one)
    for threads, threads_batch in ((1, 3), (3, 1), (2, 4)):
        p = program(threads=threads, threads_batch=threads_batch)
        for _ in range(3):  # the number of threads changes to and fro
            assert np.array_equal(p.run(prompt()), expected)
            assert np.array_equal(p.run(one), after)


def test_sizes_that_tuning_may_choose_change_no_bit():
    expected = program(threads=2).run(prompt())
    for tuning in (Tuning(4 << 10, 16 << 10, 0), Tuning(1 << 20, 2 << 20, 500)):
        assert np.array_equal(program(threads=2, tuning=tuning).run(prompt()), expected)


@pytest.mark.parametrize("change", [{"chunk_nbytes": 0}, {"block_nbytes": 1 << 40}, {"spin_us": -1}])
def test_sizes_out_of_range_are_refused_by_name(change):
    with pytest.raises(InvalidParams, match=next(iter(change))):
        program(tuning=replace(Tuning(), **change))


def test_a_program_with_more_threads_than_work_ends():
    p = program(threads=8, threads_batch=2)
    done = threading.Thread(target=lambda: (p.run(prompt()), p.close()))
    done.start()
    done.join(60)
    assert not done.is_alive()


def test_memory_nodes_are_read_from_the_system():
    assert _native.memory_nodes()[0] >= 0
    assert program().memory()["weights_interleaved"] in (0, program().memory()["weights"])
