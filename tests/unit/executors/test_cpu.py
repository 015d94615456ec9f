"""What the CPU program promises besides numbers: typed refusals, no allocation in a step, cancelling, records."""

import os
import threading
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

import graphs
import programs
from tokamak import _native
from tokamak.errors import Cancelled, InvalidParams, UnavailableError, UnsupportedError
from tokamak.executors.cpu import Cpu
from tokamak.ir import passes
from tokamak.types import Limits, Tuning

VOCAB = 97


def program(name="llama", **limits):
    graph = passes.optimize(graphs.graph(name))
    return programs.compiled(graph, programs.weights(graphs.params(graph)), **{"num_blocks": 8, **limits})


def step(*sequences):
    return graphs.batch(
        *(sequences or (([2, 5], list(range(40)), 40),)), every_row=True, block=programs.BLOCK
    )


def edited(**changes):
    """A good step with single entries replaced: name -> (index, value)."""
    good = step()
    arrays = {}
    for name, (index, value) in changes.items():
        arrays[name] = getattr(good, name).copy()
        arrays[name][index] = value
    return replace(good, **arrays)


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (edited(token_ids=(3, VOCAB)), ["token_ids[3]", "97", "0 .. 96"]),
        (edited(token_ids=(0, -1)), ["token_ids[0]", "-1"]),
        (edited(positions=(5, -7)), ["positions[5]", "-7"]),
        (edited(slots=(1, 8 * 32)), ["slots[1]", "256"]),
        (edited(slots=(1, 66)), ["slots[1]", "66", "slot 65"]),
        (edited(tables=((0, 1), 8)), ["tables[0][1]", "8", "0 .. 7"]),
        (edited(tables=((0, 0), -1)), ["tables[0][0]", "-1"]),
        (edited(lengths=(0, 65)), ["lengths[0]", "65", "64"]),
        (edited(lengths=(0, 39)), ["lengths[0]", "39"]),
        (edited(starts=(0, 1)), ["starts"]),
        (edited(starts=(1, 41)), ["starts"]),
        (edited(logit_rows=(2, 40)), ["logit_rows[2]", "40"]),
        (edited(logit_rows=(2, 1)), ["logit_rows[2]", "1"]),
        (replace(step(), token_ids=np.zeros(39, np.int32)), ["positions", "40", "39"]),
        (replace(step(), token_ids=np.zeros(40, np.int64)), ["token_ids", "int32"]),
        (replace(step(), token_ids=np.zeros(80, np.int32)[::2]), ["token_ids", "contiguous"]),
        (replace(step(), tables=np.zeros(2, np.int32)), ["tables", "two axes"]),
        (replace(step(), token_ids=np.zeros(0, np.int32)), ["1 .. 64 rows"]),
    ],
)
def test_a_bad_batch_is_refused_by_array_index_and_value(batch, words):
    p = program(max_rows=64)
    with pytest.raises(InvalidParams) as caught:
        p.run(batch)
    for word in words:
        assert word in str(caught.value)
    assert np.isfinite(p.run(step())).all(), "and the program still works"


def test_random_batches_are_run_or_refused():
    p = program(max_rows=64)
    rng = np.random.default_rng(7)
    good = step(([2, 5], list(range(40)), 3), ([1], [4, 5], 2))
    names = [name for name in good.__slots__ if getattr(good, name) is not None]
    for _ in range(400):
        name = names[rng.integers(len(names))]
        array = getattr(good, name).copy()
        array.flat[rng.integers(array.size)] = rng.choice([-(2**31), -1, 0, 1, 31, 255, 256, 2**31 - 1])
        with suppress(InvalidParams):
            p.run(replace(good, **{name: array}))
    assert np.isfinite(p.run(good)).all()


def test_a_thread_without_work_takes_some_from_another():
    p, alone = (program(threads=n, tuning=Tuning(chunk_nbytes=4096)) for n in (2, 1))
    for _ in range(300):
        p.run(step(([2, 5], [7], 1)))
        if p.native.steals:
            break
    assert p.native.steals > 0
    alone.run(step())
    assert alone.native.steals == 0


def test_a_step_allocates_nothing_after_the_first():
    p = program(threads=2)
    p.run(step())
    before, everything = p.native.allocations, _native.allocation_count()
    assert everything > 0, "the counter counts"
    for n in range(41, 60):
        p.run(step(([2, 5], list(range(n)), 1)))
    p.run(step())
    assert p.native.allocations == before


def test_arrays_of_logits_are_not_written_again_while_held():
    p = program()
    first = p.run(step())
    copy = first.copy()
    second = p.run(step(([2, 5], list(range(10, 50)), 40)))
    assert np.array_equal(first, copy)
    assert not np.array_equal(first, second)


def test_cancel_stops_the_step_of_another_thread():
    p = program(max_rows=512, num_blocks=32)
    batch = step((list(range(16)), [1] * 512, 512))
    stop = threading.Event()

    def canceller():
        while not stop.is_set():
            p.cancel()

    thread = threading.Thread(target=canceller)
    thread.start()
    try:
        with pytest.raises(Cancelled):
            p.run(batch)
    finally:
        stop.set()
        thread.join()
    assert np.isfinite(p.run(batch)).all()


def test_callers_from_several_threads_get_their_own_logits():
    p = program(threads=2)
    batches = [step(([i], [i + 1] * (i + 3), i + 3)) for i in range(6)]
    expected = [p.run(b) for b in batches]
    wrong = []

    def call(i):
        for _ in range(20):
            same = np.array_equal(p.run(batches[i]), expected[i])
            wrong.extend([] if same else [i])

    threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_a_typed_error():
    p = program(threads=2)
    p.run(step())
    child = os.fork()
    if child == 0:
        try:
            p.run(step())
        except UnavailableError:
            os._exit(42)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42


def test_copied_blocks_hold_the_same_keys_and_values():
    p = program()
    p.run(step(([2, 5], list(range(40)), 40)))
    expected = p.run(step(([2, 5], [*range(40), 9], 1)))
    p.copy_blocks([(2, 6), (5, 7)])
    assert np.array_equal(p.run(step(([6, 7], [*range(40), 9], 1))), expected)
    with pytest.raises(InvalidParams, match="block 8 to 0"):
        p.copy_blocks([(8, 0)])


def test_records_name_the_kernel_of_every_instruction_and_count():
    graph = passes.optimize(graphs.graph("llama"))
    p = programs.compiled(graph, programs.weights(graphs.params(graph)), kv_dtype="f16")
    p.run(step())
    p.run(step(([2, 5], [*range(40), 9], 1)))
    records = {r.node: r for r in p.records()}
    ops = {n.outputs[0].name: n.op for n in graph.nodes}
    qkv = records["layers.0.self_attn.q_proj.linear.merged"]
    assert (qkv.op, qkv.kernel, qkv.calls) == ("linear", f"linear.f32.{p.isa}", 2)
    assert qkv.nanoseconds > 0
    assert qkv.nbytes == 2 * 64 * 32 * 4  # rows of q, k, v; columns; both steps
    attention = records["layers.0.self_attn.attention"]
    assert attention.kernel == f"attention.f16.{p.isa}"
    assert attention.nbytes == (40 + 41) * 2 * 2 * 8 * 2  # positions, K and V, heads, head_dim, bytes
    assert all(ops[name] == record.op for name, record in records.items() if name in ops)


def test_memory_is_what_the_formulas_say():
    p = program(kv_dtype="f16")
    sizes = p.memory()
    assert (
        sizes["cache"] == 3 * 8 * 32 * 2 * 2 * 8 * 2
    )  # layers, blocks, positions, K and V, heads, dims, bytes
    assert sizes["weights"] >= sum(4 * a.size for a in graphs.params(graphs.graph("llama")).values())


def test_what_the_kernels_lack_is_refused_with_a_reason():
    graph = graphs.graph("llama")
    params = programs.weights(graphs.params(graph))
    with pytest.raises(UnsupportedError, match="block_size is 16"):
        Cpu().compile(graph, params, Limits(num_blocks=4, block_size=16))
    with pytest.raises(UnsupportedError, match=r"head_dim 8 .* multiple of 32"):
        programs.compiled(graph, params, kv_dtype="q8_0")
    with pytest.raises(InvalidParams, match="kv_dtype 'f64'"):
        programs.compiled(graph, params, kv_dtype="f64")
    with pytest.raises(InvalidParams, match="threads is 0"):
        programs.compiled(graph, params, threads=0)
    with pytest.raises(InvalidParams, match="instruction set 'mmx'"):
        programs.compiled(graph, params, "mmx")
    name = "layers.0.mlp.up_proj.weight"
    odd = {**params, name: programs.ArrayWeight("q8_k", params[name].shape, params[name].bytes_)}
    with pytest.raises(UnsupportedError, match=r"tensor layers\.0\.mlp\.up_proj\.weight: format 'q8_k'"):
        programs.compiled(graph, odd)


def test_weights_are_released_as_they_are_packed_and_progress_is_told():
    graph = graphs.graph("llama")
    params = programs.weights(graphs.params(graph))
    told = []
    Cpu().compile(graph, params, Limits(num_blocks=4), lambda *progress: told.append(progress))
    assert all(w.released for w in params.values())
    assert len(told) == len(params)
    assert told[-1][0] == told[-1][1]
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_closed_program_says_so():
    p = program()
    p.close()
    with pytest.raises(InvalidParams, match="closed"):
        p.run(step())


def test_an_unknown_tap_is_refused():
    with pytest.raises(InvalidParams, match="'nothing'"):
        program().taps(step(), ["nothing"])
