"""What memory is left and what a cache takes: the bound of the default context."""

from dataclasses import replace
from pathlib import Path

import pytest

import tiny
from reference_data import golden
from table_models import CASES, written
from tokamak import models
from tokamak.engine.loading import choose_context, default_model, load
from tokamak.engine.memory import available_nbytes, kv_nbytes_per_token
from tokamak.errors import CapacityError, InvalidParams, UnavailableError
from tokamak.loaders import open_checkpoint

MEMINFO = "MemTotal: 8000000 kB\nMemFree: 100 kB\nMemAvailable: 4000000 kB\n"


def write(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("--", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def proc(tmp_path):
    write(tmp_path / "proc", meminfo=MEMINFO, self__cgroup="0::/a/b\n")
    return tmp_path / "proc"


def test_without_a_control_group_the_system_decides(proc, tmp_path):
    assert available_nbytes(proc, tmp_path / "none") == 4000000 * 1024


def test_the_tightest_control_group_above_the_process_counts(proc, tmp_path):
    root = tmp_path / "cgroup"
    for name, limit in (("a/b", "max"), ("a", "1000000")):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "memory.max").write_text(limit)
        (root / name / "memory.current").write_text("700000")
        (root / name / "memory.stat").write_text("anon 5\ninactive_file 200000\n")
    assert available_nbytes(proc, root) == 1000000 - 700000 + 200000


def test_version_1_of_control_groups_counts_too(proc, tmp_path):
    root = tmp_path / "cgroup"
    write(root / "memory", **{"memory--limit_in_bytes": "5000", "memory--usage_in_bytes": "3000"})
    assert available_nbytes(proc, root) == 2000
    write(root / "memory", **{"memory--limit_in_bytes": "9223372036854771712"})
    assert available_nbytes(proc, root) == 4000000 * 1024


def test_nothing_known_is_none(tmp_path):
    assert available_nbytes(tmp_path, tmp_path) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "m.gguf"
    return open_checkpoint(tiny.gguf(path, arch="llama", fmt="f32"))


@pytest.mark.parametrize(
    ("kv_dtype", "row_nbytes"), [("f32", 128), ("f16", 64), ("bf16", 64), ("q8_0", 34), ("q4_0", 18)]
)
def test_the_cache_takes_two_rows_of_all_heads_per_layer_and_token(checkpoint, kv_dtype, row_nbytes):
    """The model has 2 layers, 2 K/V heads of 16."""
    graph = models.build(checkpoint.architecture, checkpoint.config, checkpoint.weights, context=64)
    assert kv_nbytes_per_token(graph, kv_dtype) == 2 * 2 * row_nbytes


@pytest.mark.parametrize("kv_dtype", ["f32", "f16", "bf16", "q8_0", "q4_0"])
def test_the_formula_gives_the_bytes_the_program_holds(tiny_gguf, kv_dtype):
    with load(tiny_gguf("llama", "q4_k"), context=100, kv_dtype=kv_dtype, threads=1) as llm:
        limits = llm.program.limits
        tokens = limits.num_blocks * limits.block_size
        assert llm.program.memory()["cache"] == llm.facts["kv_nbytes_per_token"] * tokens


@pytest.mark.parametrize(("kv_dtype", "kept"), [("f32", 4), ("f16", 4), ("bf16", 4), ("q8_0", 34 / 32)])
def test_a_latent_is_kept_in_f32_unless_a_quantised_cache_is_asked_for(kv_dtype, kept):
    path = (golden() or Path("absent")) / "arch" / "deepseek2-lite" / "model-f32.gguf"
    if not path.exists():
        pytest.skip("golden data is not beside the project")
    with load(path, context=64, kv_dtype=kv_dtype, threads=1) as llm:
        checkpoint = open_checkpoint(path)
        config, limits = checkpoint.config, llm.program.limits
        wide = 2 * config["kv_lora_rank"] + config["qk_rope_head_dim"]
        assert llm.facts["kv_nbytes_per_token"] == config["num_hidden_layers"] * wide * kept
        held = llm.facts["kv_nbytes_per_token"] * limits.num_blocks * limits.block_size
        assert llm.program.memory()["cache"] == held


def test_layers_with_windows_are_counted_apart_and_a_long_context_takes_less(tmp_path):
    opened = open_checkpoint(written(tmp_path / "m.gguf", "cohere2", CASES["cohere2"]))
    config = {**opened.config, "max_position_embeddings": 8192}
    opened = replace(opened, config=config)
    sizes = {"sequences": 2, "rows": 64}
    chosen = choose_context(opened, None, "f16", available=opened.nbytes + 2**30, **sizes)
    assert chosen.context == 8192
    assert 0 < chosen.size.recent < chosen.size.nbytes_per_token
    assert chosen.recent_tokens == 2 * 3 * 32 + 64 < chosen.cache_tokens
    tight = opened.nbytes + chosen.size.whole * 11000  # all layers would take five times as much
    assert choose_context(opened, 8192, "f16", available=tight, **sizes).recent_tokens == 3 * 32 + 64
    path = tmp_path / "m.gguf"
    with load(path, context=256, kv_dtype="f32", threads=1, max_sequences=2, max_batch_rows=32) as llm:
        facts, limits = llm.facts, llm.program.limits
        whole = facts["kv_nbytes_per_token"] - facts["recent_nbytes_per_token"]
        assert facts["recent_tokens"] == 32 * limits.recent_blocks < 32 * limits.num_blocks
        held = whole * 32 * limits.num_blocks + facts["recent_nbytes_per_token"] * facts["recent_tokens"]
        assert llm.program.memory()["cache"] == held


def test_the_default_context_is_the_trained_one_if_it_fits(checkpoint):
    chosen = choose_context(checkpoint, None, "f16", available=10**9)
    assert (chosen.context, chosen.reason) == (models.trained_context(checkpoint.config), "trained")
    assert chosen.cache_tokens == 4 * chosen.context


def test_slopes_go_on_beyond_what_was_trained(tiny_gguf):
    checkpoint = open_checkpoint(tiny_gguf("bloom", "f32", context=64))
    assert choose_context(checkpoint, None, "f16", available=10**9).context == 2048
    assert choose_context(checkpoint, 64, "f16", available=10**9).context == 64


def test_the_default_context_is_what_fits_if_that_is_less(checkpoint):
    free = checkpoint.nbytes + 100 * 256
    chosen = choose_context(checkpoint, None, "f16", available=free)
    assert chosen.context == 90  # nine tenths of what the weights leave, at 256 bytes a token
    assert "memory" in chosen.reason


def test_a_context_asked_for_that_does_not_fit_is_refused_with_the_bytes(checkpoint):
    free = checkpoint.nbytes + 100 * 256
    with pytest.raises(CapacityError, match=r"51200 bytes.*at most 90"):
        choose_context(checkpoint, 200, "f16", available=free)
    with pytest.raises(CapacityError):
        choose_context(checkpoint, None, "f16", available=checkpoint.nbytes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kv_dtype", "f8"),
        ("context", 0),
        ("seed", -1),
        ("max_sequences", 0),
        ("threads", 0),
        ("executor", "tpu"),
    ],
)
def test_bad_arguments_of_load_are_refused_by_name(checkpoint, field, value):
    with pytest.raises(InvalidParams, match=field):
        load(checkpoint.path, **{field: value})


def test_without_a_default_model_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("tokamak.engine.loading.ASSETS", tmp_path)
    with pytest.raises(UnavailableError, match="name a model file"):
        default_model()
    (tmp_path / "m.gguf").write_bytes(b"")
    assert default_model().name == "m.gguf"
