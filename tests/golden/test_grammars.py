"""The tokens a grammar allows after a prefix are those llama.cpp allows."""

import json
from functools import cache

import pytest

import reference_data
from tokamak.sampling.grammar import Compiler, Vocabulary
from tokamak.tokenizers import Tokenizer

pytest.importorskip("llguidance", reason="the grammar extra is not installed")
GOLDEN = reference_data.golden()
pytestmark = pytest.mark.skipif(GOLDEN is None, reason="reference data ../shared/golden is absent")


@cache
def recorded():
    return json.loads((GOLDEN / "samplers.json").read_text()) if GOLDEN else {}


def vocabulary_file(vocab):
    if vocab == "tok512":
        return GOLDEN / "arch/llama/model-f16.gguf"
    return (reference_data.unpacked() or GOLDEN) / f"tokenizers/llamacpp/ggml-vocab-{vocab}.gguf"


@cache
def compiler(vocab):
    tok = Tokenizer.load(vocabulary_file(vocab))
    pieces = [tok.id_to_bytes(i) for i in range(tok.vocab_size)]
    special = frozenset(tok.special_tokens.values())
    return Compiler(Vocabulary(pieces, special, tok.eog_ids)), tok


@pytest.mark.parametrize("i", range(len(recorded().get("grammar", []))))
def test_the_mask_is_that_of_llama_cpp(i):
    case = recorded()["grammar"][i]
    if not vocabulary_file(case["vocab"]).exists():
        pytest.skip(f"the vocabulary {case['vocab']} is not unpacked")
    compiled, tok = compiler(case["vocab"])
    state = compiled.compile("gbnf", recorded()["grammars"][case["grammar"]], ()).start()
    for token_id in case["prefix_ids"]:
        state.accept(token_id)
    ours = set(state.allowed(tok.vocab_size).nonzero()[0].tolist())
    theirs, odd = set(case["allowed"]), oddities(case["vocab"])
    listed = max(theirs, default=0) if len(theirs) < case["n_allowed"] else tok.vocab_size  # cut at 200 ids
    assert {i for i in ours - odd if i <= listed} == theirs - odd
    assert abs(len(ours) - case["n_allowed"]) <= len(odd)


@cache
def oddities(vocab):
    """Tokens llama.cpp treats otherwise: it lets bytes pass that are never UTF-8, reads the names of control tokens as
    text, and refuses the character NUL."""
    tok = compiler(vocab)[1]
    special = set(tok.special_tokens.values()) - tok.eog_ids
    strange = {
        i for i in range(tok.vocab_size) if set(tok.id_to_bytes(i)) & {0, 0xC0, 0xC1, *range(0xF5, 0x100)}
    }
    return special | strange
