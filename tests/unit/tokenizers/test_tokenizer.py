"""Laws of the Tokenizer facade."""

import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokamak.errors import InvalidParams, TokenizerFileError
from tokamak.tokenizers import AddedToken, Tokenizer
from vocabularies import TEXT, byte_level, sentencepiece

BYTE = Tokenizer(byte_level())
PIECE = Tokenizer(sentencepiece())
BOTH = pytest.mark.parametrize("tokenizer", [BYTE, PIECE], ids=["bpe", "spm"])
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@BOTH
@settings(max_examples=100, deadline=None)
@given(text=TEXTS)
def test_decode_undoes_encode(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text.replace(
        "\u2581", "\u2581" if tokenizer is BYTE else " "
    )


@BOTH
@settings(max_examples=100, deadline=None)
@given(ids=st.lists(st.integers(0, 300), max_size=30), skip=st.booleans(), continues=st.booleans())
def test_streamed_pieces_join_to_the_decoded_whole(tokenizer, ids, skip, continues):
    stream = tokenizer.stream(skip_special=skip, continues=continues)
    pieces = [stream.push(i) for i in ids] + [stream.flush()]
    assert "".join(pieces) == tokenizer.decode(ids, skip_special=skip, continues=continues)


def test_a_stream_gives_a_character_only_when_it_is_whole():
    ids = [BYTE.token_to_id(c) for c in "ðŁĺĢ"]  # the four bytes of an emoji in the byte alphabet
    stream = BYTE.stream()
    assert [stream.push(i) for i in ids] == ["", "", "", "😀"]
    assert stream.flush() == ""
    assert stream.push(ids[0]) == "" and stream.flush() == "\ufffd"


@BOTH
def test_every_way_to_encode_gives_the_same_ids(tokenizer):
    texts = [TEXT, "", "a", "the 世界", TEXT[:77]]
    want = [tokenizer.encode(t) for t in texts]
    assert [tokenizer.encode_array(t).tolist() for t in texts] == want
    assert [tokenizer.encode(t.encode()) for t in texts] == want
    assert [tokenizer.encode(memoryview(t.encode())) for t in texts] == want
    assert [tokenizer.encode_full(t).ids.tolist() for t in texts] == want
    assert [tokenizer.count(t) for t in texts] == [len(w) for w in want]
    for threads in (None, 1, 2, 8):
        batch = tokenizer.encode_batch(texts, threads=threads)
        assert len(batch) == len(texts) and [b.tolist() for b in batch] == want
        assert batch.ids.dtype == np.int32 and batch.offsets.dtype == np.int64
    assert batch[-1].tolist() == want[-1] and [b.tolist() for b in batch[1:3]] == want[1:3]
    with pytest.raises(IndexError):
        batch[len(texts)]


@BOTH
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_spans_cover_the_text_in_order(tokenizer, text):
    full = tokenizer.encode_full(text, add_special=False)
    data = text.encode()
    at = 0
    for start, end in full.byte_spans.tolist():
        assert start <= at and at <= end <= len(data)
        at = end
    assert at == len(data)
    starts = np.cumsum([0, *(len(c.encode()) for c in text)])
    for (b0, b1), (c0, c1) in zip(full.byte_spans.tolist(), full.char_spans.tolist(), strict=True):
        assert starts[c0] <= b0 and b1 <= starts[c1]
        assert b1 == b0 or (starts[c0 + 1] > b0 and starts[c1 - 1] < b1)
    assert full.mask.tolist() == [1] * len(full.ids)


def test_pieces_and_spans_of_a_sentence():
    full = PIECE.encode_full("the 世")
    assert full.pieces[0] == "<s>" and full.byte_spans[0].tolist() == [0, 0]
    assert "".join(full.pieces[1:-1]).startswith("▁the▁")
    assert full.char_spans[-1].tolist() == [4, 5]


@BOTH
def test_special_tokens_match_only_when_asked(tokenizer):
    name, token_id = next(iter(tokenizer.special_tokens.items()))
    text = f"a{name}b"
    assert token_id not in tokenizer.encode(text, add_special=False)
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    assert ids.count(token_id) == 1
    assert name not in tokenizer.decode(ids, skip_special=True)


def test_user_defined_tokens_match_always():
    assert BYTE.token_to_id("<tool>") in BYTE.encode("x<tool>y", parse_special=False)


def test_the_longest_added_token_wins_and_strips_as_told():
    spec = byte_level()
    base = len(spec.tokens) - 3
    added = (
        AddedToken("<a>", base),
        AddedToken("<a><b>", base + 1, lstrip=True, rstrip=True),
        AddedToken("xy", base + 2, single_word=True),
    )
    tokenizer = Tokenizer(replace(spec, added=added, prefix=()))
    encode = tokenizer.encode_full
    assert encode("<a><b>").ids.tolist() == [base + 1]
    assert encode("<a><a>").ids.tolist() == [base, base]
    assert encode("q \u3000<a><b> \n z").byte_spans.tolist()[1] == [1, 14]
    assert encode("xy").ids.tolist() == [base + 2]
    assert base + 2 not in encode("xyz").ids.tolist() and base + 2 in encode("é xy!").ids.tolist()


@BOTH
def test_bos_comes_once_and_first(tokenizer):
    ids = tokenizer.encode("hello")
    assert ids[0] == tokenizer.bos_id and ids.count(tokenizer.bos_id) == 1
    assert tokenizer.encode("") == [tokenizer.bos_id]
    both = Tokenizer(replace(tokenizer.spec, suffix=(tokenizer.eos_id,)))
    assert both.encode("hello") == [*ids, tokenizer.eos_id]


def test_a_leading_space_is_dropped_at_the_start_only():
    ids = PIECE.encode("the end", add_special=False)
    assert PIECE.decode(ids) == "the end"
    assert PIECE.decode(ids, continues=True) == " the end"
    assert PIECE.decode_bytes(ids) == b"the end"
    assert PIECE.decode_batch([ids, []]) == ["the end", ""]


@BOTH
@pytest.mark.parametrize("bad", [-1, 10**6, 2**31, -(2**40)])
def test_an_id_outside_the_vocabulary_is_named_with_its_place(tokenizer, bad):
    with pytest.raises(InvalidParams, match=rf"{bad}.*index 2"):
        tokenizer.decode([0, 1, bad])
    with pytest.raises(InvalidParams):
        tokenizer.id_to_token(bad)
    with pytest.raises((InvalidParams, TypeError)):
        tokenizer.id_to_bytes(bad)
    with pytest.raises(InvalidParams):
        tokenizer.decode([0.5])


@BOTH
def test_tokens_and_ids_are_each_others_inverse(tokenizer):
    for i in range(tokenizer.vocab_size):
        assert tokenizer.token_to_id(tokenizer.id_to_token(i)) == i
    assert tokenizer.token_to_id("no such token") is None
    assert len(tokenizer) == len(list(tokenizer)) == tokenizer.vocab_size


def test_bytes_that_are_not_utf8_have_defined_ids():
    assert BYTE.decode(BYTE.encode(b"a\xffb", add_special=False)) == "a\ufffdb"
    assert BYTE.encode(b"\xff\xc3\xe2\x82", add_special=False) == BYTE.encode("\ufffd" * 4, add_special=False)
    assert PIECE.decode_bytes(PIECE.encode(b"a\xff\xe2\x82b", add_special=False)) == b"a\xff\xe2\x82b"
    full = PIECE.encode_full(b"\xe4\xb8\x96\xff!", add_special=False)
    assert full.byte_spans[-1].tolist() == [4, 5] and full.char_spans[-1].tolist() == [2, 3]


@BOTH
def test_surrogates_join_in_pairs_and_are_replaced_alone(tokenizer):
    assert tokenizer.encode("x\ud83d\ude00") == tokenizer.encode("x😀")
    assert tokenizer.encode("x\ud83dy") == tokenizer.encode("x\ufffdy")
    assert tokenizer.encode_batch(["\udc00"])[0].tolist() == tokenizer.encode("\ufffd")


@BOTH
def test_equal_tokenizers_compare_hash_and_pickle(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy == tokenizer and hash(copy) == hash(tokenizer) and copy is not tokenizer
    assert copy.encode(TEXT) == tokenizer.encode(TEXT)
    other = Tokenizer(replace(tokenizer.spec, prefix=()))
    assert other != tokenizer and tokenizer != "x"
    assert len({tokenizer, copy, other}) == 2


def test_a_spec_that_contradicts_itself_is_refused():
    spec = byte_level()
    with pytest.raises(TokenizerFileError, match="bos_id"):
        replace(spec, bos_id=10**6)
    with pytest.raises(TokenizerFileError, match="token types"):
        replace(spec, roles=spec.roles[:-1])
    with pytest.raises(TokenizerFileError, match="merge 0"):
        Tokenizer(replace(spec, merges=type(spec.merges).of(["qqq zzz"]))).encode("x")
    with pytest.raises(TokenizerFileError, match="added token"):
        Tokenizer(replace(spec, added=(AddedToken("x", 10**6),))).encode("x")


def test_bad_arguments_are_typed_errors():
    with pytest.raises(InvalidParams):
        BYTE.encode_batch(["x"], threads=0)
    with pytest.raises(TypeError):
        BYTE.encode(7)
    assert BYTE.decode([]) == "" and BYTE.encode_array("").dtype == np.int32


def test_an_array_of_ids_has_no_python_object_per_token():
    """Ints of a list would take 36 bytes for each id."""
    data = memoryview(("the thing " * 20_000).encode())
    BYTE.encode_array(data)
    tracemalloc.start()
    ids = BYTE.encode_array(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ids) > 20_000
    assert peak < ids.nbytes + 10_000
