"""`tokamak.hf.Tokenizer` against tokenizers: the same calls on both."""

import asyncio
import json
import os
import pickle
import random

import pytest

from reference_data import unpacked
from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.hf import AddedToken, Encoding, Tokenizer
from tokamak.tokenizers import Tokenizer as Native
from vocabularies import byte_level
from wordpiece_files import tokenizer_json

SLOW = os.environ.get("TOKAMAK_SLOW_TESTS") == "1"
LIST = ("ids", "tokens", "offsets", "attention_mask", "type_ids", "special_tokens_mask", "word_ids")


DATA = tokenizer_json(
    truncation={"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0},
    padding={"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 11}
    | {"pad_type_id": 0, "pad_token": "[PAD]"},
)
JSON = json.dumps(DATA)
TEXTS = [
    "hello world.",
    "foobar a, b naive [SEP] x",
    "",
    "hello hello foobar . . a xyz b world",
    "<new> hello<new>",
]


@pytest.fixture
def theirs():
    return pytest.importorskip("tokenizers").Tokenizer.from_str(JSON)


@pytest.fixture
def ours():
    return Tokenizer.from_str(JSON)


def same(got, want, inner=False):
    for name in LIST:
        assert getattr(got, name) == getattr(want, name), name
    if inner:
        return  # parts of parts are not kept here
    assert len(got.overflowing) == len(want.overflowing)
    for a, b in zip(got.overflowing, want.overflowing, strict=True):
        same(a, b, inner=True)


def test_truncation_and_padding_of_the_file_are_applied(ours, theirs):
    assert (ours.truncation, ours.padding) == (theirs.truncation, theirs.padding)
    for got, want in zip(ours.encode_batch(TEXTS), theirs.encode_batch(TEXTS), strict=True):
        same(got, want)
    pairs = list(zip(TEXTS, TEXTS[::-1], strict=True))
    for got, want in zip(ours.encode_batch(pairs), theirs.encode_batch(pairs), strict=True):
        same(got, want)


def test_settings_are_set_and_shown_alike(ours, theirs):
    for each in (ours, theirs):
        each.enable_truncation(6, stride=1, strategy="only_first", direction="left")
        each.enable_padding(length=8, direction="left", pad_id=11, pad_to_multiple_of=4)
    assert (ours.truncation, ours.padding) == (theirs.truncation, theirs.padding)
    same(ours.encode(TEXTS[3]), theirs.encode(TEXTS[3]))
    for each in (ours, theirs):
        each.no_truncation()
        each.no_padding()
    assert ours.truncation is None and ours.padding is None
    same(
        ours.encode(TEXTS[3], TEXTS[0], add_special_tokens=False),
        theirs.encode(TEXTS[3], TEXTS[0], add_special_tokens=False),
    )
    for each in (ours, theirs):
        with pytest.raises(ValueError, match="stride"):
            each.enable_truncation(4, stride=3)


def test_words_given_apart_are_numbered_as_given(ours, theirs):
    words = ["hello", "foobar.", "", "naive"]
    same(ours.encode(words, is_pretokenized=True), theirs.encode(words, is_pretokenized=True))
    batch = [words, (words, ["a", "b"])]
    for got, want in zip(
        ours.encode_batch(batch, is_pretokenized=True),
        theirs.encode_batch(batch, is_pretokenized=True),
        strict=True,
    ):
        same(got, want)


def test_added_tokens_get_the_same_ids_and_are_found_alike(ours, theirs):
    import tokenizers

    for module, each in ((None, ours), (tokenizers, theirs)):
        kind = AddedToken if module is None else module.AddedToken
        assert each.add_tokens(["<new>", "hello", "<new>", ""]) == 2
        assert each.add_tokens([kind("zz", single_word=True, lstrip=True)]) == 1
        assert each.add_special_tokens(["<s>", kind("<t>", rstrip=True)]) == 2
        each.no_truncation()
        each.no_padding()
    for text in [*TEXTS, "hello zz <s> a<t>  b azz zz"]:
        same(ours.encode(text), theirs.encode(text))
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.get_vocab(with_added_tokens=False) == theirs.get_vocab(with_added_tokens=False)
    assert ours.get_vocab_size() == theirs.get_vocab_size()
    decoders = [
        {
            i: (t.content, t.single_word, t.lstrip, t.rstrip, t.normalized, t.special)
            for i, t in each.get_added_tokens_decoder().items()
        }
        for each in (ours, theirs)
    ]
    assert decoders[0] == decoders[1]
    for each in (ours, theirs):
        each.encode_special_tokens = True
    same(ours.encode("a <s> b"), theirs.encode("a <s> b"))
    ids = ours.encode("hello <s> a zz").ids
    assert ours.decode(ids) == theirs.decode(ids)
    assert ours.decode_batch([ids, []], False) == theirs.decode_batch([ids, []], False)
    assert [ours.token_to_id(t) for t in ("<s>", "hello", "no")] == [
        theirs.token_to_id(t) for t in ("<s>", "hello", "no")
    ]
    assert [ours.id_to_token(i) for i in (0, 14, 99)] == [theirs.id_to_token(i) for i in (0, 14, 99)]
    again = Tokenizer.from_str(ours.to_str())
    original = type(theirs).from_str(ours.to_str())
    assert again.encode("hello <s> a zz").ids == original.encode("hello <s> a zz").ids


def test_what_is_written_is_read_by_the_original(ours, theirs, tmp_path):
    ours.enable_truncation(5)
    ours.save(tmp_path / "tokenizer.json")
    again = type(theirs).from_file(str(tmp_path / "tokenizer.json"))
    assert again.truncation == ours.truncation and again.padding == ours.padding
    for text in TEXTS:
        same(ours.encode(text), again.encode(text))
    assert Tokenizer.from_pretrained(str(tmp_path)).encode(TEXTS[0]) == ours.encode(TEXTS[0])


def test_ways_between_characters_words_and_tokens_agree(ours, theirs):
    text, pair = "foobar a naive", "hello . xyz"
    got, want = ours.encode(text, pair), theirs.encode(text, pair)
    for sequence in (0, 1):
        for i in range(16):
            for name in ("char_to_token", "char_to_word", "word_to_tokens", "word_to_chars"):
                assert getattr(got, name)(i, sequence) == getattr(want, name)(i, sequence), (
                    name,
                    i,
                    sequence,
                )
    for i in range(12):
        for name in ("token_to_chars", "token_to_word", "token_to_sequence"):
            assert getattr(got, name)(i) == getattr(want, name)(i), (name, i)
    assert got.n_sequences == want.n_sequences == 2


def test_encodings_are_cut_filled_and_merged_alike(ours, theirs):
    import tokenizers

    made = []
    for each, kind in ((ours, Encoding), (theirs, tokenizers.Encoding)):
        each.no_truncation()
        each.no_padding()
        one, two = (each.encode(t, add_special_tokens=False) for t in ("foobar a naive", "hello ."))
        one.truncate(3, stride=1, direction="left")
        two.pad(6, direction="left", pad_id=11, pad_type_id=2)
        made.append((one, two, kind.merge([one, two], growing_offsets=False)))
    for got, want in zip(*made, strict=True):
        same(got, want)
    assert ours.num_special_tokens_to_add(False) == theirs.num_special_tokens_to_add(False)
    assert ours.num_special_tokens_to_add(True) == theirs.num_special_tokens_to_add(True)
    same(
        ours.post_process(ours.encode("a", add_special_tokens=False)),
        theirs.post_process(theirs.encode("a", add_special_tokens=False)),
    )


def test_every_public_name_of_the_original_is_there_or_is_refused_by_name():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = Tokenizer.from_str(JSON)
    refused = {"train", "train_from_iterator"}
    for name in (n for n in dir(tokenizers.Tokenizer) if not n.startswith("_")):
        if name in refused:
            with pytest.raises(UnsupportedError, match=name):
                getattr(tokenizer, name)
        else:
            getattr(tokenizer, name)
    encoding = tokenizer.encode("a")
    assert all(hasattr(encoding, n) for n in dir(tokenizers.Encoding) if not n.startswith("_"))


def test_async_calls_give_the_same():
    tokenizer = Tokenizer.from_str(JSON)

    async def both():
        return await tokenizer.async_encode("hello a"), await tokenizer.async_encode_batch(["hello a"])

    one, many = asyncio.run(both())
    assert one == tokenizer.encode("hello a") and many == tokenizer.encode_batch(["hello a"])


def test_any_tokenizer_can_be_worn_and_pickled():
    worn = Tokenizer(Native(byte_level()))
    worn.enable_truncation(7)
    again = pickle.loads(pickle.dumps(worn))
    assert again == worn and again.truncation == worn.truncation
    assert (
        again.encode("the thing").ids
        == worn.encode("the thing").ids
        == worn.tokenizer.encode("the thing")[:7]
    )


def test_what_cannot_be_is_said():
    tokenizer = Tokenizer.from_str(JSON)
    with pytest.raises(UnavailableError, match="no directory here"):
        Tokenizer.from_pretrained("someone/some-model")
    with pytest.raises(UnsupportedError, match="not from parts"):
        Tokenizer({"type": "BPE"})
    with pytest.raises(TypeError, match="must be str"):
        tokenizer.encode(3)
    with pytest.raises(TypeError):
        tokenizer.encode("word", is_pretokenized=True)
    with pytest.raises(InvalidParams):
        tokenizer.enable_padding(direction="up")


@pytest.mark.skipif(unpacked() is None, reason="no reference data beside the repository")
@pytest.mark.parametrize(
    "name", ["bert_base_cased", "xlnet_base_cased", *(("llama2", "gpt_neox") if SLOW else ())]
)
def test_real_files_encode_alike(name):
    module = pytest.importorskip("tokenizers")
    path = unpacked() / f"tokenizers/kitoken/models/tokenizers/{name}.json"
    ours, theirs = Tokenizer.from_file(path), module.Tokenizer.from_file(str(path))
    rng = random.Random(4)
    words = [
        "Hello",
        " world",
        "'s",
        " 12345",
        "\u4f60\u597d",
        "\n",
        " \U0001f600",
        "na\u00efve ",
        "[SEP]",
        "<s>",
    ]
    for _ in range(40):
        text, pair = ("".join(rng.choices(words, k=rng.randrange(9))) for _ in range(2))
        for each in (ours, theirs):
            each.enable_truncation(12)
        same(ours.encode(text, pair), theirs.encode(text, pair))
