"""Named mixes: rules by hand, and laws that all recipes obey."""

from __future__ import annotations

import pytest

from tokamak.errors import InvalidParams
from tokamak.quant import FORMATS
from tokamak.quant.recipes import RECIPES, Model, recipe

LLAMA_7B = Model(num_layers=32)
NAMES = [
    "output.weight",
    "token_embd.weight",
    *(f"blk.0.{part}.weight" for part in ("attn_q", "attn_k", "attn_v", "attn_output", "attn_qkv")),
    *(f"blk.0.{part}.weight" for part in ("ffn_gate", "ffn_up", "ffn_down", "ffn_down_exps", "ssm_in")),
]


def layers(name, part, model):
    mix = recipe(name)
    return [mix.format_for(f"blk.{i}.{part}.weight", (4096, 4096), model) for i in range(model.num_layers)]


def test_q4_k_m_raises_the_outer_eighths_and_every_third_layer():
    formats = layers("q4_k_m", "ffn_down", LLAMA_7B)
    raised = [i for i, f in enumerate(formats) if f == "q6_k"]
    assert raised == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    assert set(formats) == {"q4_k", "q6_k"}
    assert set(layers("q4_k_m", "attn_q", LLAMA_7B)) == {"q4_k"}


def test_q4_k_s_raises_the_first_layers_only():
    assert layers("q4_k_s", "attn_v", LLAMA_7B) == ["q5_k"] * 4 + ["q4_k"] * 28


def test_few_heads_of_keys_and_values_get_more_bits():
    assert set(layers("q2_k", "attn_v", Model(num_layers=4, gqa=8))) == {"q4_k"}
    assert set(layers("q2_k", "attn_v", Model(num_layers=4))) == {"q3_k"}


def test_eight_experts_share_their_attention_in_eight_bits():
    assert set(layers("q4_k_m", "attn_k", Model(num_layers=4, num_experts=8))) == {"q8_0"}
    assert set(layers("iq2_xs", "attn_output", Model(num_layers=4, num_experts=8))) == {"q5_k"}


def test_values_of_eighty_layers_never_go_below_five_bits():
    assert set(layers("q3_k_m", "attn_v", Model(num_layers=80, gqa=8))) == {"q5_k"}


def test_a_tied_embedding_is_an_output_matrix():
    mix = recipe("q4_k_m")
    assert mix.format_for("token_embd.weight", (32000, 4096), LLAMA_7B) == "q4_k"
    assert mix.format_for("token_embd.weight", (32000, 4096), Model(num_layers=32, tied=True)) == "q6_k"


def test_importance_changes_what_needs_protection():
    assert layers("iq4_xs", "ffn_down", LLAMA_7B)[0] == "q5_k"
    assert layers("iq4_xs", "ffn_down", Model(num_layers=32, importance=True))[0] == "iq4_xs"


@pytest.mark.parametrize(
    ("base", "columns", "expected"),
    [("q4_k_s", 4000, "q5_0"), ("iq3_s", 4000, "iq4_nl"), ("q4_k_s", 4001, "f16"), ("q6_k", 96, "q8_0")],
)
def test_rows_that_fit_no_group_fall_back(base, columns, expected):
    assert recipe(base).format_for("blk.9.ffn_up.weight", (64, columns), LLAMA_7B) == expected


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.attn_norm.weight", (4096,)),
        ("blk.0.attn_q.bias", (4096,)),
        ("blk.0.ffn_gate_inp.weight", (8, 4096)),
        ("blk.0.ssm_conv1d.weight", (4096, 4)),
        ("position_embd.weight", (1024, 768)),
    ],
)
def test_small_tensors_stay_as_they_are(name, shape):
    assert recipe("q4_k_m").format_for(name, shape, LLAMA_7B) is None


def test_only_stacks_of_experts_get_mxfp4():
    mix = recipe("MXFP4_MOE")
    assert mix.format_for("blk.0.ffn_up_exps.weight", (32, 64, 2880), LLAMA_7B) == "mxfp4"
    assert mix.format_for("blk.0.attn_q.weight", (64, 2880), LLAMA_7B) == "q8_0"


@pytest.mark.parametrize("mix", RECIPES.values(), ids=list(RECIPES))
@pytest.mark.parametrize("columns", [4096, 4000, 100])
def test_every_answer_is_a_format_that_can_be_written_to_these_rows(mix, columns):
    for name in NAMES:
        answer = mix.format_for(name, (64, columns), LLAMA_7B)
        assert columns % FORMATS[answer].block_size == 0
        assert FORMATS[answer].decoder


def test_file_types_are_unique_and_names_are_found_in_any_case():
    assert len({r.file_type for r in RECIPES.values()}) == len(RECIPES)
    assert recipe("Q4_K") is recipe("q4_k_m")


def test_an_unknown_recipe_is_refused_with_the_known_ones():
    with pytest.raises(InvalidParams, match="q4_k_m"):
        recipe("q7_k")
