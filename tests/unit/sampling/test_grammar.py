"""Constraints: the mask is what brute force says, and what comes out follows the constraint."""

import itertools
import json
import re

import numpy as np
import pytest

from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.sampling import Sampler, SamplingParams
from tokamak.sampling.grammar import Compiler, Vocabulary, any_character, source_of

pytest.importorskip("llguidance", reason="the grammar extra is not installed")

END = 0
PIECES = [
    b"",
    *(bytes([i]) for i in range(256)),
    b"ab",
    b"a",
    b'{"',
    b'":',
    b'"}',
    b"true",
    b"\xc3",
    b"\xa9x",
    b"ye",
    b"no",
]
VOCABULARY = Vocabulary(PIECES, frozenset(), frozenset([END]))
COMPILER = Compiler(VOCABULARY)


def grammar_of(**fields):
    params = SamplingParams(**fields)
    return COMPILER.compile(*source_of(params), tuple(params.grammar_triggers))


def generate(seed, max_tokens=200, **fields):
    """Text drawn from random logits, and whether it ended by itself."""
    rng = np.random.default_rng(seed)
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, **fields)
    sampler = Sampler(params, seed=seed, grammar=grammar_of(**fields))
    tokens = []
    for _ in range(max_tokens):
        logits = rng.normal(size=len(PIECES)).astype(np.float32) * 2
        logits[END] += 3
        history = np.array(tokens, dtype=np.int32)
        token = sampler.sample(logits, history).token_id
        if token == END:
            return b"".join(PIECES[t] for t in tokens), True
        tokens.append(token)
    return b"".join(PIECES[t] for t in tokens), False


def test_the_mask_of_a_choice_is_what_brute_force_says():
    """At every prefix of every option: a token may follow if the text stays the beginning of an option."""
    options = ["abba", "ab", "yes", "café", "no", 'a"}']
    grammar = grammar_of(choice=options)
    encoded = [option.encode() for option in options]
    stack = [()]
    seen = 0
    while stack:
        tokens = stack.pop()
        state = grammar.start()
        for token in tokens:
            state.accept(token)
        text = b"".join(PIECES[t] for t in tokens)
        expected = {i for i, p in enumerate(PIECES) if p and any(o.startswith(text + p) for o in encoded)}
        ends = {END} if text in encoded else set()
        assert set(state.allowed(len(PIECES)).nonzero()[0].tolist()) == expected | ends, text
        stack += [(*tokens, t) for t in expected]
        seen += 1
    assert seen > 30


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", range(8))
def test_a_schema_gives_an_instance_of_it(seed):
    text, ended = generate(seed, json_schema=SCHEMA)
    assert ended
    value = json.loads(text)
    assert set(value) == {"name", "age", "kind"}
    assert len(value["name"]) <= 6
    assert 0 <= value["age"] <= 120
    assert value["kind"] in ("cat", "dog")


@pytest.mark.parametrize("seed", range(8))
def test_an_expression_and_a_grammar_give_texts_that_match(seed):
    text, ended = generate(seed, regex=r"[a-f]{2,4}/[0-9]+(\.[0-9])?")
    assert not ended or re.fullmatch(rb"[a-f]{2,4}/[0-9]+(\.[0-9])?", text)
    text, ended = generate(seed, grammar='root ::= ("a" | "b")+ "." | "yes"')
    assert not ended or re.fullmatch(rb"[ab]+\.|yes", text)


def test_a_dot_of_gbnf_is_any_character_and_stays_one_in_literals():
    assert any_character('root ::= . "a.b" [.] # x.\n') == 'root ::= ([^x] | [x]) "a.b" [.] # x.\n'
    allowed = grammar_of(grammar='root ::= . "x"').start().allowed(len(PIECES))
    assert allowed[1 + ord("\n")]
    assert not allowed[END]


def test_a_trigger_turns_the_grammar_on():
    grammar = grammar_of(grammar='root ::= "<f>" [0-9]+ "!"', grammar_triggers=["<f>"])
    state = grammar.start()
    for letter in b"any text <f":
        logits = np.zeros(len(PIECES), dtype=np.float32)
        state.mask(logits)
        assert np.isfinite(logits).all()
        state.accept(1 + letter)
    state.accept(1 + ord(">"))
    assert set(state.allowed(len(PIECES)).nonzero()[0].tolist()) == {1 + ord(d) for d in "0123456789"}


def test_samples_have_states_of_their_own():
    params = SamplingParams(temperature=0.0, choice=["aa", "bb"])
    first = Sampler(params, seed=0, grammar=grammar_of(choice=["aa", "bb"]))
    second = first.fork(1)
    logits = np.zeros(len(PIECES), dtype=np.float32)
    logits[1 + ord("b")] = 1.0
    assert second.sample(logits, np.zeros(0, np.int32)).token_id == 1 + ord("b")
    logits[1 + ord("a")] = 2.0
    assert first.sample(logits, np.zeros(0, np.int32)).token_id == 1 + ord("a")


@pytest.mark.parametrize(
    "fields",
    [
        {"grammar": "root ::= ("},
        {"grammar": "root ::= missing"},
        {"regex": "(["},
        {"json_schema": "{not json"},
        {"json_schema": {"type": "nothing"}},
    ],
)
def test_a_constraint_that_cannot_be_compiled_is_refused(fields):
    with pytest.raises(InvalidParams):
        grammar_of(**fields)


def test_two_constraints_at_once_and_empty_ones_are_refused():
    for fields in (
        {"regex": "a", "choice": ["b"]},
        {"choice": []},
        {"grammar": 3},
        {"grammar_triggers": ["x"]},
    ):
        with pytest.raises(InvalidParams):
            SamplingParams(**fields)


def test_the_same_constraint_is_compiled_once():
    assert grammar_of(regex="abc") is grammar_of(regex="abc")


def texts(parts, low, high):
    """Every concatenation of low .. high of some strings."""
    return {"".join(chosen) for n in range(low, high + 1) for chosen in itertools.product(parts, repeat=n)}


FINITE = [  # a constraint, and every text that follows it
    ({"regex": "(a|ab|ca){1,2}b?"}, {t + e for t in texts(["a", "ab", "ca"], 1, 2) for e in ("", "b")}),
    ({"grammar": 'root ::= x x?\nx ::= "ye" | "no" | [ab] "é"'}, texts(["ye", "no", "aé", "bé"], 1, 2)),
    ({"grammar": 'root ::= "a" root "b" | "é"'}, {"a" * n + "é" + "b" * n for n in range(40)}),
    ({"json_schema": {"enum": ["a", "ab", 12, True, None]}}, {'"a"', '"ab"', "12", "true", "null"}),
    ({"json_schema": {"type": "integer", "minimum": 7, "maximum": 123}}, {str(n) for n in range(7, 124)}),
]


@pytest.mark.parametrize(("fields", "language"), FINITE)
def test_the_mask_is_what_brute_force_over_the_language_says(fields, language):
    grammar, encoded = grammar_of(**fields), {text.encode() for text in language}
    rng = np.random.default_rng(0)
    for _ in range(12):
        state, text = grammar.start(), b""
        while len(text) < 12:
            fits = {i for i, p in enumerate(PIECES) if p and any(t.startswith(text + p) for t in encoded)}
            ends = {END} if text in encoded else set()
            assert set(state.allowed(len(PIECES)).nonzero()[0].tolist()) == fits | ends, text
            if not fits:
                break
            token = int(rng.choice(sorted(fits)))
            state.accept(token)
            text += PIECES[token]


def test_a_state_that_lost_its_way_stops_the_request_instead_of_letting_anything_pass():
    state = grammar_of(choice=["yes"]).start()
    state.accept(1 + ord("n"))
    with pytest.raises(UnsupportedError, match="grammar"):
        state.mask(np.zeros(len(PIECES), dtype=np.float32))
