"""Which value of a peer's graph is the first that ours does not have.

A peer names its values, ours are named after the modules of a checkpoint. Values are paired by what both names say (layer and role),
and where that says nothing by what they hold: a role that had an equal of ours in one layer has the same one in the next. A value that
has no counterpart, as what a fused kernel never writes, is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokamak.types import Floats

__all__ = ["NODE_FLOAT", "NODE_QUANTISED", "NodeDifference", "first_difference"]

NODE_FLOAT = 0.01  # of a value's rms, worst row: f16 roundings of activations sum up to about a third of it in 30 layers
NODE_QUANTISED = 0.15  # int8 activations, in groups that the engines cut differently

# The roles of llama.cpp's graph by the first of our names in a layer that mean the same; in the order of preference.
ROLES: Mapping[str, tuple[str, ...]] = {
    "embd": (r"embed_tokens\.embed$",),
    "inp_embd": (r"embed_tokens\.embed$",),
    "attn_norm": (r"input_layernorm\.\w+$",),
    "kqv_out": (r"(self_attn|attention)\.merge_heads$",),
    "attn_out": (r"self_attn\.o_proj\.linear$", r"self_attn\.dense\.linear$"),
    "ffn_norm": (r"post_attention_layernorm\.\w+$",),
    "ffn_moe_logits": (r"mlp\.gate\.linear$",),
    "attn_sub_norm": (r"attn_sub_norm\.\w+$",),
    **dict.fromkeys(("ffn_swiglu", "ffn_geglu", "ffn_sub_out"), (r"mlp\.mul$",)),
    "ffn_sub_norm": (r"ffn_sub_norm\.\w+$",),
    "ffn_down": (r"mlp\.down_proj\.linear$",),
    "ffn_out": (r"mlp\.down_proj\.linear$",),
    "result_norm": (r"^norm\.\w+$", r"take_rows$"),
}
LAYER = re.compile(r"(?:^|\.)(\d+)\.")  # of a module path
LLAMA = re.compile(r"([a-z_A-Z]+)-(\d+)$")  # role-layer of llama.cpp
STREAMS = ("l_out", "result_output", "lm_head")  # which every engine has


@dataclass(frozen=True, slots=True)
class NodeDifference:
    """A value that both have and that is not the same.

    peer_name, name: in the peer's graph and in ours. error: rms of the difference in the worst row over the rms of the value;
    before: the same of the last pair that agreed, None if there was none. position, element: of the greatest difference.
    """

    peer_name: str
    name: str
    error: float
    tolerance: float
    before: float | None
    before_name: str | None
    position: int
    element: int
    ours: float
    theirs: float

    def __str__(self) -> str:
        ahead = f"; {self.before_name} before it is {self.before:.1e} away" if self.before_name else ""
        return (
            f"{self.peer_name} (ours: {self.name}) is {self.error:.2g} away, tolerance {self.tolerance:g}: at position "
            f"{self.position}, element {self.element} ours {self.ours:.6g}, theirs {self.theirs:.6g}{ahead}"
        )


def apart(ours: Floats, theirs: Floats) -> float:
    """rms of the difference in the worst row over the rms of theirs; infinite for what is not finite."""
    a, b = ours.reshape(theirs.shape).astype(np.float64), theirs.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return 0.0 if np.array_equal(a, b, equal_nan=True) else float("inf")
    scale = float(np.sqrt(np.mean(b * b)))
    worst = float(np.sqrt(np.mean((a - b) ** 2, axis=1)).max())
    return 0.0 if worst == 0 else worst / scale if scale else float("inf")


def role_of(name: str) -> tuple[str, int | None]:
    """(role, layer) of a peer's name: "ffn_out-3", "model.layers.3.mlp.down_proj"."""
    if found := LLAMA.match(name):
        return found[1], int(found[2])
    if found := LAYER.search(name + "."):
        return name[found.end() :].rstrip(".") or "l_out", int(found[1])
    return name.removeprefix("model."), None


def layer_of(name: str) -> int | None:
    """The layer that one of our values belongs to."""
    found = LAYER.search(name)
    return int(found[1]) if found else None


class _Pairs:
    """Our values, and which of them have stood for a role so far."""

    def __init__(self, taps: Mapping[str, Floats]) -> None:
        self.layers: dict[int | None, dict[str, Floats]] = {}
        for name, value in taps.items():
            self.layers.setdefault(layer_of(name), {})[name] = value
        self.learned: dict[str, set[str]] = {}  # role -> our names without the layer
        self.last = next(reversed(list(taps)), None)

    def fitting(self, layer: int | None, value: Floats) -> dict[str, Floats]:
        """Our values of a layer that have the extents of the peer's."""
        return {
            name: ours
            for name, ours in self.layers.get(layer, {}).items()
            if len(ours) == len(value) and ours.size == value.size
        }

    def named(self, role: str, layer: int | None, there: Mapping[str, Floats]) -> list[str]:
        """Those of `there` that stand for the role, as far as names tell."""
        if role in STREAMS:
            inner = next(reversed(list(self.layers.get(layer, {}))), None)
            last = inner if role == "l_out" else self.last
            return [last] if last in there and last is not None else []
        if known := [name for name in there if _bare(name) in self.learned.get(role, ())]:
            return known
        for pattern in ROLES.get(role, ()):
            if found := [name for name in there if re.search(pattern, name)]:
                return found
        path = f".{role}."
        return [name for name in there if path in f".{_bare(name)}." and "." in role][-1:]

    def learn(self, role: str, name: str) -> None:
        """That one of ours equals the role's value."""
        self.learned.setdefault(role, set()).add(_bare(name))


def _bare(name: str) -> str:
    found = LAYER.search(name)
    return name[found.end() :] if found else name


@dataclass(frozen=True, slots=True)
class _Pair:
    """One of the peer's values beside the best of ours. sure: whether the two certainly mean the same."""

    peer_name: str
    theirs: Floats
    name: str
    ours: Floats
    error: float
    sure: bool


def _paired(
    taps: Mapping[str, Floats], nodes: Sequence[tuple[str, Floats]], tolerance: float
) -> Iterator[_Pair]:
    """What can be paired, in the peer's order."""
    pairs = _Pairs(taps)
    for peer_name, theirs in nodes:
        role, layer = role_of(peer_name)
        there = pairs.fitting(layer, theirs)
        if not there:
            continue
        errors = {name: apart(ours, theirs) for name, ours in there.items()}
        best = min(errors, key=errors.__getitem__)
        sure = pairs.named(role, layer, there)
        if errors[best] <= tolerance:
            pairs.learn(role, best)
        elif sure:
            best = min(sure, key=errors.__getitem__)
        yield _Pair(peer_name, theirs, best, there[best], errors[best], bool(sure))


def first_difference(
    taps: Mapping[str, Floats], nodes: Sequence[tuple[str, Floats]], tolerance: float
) -> NodeDifference | None:
    """The first of the peer's values that is farther than `tolerance` from its counterpart; None if there is none.

    taps: our values, f32[n, ...], in the order of execution. nodes: the peer's, f32[n, D]. Both of the same tokens. A name that the
    peer gives to several values, as before and after a bias, counts as equal if one of them is.
    """
    found = list(_paired(taps, nodes, tolerance))
    equal = {pair.peer_name for pair in found if pair.error <= tolerance}
    before: _Pair | None = None
    for pair in found:
        if pair.peer_name in equal:
            before = pair if pair.error <= tolerance else before
        elif pair.sure:
            last = [other for other in found if other.peer_name == pair.peer_name and other.sure][-1]
            return _difference(last, before, tolerance)
    return None


def _difference(pair: _Pair, before: _Pair | None, tolerance: float) -> NodeDifference:
    """The two values where they are farthest apart."""
    ours = pair.ours.reshape(pair.theirs.shape)
    gap = np.nan_to_num(np.abs(ours.astype(np.float64) - pair.theirs), nan=np.inf)
    position, element = (int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    return NodeDifference(
        peer_name=pair.peer_name,
        name=pair.name,
        error=pair.error,
        tolerance=tolerance,
        before=before.error if before else None,
        before_name=before.peer_name if before else None,
        position=position,
        element=element,
        ours=float(ours[position, element]),
        theirs=float(pair.theirs[position, element]),
    )
