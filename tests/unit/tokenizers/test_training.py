"""Training: the vocabularies of tokenizers' trainers, and what makes them so."""

import json
import math
import os

import pytest

from command import tokamak
from reference_data import unpacked
from tokamak.errors import InvalidParams, UnsupportedError
from tokamak.tokenizers import Tokenizer
from tokamak.tokenizers.training import Recipe, train_files, train_texts
from tokamak.tokenizers.training.bpe import BpeOptions, train_bpe
from tokamak.tokenizers.training.recipe import PARTS, count_words
from tokamak.tokenizers.training.unigram import digamma
from vocabularies import TEXT

SLOW = os.environ.get("TOKAMAK_SLOW_TESTS") == "1"
LINES = [
    *TEXT.splitlines(keepends=True),
    "the theme of the thing thaws then; abcabc abc ab bc \u4f60\u597d\u4e16\u754c caf\u00e9s\n",
    "whether the weather be fine or whether the weather be not\n",
]


@pytest.fixture(scope="module")
def theirs():
    return pytest.importorskip("tokenizers")


def trained(module, kind, size, lines, **options):
    """The original's model, as data."""
    from tokenizers import models, normalizers, pre_tokenizers, trainers

    model = {
        "bpe": models.BPE(),
        "wordpiece": models.WordPiece(unk_token="[UNK]"),
        "unigram": models.Unigram(),
    }[kind]
    tokenizer = module.Tokenizer(model)
    if kind == "bpe":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        options.setdefault("initial_alphabet", pre_tokenizers.ByteLevel.alphabet())
    elif kind == "wordpiece":
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        options |= {"unk_token": "<unk>"}
    trainer = {
        "bpe": trainers.BpeTrainer,
        "wordpiece": trainers.WordPieceTrainer,
        "unigram": trainers.UnigramTrainer,
    }
    tokenizer.train_from_iterator(lines, trainer[kind](vocab_size=size, show_progress=False, **options))
    return tokenizer, json.loads(tokenizer.to_str())["model"]


def model_of(tokenizer, folder):
    tokenizer.save(folder / "tokenizer.json", form="tokenizer.json")
    return json.loads((folder / "tokenizer.json").read_text())["model"]


def pairs(model):
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]


@pytest.mark.parametrize("size", [260, 300, 500, 5000])
@pytest.mark.parametrize("options", [{}, {"min_frequency": 3}, {"max_token_length": 3}])
def test_bpe_has_the_vocabulary_and_merges_of_the_original(theirs, size, options, tmp_path):
    original, want = trained(theirs, "bpe", size, LINES, special_tokens=["<|endoftext|>"], **options)
    ours = train_texts(LINES, Recipe("bpe", size, **options))
    got = model_of(ours, tmp_path)
    assert got["vocab"] == want["vocab"]
    assert pairs(got) == pairs(want)
    again = theirs.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for line in [*LINES, "unseen \U0001f600 words"]:
        assert ours.encode(line, False) == original.encode(line).ids == again.encode(line).ids
        assert ours.decode(ours.encode(line)) == line


def test_a_merge_that_is_found_again_keeps_its_later_rank(theirs):
    """abc arises from ab+c and from a+bc."""
    words = ["abc", "xbc", "xbc", "ab", "ab", "abcabc", "aabcbc", "bcabcab"] * 3
    lines = [" ".join(words[i:]) for i in range(8)]
    original, want = trained(theirs, "bpe", 275, lines)
    got = train_bpe(
        count_words(lines, PARTS["bpe"]),
        BpeOptions(275, initial_alphabet=[c for c in want["vocab"] if len(c) == 1]),
    )
    assert got.ids == want["vocab"]
    assert [(got.tokens[a], got.tokens[b]) for a, b in got.merges] == pairs(want)
    assert original.get_vocab_size() == len(got.tokens)


def test_wordpiece_equals_the_original_where_that_is_one_result(theirs, tmp_path):
    """The original numbers ##x by a random order of words, and ties follow numbers: here they are given beforehand."""
    letters = sorted({c for line in LINES for c in line.lower()} - set(" \n"))
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"##{c}" for c in letters)]
    _, want = trained(theirs, "wordpiece", 250, LINES, special_tokens=specials)
    got = model_of(train_texts(LINES, Recipe("wordpiece", 250, specials)), tmp_path)
    assert got["vocab"] == want["vocab"]
    assert (got["unk_token"], got["continuing_subword_prefix"]) == ("[UNK]", "##")


def test_without_that_wordpiece_is_one_result_here(tmp_path):
    first, second = (train_texts(LINES, Recipe("wordpiece", 150)) for _ in range(2))
    assert first == second and first.vocab_size == 150
    assert first.decode(first.encode("the weather", False)) == "the weather"


@pytest.mark.parametrize("size", [90, 120, 400])
def test_unigram_has_the_pieces_and_scores_of_the_original(theirs, size, tmp_path):
    """Scores of characters that no cut needs are spread by 0.0001 in a random order there."""
    _, want = trained(theirs, "unigram", size, LINES, special_tokens=["<unk>", "<s>", "</s>"])
    ours = train_texts(LINES, Recipe("unigram", size))
    got = model_of(ours, tmp_path)
    scores, theirs_scores = dict(map(tuple, got["vocab"])), dict(map(tuple, want["vocab"]))
    assert set(scores) == set(theirs_scores) and got["unk_id"] == want["unk_id"]
    lowest = min(theirs_scores.values())
    for piece, score in theirs_scores.items():
        near = 1e-6 if score > lowest + 0.01 else 0.01
        assert scores[piece] == pytest.approx(score, abs=near), piece
    again = theirs.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for line in LINES:
        assert ours.encode(line, False) == again.encode(line).ids


@pytest.mark.skipif(unpacked() is None or not SLOW, reason="a megabyte of text")
def test_a_real_corpus_gives_the_original_s_merges(theirs, tmp_path):
    lines = (unpacked() / "tokenizers/corpora/tinyshakespeare.txt").read_text().splitlines(keepends=True)
    _, want = trained(theirs, "bpe", 4000, lines, special_tokens=["<|endoftext|>"])
    got = model_of(train_texts(lines, Recipe("bpe", 4000)), tmp_path)
    assert got["vocab"] == want["vocab"] and pairs(got) == pairs(want)


def test_words_are_counted_as_the_parts_cut_them():
    words = count_words(["The the\n", "the cat"], PARTS["bpe"])
    assert words == {"The": 1, "\u0120the": 1, "\u010a": 1, "the": 1, "\u0120cat": 1}
    assert count_words(["The the"], PARTS["wordpiece"]) == {"the": 2}
    assert count_words(["a b"], PARTS["unigram"]) == {"\u2581a": 1, "\u2581b": 1}


@pytest.mark.parametrize("x", [0.6, 1.0, 3.7, 50.0])
def test_digamma_is_the_slope_of_lgamma(x):
    slope = (math.lgamma(x + 1e-5) - math.lgamma(x - 1e-5)) / 2e-5
    assert digamma(x) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Recipe("lda"), InvalidParams, "kind"),
        (lambda: Recipe("bpe", 0), InvalidParams, "vocab_size"),
        (lambda: Recipe(parts={"model": {}}), InvalidParams, "model"),
        (lambda: train_texts(LINES, Recipe("bpe", 100)), InvalidParams, "characters are 257"),
        (lambda: train_texts(LINES, Recipe("unigram", 5)), InvalidParams, "characters"),
        (lambda: train_files(["/no/such/file"], Recipe()), InvalidParams, "no file"),
        (
            lambda: train_texts(LINES, Recipe(parts={"normalizer": {"type": "Nope"}})),
            UnsupportedError,
            "Nope",
        ),
    ],
)
def test_what_cannot_be_trained_is_said(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_the_command_writes_a_tokenizer_that_loads(tmp_path):
    (tmp_path / "text.txt").write_text("".join(LINES), encoding="utf-8")
    out = tmp_path / "tokenizer.json"
    done = tokamak(
        "train-tokenizer", tmp_path / "text.txt", "--kind", "bpe", "--vocab-size", 300, "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["vocab_size"] == 300
    assert Tokenizer.load(out) == train_files([tmp_path / "text.txt"], Recipe("bpe", 300))
    like = tokamak(
        "train-tokenizer",
        tmp_path / "text.txt",
        "--vocab-size",
        280,
        "--like",
        out,
        "--out",
        tmp_path / "b.json",
    )
    assert like.returncode == 0, like.stderr
    assert (
        tokamak(
            "train-tokenizer", tmp_path / "text.txt", "--vocab-size", 280, "--like", tmp_path / "x"
        ).returncode
        == 2
    )
