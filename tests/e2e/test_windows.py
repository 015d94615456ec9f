"""Windows, chunks and recurrent states of real graphs: with the few blocks that they read, the bits are those of all of them."""

import numpy as np
import pytest

from reference_data import golden
from table_models import CASES, written
from tokamak import models
from tokamak.engine.llm import LLM
from tokamak.executors.cpu import Cpu
from tokamak.executors.reference import Reference
from tokamak.ir import passes
from tokamak.loaders import open_checkpoint
from tokamak.sampling import SamplingParams
from tokamak.tokenizers import Tokenizer
from tokamak.types import Limits, Reach

CONTEXT = 640
WINDOW = {"sliding_window": 30}
KINDS = {  # what a checkpoint says besides, and whether some layers keep whole texts
    "llama": (WINDOW, False),
    "gemma2": (WINDOW, True),
    "gpt-oss": (WINDOW, True),
    "cohere2": ({}, True),
    "llama4": ({"attention_chunk_size": 40}, True),
    "mamba2": ({}, False),
    "falcon-h1": ({}, True),
}
GREEDY = SamplingParams(temperature=0.0, logprobs=2, ignore_eos=True)


@pytest.fixture(params=KINDS)
def make(request, tiny_gguf, tmp_path):
    more, mixed = KINDS[request.param]
    opened = open_checkpoint(written_file(request.param, tiny_gguf, tmp_path))
    graph = models.build(opened.architecture, {**opened.config, **more}, opened.weights, context=CONTEXT)
    graph = passes.optimize(graph)
    whole = set(graph.states.values()) - graph.recent_states()
    assert graph.reach() is not None
    assert bool(whole) == mixed

    def llm(executor=None, *, keep=False, **limits):
        sizes = {"num_blocks": 24, "recent_blocks": 4, "max_rows": 48, "threads": 1, "kv_dtype": "f32"}
        program = (executor or Cpu()).compile(graph, opened.weights, Limits(**(sizes | limits)))
        if keep:
            program.reach = Reach(frozenset({(CONTEXT, 0)}))  # nothing is given back
        return LLM(program, Tokenizer.from_spec(opened.tokenizer), context=CONTEXT, seed=0)

    return llm


def written_file(name, tiny_gguf, folder):
    if name == "llama4":
        path = (golden() or folder) / "arch" / name / "model-f16.gguf"
        if not path.exists():
            pytest.skip("golden data is not beside the project")
        return path
    return written(folder / "m.gguf", name, CASES[name]) if name in CASES else tiny_gguf(name, "f32")


def test_a_text_of_twenty_windows_runs_in_the_blocks_of_one(make):
    prompt = np.random.default_rng(0).integers(3, 250, 500).tolist()
    with make(keep=True, recent_blocks=0) as llm:
        kept = llm.generate(prompt, GREEDY, max_tokens=100)
        logits = llm.logits(prompt)
        everything = llm.program.memory()["cache"]
    with make() as llm:
        given_back = llm.generate(prompt, GREEDY, max_tokens=100)
        assert (given_back.token_ids, given_back.logprobs) == (kept.token_ids, kept.logprobs)
        again = llm.generate(prompt, GREEDY, max_tokens=100)
        assert (again.token_ids, again.logprobs) == (kept.token_ids, kept.logprobs)
        np.testing.assert_array_equal(llm.logits(prompt), logits)
        assert llm.stats()["recent_blocks_held"] == 0
        assert llm.program.memory()["cache"] < everything


def test_the_oracle_needs_no_more_blocks_either(make):
    prompt = np.random.default_rng(1).integers(3, 250, 90).tolist()
    with make(Reference(), keep=True, recent_blocks=0) as llm:
        logits = llm.logits(prompt)
    with make(Reference()) as llm:
        np.testing.assert_array_equal(llm.logits(prompt), logits)


def test_a_context_shift_finds_the_blocks_that_were_kept(tiny_gguf):
    """Kept first tokens come into a window again when the middle is dropped, though they were behind it before."""
    opened = open_checkpoint(tiny_gguf("gemma2", "f32"))
    config = {**opened.config, "sliding_window": 100}
    graph = passes.optimize(models.build(opened.architecture, config, opened.weights, context=CONTEXT))
    found = []
    for keep in (True, False):
        limits = Limits(num_blocks=24, max_rows=48, kv_dtype="f32")
        program = Cpu().compile(graph, opened.weights, limits)
        if keep:
            program.reach = Reach(frozenset({(CONTEXT, 0)}))
        with LLM(program, Tokenizer.from_spec(opened.tokenizer), context=256, seed=0) as llm:
            done = llm.generate(list(range(10, 60)), GREEDY, max_tokens=500, context_shift=True, keep=40)
            assert done.usage.shifted_tokens > 0
            found.append((done.token_ids, done.logprobs))
    assert found[0] == found[1]
