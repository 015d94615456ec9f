"""LoRA and control vectors against weights merged by hand, transformers' names, and llama.cpp."""

from __future__ import annotations

import ctypes
import json

import numpy as np
import pytest

import tokamak
from tokamak import Adapter
from tokamak.loaders import TensorSource, open_checkpoint, write_gguf
from tokamak.loaders.adapters import open_adapter
from tokamak.loaders.gguf import open_gguf
from tokamak.quant import FORMATS

IDS = np.random.default_rng(3).integers(0, 380, 40).tolist()
RANK, ALPHA = 4, 6.0
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "output")
TABLE = "token_embd.weight"


def source(name, array):
    """A float32 tensor to be written."""
    return TensorSource(name, "f32", array.shape, lambda: np.ascontiguousarray(array).view(np.uint8))


def values(info):
    return FORMATS[info.format].decode(info.data().reshape(info.shape[0], -1)).reshape(info.shape)


def pairs(model, seed):
    """{tensor: (A, B)} of every matrix of the layers, large enough to change the logits."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, info in model.tensors.items():
        if name.split(".")[-2] in MATRICES:
            n, k = info.shape
            found[name] = (
                rng.normal(0, 1 / np.sqrt(k), (RANK, k)).astype(np.float32),
                rng.normal(0, 0.5, (n, RANK)).astype(np.float32),
            )
    n, k = model.tensors[TABLE].shape
    a, b = rng.normal(0, 0.5, (n, RANK)), rng.normal(0, 0.5, (k, RANK))
    found[TABLE] = (a.astype(np.float32), b.astype(np.float32))  # A is a table too
    return found


def lora_file(path, found, arch="llama"):
    metadata = {"general.type": "adapter", "general.architecture": arch, "adapter.type": "lora"}
    metadata |= {"adapter.lora.alpha": ALPHA}
    tensors = []
    for name, (a, b) in found.items():
        tensors.append(source(f"{name}.lora_a", a))
        tensors.append(source(f"{name}.lora_b", b))
    write_gguf(path, metadata, tensors)
    return path


def merged_file(path, model, *several):
    """The model with scale * alpha / rank * B A added to its matrices; several: (pairs, scale)."""
    tensors = []
    for name, info in model.tensors.items():
        w = values(info).astype(np.float64)
        for found, scale in several:
            if name in found:
                a, b = found[name]
                product = a.astype(np.float64) @ b.T if name == TABLE else b.astype(np.float64) @ a
                w = w + scale * ALPHA / RANK * product
        tensors.append(source(name, w.astype(np.float32)))
    write_gguf(path, dict(model.metadata), tensors)
    return path


def logits_of(llm, adapters):
    """Log-probabilities of every prompt token, at the request's own adapters."""
    out = llm.generate(IDS, max_tokens=1, temperature=0, echo=True, logprobs=3, adapters=adapters)
    return np.array([e.logprob for e in out.logprobs if e is not None])


@pytest.fixture(scope="module")
def files(tiny_gguf, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    path = tiny_gguf(arch="llama", fmt="f32")
    model = open_gguf(path)
    first, second = pairs(model, 1), pairs(model, 2)
    return {
        "folder": folder,
        "path": path,
        "model": model,
        "pairs": (first, second),
        "loras": [lora_file(folder / "one.gguf", first), lora_file(folder / "two.gguf", second)],
    }


@pytest.fixture(scope="module")
def adapted(files):
    with tokamak.load(files["path"], adapters=files["loras"], kv_dtype="f32") as llm:
        yield llm


@pytest.mark.parametrize("scales", [(1.0, 0.0), (0.0, -0.5), (0.7, 0.4)])
def test_adapters_of_a_request_are_weights_merged_by_hand(files, adapted, tmp_path, scales):
    several = list(zip(files["pairs"], scales, strict=True))
    merged = merged_file(tmp_path / "merged.gguf", files["model"], *several)
    with tokamak.load(merged, kv_dtype="f32") as llm:
        expected = logits_of(llm, None)
        plain = logits_of(adapted, {})
    found = logits_of(adapted, {"one": scales[0], 1: scales[1]})
    assert np.abs(found - expected).max() < 2e-4  # sums in another order, in float32
    assert np.abs(found - plain).max() > 0.05


def test_adapters_are_the_same_bits_in_any_company(adapted):
    asked = [{}, {"one": 1.0}, {"two": 1.0}, {"one": 0.5, "two": -1.0}, None]
    alone = [
        adapted.generate(IDS[: 9 + i], max_tokens=6, temperature=0, logprobs=2, adapters=a)
        for i, a in enumerate(asked)
    ]
    tickets = [
        adapted.stream(
            IDS[: 9 + i], tokamak.SamplingParams(max_tokens=6, temperature=0, logprobs=2, adapters=a)
        )
        for i, a in enumerate(asked)
    ]
    for stream in tickets:
        list(stream)
    assert [t.completion.token_ids for t in tickets] == [a.token_ids for a in alone]
    assert [[e.logprob for e in t.completion.logprobs] for t in tickets] == [
        [e.logprob for e in a.logprobs] for a in alone
    ]


def test_adapters_are_the_same_bits_in_chunks_and_on_two_threads(files, adapted):
    asked = {
        "adapters": {"one": 0.5, "two": -1.0},
        "max_tokens": 4,
        "temperature": 0,
        "logprobs": 2,
        "echo": True,
    }
    expected = adapted.generate(IDS, **asked)
    with tokamak.load(
        files["path"], adapters=files["loras"], kv_dtype="f32", max_batch_rows=7, threads=2
    ) as llm:
        assert llm.generate(IDS, **asked).logprobs == expected.logprobs


def test_prefixes_are_kept_apart_by_adapters(adapted):
    long = IDS * 3
    adapted.generate(long, max_tokens=1, adapters={"one": 0.25})
    again = adapted.generate(long, max_tokens=1, adapters={"one": 0.25})
    other = adapted.generate(long, max_tokens=1, adapters={"one": 0.26})
    assert again.usage.cached_tokens >= 64
    assert other.usage.cached_tokens == 0


def test_the_directory_of_peft_is_the_same_adapter(files, adapted, tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    names = {
        "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    checkpoint = open_checkpoint(files["path"])
    ours = open_adapter(Adapter(str(files["loras"][0])), checkpoint).deltas
    tensors = {}
    for name, (a, own) in files["pairs"][0].items():
        if name == TABLE:
            tensors["base_model.model.model.embed_tokens.lora_embedding_A"] = np.ascontiguousarray(a.T)
            tensors["base_model.model.model.embed_tokens.lora_embedding_B"] = own
            continue
        if name == "output.weight":
            tensors["base_model.model.lm_head.lora_A.weight"] = a
            tensors["base_model.model.lm_head.lora_B.weight"] = own
            continue
        _, layer, kind, _ = name.split(".")
        module = f"base_model.model.model.layers.{layer}.{names[kind]}"
        b = ours[f"layers.{layer}.{names[kind]}.weight"].b  # rows as Hugging Face has them: in halves
        tensors[f"{module}.lora_A.weight"] = a
        tensors[f"{module}.lora_B.weight"] = np.ascontiguousarray(b * np.float32(RANK / ALPHA))
    safetensors.save_file(tensors, tmp_path / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "bias": "none"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with tokamak.load(files["path"], adapters={"peft": tmp_path}, kv_dtype="f32") as llm:
        assert np.abs(logits_of(llm, {"peft": 1.0}) - logits_of(adapted, {"one": 1.0})).max() < 1e-5


def direction_file(path, model, layers, seed=4):
    width = model.metadata["llama.embedding_length"]
    rng = np.random.default_rng(seed)
    found = {layer: rng.normal(0, 1.0, width).astype(np.float32) for layer in layers}
    metadata = {"general.architecture": "controlvector", "controlvector.model_hint": "llama"}
    write_gguf(path, metadata, [source(f"direction.{n}", v) for n, v in found.items()])
    return found


def test_a_control_vector_is_added_to_what_its_layers_give(tiny_gguf, tmp_path):
    path = tiny_gguf(arch="llama", fmt="f32", num_hidden_layers=4)
    path_cv = tmp_path / "mood.gguf"
    found = direction_file(path_cv, open_gguf(path), (1, 2, 3))
    options = {"kv_dtype": "f32", "executor": "reference"}
    with tokamak.load(path, adapters=[Adapter(str(path_cv), layers=(1, 2))], **options) as llm:
        batch_logits = llm.logits(IDS[:12])
        names = [n for n in (node.outputs[0].name for node in llm.program.graph.nodes) if "steered" in n]
        assert [n.split(".")[1] for n in names] == ["1", "2"]
    with tokamak.load(path, adapters=[Adapter(str(path_cv), layers=(1, 2))], kv_dtype="f32") as llm:
        assert np.abs(llm.logits(IDS[:12]) - batch_logits).max() < 1e-3
        plain = llm.generate(IDS[:12], max_tokens=1, logprobs=1, adapters={})
        assert (
            plain.logprobs[0].logprob
            != llm.generate(IDS[:12], max_tokens=1, logprobs=1, temperature=0).logprobs[0].logprob
        )
    assert set(found) == {1, 2, 3}


def llama_logits(path, ids, adapter=None, scale=1.0, control=None):
    """Logits of every position by llama.cpp."""
    lib = pytest.importorskip("llama_cpp", reason="llama_cpp is not installed").llama_cpp
    lib.llama_backend_init()
    params = lib.llama_model_default_params()
    params.n_gpu_layers = 0
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    options = lib.llama_context_default_params()
    options.n_ctx = options.n_batch = 64
    options.type_k = options.type_v = 0  # f32
    options.flash_attn_type = 0  # rounds to f16
    context = lib.llama_init_from_model(model, options)
    if adapter is not None:
        lora = lib.llama_adapter_lora_init(model, str(adapter).encode())
        pointers, scales = (lib.llama_adapter_lora_p_ctypes * 1)(lora), (ctypes.c_float * 1)(scale)
        assert lib.llama_set_adapters_lora(context, pointers, 1, scales) == 0
    if control is not None:
        directions, first, last = control
        width, count = len(next(iter(directions.values()))), max(directions)
        flat = np.zeros((count, width), np.float32)
        for layer, direction in directions.items():
            flat[layer - 1] = direction
        data = flat.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        assert lib.llama_set_adapter_cvec(context, data, flat.size, width, first, last) == 0
    batch = lib.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert lib.llama_decode(context, batch) == 0
    vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(lib.llama_get_logits(context), (len(ids), vocab)).copy()
    lib.llama_batch_free(batch)
    lib.llama_free(context)
    lib.llama_model_free(model)
    return logits


def test_llama_cpp_gives_the_same_with_the_same_adapter(files):
    theirs = llama_logits(files["path"], IDS, adapter=files["loras"][0], scale=0.8)
    with tokamak.load(files["path"], adapters=[(files["loras"][0], 0.8)], kv_dtype="f32") as llm:
        ours = llm.logits(IDS)
    assert np.abs(ours - theirs).max() < 2e-3 * theirs.std()


def test_llama_cpp_gives_the_same_with_the_same_control_vector(tiny_gguf, tmp_path):
    path = tiny_gguf(arch="llama", fmt="f32", num_hidden_layers=4)
    found = direction_file(tmp_path / "mood.gguf", open_gguf(path), (1, 2, 3))
    theirs = llama_logits(path, IDS, control=(found, 2, 3))
    adapter = Adapter(str(tmp_path / "mood.gguf"), layers=(2, 3))
    with tokamak.load(path, adapters=[adapter], kv_dtype="f32") as llm:
        ours = llm.logits(IDS)
    assert np.abs(ours - theirs).max() < 2e-3 * theirs.std()


def test_what_cannot_be_adapted_is_refused(files, tiny_gguf, tmp_path):
    a, b = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    other = lora_file(tmp_path / "q.gguf", files["pairs"][0], arch="qwen2")
    unknown = lora_file(tmp_path / "u.gguf", {"blk.9.attn_q.weight": (a, b)})
    narrow = lora_file(tmp_path / "n.gguf", {"blk.0.attn_q.weight": (a, b)})
    for path, error in ((other, "qwen2"), (unknown, "no tensor blk.9"), (narrow, "shapes")):
        with pytest.raises(tokamak.TokamakError, match=error):
            tokamak.load(files["path"], adapters=[path])
    mixture = tiny_gguf(arch="qwen2moe", fmt="f32")
    experts, count = "blk.0.ffn_up_exps.weight", 4
    shape = open_gguf(mixture).tensors[experts].shape
    a, b = np.ones((shape[0], count, shape[2]), np.float32), np.ones((*shape[:2], count), np.float32)
    path = lora_file(tmp_path / "e.gguf", {experts: (a, b)}, arch="qwen2moe")
    with pytest.raises(
        tokamak.UnsupportedError, match=r"ffn_up_exps.*adapters of experts are not implemented"
    ):
        tokamak.load(mixture, adapters=[path])
    with pytest.raises(tokamak.InvalidParams, match="two adapters are called"):
        tokamak.load(files["path"], adapters=[files["loras"][0], files["loras"][0]])
