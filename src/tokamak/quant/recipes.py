"""Named mixes: which tensor of a model gets which weight format, as llama-quantize has it.

A recipe has a base format and rules by role; a rule is (format, condition), the first that holds wins. Tensors that are
vectors, and the small ones that steer a model (routers, convolutions), stay as they are. Falcon's exceptions are not
followed: its tensors get what any other model's would. Tensors whose rows fit no group of the format fall back.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tokamak.errors import InvalidParams
from tokamak.quant.format import FORMATS


@dataclass(frozen=True, slots=True)
class Model:
    """What the rules ask about a model. gqa: query heads per K/V head. importance: an importance matrix is given."""

    num_layers: int
    gqa: int = 1
    num_experts: int = 0
    tied: bool = False
    importance: bool = False


Condition = Callable[[int, Model], bool]  # of the layer, counted from 0
Rules = tuple[tuple[str, Condition], ...]


def always(_layer: int, _model: Model) -> bool:
    return True


def first(part: int) -> Condition:
    """The first 1 / part of the layers."""
    return lambda layer, model: layer < model.num_layers // part


def below(count: int) -> Condition:
    return lambda layer, _model: layer < count


def outer_and_every_third(layer: int, model: Model) -> bool:
    """The first and last eighth and every third layer between, which lose most by few bits."""
    n = model.num_layers
    return layer < n // 8 or layer >= 7 * n // 8 or (layer - n // 8) % 3 == 2


def grouped(_layer: int, model: Model) -> bool:
    """Few K/V heads: the tensor is small and shared by many queries."""
    return model.gqa >= 4


def grouped_or_experts(_layer: int, model: Model) -> bool:
    return model.gqa >= 4 or model.num_experts >= 4


def eight_experts(_layer: int, model: Model) -> bool:
    return model.num_experts == 8


def inner(layer: int, model: Model) -> bool:
    return model.num_layers // 8 <= layer < 7 * model.num_layers // 8


def few_experts(layer: int, model: Model) -> bool:
    return not eight_experts(layer, model)


def both(one: Condition, other: Condition) -> Condition:
    return lambda layer, model: one(layer, model) and other(layer, model)


def either(one: Condition, other: Condition) -> Condition:
    return lambda layer, model: one(layer, model) or other(layer, model)


def with_importance(_layer: int, model: Model) -> bool:
    return model.importance


def without_importance(_layer: int, model: Model) -> bool:
    return not model.importance


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named mix. file_type: its number in `general.file_type` of a GGUF file. rules: by role."""

    name: str
    file_type: int
    base: str
    rules: dict[str, Rules] = field(default_factory=dict)

    def format_for(self, name: str, shape: tuple[int, ...], model: Model) -> str | None:
        """Format of a tensor by its name and shape in a GGUF file; None: keep it as it is."""
        role = role_of(name, shape)
        if role is None:
            return None
        if role == "token_embd" and model.tied:
            role = "output"
        match = _LAYER.search(name)
        layer = int(match[1]) if match else 0
        return fitting(self._rule(role, layer, shape, model), shape[-1])

    def _rule(self, role: str, layer: int, shape: tuple[int, ...], model: Model) -> str:
        if FORMATS[self.base].block_size == 1:
            return self.base
        if self.name == "mxfp4_moe" and len(shape) == 2:  # only stacks of experts go below eight bits
            return "q8_0"
        if role == "output" and not self.rules.get(role):
            small = self.name.startswith(("iq1", "iq2")) or self.name == "iq3_xxs"
            fits = shape[-1] % FORMATS[self.base].block_size == 0
            return "q8_0" if self.base == "q8_0" or not fits else "q5_k" if small else "q6_k"
        found = next((name for name, holds in self.rules.get(role, ()) if holds(layer, model)), self.base)
        large = role == "attn_v" and model.num_layers == 80 and not self.name.startswith(("iq1", "iq2"))
        return "q5_k" if large and found in {"q3_k", "q4_k"} else found


_LAYER = re.compile(r"blk\.(\d+)\.")
_KEPT = re.compile(
    r"norm\.weight|ffn_gate_inp|altup|laurel|per_layer_model_proj|position_embd|token_types|ssm_conv1d|shortconv\.conv|"
    r"time_mix_(first|w\d|v\d|a\d|g\d|decay_w\d|lerp)|attn_rel_b"
)
_ROLES = ("attn_qkv", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_down", "ffn_gate", "ffn_up")


def role_of(name: str, shape: tuple[int, ...]) -> str | None:
    """output, token_embd, one of the matrices of a layer, "other"; None for what is never quantised."""
    if not name.endswith("weight") or len(shape) < 2 or _KEPT.search(name):
        return None
    if name in {"output.weight", "token_embd.weight"}:
        return name.removesuffix(".weight")
    part = name.split(".")[-2].removesuffix("_exps").removesuffix("_shexp")
    return part if part in _ROLES else "other"


# What takes the place of a format in rows that are no multiple of its group.
_FALLBACK = {"q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0", "tq1_0": "q4_0", "tq2_0": "q4_0"}


def fitting(name: str, columns: int) -> str:
    """The format itself where it can hold rows of `columns`, else what llama-quantize takes instead."""
    if columns % FORMATS[name].block_size == 0:
        return name
    other = _FALLBACK.get(name, "iq4_nl")
    return other if columns % FORMATS[other].block_size == 0 else "f16"


_MORE = outer_and_every_third


def _mix(name: str, file_type: int, base: str, **rules: Rules) -> Recipe:
    """A recipe of three bits and more: models of eight experts share their attention, which is then small."""
    rules["attn_v"] = (("q8_0", eight_experts), *rules.get("attn_v", ()))
    rules["attn_k"] = (("q8_0", eight_experts), *rules.get("attn_k", ()))
    if not name.startswith("q5_k") and name != "q3_k_l":
        rules["attn_output"] = (("q5_k", eight_experts), *rules.get("attn_output", ()))
    return Recipe(name, file_type, base, rules)


def _tiny(name: str, file_type: int, base: str, better: str, output: str | None = None) -> Recipe:
    """A recipe below three bits. better: the format of what is worth more."""
    raised: Rules = (("q5_k", eight_experts), (output or base, always))
    return Recipe(
        name,
        file_type,
        base,
        {
            "token_embd": ((better, always),),
            "attn_v": (("q4_k", grouped_or_experts), (better, always)),
            "attn_k": (("q4_k", eight_experts),),
            "ffn_down": ((better, first(8)),),
            "attn_output": raised,
        },
    )


_Q8_ENDS: dict[str, Rules] = {"output": (("q8_0", always),), "token_embd": (("q8_0", always),)}
_Q4_EMBEDDING: dict[str, Rules] = {"token_embd": (("q4_k", always),)}
_DOWN_Q5: Rules = (("q5_k", both(without_importance, first(8))),)
_MIDDLE_XXS: Rules = (("iq3_xxs", inner),)
_XXS: Rules = (("iq3_xxs", always),)

RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe("f32", 0, "f32"),
        Recipe("f16", 1, "f16"),
        Recipe("q4_0", 2, "q4_0", {"ffn_down": (("q4_1", both(with_importance, first(8))),)}),
        Recipe("q4_1", 3, "q4_1"),
        Recipe("q8_0", 7, "q8_0"),
        Recipe("q5_0", 8, "q5_0", {"ffn_down": (("q5_1", both(with_importance, first(8))),)}),
        Recipe("q5_1", 9, "q5_1"),
        _mix(
            "q2_k",
            10,
            "q2_k",
            attn_v=(("q4_k", grouped), ("q3_k", always)),
            ffn_down=(("q3_k", always),),
            attn_output=(("q3_k", always),),
        ),
        _mix("q3_k_s", 11, "q3_k"),
        _mix(
            "q3_k_m",
            12,
            "q3_k",
            attn_v=(("q5_k", below(2)), ("q4_k", always)),
            ffn_down=(("q5_k", first(16)), ("q4_k", always)),
            attn_output=(("q4_k", always),),
            attn_qkv=(("q4_k", always),),
        ),
        _mix(
            "q3_k_l",
            13,
            "q3_k",
            attn_v=(("q5_k", always),),
            ffn_down=(("q5_k", always),),
            attn_output=(("q5_k", few_experts),),
            attn_qkv=(("q4_k", always),),
        ),
        _mix("q4_k_s", 14, "q4_k", attn_v=(("q5_k", below(4)),), ffn_down=(("q5_k", first(8)),)),
        _mix(
            "q4_k_m",
            15,
            "q4_k",
            attn_v=(("q6_k", _MORE),),
            ffn_down=(("q6_k", _MORE),),
            attn_qkv=(("q5_k", always),),
        ),
        _mix("q5_k_s", 16, "q5_k"),
        _mix(
            "q5_k_m",
            17,
            "q5_k",
            attn_v=(("q6_k", _MORE),),
            ffn_down=(("q6_k", _MORE),),
            attn_qkv=(("q6_k", always),),
        ),
        Recipe(
            "q6_k", 18, "q6_k", {"attn_v": (("q8_0", eight_experts),), "attn_k": (("q8_0", eight_experts),)}
        ),
        _tiny("iq2_xxs", 19, "iq2_xxs", "q2_k"),
        _tiny("iq2_xs", 20, "iq2_xs", "q2_k"),
        _mix("q2_k_s", 21, "q2_k", attn_v=(("q4_k", grouped),), ffn_down=(("q4_k", first(8)),)),
        _mix(
            "iq3_xs",
            22,
            "iq3_s",
            attn_v=(("q4_k", grouped),),
            attn_k=_XXS,
            attn_q=_XXS,
            ffn_gate=_MIDDLE_XXS,
            ffn_up=_MIDDLE_XXS,
        ),
        _mix(
            "iq3_xxs",
            23,
            "iq3_xxs",
            token_embd=(("iq3_s", always),),
            attn_v=(("q4_k", grouped), ("iq3_s", without_importance)),
            attn_k=(("iq2_s", always),),
            attn_q=(("iq2_s", always),),
            ffn_down=(("q4_k", both(without_importance, first(8))), ("q3_k", without_importance)),
            attn_output=(("iq3_s", always),),
        ),
        _tiny("iq1_s", 24, "iq1_s", "q2_k", "iq2_xxs"),
        _mix("iq4_nl", 25, "iq4_nl", attn_v=(("q5_k", grouped),), ffn_down=_DOWN_Q5),
        _mix("iq3_s", 26, "iq3_s", attn_v=(("q4_k", grouped),)),
        _mix(
            "iq3_m",
            27,
            "iq3_s",
            attn_v=(("q4_k", always),),
            ffn_down=(("q4_k", either(first(8), both(eight_experts, _MORE))),),
            attn_output=(("q4_k", always),),
            attn_qkv=(("q4_k", always),),
        ),
        _tiny("iq2_s", 28, "iq2_xs", "iq3_s", "iq3_s"),
        _tiny("iq2_m", 29, "iq2_s", "iq3_s", "iq3_s"),
        _mix("iq4_xs", 30, "iq4_xs", attn_v=(("q5_k", grouped),), ffn_down=_DOWN_Q5),
        _tiny("iq1_m", 31, "iq1_m", "q2_k", "iq2_xxs"),
        Recipe("bf16", 32, "bf16"),
        Recipe("tq1_0", 36, "tq1_0", _Q4_EMBEDDING),
        Recipe("tq2_0", 37, "tq2_0", _Q4_EMBEDDING),
        Recipe("mxfp4_moe", 38, "mxfp4", _Q8_ENDS),
        Recipe("nvfp4", 39, "nvfp4", _Q8_ENDS),
        Recipe("q1_0", 40, "q1_0"),
        Recipe("q2_0", 41, "q2_0", _Q4_EMBEDDING),
    )
}


def recipe(name: str) -> Recipe:
    """A recipe by name, in any case ("Q4_K_M"); "q3_k", "q4_k", "q5_k" mean their _m. Raises: InvalidParams."""
    key = name.lower()
    key = f"{key}_m" if key in {"q3_k", "q4_k", "q5_k"} else key
    if key not in RECIPES:
        raise InvalidParams(f"there is no quantisation recipe {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[key]
