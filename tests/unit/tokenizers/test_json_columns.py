"""The native scanner of tokenizer.json: what it takes reads as the whole file does, what it leaves is left whole."""

from __future__ import annotations

import json
import random

import pytest

from tokamak import Tokenizer, _native
from tokamak.errors import TokamakError
from tokamak.tokenizers.files.hf_json import rust_float, spec_from_data
from tokamak.tokenizers.files.opening import read_json

VOCAB = {"a": 0, "b": 1, "ab": 2, "\u0120": 3, '"\\/\n\t\x7f': 4, "\U0001f600": 5, "\u2581\u00e9": 6, "": 7}
BPE = {"type": "BPE", "vocab": VOCAB, "merges": ["a b"], "unk_token": "a", "byte_fallback": False}
PIECES = [["<unk>", 0.0], ["a", -1.5], ["<0x41>", -2], ["b", -10.123456789012345], ["\u00e9", -0.0]]
ADDED = [{"content": "<s>", "special": True}, {"content": "a"}, {"content": "<x>"}]


def whole(data: bytes):
    try:
        return spec_from_data(read_json(data, rust_float)).digest()
    except TokamakError as e:
        return type(e).__name__


def scanned(data: bytes):
    """The digest through columns, or None where the file is left to the reader of whole files."""
    columns = _native.scan_tokenizer_json(data)
    if columns is None:
        return None
    try:
        return spec_from_data(read_json(columns.rest, rust_float), None, columns).digest()
    except TokamakError as e:
        return type(e).__name__


def files():
    yield {"model": BPE, "added_tokens": ADDED}
    yield {"model": {**BPE, "merges": [["a", "b"]]}}
    yield {"model": {**BPE, "merges": ["#version: 0.2", "a b"]}, "decoder": {"type": "ByteLevel"}}
    yield {"model": {**BPE, "vocab": {"ab": 12, "b": 3, "a": 0}}, "added_tokens": ADDED}
    yield {"added_tokens": ADDED, "model": {"type": "Unigram", "unk_id": 0, "vocab": PIECES}}
    yield {"model": {"type": "WordPiece", "vocab": VOCAB, "unk_token": "a"}}
    yield {"model": {"type": "WordLevel", "vocab": {}, "unk_token": "a"}, "added_tokens": ADDED}


def forms(data):
    for ascii_only in (True, False):
        for layout in ({"indent": 2}, {"indent": 1}, {"separators": (",", ":")}, {}):
            yield json.dumps(data, ensure_ascii=ascii_only, **layout).encode()


@pytest.mark.parametrize("data", list(files()), ids=range(7))
def test_columns_say_what_the_whole_file_says(data):
    for form in forms(data):
        assert scanned(form) == whole(form)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"b": 1', '"b": 1, "a": 1'),  # a token twice
        ('"b": 1', '"b": 0'),  # an id twice
        ('"b": 1', '"b": 1.0'),
        ('"b": 1', '"b": -1'),
        ('"b": 1', '"b": 01'),
        ('"b": 1', '"b": 1,'),
        ('"b": 1', '"b": 99999999999'),
        ('"b": 1', '"\\ud800": 1'),
        ('"b": 1', '"\\udc00": 1'),
        ('"b": 1', '"\\ud800\\u0041": 1'),
        ('"b": 1', '"\\x41": 1'),
        ('"b": 1', '"\n": 1'),
        ('"vocab"', '"voc\\u0061b"'),
        ('"merges"', '"vocab": {}, "merges"'),
        ('["a b"]', "{}"),
        ('["a b"]', '["a b", 5]'),
        ('["a b"]', '[["a", "b", "c"]]'),
    ],
)
def test_what_is_out_of_the_ordinary_is_read_as_a_whole(old, new):
    text = json.dumps({"model": BPE})
    assert old in text
    assert scanned(text.replace(old, new).encode()) is None


def test_text_that_is_not_utf8_is_left_to_the_whole_reader():
    good = json.dumps({"model": BPE}, ensure_ascii=False).encode()
    for bad in (b"\x80", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"):
        assert scanned(good.replace(b'"b"', b'"' + bad + b'"')) is None
        assert scanned(good.replace(b'"a b"', b'"a b", "' + bad + b'"')) is None


def test_damage_is_read_as_the_whole_reader_reads_it():
    draw = random.Random(5)
    for data in files():
        for form in forms(data):
            for _ in range(60):
                at = draw.randrange(len(form))
                damaged = (
                    form[:at]
                    + draw.choice([b"", b'"', b"\\", b"{", b"]", b",", b"0", b" ", b"\xc4"])
                    + form[at + draw.randrange(3) :]
                )
                found = scanned(damaged)
                assert found is None or found == whole(damaged), damaged


def test_long_strings_and_numbers_keep_their_value(tmp_path):
    vocab = {"x" * 100_000: 0, "\u00e9" * 50_001: 1, "ab" * 7: 2}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "?"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), "utf-8")
    read = Tokenizer.load(tmp_path, cache=False)
    assert [read.token_to_id(t) for t in vocab] == [0, 1, 2]
    for number in (
        "-13.7654321098765",
        "0.1",
        "7",
        "-12345678901234.5678",
        "1234567890123456789",
        "-0.30000000000000004",
    ):
        form = (
            b'{"model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", %s]]}, "version": "1.0"}'
            % number.encode()
        )
        assert scanned(form) == whole(form) is not None
