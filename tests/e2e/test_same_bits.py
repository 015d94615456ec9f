"""One request, the same bits: alone, among eight, on one or two threads, in chunks, warm, on blocks used before.

For every instruction set of this machine, four weight formats and every cache type; and a mixture of experts, whose rows
meet other company in every batch.
"""

import numpy as np
import pytest

from tokamak import _native, models
from tokamak.engine.llm import LLM
from tokamak.executors.cpu import Cpu
from tokamak.ir import passes
from tokamak.loaders import open_checkpoint
from tokamak.sampling import SamplingParams
from tokamak.tokenizers import Tokenizer
from tokamak.types import KV_DTYPES, Limits

CASES = (("llama", "q4_k"), ("llama", "q8_0"), ("llama", "tq2_0"), ("llama", "f16"), ("qwen2moe", "q8_0"))
PARAMS = SamplingParams(temperature=1.0, seed=5, max_tokens=4, ignore_eos=True, logprobs=4)
CONTEXT = 96


def ids_of(seed, length):
    return np.random.default_rng(seed).integers(3, 380, length).tolist()


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def opened(request, tiny_gguf):
    """A checkpoint with heads of 64, which every cache type can hold, and its graph."""
    arch, fmt = request.param
    wide = fmt in ("q4_k", "tq2_0")  # their groups are 256 wide
    sizes = (
        {"hidden_size": 256, "intermediate_size": 256}
        if wide
        else {"hidden_size": 64, "intermediate_size": 64}
    )
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    checkpoint = open_checkpoint(tiny_gguf(arch, fmt, **sizes))
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=CONTEXT)
    return checkpoint, passes.optimize(graph)


@pytest.fixture(params=[(isa, kv) for isa in _native.isas() for kv in KV_DTYPES], ids="-".join)
def make(request, opened):
    isa, kv_dtype = request.param
    checkpoint, graph = opened

    def llm(**limits):
        limits = {"num_blocks": 60, "max_rows": 64, "max_sequences": 16, "threads": 1} | limits
        program = Cpu(isa).compile(graph, checkpoint.weights, Limits(kv_dtype=kv_dtype, **limits))
        return LLM(program, Tokenizer.from_spec(checkpoint.tokenizer), context=CONTEXT, seed=0)

    return llm


def bits(completion):
    """Tokens, and the log-probabilities of them and of the four best, which show the logits."""
    return completion.token_ids, completion.logprobs


def test_the_same_bits_whatever_else_happens(make):
    prompt = ids_of(1, 40)  # a full block and a part of one
    others = [ids_of(10 + i, 2 + 5 * i) for i in range(8)]
    with make() as llm:
        logits = llm.logits(prompt)
        expected = bits(llm.generate(prompt, PARAMS))
        warm = llm.generate(prompt, PARAMS)
        assert warm.usage.cached_tokens == 32
        assert bits(warm) == expected
        together = llm.generate([*others[:4], prompt, *others[4:]], PARAMS)
        assert bits(together[4]) == expected
    with make(threads=2, max_rows=7) as llm:
        assert np.array_equal(llm.logits(prompt), logits)
        assert bits(llm.generate(prompt, PARAMS)) == expected
    with make(num_blocks=3) as llm:  # few blocks, so each is used again and again
        for other in others:
            stream = llm.stream(other, PARAMS, max_tokens=50)
            next(stream)
            stream.close()
        assert bits(llm.generate(prompt, PARAMS)) == expected
        assert np.array_equal(llm.logits(prompt), logits)
