"""The network that trains and the file that ships are the same function."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytest.importorskip("tokenizers", reason="training needs the extra 'train'")

from story_export import export  # noqa: E402  imports torch
from story_model import Shape, StoryModel, orthogonal, ternary  # noqa: E402
from train_default_model import Document, Rows, make_corpus, train_tokenizer  # noqa: E402

import tokamak  # noqa: E402
from tokamak.quant import FORMATS  # noqa: E402

TEXTS = ["Once upon a time there was a cat. The cat sat.", "A dog ran to the cat. Once more."] * 20


def test_ternary_weights_survive_tq2_0_exactly():
    weight = ternary(torch.randn(6, 512, generator=torch.Generator().manual_seed(0))).numpy()
    form = FORMATS["tq2_0"]
    assert np.array_equal(form.decode(form.encode(weight)), weight)


def test_an_orthogonal_step_has_singular_values_near_one():
    matrix = torch.randn(48, 128, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3  # the quintic oscillates within 0.7 to 1.2, less where five steps are few


def test_rows_start_with_a_document_and_hold_length_plus_one_tokens():
    row = Rows([Document([5, 6, 7], 3)], seed=0).row(9)
    assert row == [0, 5, 6, 7, 0, 5, 6, 7, 0, 5]


def test_held_out_stories_are_not_trained_on():
    tokenizer = train_tokenizer(TEXTS, 300)
    stories = [f"Once {n} cats sat." for n in range(100)]
    corpus = make_corpus(stories, [], [], 0.0, tokenizer)
    learnt = {tuple(d.ids) for d in corpus.train}
    assert len(corpus.stories) == 3
    assert not learnt & {tuple(d.ids) for d in corpus.stories}


def test_any_utf8_text_can_be_written():
    tokenizer = train_tokenizer(TEXTS, 300)
    text = "naïve 日本 🙂\n\t"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_exported_file_has_the_logits_of_the_network(tmp_path):
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, 288)
    model = StoryModel(Shape(vocab_size=288, num_hidden_layers=2, intermediate_size=256))
    export(model, tokenizer, tmp_path / "model.gguf")
    ids = [0, 40, 41, 260, 261, 262, 9]
    with torch.no_grad():
        expected = model.logits(model(torch.tensor([ids])))[0].numpy()
    with tokamak.load(tmp_path / "model.gguf", executor="reference", context=64, kv_dtype="f32") as llm:
        logits = llm.logits(ids)
    # q8_0 rounds the tied embedding to 1/254 of the largest of 32: an error of about 0.4 % of its size, in and out
    assert np.abs(logits - expected).max() < 0.05 * expected.std()
