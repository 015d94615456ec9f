"""Families without recorded logits: tiny random models of transformers, written as GGUF, give the same logits.

The names in the files come from the gguf package's own map; what its converters do to tensors is repeated here: query and
key rows in pairs, gates and ups of experts apart. Limit: float32 against float64 arithmetic, 1e-4 of the logits'
deviation, as for the recorded fixtures.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from graphs import batch
from hf_models import CASES, EPSILON, KEYS, OWN_NAMES, SIZES, Case
from tokamak import executors, models
from tokamak.ir.passes import optimize
from tokamak.loaders import TensorSource, open_checkpoint, write_gguf
from tokamak.types import Limits

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
torch = pytest.importorskip("torch", reason="torch is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")

LIMIT = 1e-4
IDS = np.random.default_rng(5).integers(0, 97, 50).tolist()


def peer(case: Case):
    """The model of transformers with weights at which logits are not degenerate, and logits of IDS."""
    epsilons = ("rms_norm_eps", "layer_norm_eps", "norm_eps", "norm_epsilon", "layer_norm_epsilon")
    values = {**SIZES, **dict.fromkeys(epsilons, EPSILON), "tie_word_embeddings": False, **case.config}
    values = {k: v for k, v in values.items() if v is not None}
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(case.kind, attn_implementation="eager", **values)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.3)
            if ("norm" in name or ".ln_" in name) and name.endswith("weight") and not case.one_more:
                parameter.add_(1)
        for name, buffer in model.named_buffers():
            if "bias" in name and buffer.dtype == torch.float32:  # corrections of routers
                buffer.normal_(0, 0.3)
        return model, model(torch.tensor([IDS])).logits[0].numpy()


def written(path, case: Case, model):
    """The model as a GGUF file of float32 tensors."""
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == case.arch)
    keys = {**KEYS, case.norm: EPSILON, **case.keys}
    names = gguf.get_tensor_name_map(arch, keys["block_count"])
    keys = {k: v for k, v in keys.items() if v is not None}
    tensors, tied = [], model.config.tie_word_embeddings
    for name, tensor in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        for found, array in pieces(name, tensor.numpy(), case):
            known = OWN_NAMES.get(found) or names.get_name(found, try_suffixes=(".weight", ".bias"))
            assert known, found
            tensors.append(source(known, array))
    metadata = {"general.architecture": case.arch, **{f"{case.arch}.{k}": v for k, v in keys.items()}}
    write_gguf(path, metadata, tensors)
    return path


def pieces(name: str, x: np.ndarray, case: Case):
    """(name, array) of what a converter makes of one tensor."""
    name = name.replace("block_sparse_moe.router", "mlp.gate").replace("block_sparse_moe", "mlp")
    name = re.sub(r"e_score_correction(_bias)?$", "e_score_correction.bias", name)
    if case.one_more and "norm" in name and name.endswith("weight"):
        x = x + 1
    if name.endswith("expert_bias"):
        name = name.replace("expert_bias", "expert_bias.bias")
    if "e_score_correction" in name:
        x = x.reshape(-1)
    if name.endswith("conv.conv.weight"):
        x = x[:, 0]
    name = name.replace("gate.moe_statics", "moe_statics")
    if ".experts.gate_up_proj" in name:
        gate, up = np.split(x, 2, axis=1)
        yield name.replace("gate_up_proj", "gate_proj") + ".weight", gate
        yield name.replace("gate_up_proj", "up_proj") + ".weight", up
    elif ".experts.down_proj" in name:
        yield name + ".weight", x
    elif case.paired and ("q_proj" in name or "k_proj" in name):
        heads = 4 if "q_proj" in name else 2
        yield (
            name,
            x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape),
        )
    elif case.grouped and case.grouped in name:
        groups = x.reshape(2, 4, 8, *x.shape[1:])  # two groups of two queries, a key and a value
        parts = [groups[:, :2], groups[:, 2:3], groups[:, 3:]]
        yield name, np.concatenate([p.reshape(-1, *x.shape[1:]) for p in parts])
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
