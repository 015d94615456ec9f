"""Encoders against transformers' recorded states, vectors and scores; the same bits whatever shares the step.

Error is max|difference| / std(recorded states). Recorded states are of float32 arithmetic: 1e-4 in any executor with an f32 cache,
which encoders always have.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import tokamak
from reference_data import golden, unpacked
from tokamak.errors import ContextOverflow, InvalidParams, UnsupportedError

ROOT = golden()
EMBEDDERS = ("bert", "nomic-bert", "modernbert", "xlm-roberta", "gemma-embedding")
LIMIT = 1e-4

pytestmark = pytest.mark.skipif(ROOT is None, reason="golden data is not beside the project")


def opened(name, **options):
    files = sorted((ROOT / "arch" / name).glob("model-f*.gguf"))
    return tokamak.load(files[-1], **options), np.load(ROOT / "arch" / name / "golden.npz")


@pytest.mark.parametrize("executor", ["reference", "cpu"])
@pytest.mark.parametrize("name", EMBEDDERS)
def test_states_and_vectors_are_those_of_transformers(name, executor):
    llm, recorded = opened(name, executor=executor, threads=2)
    with llm:
        for i in (0, 1):
            ids, states = recorded[f"ids_{i}"].tolist(), recorded[f"tok_{i}_hf"]
            assert np.abs(llm.token_states(ids) - states).max() < LIMIT * states.std()
            for pooling in ("mean", "cls"):
                if f"{pooling}_{i}_hf" not in recorded:
                    continue
                want = recorded[f"{pooling}_{i}_hf"]
                (got,) = llm.embed(ids, pooling=pooling, normalize=False)
                assert np.abs(got - want).max() < LIMIT * want.std()
                (unit,) = llm.embed(ids, pooling=pooling)
                assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
                assert unit @ want / np.linalg.norm(want) > 0.999999


@pytest.mark.parametrize("name", EMBEDDERS)
def test_a_text_has_the_same_bits_alone_and_in_any_company(name):
    rng = np.random.default_rng(5)
    texts = [rng.integers(5, 300, n).tolist() for n in (1, 7, 31, 32, 33, 64, 90, 120)]
    with opened(name, threads=1)[0] as llm:
        alone = [llm.embed(ids)[0] for ids in texts]
        assert np.array_equal(llm.embed(texts), alone)
        assert np.array_equal(llm.embed(texts[::-1]), alone[::-1])
    with opened(name, threads=2, max_sequences=2, max_batch_rows=100)[0] as llm:
        assert np.array_equal(llm.embed(texts), alone)


def test_scores_of_pairs_are_those_of_transformers():
    llm, recorded = opened("xlm-roberta-rerank", threads=1)
    with llm:
        assert llm.pooling == "rank"
        for i in (0, 1):
            ((_, states),) = llm._states([recorded[f"ids_{i}"].tolist()])
            assert states[0, 0] == pytest.approx(recorded[f"rank_{i}_hf"][0], abs=1e-5)
        with pytest.raises(UnsupportedError, match="ranks pairs"):
            llm.embed([[1, 2]])


def test_what_an_encoder_cannot_do_is_refused():
    with opened("bert", threads=1)[0] as llm:
        with pytest.raises(UnsupportedError, match="bert is an encoder"):
            llm.generate("Hello")
        with pytest.raises(UnsupportedError, match="encoder"):
            llm.logits([1, 2])
        with pytest.raises(ContextOverflow, match="257 tokens"):
            llm.embed([[5] * 257])
        with pytest.raises(InvalidParams, match="320"):
            llm.embed([[320]])
        with pytest.raises(InvalidParams, match="no token"):
            llm.embed([[]])
        with pytest.raises(UnsupportedError, match="no ranking head"):
            llm.rerank("a", ["b"])
    with pytest.raises(tokamak.Cancelled):
        llm.embed([[5]])


def test_a_directory_of_safetensors_is_the_same_model():
    with (
        opened("bert", threads=1)[0] as written,
        tokamak.load(ROOT / "arch" / "bert" / "hf", threads=1) as directory,
    ):
        ids = np.load(ROOT / "arch" / "bert" / "golden.npz")["ids_1"].tolist()
        assert np.array_equal(directory.token_states(ids), written.token_states(ids))


def test_minilm_embeds_as_its_reference():
    models, data = os.environ.get("TOKAMAK_TEST_MODELS"), unpacked()
    folder = Path(models or "") / "all-MiniLM-L6-v2"
    if not (models and folder.is_dir() and data):
        pytest.skip("TOKAMAK_TEST_MODELS has no all-MiniLM-L6-v2, or its expected vectors are not there")
    expected = data / "models" / "all-MiniLM-L6-v2"
    cases = json.loads((expected / "expected.json").read_text())["computed_here_numpy_f32"]
    want = np.load(expected / "expected_embeddings.npy")
    with tokamak.load(folder) as llm:
        assert [llm.tokenizer.encode(case["text"]) for case in cases] == [case["token_ids"] for case in cases]
        got = llm.embed([case["text"] for case in cases])
    assert ((got * want).sum(axis=1) / np.linalg.norm(want, axis=1)).min() > 0.9999
