"""Tiny random encoders and rankers saved by transformers: their directories give the same states and scores."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

import http_client
import tokamak
from tokamak import models
from tokamak.cli.main import main
from tokamak.errors import UnsupportedError
from tokamak.loaders.names.hf import HF_FAMILIES
from tokamak.server.app import create_app

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

LIMIT = 1e-4  # float32 against float32 arithmetic
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 97,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
CASES = {
    "bert": {"position_embedding_type": "absolute"},
    "roberta": {},
    "camembert": {},
    "xlm-roberta": {"type_vocab_size": 1},
    "nomic_bert": {},
    "modernbert": {"num_hidden_layers": 5, "local_attention": 16},
}
RANKERS = ("bert", "roberta", "xlm-roberta", "modernbert")
IDS = np.random.default_rng(0).integers(3, 97, 40).tolist()

pytestmark = pytest.mark.filterwarnings("ignore")


def saved(kind, folder, auto="AutoModel", **extra):
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | CASES[kind] | extra)
    model = getattr(transformers, auto).from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.mul_(4)
    model.save_pretrained(folder, max_shard_size="24KB")
    return model


def words(folder):
    """A tokenizer, so that the converted file has one."""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    vocabulary = {name: i for i, name in enumerate(("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"))}
    vocabulary |= {f"w{i}": i for i in range(len(vocabulary), SIZES["vocab_size"])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.BertProcessing(("[SEP]", 2), ("[CLS]", 0))
    made.decoder = tokenizers.decoders.WordPiece()
    made.save(str(folder / "tokenizer.json"))


def states_of(model):
    with torch.no_grad():
        return model(torch.tensor(IDS)[None]).last_hidden_state[0].numpy()


@pytest.mark.parametrize("kind", CASES)
def test_states_are_equal(kind, tmp_path):
    expected = states_of(saved(kind, tmp_path / "model"))
    words(tmp_path / "model")
    tokamak.quantize(tmp_path / "model", tmp_path / "model.gguf", None, threads=1)
    for path in ("model", "model.gguf"):
        for executor in ("reference", "cpu"):
            with tokamak.load(tmp_path / path, executor=executor, threads=1) as llm:
                assert np.abs(llm.token_states(IDS) - expected).max() <= LIMIT * expected.std()


def test_nomic_bert_is_read_by_its_first_names_too(tmp_path):
    model = saved("nomic_bert", tmp_path)
    new = dict(model.state_dict())
    renamed = {
        "embeddings.LayerNorm": "emb_ln",
        "layers.": "encoder.layers.",
        "self_attn.o_proj": "attn.out_proj",
    }
    renamed |= {"post_attention_layernorm": "norm1", "post_mlp_layernorm": "norm2"}
    renamed |= {"mlp.gate_proj": "mlp.fc12", "mlp.up_proj": "mlp.fc11", "mlp.down_proj": "mlp.fc2"}
    for i in range(2):
        parts = [new.pop(f"layers.{i}.self_attn.{p}_proj.weight") for p in "qkv"]
        new[f"layers.{i}.attn.Wqkv.weight"] = torch.cat(parts)
    for theirs, old in renamed.items():
        new = {k.replace(theirs, old): v.clone() for k, v in new.items()}
    for path in tmp_path.glob("*"):
        path.unlink()
    safetensors.save_file(new, str(tmp_path / "model.safetensors"))
    config = {
        "model_type": "nomic_bert",
        "n_embd": 32,
        "n_inner": 48,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 97,
    }
    config |= {
        "n_positions": 64,
        "layer_norm_epsilon": 1e-12,
        "activation_function": "swiglu",
        "prenorm": False,
    }
    config |= {
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "type_vocab_size": 2,
        "scale_attn_weights": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    expected = states_of(model)
    with tokamak.load(tmp_path, threads=1) as llm:
        assert np.abs(llm.token_states(IDS) - expected).max() <= LIMIT * expected.std()


@pytest.mark.parametrize("kind", RANKERS)
def test_scores_are_equal(kind, tmp_path):
    model = saved(kind, tmp_path, "AutoModelForSequenceClassification", num_labels=1)
    with torch.no_grad():
        expected = model(torch.tensor(IDS)[None]).logits[0, 0].item()
    with tokamak.load(tmp_path, threads=1) as llm:
        assert llm.pooling == "rank"
        assert llm.token_states(IDS)[0, 0] == pytest.approx(expected, abs=LIMIT)
    words(tmp_path)
    tokamak.quantize(tmp_path, tmp_path / "model.gguf", None, threads=1)
    with tokamak.load(tmp_path / "model.gguf", threads=1) as llm:
        assert llm.pooling == "rank"
        assert llm.token_states(IDS)[0, 0] == pytest.approx(expected, abs=LIMIT)


@pytest.mark.parametrize(("last", "fine"), [("Normalize", True), ("Dense", False)])
def test_what_sentence_transformers_puts_behind_pooling_is_done_or_refused(last, fine, tmp_path):
    saved("bert", tmp_path)
    names = ("Transformer", "Pooling", last)
    modules = [{"idx": i, "type": f"sentence_transformers.models.{name}"} for i, name in enumerate(names)]
    (tmp_path / "modules.json").write_text(json.dumps(modules, indent=2))
    if fine:
        tokamak.load(tmp_path, threads=1).close()
    else:
        with pytest.raises(UnsupportedError, match=r"modules.json: Dense behind the model"):
            tokamak.load(tmp_path, threads=1)


def test_a_head_that_is_fed_the_mean_is_refused(tmp_path):
    saved(
        "modernbert", tmp_path, "AutoModelForSequenceClassification", num_labels=1, classifier_pooling="mean"
    )
    with pytest.raises(UnsupportedError, match="classifier_pooling is 'mean'"):
        tokamak.load(tmp_path)


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_pooling_is_that_of_sentence_transformers(said, pooling, tmp_path):
    expected = states_of(saved("bert", tmp_path))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32} | said))
    with tokamak.load(tmp_path, threads=1) as llm:
        assert llm.pooling == pooling
        want = expected[0] if pooling == "cls" else expected.mean(axis=0)
        assert np.abs(llm.embed(IDS, normalize=False)[0] - want).max() <= LIMIT * expected.std()


def test_pooling_that_is_not_implemented_is_refused(tmp_path):
    saved("bert", tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(UnsupportedError, match="pooling_mode_max_tokens"):
        tokamak.load(tmp_path)


def test_every_encoder_has_a_case():
    assert set(CASES) == {kind for kind, f in HF_FAMILIES.items() if models.is_encoder(f.architecture)}


class Piped(io.StringIO):
    """Standard input that is no terminal."""

    buffer = property(lambda self: io.BytesIO(self.getvalue().encode()))


def test_documents_are_ranked_as_by_transformers_in_python_on_the_command_line_and_over_http(
    tmp_path, capsys, monkeypatch
):
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "where",
        "do",
        "pandas",
        "live",
        "in",
        "china",
        "on",
        "mars",
        "they",
        "eat",
        "the",
        "bamboo",
        "of",
        "a",
        "hill",
    ]
    sizes = {"vocab_size": len(words), "type_vocab_size": 1, "pad_token_id": 0, "num_labels": 1}
    model = saved("bert", tmp_path, "AutoModelForSequenceClassification", **sizes)
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    theirs = transformers.BertTokenizerFast({word: i for i, word in enumerate(words)})
    query, documents = (
        "where do pandas live",
        ["they live in china", "on mars", "pandas eat the bamboo of china"],
    )
    with torch.no_grad():
        ids = [theirs(query, document, return_tensors="pt")["input_ids"] for document in documents]
        expected = np.array([model(one).logits[0, 0].item() for one in ids])
    best = np.argsort(-expected).tolist()
    with tokamak.load(tmp_path, threads=1) as llm:
        assert np.abs(llm.rerank(query, documents) - expected).max() <= LIMIT
        body = {"query": query, "documents": documents}
        got = http_client.request(create_app(llm), "/v1/rerank", body).json()["results"]
    assert [one["index"] for one in got] == best
    assert [one["relevance_score"] for one in got] == pytest.approx(expected[best].tolist(), abs=LIMIT)
    monkeypatch.setattr("sys.stdin", Piped("\n".join(documents)))
    assert main(["rerank", str(tmp_path), "-q", query, "--top", "2", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)["results"]
    assert [one["index"] for one in found] == best[:2]
    assert main(["rerank", str(tmp_path), "-q", query, "-d", "a hill"]) == 0
    assert "a hill" in capsys.readouterr().out


def test_embed_prints_vectors(tmp_path, capsys):
    saved("bert", tmp_path, vocab_size=8)
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nthe\nhill")
    assert main(["embed", str(tmp_path), "-p", "the hill", "-p", "a", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["dimensions"] == 32
    assert np.linalg.norm(got["embeddings"], axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_several_classes_do_not_rank(tmp_path):
    saved("bert", tmp_path, "AutoModelForSequenceClassification", num_labels=3)
    with tokamak.load(tmp_path) as llm, pytest.raises(UnsupportedError, match="3 classes"):
        llm.rerank("a", ["b"])
