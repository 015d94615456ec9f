"""Pairs, truncation, padding, words and masks: what `tokenizers` gives for the same settings, and without it the laws."""

import json
import random
from itertools import pairwise, product

import numpy as np
import pytest

from tokamak.errors import InvalidParams
from tokamak.tokenizers import Padding, Tokenizer, Truncation
from tokamak.tokenizers.files.hf_json import spec_from_data
from vocabularies import TEXT, byte_level, sentencepiece
from wordpiece_files import TEMPLATE, VOCAB, tokenizer_json

BYTE = Tokenizer(byte_level(prefix=()))
SETTINGS = [
    Truncation(n, strategy, stride, direction)
    for n, strategy, stride, direction in product(
        (4, 5, 9), ("longest_first", "only_first", "only_second"), (0, 1), ("right", "left")
    )
]
PADDINGS = [None, Padding(None, None, "right", VOCAB["[PAD]"], 1), Padding(12, 8, "left", VOCAB["[PAD]"], 0)]
TEXTS = ["hello world.", "foobar a b naive.", "a", "", "hello hello foobar . . a xyz b [SEP] world"]


ENDS = {"sep": ["[SEP]", VOCAB["[SEP]"]], "cls": ["[CLS]", VOCAB["[CLS]"]]}
POSTS = {
    "template": TEMPLATE,
    "bert": {"type": "BertProcessing", **ENDS},
    "roberta": {"type": "RobertaProcessing", **ENDS, "trim_offsets": True, "add_prefix_space": True},
    "none": None,
}


def columns(encoding):
    return (
        *(encoding.ids.tolist(), encoding.pieces, [tuple(s) for s in encoding.char_spans.tolist()]),
        *(encoding.attention_mask.tolist(), encoding.type_ids.tolist(), encoding.special_mask.tolist()),
        [None if w < 0 else w for w in encoding.words.tolist()],
    )


def columns_there(e):
    return (e.ids, e.tokens, e.offsets, e.attention_mask, e.type_ids, e.special_tokens_mask, e.word_ids)


@pytest.mark.parametrize("name", POSTS)
def test_every_strategy_gives_what_tokenizers_gives(name):
    original = pytest.importorskip("tokenizers").Tokenizer.from_str(
        json.dumps(tokenizer_json(POSTS[name], decoder=None))
    )
    ours = Tokenizer(spec_from_data(tokenizer_json(POSTS[name], decoder=None)))
    rng = random.Random(3)
    for truncation, padding in product(SETTINGS, PADDINGS):
        text, pair = rng.choice(TEXTS), rng.choice([None, *TEXTS])
        original.no_padding()
        original.enable_truncation(
            truncation.max_length,
            stride=truncation.stride,
            strategy=truncation.strategy,
            direction=truncation.direction,
        )
        if padding is not None:
            original.enable_padding(
                direction=padding.direction,
                pad_id=padding.id,
                pad_type_id=padding.type_id,
                pad_token="[PAD]",
                length=padding.length,
                pad_to_multiple_of=padding.multiple_of,
            )
        for add_special in (True, False):
            try:
                want = original.encode(text, pair, add_special_tokens=add_special)
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                with pytest.raises(InvalidParams):
                    ours.encode_full(text, add_special, True, pair=pair, truncation=truncation)
                continue
            got = ours.encode_full(text, add_special, True, pair=pair, truncation=truncation, padding=padding)
            assert columns(got) == columns_there(want), (text, pair, truncation, padding)
            assert [columns(o) for o in got.overflowing] == [columns_there(o) for o in want.overflowing]


BERT = Tokenizer(spec_from_data(tokenizer_json(decoder=None)))


def test_a_pair_has_type_ids_and_the_same_ids_by_every_way():
    full = BERT.encode_full("hello world", pair="foobar.")
    assert full.pieces == ["[CLS]", "hello", "world", "[SEP]", "foo", "##bar", ".", "[SEP]"]
    assert full.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert full.texts.tolist() == [-1, 0, 0, -1, 1, 1, 1, -1]
    assert full.words.tolist() == [-1, 0, 1, -1, 0, 0, 1, -1]
    assert BERT.encode_pair("hello world", "foobar.") == full.ids.tolist()
    assert BERT.encode_padded([("hello world", "foobar.")]).ids.tolist() == [full.ids.tolist()]


def test_without_a_template_each_text_has_what_the_model_puts_around_it():
    tokenizer = Tokenizer(sentencepiece())
    bos = tokenizer.bos_id
    a, b = (tokenizer.encode(t, add_special=False) for t in ("the", "it"))
    assert tokenizer.encode_pair("the", "it") == [bos, *a, bos, *b]


@pytest.mark.parametrize(
    "padding", [Padding(), Padding(multiple_of=16, direction="left"), Padding(length=64)]
)
@pytest.mark.parametrize("truncation", [None, Truncation(7), Truncation(6, direction="left")])
@pytest.mark.parametrize("paired", [False, True])
def test_a_rectangle_has_the_rows_of_single_calls(padding, truncation, paired):
    rows = [t for t in TEXTS if t] + [TEXT[:40]]
    rows = [(t, rows[0]) for t in rows] if paired else rows
    batch = BERT.encode_padded(rows, padding, truncation)
    for row, text in enumerate(rows):
        first, second = text if paired else (text, None)
        one = BERT.encode_full(first, pair=second, truncation=truncation)
        one = BERT.pad([one], Padding(batch.ids.shape[1], None, padding.direction, padding.id))[0]
        assert batch.ids[row].tolist() == one.ids.tolist()
        assert batch.attention_mask[row].tolist() == one.attention_mask.tolist()
        assert batch.type_ids[row].tolist() == one.type_ids.tolist()
    assert batch.waste == pytest.approx(1 - batch.attention_mask.sum() / batch.attention_mask.size)


def test_no_texts_make_an_empty_rectangle():
    assert BERT.encode_padded([]).ids.shape == (0, 0)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Truncation(3, "shortest"), "strategy"),
        (lambda: Truncation(3, direction="up"), "direction"),
        (lambda: Truncation(-1), "max_length"),
        (lambda: Padding(direction="up"), "direction"),
        (lambda: BERT.encode_full("a", truncation=Truncation(1)), "less than the 2 tokens around"),
        (lambda: BERT.encode_full("a a a a", truncation=Truncation(4, stride=2)), "stride"),
        (lambda: BERT.encode_full("a a a a", truncation=Truncation(4, "only_second")), "second text"),
        (lambda: BERT.encode_full("a", pair="b b b b", truncation=Truncation(5, "only_first")), "only_first"),
        (lambda: BERT.encode_padded(["a a a a"], Padding(3)), "more than the 3"),
        (lambda: BERT.encode_padded(["a", ("a", "b")]), "pairs"),
    ],
)
def test_what_cannot_be_done_is_said(call, says):
    with pytest.raises(InvalidParams, match=says):
        call()


def test_words_number_the_pieces_of_pre_tokenizing():
    full = BYTE.encode_full("don't  stop", add_special=False)
    words = full.words.tolist()
    assert words == sorted(words) and words[0] == 0
    starts = [full.byte_spans[words.index(w)][0] for w in sorted(set(words))]
    assert ["don't  stop"[a:b] for a, b in zip(starts, [*starts[1:], 11], strict=True)] == [
        "don",
        "'t",
        " ",
        " stop",
    ]


def test_parts_that_overflow_cover_the_text_with_a_stride():
    full = BYTE.encode_full(TEXT, truncation=Truncation(50, stride=10))
    parts = [full, *full.overflowing]
    ids = [i for n, p in enumerate(parts) for i in p.ids[10 if n else 0 :].tolist()]
    assert ids == BYTE.encode(TEXT)
    assert all(np.array_equal(a.ids[-10:], b.ids[:10]) for a, b in pairwise(parts))
