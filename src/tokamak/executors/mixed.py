"""How the CPU executor lowers experts, recurrent states and ops on heads; the rest is in `cpu.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokamak.executors.cpu import Lowering
    from tokamak.ir.graph import Node


def _affine(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    weight, *bias = (low.vectors[v] for v in node.inputs[1:])
    low.native.affine(name, weight, bias[0] if bias else -1, x, out)


def _gate(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    pairs = [group.split(":") for group in str(node.attrs["groups"]).split(",")]
    low.native.gate(name, [(int(index), int(width)) for index, width in pairs], x, out)


def _steer(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    low.native.steer(name, int(node.attrs["index"]), low.vectors[node.inputs[2]], x, out)


def _replace_rows(low: Lowering, node: Node, name: str) -> None:
    low.native.replace_rows(name, *low.args(node))


def _join(low: Lowering, node: Node, name: str) -> None:
    x, y = node.inputs
    heads, others = x.type.tail[0], y.type.tail[0]
    low.native.join(name, heads, others, low.operands[x], low.operands[y], low.operands[node.outputs[0]])


def _heads_linear(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    heads, rows, cols = node.inputs[1].type.shape
    for h in range(heads):
        part = x._replace(column=x.column + h * cols, width=cols)
        into = out._replace(column=out.column + h * rows, width=rows)
        low.native.linear(name, part, [low.stacks[node.inputs[1]][h]], [], into)


def _route(low: Lowering, node: Node, name: str) -> None:
    logits, out = low.args(node)
    attrs, bias = node.attrs, [low.vectors[v] for v in node.inputs[1:]]
    low.native.route(
        name,
        str(attrs["score"]),
        bias[0] if bias else -1,
        int(attrs["num_used"]),
        bool(attrs["normed"]),
        float(attrs["scaling"]),
        int(attrs["groups"]),
        int(attrs["top_groups"]),
        int(attrs["group_top"]),
        logits,
        out,
    )


def _experts(low: Lowering, node: Node, name: str) -> None:
    x, weights = (low.operands[v] for v in node.inputs[:2])
    gate, up, down = (low.stacks[w] for w in node.inputs[2:5])
    biases = [low.vectors[b] for b in node.inputs[5:]]
    used, act, by_input = int(node.attrs["num_used"]), str(node.attrs["act"]), node.attrs["weighs"] == "input"
    out = low.operands[node.outputs[0]]
    low.native.experts(name, x, weights, gate, up, down, biases, used, act, by_input, out)


def _causal_conv(low: Lowering, node: Node, name: str) -> None:
    x, out = low.args(node)
    bias = [low.vectors[v] for v in node.inputs[6:]]
    state, weight = low.states[node.inputs[2]], low.vectors[node.inputs[1]]
    low.native.causal_conv(name, state, weight, bias[0] if bias else -1, str(node.attrs["act"]), x, out)


def _scan(low: Lowering, node: Node, name: str) -> None:
    x, dt, a, b, c, d, state = node.inputs[:7]
    heads, groups = x.type.tail[0], b.type.tail[0]
    rows = [low.operands[v] for v in (x, dt, b, c)]
    vectors = [low.vectors[a], low.vectors[d]]
    low.native.scan(name, low.states[state], heads, groups, vectors, rows, low.operands[node.outputs[0]])


def _linear_attention(low: Lowering, node: Node, name: str) -> None:
    q, k, v, w, state = node.inputs[:5]
    more, rule = node.inputs[8:], str(node.attrs["rule"])
    bonus = low.vectors[more[0]] if rule == "bonus" else -1
    rows = [low.operands[x] for x in (q, k, v, w, *(() if rule == "bonus" else more))]
    out = low.operands[node.outputs[0]]
    low.native.linear_attention(name, low.states[state], rule, q.type.tail[0], bonus, rows, out)


LOWERINGS: dict[str, Callable[[Lowering, Node, str], None]] = {
    "affine": _affine,
    "gate": _gate,
    "steer": _steer,
    "replace_rows": _replace_rows,
    "join": _join,
    "heads_linear": _heads_linear,
    "route": _route,
    "experts": _experts,
    "causal_conv": _causal_conv,
    "scan": _scan,
    "linear_attention": _linear_attention,
}
