"""Context shifts: keys turn exactly, what is dropped is what was promised, nothing shifted is found again."""

import numpy as np
import pytest

import tiny
import tokamak
from tokamak import errors
from tokamak.executors.cpu_cache import Keys, turned

TEXT = "Once upon a time there was a little girl who lived near the river with her mother. "


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny.gguf(tmp_path_factory.mktemp("shift") / "m.gguf", head_dim=32, hidden_size=128)


def exact(keys, inv_freq, delta):
    """Keys as float64, turned pair by pair."""
    angle = delta * inv_freq.astype(np.float64)
    turn = np.exp(1j * angle)[:, None]
    half = len(inv_freq)
    pairs = (keys[..., :half, :].astype(np.float64) + 1j * keys[..., half : 2 * half, :]) * turn
    return np.concatenate([pairs.real, pairs.imag, keys[..., 2 * half :, :]], axis=-2)


@pytest.mark.parametrize("executor", ["cpu", "reference"])
@pytest.mark.parametrize(
    ("kv_dtype", "tolerance"), [("f32", 1e-5), ("f16", 1e-3), ("bf16", 8e-3), ("q8_0", 1.2e-2), ("q4_0", 0.2)]
)
def test_a_shift_is_a_rotation_of_the_same_keys(path, kv_dtype, tolerance, executor):
    """Relative to the largest key, one rounding of the type: 2^-11 of f16, 2^-8 of bf16, 1/254 of q8_0, 1/16 of q4_0."""
    if executor == "reference" and kv_dtype != "f32":
        pytest.skip("the reference keeps its cache in float64")
    with tokamak.load(path, kv_dtype=kv_dtype, executor=executor, context=256) as llm:
        program = llm.program
        llm.generate(TEXT * 2, max_tokens=1)
        before = [raw.copy() for raw in program.read_blocks([0, 1])]
        program.shift_blocks([0], -37)
        after = program.read_blocks([0, 1])
        inv_freq = (10000.0 ** (-np.arange(0, 32, 2) / 32)).astype(np.float32)
        for old, new in zip(before, after, strict=True):
            assert np.array_equal(old[1], new[1])  # the other block stays
            if executor == "reference":
                kept = old[:1].view(np.float64).reshape(1, 32, 2, -1).transpose(0, 2, 3, 1)
                now = new[:1].view(np.float64).reshape(1, 32, 2, -1).transpose(0, 2, 3, 1)
                old_keys, new_keys = kept[:, :, :32], now[:, :, :32]
                assert np.array_equal(kept[:, :, 32:], now[:, :, 32:])
            else:
                keys = Keys(kv_dtype, 2, 32)
                old_keys, new_keys = keys.of(old[:1]), keys.of(new[:1])
            wanted = exact(old_keys, inv_freq, -37)
            assert np.abs(new_keys - wanted).max() <= tolerance * np.abs(wanted).max()
            assert np.abs(new_keys - old_keys).max() > 0.1 * np.abs(old_keys).max()


def test_keys_survive_reading_and_writing():
    rng = np.random.default_rng(0)
    for kv_dtype in ("f32", "f16", "bf16", "q8_0", "q4_0"):
        keys = Keys(kv_dtype, 3, 64)
        nbytes = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 1.0625, "q4_0": 0.5625}[kv_dtype] * 64 * 32 * 2 * 3
        raw = np.zeros((2, int(nbytes)), np.uint8)
        keys.put(raw, rng.standard_normal((2, 3, 64, 32)).astype(np.float32))
        again = raw.copy()
        keys.put(again, keys.of(raw))
        assert np.array_equal(again, raw), kv_dtype


def test_no_turn_changes_nothing():
    keys = np.random.default_rng(0).standard_normal((1, 2, 8, 32)).astype(np.float32)
    assert np.array_equal(turned(keys, np.ones(4, np.float32), 0), keys)


def test_generation_goes_on_past_the_context_and_says_what_was_dropped(path):
    with tokamak.load(path, context=128) as llm:
        out = llm.generate(
            "Once upon", max_tokens=300, temperature=0, ignore_eos=True, context_shift=True, keep=4
        )
        assert (len(out.token_ids), out.finish_reason) == (300, "length")
        assert out.usage.shifted_tokens % 32 == 0
        # 128 positions hold what was not dropped, the last token needs none
        assert 300 + out.usage.prompt_tokens - out.usage.shifted_tokens <= 129
        again = llm.generate(
            "Once upon", max_tokens=300, temperature=0, ignore_eos=True, context_shift=True, keep=4
        )
        assert again.token_ids == out.token_ids
        assert llm.stats()["blocks_held"] == 0


def test_alone_and_among_others_and_with_speculation_it_is_the_same(path):
    asked = {"max_tokens": 200, "temperature": 0.9, "seed": 3, "ignore_eos": True, "context_shift": True}
    prompts = ["Once upon", "She thought", "Every day she went to the water"]
    with tokamak.load(path, context=128) as llm:
        alone = [llm.generate(p, **asked).token_ids for p in prompts]
        assert [c.token_ids for c in llm.generate(prompts, **asked)] == alone
        assert [c.token_ids for c in llm.generate(prompts, **asked, speculation="lookup")] == alone


def test_a_shifted_cache_is_not_found_as_a_prefix(path):
    with tokamak.load(path, context=128) as llm:
        out = llm.generate("Once upon", max_tokens=200, temperature=0, ignore_eos=True, context_shift=True)
        kept = [*llm.tokenizer.encode("Once upon"), *out.token_ids][-100:]
        cold = llm.generate(kept, max_tokens=8, temperature=0, ignore_eos=True)
        assert cold.usage.cached_tokens == 0
    with tokamak.load(path, context=128) as llm:
        assert llm.generate(kept, max_tokens=8, temperature=0, ignore_eos=True).token_ids == cold.token_ids


def test_samples_of_one_prompt_shift_apart(path):
    with tokamak.load(path, context=128) as llm:
        asked = {"max_tokens": 150, "temperature": 1.0, "seed": 5, "ignore_eos": True, "context_shift": True}
        two = llm.generate(TEXT, n=2, **asked)
        assert two[0].token_ids == llm.generate(TEXT, **asked).token_ids
        assert two[0].token_ids != two[1].token_ids


def test_a_context_that_is_all_to_be_kept_fails_with_the_reason(path):
    with tokamak.load(path, context=128) as llm, pytest.raises(errors.CapacityError, match="keep fewer"):
        llm.generate("Once upon", max_tokens=300, ignore_eos=True, context_shift=True, keep=120)


def test_without_the_option_a_context_ends_where_it_ends(path):
    with tokamak.load(path, context=128) as llm:
        with pytest.raises(errors.ContextOverflow):
            llm.generate("Once upon", max_tokens=300)
        assert llm.generate("Once upon", max_tokens=-1, ignore_eos=True).usage.shifted_tokens == 0


def test_learned_positions_cannot_move(tmp_path):
    model = tiny.gguf(tmp_path / "g.gguf", arch="gpt2")
    with (
        tokamak.load(model, context=96) as llm,
        pytest.raises(errors.UnsupportedError, match="learned positions"),
    ):
        llm.generate("Once upon", max_tokens=200, ignore_eos=True, context_shift=True)
