"""`tokamak.hf.PreTrainedTokenizerFast` against transformers': the same calls on both, on the same directory."""

import json
import os
from itertools import product

import numpy as np
import pytest

from tokamak.errors import InvalidParams, UnavailableError, UnsupportedError
from tokamak.hf import AutoTokenizer, PreTrainedTokenizerFast, Tokenizer
from wordpiece_files import tokenizer_json

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }} [SEP]{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 12,
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "chat_template": CHAT_TEMPLATE,
}
CHAT = [{"role": "user", "content": "hello a"}, {"role": "assistant", "content": "foobar ."}]
TEXTS = ["hello world.", "foobar a b naive", "a"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    (path / "tokenizer.json").write_text(json.dumps(tokenizer_json()))
    (path / "tokenizer_config.json").write_text(json.dumps(CONFIG))
    return path


@pytest.fixture(scope="module")
def theirs(folder):
    pytest.importorskip("transformers")
    import warnings

    with warnings.catch_warnings():  # what it imports warns of its own affairs
        warnings.simplefilter("ignore")
        from transformers import PreTrainedTokenizerFast as Original

        return Original.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def ours(folder):
    return PreTrainedTokenizerFast.from_pretrained(folder)


def plain(batch):
    return {k: v.tolist() if hasattr(v, "tolist") else v for k, v in dict(batch).items()}


CALLS = [
    (TEXTS[0], None, {}),
    (TEXTS, None, {"padding": True, "return_tensors": "np"}),
    (TEXTS, TEXTS[::-1], {"padding": "max_length", "truncation": True}),
    (TEXTS[1], TEXTS[0], {"truncation": "only_first", "max_length": 8, "return_tensors": "np"}),
    (TEXTS[1], TEXTS[0], {"truncation": "longest_first", "max_length": 7, "return_offsets_mapping": True}),
    (TEXTS, None, {"truncation": True, "max_length": 4, "stride": 1, "return_overflowing_tokens": True}),
    (TEXTS, None, {"padding": True, "padding_side": "left", "pad_to_multiple_of": 4}),
    (
        TEXTS,
        None,
        {"return_special_tokens_mask": True, "return_length": True, "return_attention_mask": False},
    ),
    (["foobar", "a"], None, {"is_split_into_words": True}),
    ([["foobar", "a"], ["b"]], None, {"is_split_into_words": True, "padding": True, "return_tensors": "np"}),
    (TEXTS, None, {"add_special_tokens": False, "return_token_type_ids": True}),
    (TEXTS[1], None, {"truncation": True, "max_length": 4, "stride": 1, "return_overflowing_tokens": True}),
]


@pytest.mark.parametrize("call", range(len(CALLS)))
def test_a_call_gives_the_same_columns(ours, theirs, call):
    text, pair, options = CALLS[call]
    got, want = ours(text, pair, **options), theirs(text, pair, **options)
    assert plain(got) == plain(want)
    assert got.input_ids is got["input_ids"]


@pytest.mark.skipif(os.environ.get("TOKAMAK_SLOW_TESTS") != "1", reason="importing torch takes seconds")
def test_tensors_of_torch(ours, theirs):
    torch = pytest.importorskip("torch")
    got, want = (t(TEXTS, padding=True, return_tensors="pt") for t in (ours, theirs))
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert got.to("cpu")["input_ids"].dtype == torch.int64


def test_the_ways_of_a_batch_are_those_of_its_encodings(ours, theirs):
    got, want = (t(TEXTS, padding=True) for t in (ours, theirs))
    assert got.tokens(1) == want.tokens(1)
    assert got.word_ids(1) == want.word_ids(1)
    for row, place in product(range(3), range(8)):
        assert got.char_to_token(row, place) == want.char_to_token(row, place)
    assert got.token_to_chars(1) == tuple(want.token_to_chars(1))
    assert got.word_to_tokens(1, 0) == tuple(want.word_to_tokens(1, 0))
    assert got[1].ids == want[1].ids


def test_special_tokens_and_the_vocabulary(ours, theirs):
    for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token", "bos_token"):
        assert getattr(ours, name) == getattr(theirs, name)
        assert getattr(ours, f"{name}_id") == getattr(theirs, f"{name}_id")
    for name in ("vocab_size", "model_max_length", "padding_side", "truncation_side", "special_tokens_map"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert sorted(ours.all_special_tokens) == sorted(theirs.all_special_tokens)
    assert sorted(ours.all_special_ids) == sorted(theirs.all_special_ids)
    assert len(ours) == len(theirs) and ours.get_vocab() == theirs.get_vocab() == ours.vocab
    assert ours.convert_tokens_to_ids(["hello", "zzz"]) == theirs.convert_tokens_to_ids(["hello", "zzz"])
    assert ours.convert_ids_to_tokens([0, 10], skip_special_tokens=True) == ["hello"]
    assert ours.convert_tokens_to_string(["foo", "##bar"]) == theirs.convert_tokens_to_string(
        ["foo", "##bar"]
    )
    assert ours.tokenize("foobar.") == theirs.tokenize("foobar.")
    assert [ours.num_special_tokens_to_add(p) for p in (False, True)] == [2, 3]


def test_decoding(ours, theirs):
    ids = ours(TEXTS[1])["input_ids"]
    for skip in (False, True):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
        assert ours.batch_decode([ids, ids[:2]], skip) == theirs.batch_decode([ids, ids[:2]], skip)
    assert ours.decode(np.array(ids)) == theirs.decode(np.array(ids))
    assert ours.decode(4) == theirs.decode(4)


def test_padding_of_rows_that_are_encoded_already(ours, theirs):
    rows = [{"input_ids": [1, 2, 3]}, {"input_ids": [4]}]
    for options in ({}, {"padding": "max_length", "max_length": 6}, {"pad_to_multiple_of": 8}):
        assert plain(ours.pad([dict(r) for r in rows], **options)) == plain(
            theirs.pad([dict(r) for r in rows], **options)
        )


def test_chat_templates(ours, theirs):
    for options in (
        {"tokenize": False},
        {
            "tokenize": False,
            "add_generation_prompt": True,
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        {"tokenize": False, "continue_final_message": True},
        {"return_dict": False},
        {"add_generation_prompt": True, "return_tensors": "np"},
    ):
        got, want = (t.apply_chat_template(CHAT, **options) for t in (ours, theirs))
        assert (plain(got) if hasattr(want, "items") else got) == (
            plain(want) if hasattr(want, "items") else want
        )
    assert ours.apply_chat_template([CHAT, CHAT[:1]], tokenize=False) == theirs.apply_chat_template(
        [CHAT, CHAT[:1]], tokenize=False
    )


def test_what_is_saved_is_read_by_both(folder, theirs, tmp_path):
    ours = PreTrainedTokenizerFast.from_pretrained(folder)
    assert ours.add_special_tokens({"bos_token": "<s>", "additional_special_tokens": ["<x>"]}) == 2
    assert ours.add_tokens(["<t>"]) == 1 and ours.add_tokens("hello") == 1
    ours.eos_token = "<e>"
    ours.save_pretrained(tmp_path)
    again, original = AutoTokenizer.from_pretrained(tmp_path), type(theirs).from_pretrained(str(tmp_path))
    for each in (again, original):
        assert each("hello<t><x> a<e>")["input_ids"] == ours("hello<t><x> a<e>")["input_ids"]
        assert (each.bos_token, each.eos_token_id) == ("<s>", ours.eos_token_id)


def test_what_cannot_be_is_said(ours, folder):
    with pytest.raises(ValueError, match="different lengths"):
        ours(TEXTS, return_tensors="np")
    with pytest.raises(ValueError, match="return_tensors"):
        ours(TEXTS, padding=True, return_tensors="tf")
    with pytest.raises(InvalidParams, match="padding"):
        ours(TEXTS, padding="widest")
    with pytest.raises(InvalidParams, match="truncation"):
        ours(TEXTS, truncation="shortest")
    with pytest.raises(InvalidParams, match="padding token"):
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_file(folder))(TEXTS, padding=True)
    with pytest.raises(UnavailableError):
        PreTrainedTokenizerFast.from_pretrained("someone/model")
    with pytest.raises(UnsupportedError, match="push_to_hub"):
        ours.push_to_hub("x")
    with pytest.raises(AttributeError):
        getattr(ours, "nothing_like_this")  # noqa: B009
