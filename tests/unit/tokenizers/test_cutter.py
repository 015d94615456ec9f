"""Words found 64 bytes at a time are the words that the automaton finds one by one."""

import os
import random
import subprocess
import sys

import pytest

from tokamak import _native
from tokamak.tokenizers import patterns

KNOWN = ("GPT2", "CL100K", "LLAMA3", "QWEN2", "QWEN35", "O200K", "TEKKEN")
# Every kind that the rules tell apart, and the characters whose rules are rare: marks, digits and spaces outside
# ASCII, the long s that contractions take, capitals beside letters without case.
ALPHABET = " \t\n\r'sStTlLvVeErRdDmM/A.b1éÉ中，—\u0301\u00a0١ſ😀-"


def texts(count: int, seed: int) -> list[bytes]:
    r = random.Random(seed)
    made = []
    for i in range(count):
        letters = ALPHABET if i % 2 else r.choices(ALPHABET, k=r.randint(2, 6))
        text = bytearray("".join(r.choices(letters, k=r.randint(1, 200))), "utf-8")
        for _ in range(i % 5 == 0 and 3):
            text[r.randrange(len(text))] = r.randrange(256)  # not UTF-8 any more
        made.append(bytes(text))
    return made


@pytest.mark.parametrize("name", KNOWN)
def test_words_are_those_of_the_automaton(name):
    pattern = getattr(patterns, name)
    for text in texts(400, seed=len(name)):
        assert _native.split_pattern(pattern, text, True) == _native.split_pattern(pattern, text), text


def test_a_pattern_that_differs_in_one_place_is_left_to_the_automaton():
    strange = patterns.GPT2.replace("'ll", "'LL")
    text = b"she'll see us'LL " * 9
    assert _native.split_pattern(strange, text, True) == _native.split_pattern(strange, text)


def test_without_vector_code_the_words_are_the_same():
    script = (
        "from tokamak import _native\nfrom tokamak.tokenizers import patterns\nimport sys\n"
        "text = sys.stdin.buffer.read()\n"
        "print(*[_native.split_pattern(getattr(patterns, n), text, True) for n in sys.argv[1:]])"
    )
    text = b" ".join(texts(100, seed=7))
    run = [sys.executable, "-c", script, *KNOWN]
    plain, wide = (
        subprocess.run(run, input=text, env=os.environ | isa, capture_output=True, check=True).stdout
        for isa in ({"TOKAMAK_ISA": "scalar"}, {})
    )
    assert plain == wide


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("size", [62, 63, 64, 65, 127, 128, 129])
def test_words_end_alike_around_the_size_of_a_block(name, size):
    for end in ("", "'", "'l", "'ll", " ", "\n", " \n", "1", "中"):
        text = ("a" * size + end + "b c").encode()
        pattern = getattr(patterns, name)
        assert _native.split_pattern(pattern, text, True) == _native.split_pattern(pattern, text)
