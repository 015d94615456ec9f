"""`tokamak.tiktoken` against tiktoken: the same calls, the same answers, the same errors."""

import hashlib
import importlib.util
import os
import pickle
import random

import numpy as np
import pytest

import tokamak.tiktoken as ours
from reference_data import unpacked
from tokamak.compat import encodings
from tokamak.compat.encodings import MODEL_STARTS, MODELS, NAMES, SOURCE, file_of
from tokamak.errors import InvalidParams, TokenizerFileError, UnavailableError, UnsupportedError
from tokamak.settings import Settings
from tokamak.tokenizers.files.tiktoken import PUBLISHED, ranks_of

PAT = r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
RANKS = {bytes([b]): b for b in range(256)} | {
    p: 256 + i
    for i, p in enumerate(
        [b"he", b"ll", b"hell", b"hello", b" w", b" wo", b"\xe4\xbd", b"\xe4\xbd\xa0", b"  "]
    )
}
SPECIAL = {"<|endoftext|>": 270, "<|end|>": 271, "<|x|>": 272}
SLOW = os.environ.get("TOKAMAK_SLOW_TESTS") == "1"
TEXTS = [
    "hello world", "", "<|endoftext|>hello<|x|><|end|> hello", "你好 hell <|end", "a\ud83d\ude00b \ud800 c", "   x\n\n",
    "<|end<|endoftext|>",
]  # fmt: skip


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("tiktoken")


def made(module):
    return module.Encoding("small", pat_str=PAT, mergeable_ranks=RANKS, special_tokens=SPECIAL)


SMALL = made(ours)


def answer(call):
    try:
        return call()
    except (ValueError, KeyError) as e:
        return ValueError if isinstance(e, ValueError) else KeyError


@pytest.mark.parametrize("text", TEXTS)
def test_every_way_to_encode_answers_as_tiktoken(theirs, text):
    their = made(theirs)
    sets = [frozenset(), {"<|end|>"}, {"<|endoftext|>", "<|x|>"}, set(SPECIAL), "all"]
    for allowed in sets:
        for disallowed in ["all", (), {"<|end|>"}]:
            args = {"allowed_special": allowed, "disallowed_special": disallowed}
            want = answer(lambda args=args: their.encode(text, **args))
            assert answer(lambda args=args: SMALL.encode(text, **args)) == want, args
            if isinstance(want, list):
                assert SMALL.encode_to_numpy(text, **args).tolist() == want
                assert SMALL.encode_batch([text, ""], **args) == [want, []]
    assert SMALL.encode_ordinary(text) == their.encode_ordinary(text)
    assert SMALL.encode_ordinary_batch([text, "hello"], num_threads=2) == their.encode_ordinary_batch(
        [text, "hello"]
    )


def test_the_message_names_the_token_as_tiktokens_does(theirs):
    with pytest.raises(ValueError) as want:
        made(theirs).encode("<|endoftext|>")
    with pytest.raises(ValueError) as got:
        SMALL.encode("<|endoftext|>")
    assert str(got.value) == str(want.value)


def test_decoding_answers_as_tiktoken(theirs):
    their = made(theirs)
    rng = random.Random(2)
    for _ in range(200):
        ids = [rng.choice([*range(265), 270, 271, 272]) for _ in range(rng.randrange(8))]
        assert SMALL.decode(ids) == their.decode(ids)
        assert SMALL.decode_bytes(ids) == their.decode_bytes(ids)
        assert SMALL.decode_tokens_bytes(ids) == their.decode_tokens_bytes(ids)
        assert answer(lambda ids=ids: SMALL.decode(ids, "strict")) == answer(
            lambda ids=ids: their.decode(ids, "strict")
        )
        assert answer(lambda ids=ids: SMALL.decode_with_offsets(ids)) == answer(
            lambda ids=ids: their.decode_with_offsets(ids)
        )
    batch = [[104, 101], [259, 270]]
    assert SMALL.decode_batch(batch) == their.decode_batch(batch)
    assert SMALL.decode_bytes_batch(batch) == their.decode_bytes_batch(batch)
    for bad in (267, 273, 10**6):
        assert answer(lambda bad=bad: SMALL.decode_single_token_bytes(bad)) is KeyError
        assert answer(lambda bad=bad: SMALL.decode([104, bad])) is KeyError


def test_the_vocabulary_answers_as_tiktoken(theirs):
    their = made(theirs)
    for token in ["hello", b"hello", "<|end|>", b"\xe4\xbd", "hellox", b"", " w"]:
        assert answer(lambda token=token: SMALL.encode_single_token(token)) == answer(
            lambda token=token: their.encode_single_token(token)
        )
    for name in ("n_vocab", "max_token_value", "eot_token", "special_tokens_set", "name"):
        assert getattr(SMALL, name) == getattr(their, name)
    assert SMALL.token_byte_values() == their.token_byte_values()
    assert [SMALL.is_special_token(i) for i in (1, 270)] == [their.is_special_token(i) for i in (1, 270)]
    assert repr(SMALL) == repr(their)


def test_every_public_name_of_tiktokens_encoding_is_there(theirs):
    there = {n for n in dir(theirs.Encoding) if not n.startswith("_")}
    assert there <= set(dir(ours.Encoding))


def test_an_encoding_pickles_compares_and_hashes():
    again = pickle.loads(pickle.dumps(SMALL))
    assert again == SMALL and hash(again) == hash(SMALL)
    assert again.encode("hello") == SMALL.encode("hello")


def test_what_is_not_there_is_refused_by_name():
    with pytest.raises(UnsupportedError, match="encode_with_unstable"):
        SMALL.encode_with_unstable("a")
    with pytest.raises(ValueError, match="explicit_n_vocab"):
        ours.Encoding("x", pat_str=PAT, mergeable_ranks=RANKS, special_tokens={}, explicit_n_vocab=3)
    with pytest.raises(ValueError, match="known: gpt2"):
        ours.get_encoding("cl200k")
    with pytest.raises(KeyError, match="map nothing-1"):
        ours.encoding_for_model("nothing-1")


def test_models_and_encodings_are_those_of_tiktoken(theirs):
    from tiktoken import model

    assert MODELS == model.MODEL_TO_ENCODING
    assert MODEL_STARTS == model.MODEL_PREFIX_TO_ENCODING
    assert set(ours.list_encoding_names()) == set(theirs.list_encoding_names())
    for name in [*MODELS, *(start + "x" for start in MODEL_STARTS)]:
        assert ours.encoding_name_for_model(name) == model.encoding_name_for_model(name)


def test_a_file_comes_from_a_cache_or_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setattr(encodings.tempfile, "gettempdir", lambda: str(tmp_path / "temp"))
    settings = Settings.load(cache_dir=tmp_path, offline=True)
    with pytest.raises(UnavailableError, match="is not cached"):
        file_of("cl100k_base", settings)
    content = b"IQ== 0\n"
    monkeypatch.setitem(
        PUBLISHED, hashlib.sha256(content).hexdigest(), encodings.PUBLISHED[next(iter(PUBLISHED))]
    )
    name = PUBLISHED[hashlib.sha256(content).hexdigest()].name
    monkeypatch.delitem(PUBLISHED, next(d for d, p in PUBLISHED.items() if p.name == name))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / hashlib.sha1(f"{SOURCE}{name}.tiktoken".encode()).hexdigest()).write_bytes(content)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(theirs))
    assert file_of(name, settings) == content
    (tmp_path / "tiktoken").mkdir()
    (tmp_path / "tiktoken" / f"{name}.tiktoken").write_bytes(b"other")
    with pytest.raises(TokenizerFileError, match="sha256"):
        file_of(name, settings)


@pytest.mark.skipif(unpacked() is None, reason="no reference data beside the repository")
@pytest.mark.parametrize("name", ["p50k_edit", *(("cl100k_base", "o200k_harmony") if SLOW else ())])
def test_published_encodings_equal_tiktokens(name, tmp_path, monkeypatch):
    if importlib.util.find_spec("tiktoken") is None:
        pytest.skip("tiktoken is not installed")
    import tiktoken
    import tiktoken_ext.openai_public as public

    folder = unpacked() / "tokenizers/kitoken/models/tiktoken"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))
    data = (folder / f"{NAMES[name].file}.tiktoken").read_bytes()
    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda *_, **__: ranks_of(data))
    their = tiktoken.Encoding(**public.ENCODING_CONSTRUCTORS[name]())
    our = ours.get_encoding.__wrapped__(name)
    assert our.special_tokens_set == their.special_tokens_set
    assert our.n_vocab == their.n_vocab
    text = "Hello <|endoftext|> world's 12345 你好 'S <|end|>\n\n  x <|reserved_200018|><|fim_middle|>"
    assert our.encode(text, allowed_special="all") == their.encode(text, allowed_special="all")
    assert our.encode(text, disallowed_special=()) == their.encode(text, disallowed_special=())
    ids = np.random.default_rng(1).integers(0, 50000, 300).tolist()
    assert our.decode(ids) == their.decode(ids)


def test_a_bad_name_is_also_one_of_our_errors():
    with pytest.raises(InvalidParams):
        SMALL.encode("<|end|>")
