"""Cuts by chance: the usual one at the ends of the scale, the originals' frequencies between them."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from reference_data import unpacked
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.files.hf_json import spec_from_data
from tokamak.tokenizers.files.saving import written
from tokamak.tokenizers.training import Recipe, train_texts
from vocabularies import TEXT, byte_level, sentencepiece

BYTE = Tokenizer(byte_level())
PIECE = Tokenizer(sentencepiece())
UNIGRAM = train_texts(TEXT.splitlines(), Recipe("unigram", 120))
TEXTS = [TEXT, "the thing", "", "\u4f60\u597d <tool> \U0001f600 zz"]


@pytest.mark.parametrize("tokenizer", [BYTE, PIECE], ids=["bpe", "spm"])
def test_without_dropout_the_cut_is_the_usual_one(tokenizer):
    for text in TEXTS:
        assert tokenizer.encode_sampled(text, seed=1, dropout=0) == tokenizer.encode(text)


def test_with_full_dropout_nothing_is_merged():
    ids = BYTE.encode_sampled("the thing", seed=1, dropout=1, add_special=False)
    assert [BYTE.id_to_bytes(i) for i in ids] == [c.encode() for c in "the thing"]


@pytest.mark.parametrize("tokenizer", [BYTE, UNIGRAM], ids=["bpe", "unigram"])
def test_a_seed_gives_one_cut_and_seeds_give_many_that_decode_alike(tokenizer):
    text = "it was the age of wisdom"
    draws = [tokenizer.encode_sampled(text, seed=s, dropout=0.3, alpha=0.3) for s in range(30)]
    assert draws == [tokenizer.encode_sampled(text, seed=s, dropout=0.3, alpha=0.3) for s in range(30)]
    assert len({tuple(d) for d in draws}) > 10
    assert {tokenizer.decode(d, skip_special=True) for d in draws} == {text}


def test_a_file_that_asks_for_dropout_is_encoded_without_and_sampled_with_it():
    vocab = {c: i for i, c in enumerate(["t", "h", "e", "th", "the", "ab", "a", "b"])}
    merges = [["t", "h"], ["th", "e"], ["a", "b"]]
    model = {"type": "BPE", "vocab": vocab, "merges": merges, "dropout": 1.0}
    tok = Tokenizer(spec_from_data({"version": "1.0", "model": model}))
    assert tok.encode("theab") == [4, 5]
    assert "dropout 1.0" in tok.spec.notes[0]
    want = pytest.importorskip("tokenizers").Tokenizer.from_str(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    )
    assert tok.encode_sampled("theab", seed=0) == want.encode("theab").ids == [0, 1, 2, 6, 7]
    assert tok.encode_sampled("theab", seed=0, dropout=0) == [4, 5]
    assert json.loads(written(tok.spec, "tokenizer.json"))["model"]["dropout"] == 1.0


def frequencies(draw, n):
    counts = Counter(draw(i) for i in range(n))
    return {k: v / n for k, v in counts.items()}


def distance(a, b):
    return sum(abs(a.get(k, 0) - b.get(k, 0)) for k in a | b) / 2


def test_dropout_draws_as_often_as_the_original():
    """Total variation of two samples of 4000 over the cuts of one word: below 0.06 by chance, 0.3 for dropout 0.2."""
    module = pytest.importorskip("tokenizers")
    ranks = [m.decode().split(" ") for m in BYTE.spec.merges]
    vocab = {t.decode(): i for i, t in enumerate(BYTE.spec.tokens)}
    model = module.models.BPE(vocab, [tuple(m) for m in ranks], dropout=0.4)
    want = frequencies(lambda _: tuple(t.id for t in model.tokenize("\u0120thought")), 4000)
    got = frequencies(
        lambda i: tuple(BYTE.encode_sampled(" thought", seed=i, dropout=0.4, add_special=False)), 4000
    )
    other = frequencies(
        lambda i: tuple(BYTE.encode_sampled(" thought", seed=i, dropout=0.1, add_special=False)), 4000
    )
    assert distance(got, want) < 0.06 < distance(other, want)


def test_unigram_draws_follow_the_scores():
    """Frequencies against the probabilities of all cuts, written out."""
    import math

    scores = {t.decode(): s for t, s in zip(UNIGRAM.spec.tokens, UNIGRAM.spec.scores, strict=True)}
    word, alpha = "\u2581the", 0.5

    def cuts(rest):
        if not rest:
            yield ()
        for n in range(1, len(rest) + 1):
            if rest[:n] in scores:
                yield from ((rest[:n], *more) for more in cuts(rest[n:]))

    weights = {c: math.exp(alpha * sum(scores[p] for p in c)) for c in cuts(word)}
    want = {c: w / sum(weights.values()) for c, w in weights.items()}

    def draw(i, **options):
        ids = UNIGRAM.encode_sampled("the", seed=i, alpha=alpha, add_special=False, **options)
        return tuple(UNIGRAM.id_to_token(t) for t in ids)

    assert distance(frequencies(draw, 3000), want) < 0.06
    two = sorted(weights, key=weights.get)[-2:]
    assert set(frequencies(lambda i: draw(i, nbest=2), 200)) == set(two)
    assert draw(0, nbest=1) == tuple(UNIGRAM.id_to_token(t) for t in UNIGRAM.encode("the", False))


@pytest.mark.skipif(unpacked() is None, reason="no reference data beside the repository")
def test_unigram_draws_as_often_as_sentencepiece():
    module = pytest.importorskip("sentencepiece")
    path = unpacked() / "tokenizers/sentencepiece/test_model.model"
    ours, theirs = Tokenizer.load(path), module.SentencePieceProcessor(model_file=str(path))
    rng = random.Random(1)
    module.set_random_generator_seed(rng.randrange(1000))
    text = "hello world"
    want = frequencies(lambda _: tuple(theirs.sample_encode_as_ids(text, -1, 0.3)), 4000)
    got = frequencies(lambda i: tuple(ours.encode_sampled(text, seed=i, alpha=0.3, add_special=False)), 4000)
    top = sorted(want, key=want.get)[-8:]
    assert all(abs(got.get(k, 0) - want[k]) < 0.03 for k in top)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: BYTE.encode_sampled("a", seed=1, dropout=1.5), InvalidParams),
        (lambda: UNIGRAM.encode_sampled("a", seed=1, nbest=0), InvalidParams),
        (lambda: UNIGRAM.encode_sampled("a", seed=1, alpha=float("nan")), InvalidParams),
        (
            lambda: Tokenizer(replace(byte_level(), kind="wordpiece", unk_id=0)).encode_sampled("a", seed=1),
            UnsupportedError,
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(call, error):
    with pytest.raises(error):
        call()
