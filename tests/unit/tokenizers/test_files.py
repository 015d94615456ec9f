"""Tokenizer files of every kind, made small: what is read, what is refused."""

import base64
import contextlib
import json
import random
import struct

import pytest

from tokamak.errors import InvalidParams, TokenizerFileError, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.bpe import CHAR_TO_BYTE
from tokamak.tokenizers.files.hf_json import rust_float, spec_from_data
from tokamak.tokenizers.patterns import GPT2
from vocabularies import TEXT, byte_level, sentencepiece

BYTE = byte_level()
PIECE = sentencepiece()


def tokens_of(spec):
    return [t.decode() for t in spec.tokens]


def gpt2_json(**changes):
    tokens = tokens_of(BYTE)
    base = len(tokens) - 3
    data = {
        "model": {
            "type": "BPE",
            "vocab": {t: i for i, t in enumerate(tokens[:base])},
            "merges": [m.decode() for m in BYTE.merges],
        },
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
        "decoder": {"type": "ByteLevel"},
        "added_tokens": [
            {"id": base + i, "content": t, "special": i < 2} for i, t in enumerate(tokens[base:])
        ],
    }
    return data | changes


def load(tmp_path, data, name="tokenizer.json"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return Tokenizer.load(path)


def message(*fields):
    """A protocol buffer: (number, bytes | int | float) each."""
    out = b""
    for number, value in fields:
        if isinstance(value, float):
            out += varint(number << 3 | 5) + struct.pack("<f", value)
        elif isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def model_file(spec, kind, **normalizer):
    pieces = [
        (1, message((1, t), (2, float(s)), (3, int(r))))
        for t, s, r in zip(spec.tokens, spec.scores, spec.roles, strict=True)
    ]
    trainer = message((3, kind), (35, 1), (41, 1), (42, 2))
    return message(*pieces, (2, trainer), (3, message(*((int(k[1:]), v) for k, v in normalizer.items()))))


def test_a_tokenizer_json_gives_the_ids_of_its_vocabulary(tmp_path):
    ours = load(tmp_path, gpt2_json())
    assert ours.encode(TEXT) == Tokenizer(BYTE).encode(TEXT, add_special=False)
    pairs = gpt2_json()
    pairs["model"]["merges"] = [m.split(" ") for m in pairs["model"]["merges"]]
    assert load(tmp_path, pairs).encode(TEXT) == ours.encode(TEXT)


def test_vocab_json_and_merges_are_read_together(tmp_path):
    tokens = tokens_of(BYTE)[:-3]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    with pytest.raises(TokenizerFileError, match=r"merges\.txt"):
        Tokenizer.load(tmp_path / "vocab.json")
    merges = "#version: 0.2\n" + "\n".join(m.decode() for m in BYTE.merges)
    (tmp_path / "merges.txt").write_text(merges)
    want = Tokenizer(BYTE).encode(TEXT, add_special=False)
    assert Tokenizer.load(tmp_path / "vocab.json").encode(TEXT) == want
    assert Tokenizer.load(tmp_path).encode(TEXT) == want  # a directory is searched


def test_a_model_file_gives_the_ids_of_its_pieces(tmp_path):
    ours = load(tmp_path, model_file(PIECE, 2, f4=0), "tokenizer.model")
    assert ours.spec.kind == "spm" and ours.bos_id == 1 and ours.eog_ids == {2}
    assert ours.encode(TEXT) == Tokenizer(PIECE).encode(TEXT)
    assert ours.decode(ours.encode(TEXT), skip_special=True) == TEXT


@pytest.mark.parametrize(("kind", "name"), [(1, "unigram"), (3, "words"), (4, "characters")])
def test_other_kinds_of_model_files_round_trip(tmp_path, kind, name):
    ours = load(tmp_path, model_file(PIECE, kind, f4=0), "m.model")
    assert ours.spec.kind == name
    if kind != 3:
        assert ours.decode(ours.encode("the end of the thing")) == "the end of the thing"


def test_spaces_are_collapsed_where_the_model_says_so(tmp_path):
    ours = load(tmp_path, model_file(PIECE, 2), "m.model")
    assert ours.encode("  the   end ") == ours.encode("the end")


def test_a_tiktoken_file_needs_pattern_and_special_tokens(tmp_path):
    ranked = [bytes(CHAR_TO_BYTE[c] for c in t) for t in tokens_of(BYTE)[:-3]]
    lines = b"\n".join(base64.b64encode(t) + b" " + str(i).encode() for i, t in enumerate(ranked))
    path = tmp_path / "x.tiktoken"
    path.write_bytes(lines)
    with pytest.raises(TokenizerFileError, match="pattern="):
        Tokenizer.load(path)
    ours = Tokenizer.load(path, pattern=GPT2, special_tokens={"<|end|>": len(ranked)})
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert len(ranked) in ours.encode("a<|end|>", parse_special=True)
    dropping = Tokenizer.load(path, pattern=r"\p{L}+")
    assert dropping.decode(dropping.encode("ab 12 cd")) == "abcd"  # tiktoken drops what does not match


def test_a_bert_vocabulary_lowercases_as_its_words_do(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "end", "##s", "##ing", "!"]
    ours = load(tmp_path, "\n".join(words).encode() + b"\n", "vocab.txt")
    assert ours.encode("The Énds!") == [2, 5, 6, 7, 9, 3]
    assert ours.encode("end" * 40, add_special=False) == [1]  # more than 100 characters
    cased = load(tmp_path, "\n".join([*words, "The"]).encode(), "vocab.txt")
    assert cased.encode("The the", add_special=False) == [10, 5]


def test_a_list_of_literals_is_matched_longest_first(tmp_path):
    lines = [f"{i + 1} {bytes([i])!r} 1" for i in range(256)] + ["257 'the' 3", "258 'them' 4", "259 '你' 3"]
    ours = load(tmp_path, "\n".join(lines).encode(), "rwkv_vocab.txt")
    assert ours.encode("the them你") == [257, 33, 258, 259]
    assert ours.decode_bytes([257, 0xFF + 1]) == b"the\xff"


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"model": {"type": "Magic", "vocab": {}}}, UnsupportedError, "Magic"),
        ({"normalizer": {"type": "Rot13"}}, UnsupportedError, "Rot13"),
        ({"normalizer": {"type": "NFC", "extra": 1}}, UnsupportedError, "extra"),
        ({"pre_tokenizer": {"type": "Psychic"}}, UnsupportedError, "Psychic"),
        ({"decoder": {"type": "Psychic"}}, UnsupportedError, "Psychic"),
        ({"post_processor": {"type": "Psychic"}}, UnsupportedError, "Psychic"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 2}},
            TokenizerFileError,
            "drop",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}, TokenizerFileError, "merge 0"),
        ({"model": {"type": "BPE", "vocab": {"a": 10**9}, "merges": []}}, TokenizerFileError, "id"),
        ({"model": {"type": "BPE", "vocab": {"a": -5}, "merges": []}}, TokenizerFileError, "."),
        ({"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": []}}, TokenizerFileError, "."),
        ({"model": {"type": "BPE", "vocab": {"a": 0}}}, TokenizerFileError, "."),
        ({"model": {"type": "Unigram", "vocab": [["a"]], "unk_id": 0}}, TokenizerFileError, "."),
        ({"added_tokens": [{"id": 1}]}, TokenizerFileError, "."),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}},
            UnsupportedError,
            ".",
        ),
        (
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Odd"}},
            UnsupportedError,
            "Odd",
        ),
        (
            {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
            TokenizerFileError,
            "charsmap",
        ),
    ],
)
def test_what_is_broken_or_unknown_is_refused_by_name(tmp_path, change, error, match):
    with pytest.raises(error, match=match):
        load(tmp_path, gpt2_json(**change)).encode("x")


def test_garbage_is_refused(tmp_path):
    for content in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x00" * 64,
        b'{"model": 3}',
        b"hello\n",
    ):
        with pytest.raises((TokenizerFileError, UnsupportedError)):
            load(tmp_path, content, "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidParams, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path / "empty")


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_a_model_file_cut_anywhere_is_refused_or_read(tmp_path, cut):
    whole = model_file(PIECE, 2)
    with contextlib.suppress(TokenizerFileError, UnsupportedError):
        load(tmp_path, whole[: len(whole) * cut // 400], "m.model").encode("the end")


def test_scores_are_read_as_the_original_reads_them():
    """serde_json's numbers are up to a unit in the last place off, which decides between equal cuts: 'theccccccc' in XLNet."""
    tokenizers = pytest.importorskip("tokenizers")
    rng = random.Random(1)
    texts = [repr(rng.uniform(-20, 0)) for _ in range(800)]
    texts += [f"{rng.uniform(-1, 1) * 10 ** rng.randint(-30, 20)!r}" for _ in range(400)]
    texts += [
        "-" + "".join(rng.choices("123456789", k=30)) + ".5e-20",
        "0.0",
        "-0.25",
        "1e5",
        "12345678901234567890123.5",
    ]
    vocab = ",".join(f'["t{i}",{text}]' for i, text in enumerate(texts))
    parts = '"version":"1.0","added_tokens":[],"pre_tokenizer":null'
    written = f'{{{parts},"model":{{"type":"Unigram","unk_id":0,"vocab":[{vocab}]}}}}'
    back = json.loads(tokenizers.Tokenizer.from_str(written).to_str())["model"]["vocab"]
    assert [rust_float(t) for t in texts] == [score for _, score in back]
    assert sum(float(t) != rust_float(t) for t in texts) > 100


def test_a_space_by_its_byte_decodes_at_the_start_too():
    vocab = {t: i for i, t in enumerate(["a", *(f"<0x{b:02X}>" for b in range(256))])}
    llama = [{"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}]
    llama += [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    data = {"decoder": {"type": "Sequence", "decoders": llama}}
    tokenizer = Tokenizer(spec_from_data(data | {"model": {"type": "BPE", "vocab": vocab, "merges": []}}))
    space = vocab["<0x20>"]
    assert [tokenizer.decode(ids) for ids in ([space], [space, space, 0], [0, space])] == ["", " a", "a "]
