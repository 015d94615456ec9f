"""Rows of `names.FAMILIES`: decoders that attend to a text which an encoder has read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokamak.loaders.names.rows import MODEL, FamilyNames, Row, Stack

SELF = (
    Row("attn_norm.weight", "attn_norm.weight", "hidden"),
    Row("attn_q.weight", "self_attn.q_proj.weight", "q hidden"),
    Row("attn_k.weight", "self_attn.k_proj.weight", "kv hidden"),
    Row("attn_v.weight", "self_attn.v_proj.weight", "kv hidden"),
    Row("attn_o.weight", "self_attn.o_proj.weight", "hidden q"),
)
CROSS = (
    Row("cross_attn_norm.weight", "cross_norm.weight", "hidden"),
    Row("cross_attn_q.weight", "cross_attn.q_proj.weight", "q hidden"),
    Row("cross_attn_k.weight", "cross_attn.k_proj.weight", "kv hidden"),
    Row("cross_attn_v.weight", "cross_attn.v_proj.weight", "kv hidden"),
    Row("cross_attn_o.weight", "cross_attn.o_proj.weight", "hidden q"),
)
MLP = (
    Row("ffn_norm.weight", "mlp_norm.weight", "hidden"),
    Row("ffn_gate.weight", "mlp.gate_proj.weight", "inter hidden", optional=True),
    Row("ffn_up.weight", "mlp.up_proj.weight", "inter hidden"),
    Row("ffn_down.weight", "mlp.down_proj.weight", "hidden inter"),
)


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {"num_decoder_layers": config.get("num_decoder_layers") or config["num_hidden_layers"]}
    return found | ({"hidden_act": "silu"} if config.get("silu") else {}) | {"silu": None}


READERS: Mapping[str, FamilyNames] = {
    "t5": FamilyNames(
        (
            MODEL[0],
            Row("enc.blk.0.attn_rel_b.weight", "encoder.buckets", "num_buckets num_attention_heads"),
            Row("dec.blk.0.attn_rel_b.weight", "decoder.buckets", "num_buckets num_attention_heads"),
            Row("enc.output_norm.weight", "encoder.norm.weight", "hidden"),
            Row("dec.output_norm.weight", "decoder.norm.weight", "hidden"),
            MODEL[2],
        ),
        (),
        stacks=(
            Stack("enc.blk.", "encoder.layers.", "num_hidden_layers", (*SELF, *MLP)),
            Stack("dec.blk.", "decoder.layers.", "num_decoder_layers", (*SELF, *CROSS, *MLP)),
        ),
        some={"decoder_block_count": "num_decoder_layers"},
        counts={"attention.relative_buckets_count": "num_buckets"},
        fixed={"attention.layer_norm_epsilon": None, "decoder_start_token_id": None},
        flags={"feed_forward_silu": "silu"},  # a key of our own: elsewhere gates are gelu
        told={"gated": "enc.blk.0.ffn_gate.weight"},
        rope=False,
        derive=_completed,
    ),
}
