"""Families without recorded logits: tiny random models of transformers, written as GGUF, give the same logits.

The names in the files come from the gguf package's own map; what its converters do to tensors is repeated here: query and
key rows in pairs, gates and ups of experts apart. Limit: float32 against float64 arithmetic, 1e-4 of the logits'
deviation, as for the recorded fixtures.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from graphs import batch
from tokamak import executors, models
from tokamak.ir.passes import optimize
from tokamak.loaders import TensorSource, open_checkpoint, write_gguf
from tokamak.types import Limits

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")

LIMIT = 1e-4
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}


@dataclass(frozen=True)
class Case:
    """kind: transformers' model_type. arch: of the file. config, keys: beyond SIZES and KEYS. paired: query and key rows."""

    kind: str
    arch: str
    config: dict = field(default_factory=dict)
    keys: dict = field(default_factory=dict)
    paired: bool = False
    norm: str = "attention.layer_norm_rms_epsilon"


MOE = {"expert_count": 5, "expert_used_count": 2}
GRANITE = {
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.3,
    "logits_scaling": 2.0,
}
GRANITE_KEYS = {"embedding_scale": 3.0, "residual_scale": 0.5, "attention.scale": 0.3, "logit_scale": 2.0}
CASES = {
    "mixtral": Case("mixtral", "llama", {"num_local_experts": 5, "num_experts_per_tok": 2}, MOE, paired=True),
    "qwen3moe": Case(
        "qwen3_moe",
        "qwen3moe",
        {
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "head_dim": 16,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
        },
        MOE | {"expert_feed_forward_length": 24, "attention.key_length": 16, "attention.value_length": 16},
    ),
    "olmoe": Case("olmoe", "olmoe", {"num_experts": 5, "num_experts_per_tok": 2}, MOE),
    "granitemoe": Case(
        "granitemoe",
        "granitemoe",
        {"num_local_experts": 5, "num_experts_per_tok": 2, **GRANITE},
        MOE | GRANITE_KEYS,
        paired=True,
    ),
}
EPSILON = 1e-5
KEYS = {
    "block_count": 2,
    "context_length": 128,
    "embedding_length": 32,
    "feed_forward_length": 48,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "rope.freq_base": 10000.0,
}
IDS = np.random.default_rng(5).integers(0, 97, 50).tolist()


def peer(case: Case):
    """The model of transformers with weights at which logits are not degenerate, and logits of IDS."""
    epsilons = ("rms_norm_eps", "layer_norm_eps", "norm_eps", "norm_epsilon", "layer_norm_epsilon")
    values = {**SIZES, **dict.fromkeys(epsilons, EPSILON), "tie_word_embeddings": False, **case.config}
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(case.kind, attn_implementation="eager", **values)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1)
        return model, model(torch.tensor([IDS])).logits[0].numpy()


def written(path, case: Case, model):
    """The model as a GGUF file of float32 tensors."""
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == case.arch)
    names = gguf.get_tensor_name_map(arch, 2)
    keys = {**KEYS, case.norm: EPSILON, **case.keys}
    tensors, tied = [], model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        for found, array in pieces(name, tensor.numpy(), case):
            known = names.get_name(found, try_suffixes=(".weight", ".bias"))
            assert known, found
            tensors.append(source(known, array))
    metadata = {"general.architecture": case.arch, **{f"{case.arch}.{k}": v for k, v in keys.items()}}
    write_gguf(path, metadata, tensors)
    return path


def pieces(name: str, x: np.ndarray, case: Case):
    """(name, array) of what a converter makes of one tensor."""
    name = name.replace("block_sparse_moe.router", "mlp.gate").replace("block_sparse_moe", "mlp")
    if "experts.gate_up_proj" in name:
        gate, up = np.split(x, 2, axis=1)
        yield name.replace("gate_up_proj", "gate_proj") + ".weight", gate
        yield name.replace("gate_up_proj", "up_proj") + ".weight", up
    elif "experts.down_proj" in name:
        yield name + ".weight", x
    elif case.paired and ("q_proj" in name or "k_proj" in name):
        heads = 4 if "q_proj" in name else 2
        yield (
            name,
            x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape),
        )
    else:
        yield name, x


def source(name: str, x: np.ndarray) -> TensorSource:
    content = np.ascontiguousarray(x, np.float32)
    return TensorSource(name, "f32", x.shape, lambda: content.reshape(-1).view(np.uint8))


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(tmp_path, name):
    case = CASES[name]
    model, want = peer(case)
    checkpoint = open_checkpoint(written(tmp_path / "m.gguf", case, model))
    graph = optimize(
        models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=128)
    )
    for executor in ("reference", "cpu"):
        limits = Limits(num_blocks=4, block_size=32, kv_dtype="f32")
        program = executors.get(executor).compile(graph, checkpoint.weights, limits)
        got = program.run(batch(([2, 0], IDS, len(IDS)), every_row=True, block=32))
        assert np.abs(got - want).max() / want.std() <= LIMIT, executor
