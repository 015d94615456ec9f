"""Pattern automata against Python's backtracking engine over the same classes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokamak import _native
from tokamak.errors import UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.hf_json import spec_from_data
from tokamak.tokenizers.patterns import DIGIT_GROUPS, GPT2, LLAMA3, PRE_TOKENIZERS, QWEN2
from tokamak.tokenizers.pretokenize import split, to_python

CHARACTERS = st.sampled_from(
    list(" \t\r\n\x0b\x1c\x85\xa0\u2003\u3000\u200b'sSſKtTrevmldaZ09²½Ⅷ٣é你の한\u0301😀.,-_()")
) | (st.characters(exclude_categories=["Cs"]))
TEXTS = st.lists(CHARACTERS, max_size=40).map("".join)
MORE = (
    r"a|ab|abc",
    r"(?:ab|a)b?",
    r"a*?b",
    r"[^\S\n]+",
    r"\p{N}{2,3}?|\w+",
    r"\s+(?!\S)|\s",
    r"x(?=y)|.",
    r"\p{^L}+|\P{Lu}",
    r"(?i:'s|k+)|[\x41-\x5a\d]",
)
NAMED = {p for row in PRE_TOKENIZERS.values() for p in (s.get("regex") for s in row.steps) if p}
# Python's `re` has no intersections of classes.
PATTERNS = sorted({p for p in NAMED if "&&" not in p} | set(MORE))


def words(pattern: str, text: str) -> list[str]:
    data = text.encode()
    spans = _native.split_pattern(pattern, text)
    out, at = [], 0
    for start, end in zip(spans[::2], spans[1::2], strict=True):
        out += [data[at:start]] if start > at else []
        out.append(data[start:end])
        at = end
    out += [data[at:]] if at < len(data) else []
    return [w.decode() for w in out]


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_automaton_cuts_where_backtracking_does(pattern, text):
    assert words(pattern, text) == split((pattern,), text)


def test_possessive_repeats_do_not_give_back():
    assert words(r"a++b|a", "aab") == ["aab"]
    assert words(r"a?+ab|b", "ab") == ["a", "b"]  # the a is taken and not given back
    assert words(r"a{1,2}+a|a", "aa") == ["a", "a"]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("I'll we'LL", {GPT2: ["I", "'ll", " we", "'", "LL"], LLAMA3: ["I", "'ll", " we", "'LL"]}),
        ("a'\u017f", {LLAMA3: ["a", "'\u017f"], QWEN2: ["a", "'\u017f"]}),
        ("12345", {GPT2: ["12345"], LLAMA3: ["123", "45"], QWEN2: ["1", "2", "3", "4", "5"]}),
        ("a  b\n\n c", {GPT2: ["a", " ", " b", "\n\n", " c"], LLAMA3: ["a", " ", " b", "\n\n", " c"]}),
    ],
)
def test_words_as_the_original_regex_engines_cut_them(text, want):
    for pattern, pieces in want.items():
        assert words(pattern, text) == pieces


@pytest.mark.parametrize(
    "pattern", [r"(?<=a)b", r"\bx", "^a", "(?=ab)c", "a(", "[a", "*", r"\p{Klingon}", "(?P<n>a)", r"\1"]
)
def test_what_is_not_supported_is_refused_by_name(pattern):
    with pytest.raises(UnsupportedError):
        _native.split_pattern(pattern, "x")


def test_a_pattern_that_would_explode_is_refused():
    with pytest.raises(UnsupportedError):
        _native.split_pattern("(?:a|b)*a" + "(?:a|b)" * 40, "x")
    with pytest.raises(UnsupportedError):
        _native.split_pattern("(?:" * 100 + "a" + ")" * 100, "x")
    with pytest.raises(UnsupportedError):
        _native.split_pattern("((a{200}){200}){200}", "x")


def test_classes_are_those_of_the_stated_unicode_version():
    assert _native.UNICODE_VERSION == "16.0"
    letters = sum(b - a + 1 for a, b in _native.unicode_property("L"))
    assert letters == 141_028  # letters of Unicode 16
    assert "\\U00000041-\\U0000005a" in to_python(r"\p{Lu}")


@pytest.mark.parametrize("pattern", DIGIT_GROUPS)
def test_digits_are_grouped_from_the_right_as_the_pattern_does(pattern):
    tokenizers = pytest.importorskip("tokenizers")
    original = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    spec = spec_from_data({"pre_tokenizer": split, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})
    engine, rng = Tokenizer(spec).engine, random.Random(1)
    alphabet = [*"0123456789", *"abc _.,\n", "\u0661", "\u00b2", "\u00e9", "\u0301"]
    for _ in range(500):
        text = "".join(rng.choices(alphabet, k=rng.randrange(14)))
        want = [piece for piece, _ in original.pre_tokenize_str(text)]
        assert [w.decode() for w in engine.words(text, False)] == want, text


def test_scripts_are_cut_as_the_original_cuts_them():
    model = {"type": "WordLevel", "vocab": {"u": 0}, "unk_token": "u"}
    ours = Tokenizer(spec_from_data({"model": model, "pre_tokenizer": {"type": "UnicodeScripts"}}))
    assert ours.encode_full(" a\u3042\u4f60 \u30fc1b").char_spans.tolist() == [[1, 2], [2, 6], [6, 7], [7, 8]]
    assert ours.encode(" ") == []
    original = pytest.importorskip("tokenizers").pre_tokenizers.UnicodeScripts()
    points = [c for c in range(0, 0x110000, 29) if not 0xD800 <= c < 0xE000]
    for at in range(0, len(points), 50):
        text = "".join(chr(c) + "a\u0431\u6f22 "[c % 4] for c in points[at : at + 50])
        want = [span for _, span in original.pre_tokenize_str(text)]
        assert [tuple(s) for s in ours.encode_full(text).char_spans.tolist()] == want
