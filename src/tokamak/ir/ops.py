"""The ops: what a model can say. Each function checks shapes and appends a node.

The docstring is the specification; `executors/reference.py` gives the same names their NumPy meaning, and
an executor is correct when it agrees with that. Letters in shapes: T rows of the step, S logit rows,
B sequences, D width, H query heads, G key-value heads, F feed-forward width, V vocabulary, K and N columns and rows of a weight.
"""

from __future__ import annotations

from tokamak.errors import GraphError
from tokamak.ir.graph import Attr, Type, Value

VIEWS = frozenset({"columns", "split_heads", "merge_heads"})  # alias input 0; no kernel runs
WRITES = {"attention": 3}  # op -> index of the state input it updates
ACTIVATIONS = frozenset({"silu", "gelu", "gelu_erf", "relu2"})


def _one(op: str, *inputs: Value, to: Type, **attrs: Attr) -> Value:
    return inputs[0].graph.emit(op, inputs, (to,), attrs)[0]


def _need(holds: object, op: str, *values: Value) -> None:
    if not holds:
        raise GraphError(f"{op} cannot take {', '.join(f'{v.name}: {v.type}' for v in values)}")


def embed(ids: Value, table: Value) -> Value:
    """i32[T], [V, D] -> [T, D]: rows of the table."""
    return _one("embed", ids, table, to=Type("f32", ids.type.lead, table.type.tail))


def linear(x: Value, *weights: Value, biases: tuple[Value, ...] = ()) -> Value:
    """[T, K], weights [N0, K], [N1, K]..., biases [N0], [N1]... or none -> [T, N0 + N1 + ...].

    x times each weight transposed, plus its bias, side by side. Several weights mean one kernel launch over all of
    them; each may have its own weight format. Inputs are x, the weights, then the biases (one per weight or none).
    """
    _need(all(w.type.tail == x.type.tail for w in weights), "linear", x, *weights)
    _need(not biases or len(biases) == len(weights), "linear", x, *weights, *biases)
    width = sum(w.type.nrows for w in weights)
    to = Type("f32", x.type.lead, (width,))
    return _one("linear", x, *weights, *biases, to=to, num_weights=len(weights))


def rms_norm(x: Value, weight: Value, *, eps: float) -> Value:
    """[T, ..., D], [D] -> same as x: x / sqrt(mean(x^2 over D) + eps) * weight."""
    _need(weight.type.nrows == x.type.tail[-1], "rms_norm", x, weight)
    return _one("rms_norm", x, weight, to=x.type, eps=eps)


def layer_norm(x: Value, weight: Value, bias: Value, *, eps: float) -> Value:
    """[T, ..., D], [D], [D] -> same as x: (x - mean) / sqrt(variance + eps) * weight + bias, moments over D."""
    _need(weight.type.nrows == bias.type.nrows == x.type.tail[-1], "layer_norm", x, weight, bias)
    return _one("layer_norm", x, weight, bias, to=x.type, eps=eps)


def add_rms_norm(x: Value, residual: Value, weight: Value, *, eps: float) -> tuple[Value, Value]:
    """[T, D], [T, D], [D] -> (x + residual, rms_norm of that sum)."""
    total, normed = x.graph.emit("add_rms_norm", (x, residual, weight), (x.type, x.type), {"eps": eps})
    return total, normed


def add_layer_norm(
    x: Value, residual: Value, weight: Value, bias: Value, *, eps: float
) -> tuple[Value, Value]:
    """[T, D], [T, D], [D], [D] -> (x + residual, layer_norm of that sum)."""
    inputs = (x, residual, weight, bias)
    total, normed = x.graph.emit("add_layer_norm", inputs, (x.type, x.type), {"eps": eps})
    return total, normed


def add(x: Value, y: Value) -> Value:
    """Elementwise sum, same shapes."""
    _need(x.type == y.type, "add", x, y)
    return _one("add", x, y, to=x.type)


def mul(x: Value, y: Value) -> Value:
    """Elementwise product, same shapes."""
    _need(x.type == y.type, "mul", x, y)
    return _one("mul", x, y, to=x.type)


def sigmoid_mul(x: Value, gate: Value) -> Value:
    """[T, D], [T, D] or [T, 1] -> [T, D]: x * sigmoid(gate)."""
    _need(gate.type in (x.type, Type("f32", x.type.lead, (1,))), "sigmoid_mul", x, gate)
    return _one("sigmoid_mul", x, gate, to=x.type)


def scale(x: Value, *, factor: float) -> Value:
    """x * factor."""
    return _one("scale", x, to=x.type, factor=factor)


def softcap(x: Value, *, cap: float) -> Value:
    """cap * tanh(x / cap)."""
    return _one("softcap", x, to=x.type, cap=cap)


def clip(x: Value, *, limit: float) -> Value:
    """min(max(x, -limit), limit)."""
    return _one("clip", x, to=x.type, limit=limit)


def silu(x: Value) -> Value:
    """x * sigmoid(x)."""
    return _one("silu", x, to=x.type)


def gelu(x: Value) -> Value:
    """The tanh form: x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return _one("gelu", x, to=x.type)


def gelu_erf(x: Value) -> Value:
    """The exact form: x/2 * (1 + erf(x / sqrt 2))."""
    return _one("gelu_erf", x, to=x.type)


def relu2(x: Value) -> Value:
    """max(x, 0)^2."""
    return _one("relu2", x, to=x.type)


def gated(x: Value, *, act: str) -> Value:
    """[T, 2F] -> [T, F]: act(first half) * second half; `act` is one of ACTIVATIONS."""
    _need(act in ACTIVATIONS and x.type.tail[0] % 2 == 0, "gated", x)
    return _one("gated", x, to=Type("f32", x.type.lead, (x.type.tail[0] // 2,)), act=act)


def experts(
    x: Value,
    router: Value,
    gate: Value,
    up: Value,
    down: Value,
    *,
    num_used: int,
    normed: int = 0,
    scaling: float = 1.0,
    act: str = "silu",
) -> Value:
    """[T, D], [T, E], [E, F, D], [E, F, D], [E, D, F] -> [T, D]: gated feed-forwards, a few of E for each row.

    A row goes to the `num_used` experts with the largest softmax(router) (ties: the lower id). Its result is the sum, in
    rising expert id, of weight_e * down_e(act(gate_e x) * up_e x). Weights are those of the softmax over all E, divided
    by their sum where `normed` is 1, times `scaling`.
    """
    count, inner, width = gate.type.shape
    shapes = (up.type.shape, down.type.shape, x.type.tail, router.type.tail)
    _need(
        shapes == ((count, inner, width), (count, width, inner), (width,), (count,)),
        "experts",
        x,
        router,
        up,
        down,
    )
    _need(1 <= num_used <= count and act in ACTIVATIONS, "experts", router)
    attrs: dict[str, Attr] = {"num_used": num_used, "normed": normed, "scaling": scaling, "act": act}
    return _one("experts", x, router, gate, up, down, to=x.type, **attrs)


def columns(x: Value, *, start: int, stop: int) -> Value:
    """View of columns start..stop: [T, N] -> [T, stop - start]; rows keep their stride."""
    _need(0 <= start < stop <= x.type.tail[0], "columns", x)
    return _one("columns", x, to=Type("f32", x.type.lead, (stop - start,)), start=start, stop=stop)


def split_heads(x: Value, *, heads: int) -> Value:
    """View: [T, H * D] -> [T, H, D]."""
    _need(x.type.tail[0] % heads == 0, "split_heads", x)
    return _one("split_heads", x, to=Type("f32", x.type.lead, (heads, x.type.tail[0] // heads)), heads=heads)


def merge_heads(x: Value) -> Value:
    """View: [T, H, D] -> [T, H * D]."""
    return _one("merge_heads", x, to=Type("f32", x.type.lead, (x.type.tail[0] * x.type.tail[1],)))


def rope(x: Value, positions: Value, inv_freq: Value, *, mscale: float = 1.0) -> Value:
    """Rotary embedding, half-split layout: [T, H, D], i32[T], f32[R/2] -> [T, H, D].

    The first R = 2 * len(inv_freq) columns of each head turn by the angle position * inv_freq, columns i and
    i + R/2 as a pair; the others pass. Sine and cosine are multiplied by `mscale`.
    """
    _need(2 * inv_freq.type.nrows <= x.type.tail[-1], "rope", x, inv_freq)
    return _one("rope", x, positions, inv_freq, to=x.type, mscale=mscale)


def attention(
    q: Value,
    k: Value,
    v: Value,
    cache: Value,
    slots: Value,
    starts: Value,
    lengths: Value,
    tables: Value,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
) -> Value:
    """Causal attention over a paged cache; stores k and v into it first.

    q [T, H, D]; k [T, G, D]; v [T, G, D]; cache: see `nn.Step.attend`; slots i32[T]: where each row's k and v go;
    starts i32[B + 1]: first row of each sequence; lengths i32[B]: context including this step; tables i32[B, M]:
    block ids. Key j is visible to the query at position i if j <= i and, where window > 0, i - j < window.
    Scores are scale * q.k, then softcap * tanh(score / softcap) where softcap > 0. Returns [T, H, D].
    """
    _need(q.type.tail[0] % k.type.tail[0] == 0 and k.type == v.type, "attention", q, k, v)
    inputs = (q, k, v, cache, slots, starts, lengths, tables)
    return _one("attention", *inputs, to=q.type, scale=scale, window=window, softcap=softcap)


def take_rows(x: Value, rows: Value) -> Value:
    """[T, D], i32[S] -> [S, D]."""
    return _one("take_rows", x, rows, to=Type("f32", rows.type.lead, x.type.tail))
