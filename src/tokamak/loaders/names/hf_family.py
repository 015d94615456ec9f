"""The vocabulary of the table in `hf.py`: how one kind of Hugging Face directory is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tokamak.types import Array


@dataclass(frozen=True, slots=True)
class HfFamily:
    """How one `model_type` is written.

    architecture: of GGUF. prefixes: what may stand before the names of everything but the head. paths: names by the
    parameter path of `names.FAMILIES` (a layer's without "layers.N."), where they differ. layers: what the list of layers
    is called. config: names of configuration values by the name used here. defaults: of values that may be absent. fixed:
    values that are accepted of settings that change what is computed. acts: of the activation. paired: rows of Q and K lie
    in pairs already. transposed: weights are stored [inputs, outputs]. one_more: norms are stored less one. mixed_heads: the
    fused projection has Q, K and V of a head together. stacks: names of one expert's matrix, {} its number, by path.
    halves: (name, half) of gates and ups that are one tensor, by path. ignored: ends of names that nothing needs.
    whole: names of tensors that several rows of a table are cut from, by GGUF's name. made: (name, change) by path of
    what is computed from another tensor, change(elements, keys without prefix and the configuration as "config.json"). derive: settings computed from others,
    which `understood` lists beside those that change nothing. locals_: which layers see a window, "s" or "f" each, again
    and again. alternating: gates and ups of experts lie by turns, and inputs of experts before outputs. ahead: layers past
    the last predict further tokens and are left out. sides: names of the layers of `rows.Stack`, by its paths; `paths` then
    has those of the model, without numbers. others: second names, by path. behind: tensors, by the path of what is read only
    where they are there. ranked: values of settings that a head for ranking needs. values: as made, of numbers in f32. attends:
    which layers have heads, by configuration. lacks: whether a tensor of GGUF is not made, by its name and the keys.
    extra: further keys of GGUF without prefix, by configuration.
    """

    architecture: str
    prefixes: tuple[str, ...] = ("model.", "")
    paths: Mapping[str, str] = field(default_factory=dict)
    layers: str = "layers"
    config: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    acts: tuple[str, ...] = ("silu",)
    paired: bool = False
    transposed: bool = False
    one_more: bool = False
    mixed_heads: bool = False
    stacks: Mapping[str, str] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, str] = field(default_factory=dict)
    behind: Mapping[str, str] = field(default_factory=dict)
    ranked: Mapping[str, str] = field(default_factory=dict)
    halves: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    whole: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, tuple[str, Callable[[Array, Mapping[str, Any]], Array]]] = field(default_factory=dict)
    values: Mapping[str, tuple[str, Callable[[Array, Mapping[str, Any]], Array]]] = field(
        default_factory=dict
    )
    attends: Callable[[Mapping[str, Any]], list[bool]] | None = None
    lacks: Callable[[str, Mapping[str, Any]], bool] | None = None
    derive: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    extra: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    understood: tuple[str, ...] = ()
    locals_: str = "s"
    alternating: bool = False
    ahead: bool = False
    ignored: tuple[str, ...] = ("rotary_emb.inv_freq",)


def named(**renamed: str) -> dict[str, str]:
    """Paths of modules, "__" for a dot, to names of modules: their weight and bias."""
    return {
        f"{ours.replace('__', '.')}.{kind}": f"{theirs}.{kind}"
        for ours, theirs in renamed.items()
        for kind in ("weight", "bias")
    }
