"""The ops: what a model can say. Each function checks shapes and appends a node.

The docstring is the specification; `executors/reference.py` gives the same names their NumPy meaning, and
an executor is correct when it agrees with that. Letters in shapes: T rows of the step, S logit rows,
B sequences, D width, H query heads, G key-value heads, F feed-forward width, V vocabulary, K and N columns and rows of a weight.
"""

from __future__ import annotations

from tokamak.errors import GraphError
from tokamak.ir.graph import Attr, Type, Value

VIEWS = frozenset({"columns", "split_heads", "merge_heads"})  # alias input 0; no kernel runs
# op -> index of the state input it updates
WRITES = {"attention": 3, "causal_conv": 2, "scan": 6, "linear_attention": 4}
ACTIVATIONS = frozenset({"silu", "gelu", "gelu_erf", "relu", "relu2", "sigmoid", "softplus"})
GATES = ACTIVATIONS | {"swiglu_clamped"}  # what `gated` and `experts` do with a gate and an up
SCORES = frozenset({"softmax", "sigmoid", "sparsemixer"})


def _one(op: str, *inputs: Value, to: Type, **attrs: Attr) -> Value:
    return inputs[0].graph.emit(op, inputs, (to,), attrs)[0]


def _need(holds: object, op: str, *values: Value) -> None:
    if not holds:
        raise GraphError(f"{op} cannot take {', '.join(f'{v.name}: {v.type}' for v in values)}")


def embed(ids: Value, table: Value, *, row: int = -1) -> Value:
    """i32[T], [V, D] -> [T, D]: rows of the table; with row >= 0 that row for every id."""
    _need(row < table.type.nrows, "embed", ids, table)
    return _one("embed", ids, table, to=Type("f32", ids.type.lead, table.type.tail), row=row)


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
    """Elementwise product, same shapes; or y [T, 1], which multiplies all of its row."""
    _need(y.type in (x.type, Type("f32", x.type.lead, (1,))), "mul", x, y)
    return _one("mul", x, y, to=x.type)


def sigmoid_mul(x: Value, gate: Value) -> Value:
    """[T, D], [T, D] or [T, 1] -> [T, D]: x * sigmoid(gate)."""
    _need(gate.type in (x.type, Type("f32", x.type.lead, (1,))), "sigmoid_mul", x, gate)
    return _one("sigmoid_mul", x, gate, to=x.type)


def gate(x: Value, gates: Value, *, groups: str) -> Value:
    """[T, R], [T, A] -> [T, R]: columns, group by group, times one of the row's gates.

    groups: "gate:columns" of consecutive columns with commas between, as "0:8,2:16". What an adapter of low rank adds is
    b(gate(a x)): the ranks of all adapters side by side, each times what it counts for the row.
    """
    widths = [int(group.partition(":")[2]) for group in groups.split(",")]
    _need(sum(widths) == x.type.tail[0] and min(widths) > 0, "gate", x, gates)
    return _one("gate", x, gates, to=x.type, groups=groups)


def steer(x: Value, gates: Value, direction: Value, *, index: int) -> Value:
    """[T, D], [T, A], [D] -> [T, D]: x + gates[:, index] * direction."""
    _need(direction.type.shape == x.type.tail and index < gates.type.tail[0], "steer", x, gates, direction)
    return _one("steer", x, gates, direction, to=x.type, index=index)


def replace_rows(x: Value, vectors: Value, rows: Value) -> Value:
    """[T, D], [R, D], i32[R] -> [T, D]: x, but row rows[i] is vectors[i]. See `types.Given`."""
    _need(
        vectors.type.tail == x.type.tail and vectors.type.lead == rows.type.lead, "replace_rows", x, vectors
    )
    return _one("replace_rows", x, vectors, rows, to=x.type)


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


def relu(x: Value) -> Value:
    """max(x, 0)."""
    return _one("relu", x, to=x.type)


def sigmoid(x: Value) -> Value:
    """1 / (1 + e^-x)."""
    return _one("sigmoid", x, to=x.type)


def softplus(x: Value) -> Value:
    """log(1 + e^x)."""
    return _one("softplus", x, to=x.type)


def affine(x: Value, weight: Value, *bias: Value) -> Value:
    """[T, ...], weight and bias [...] or no bias -> [T, ...]: x * weight + bias, column by column."""
    _need(all(v.type.shape == x.type.tail for v in (weight, *bias)) and len(bias) <= 1, "affine", x, weight)
    return _one("affine", x, weight, *bias, to=x.type)


def relu2(x: Value) -> Value:
    """max(x, 0)^2."""
    return _one("relu2", x, to=x.type)


def gated(x: Value, *, act: str) -> Value:
    """[T, 2F] -> [T, F]: act(first half) * second half; `act` is one of GATES.

    swiglu_clamped: with g = min(gate, 7) and u = min(max(up, -7), 7), it is g * sigmoid(1.702 g) * (u + 1).
    """
    _need(act in GATES and x.type.tail[0] % 2 == 0, "gated", x)
    return _one("gated", x, to=Type("f32", x.type.lead, (x.type.tail[0] // 2,)), act=act)


def route(
    logits: Value,
    *bias: Value,
    num_used: int,
    score: str = "softmax",
    normed: int = 0,
    scaling: float = 1.0,
    groups: int = 1,
    top_groups: int = 1,
    group_top: int = 1,
) -> Value:
    """[T, E], and [E] or none -> [T, E]: the weights of the `num_used` experts of each row, 0 for the others.

    Scores are softmax(logits) or sigmoid(logits). Chosen are the largest of score + bias (ties: the lower id), among the
    `top_groups` of `groups` equal parts of E whose `group_top` largest add up to most. Weights are the scores, divided
    by their sum where `normed` is 1, times `scaling`. sparsemixer: num_used is 2; each choice in turn is the largest
    logit m of those left, its weight its softmax over those left l with m - l <= 0.02 * max(|l|, m).
    Source: DeepSeek-AI 2024, V3, section 2.1.2; Liu et al. 2024, GRIN, algorithm 1 (evaluation).
    """
    count = logits.type.tail[0]
    _need(all(b.type.shape == (count,) for b in bias) and len(bias) <= 1, "route", logits, *bias)
    _need(score in SCORES and (score != "sparsemixer" or num_used == 2), "route", logits)
    _need(count % groups == 0 and 1 <= top_groups <= groups, "route", logits)
    _need(
        1 <= group_top <= count // groups and 1 <= num_used <= count // groups * top_groups, "route", logits
    )
    attrs: dict[str, Attr] = {"num_used": num_used, "score": score, "normed": normed, "scaling": scaling}
    attrs |= {"groups": groups, "top_groups": top_groups, "group_top": group_top}
    return _one("route", logits, *bias, to=logits.type, **attrs)


def experts(
    x: Value,
    weights: Value,
    gate: Value,
    up: Value,
    down: Value,
    *biases: Value,
    num_used: int,
    act: str = "silu",
    weighs: str = "output",
) -> Value:
    """[T, D], [T, E], [E, F, D], [E, F, D], [E, D, F] -> [T, D]: gated feed-forwards, a few of E for each row.

    The result of a row is the sum, in rising expert id, of weight_e * down_e(act(gate_e x, up_e x)) over the experts
    whose weight is not 0, at most `num_used`; see `route` and, for `act`, `gated`. biases: of gate, up and down,
    [E, F], [E, F], [E, D], or none. weighs: "output", or "input": then down_e(act(gate_e(weight_e x), ...)) is summed.
    """
    count, inner, width = gate.type.shape
    shapes = (up.type.shape, down.type.shape, x.type.tail, weights.type.tail)
    wanted = ((count, inner, width), (count, width, inner), (width,), (count,))
    _need(shapes == wanted, "experts", x, weights, up, down)
    found, rows = [b.type.shape for b in biases], [(count, inner), (count, inner), (count, width)]
    _need(not biases or found == rows, "experts", x, *biases)
    _need(1 <= num_used <= count and act in GATES and weighs in ("output", "input"), "experts", weights)
    attrs: dict[str, Attr] = {"num_used": num_used, "act": act, "weighs": weighs}
    return _one("experts", x, weights, gate, up, down, *biases, to=x.type, **attrs)


def heads_linear(x: Value, weight: Value) -> Value:
    """[T, H, K], [H, N, K] -> [T, H, N]: each head times its own weight transposed."""
    heads, out, width = weight.type.shape
    _need(x.type.tail == (heads, width), "heads_linear", x, weight)
    return _one("heads_linear", x, weight, to=Type("f32", x.type.lead, (heads, out)))


def join(x: Value, y: Value) -> Value:
    """[T, H, A], [T, H or 1, B] -> [T, H, A + B]: heads side by side; one head of y serves all of x."""
    (heads, a), (others, b) = x.type.tail, y.type.tail
    _need(others in (1, heads), "join", x, y)
    return _one("join", x, y, to=Type("f32", x.type.lead, (heads, a + b)))


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
    *per_head: Value,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    chunk: int = 0,
    causal: bool = True,
    adds: str = "",
    reach: int = 0,
) -> Value:
    """Attention over a paged cache; stores k and v into it first.

    q [T, H, D]; k [T, G, D]; v [T, G, E]; cache: see `nn.Step.attend`; slots i32[T]: where each row's k and v go;
    starts i32[B + 1]: first row of each sequence; lengths i32[B]: context including this step; tables i32[B, M]:
    block ids. Key j is visible to the query at position i if j <= i and, where window > 0, i - j < window and, where
    chunk > 0, j // chunk == i // chunk. Where not causal, every key is, or those with |i - j| <= window // 2; all rows of a
    sequence are then in one step, so that every key is there. Scores are scale * q.k, then softcap * tanh(score / softcap) where softcap > 0.
    per_head f32[H], as `adds` says: "slopes" add slope * (j - i) to scores; "sinks" are one more score without a value;
    "buckets", f32[N, H], add the number of the bucket that j - i falls in, see `ir/buckets.py`; from `reach` on all share the last.
    k and v may be those of other rows than q, [M, ...] with slots i32[M]: of texts that the sequences attend to; lengths
    and tables are then those of the texts, and every key of them is visible.
    Returns [T, H, E].  Source: Press et al. 2022 (slopes); Xiao et al. 2024 (sinks); Raffel et al. 2020 (buckets).
    """
    _need(q.type.tail[0] % k.type.tail[0] == 0 and k.type.tail[0] == v.type.tail[0], "attention", q, k, v)
    _need(q.type.tail[1] == k.type.tail[1], "attention", q, k)
    _need(k.type.lead == v.type.lead == slots.type.lead, "attention", k, v, slots)
    _need(k.type.lead == q.type.lead or not (causal or window or adds), "attention", q, k)
    _need(
        len(per_head) == bool(adds) and adds in ("", "slopes", "sinks", "buckets"), "attention", q, *per_head
    )
    _need((adds == "buckets") == (reach > 0), "attention", q, *per_head)
    _need(all(x.type.shape[-1:] == q.type.tail[:1] for x in per_head), "attention", q, *per_head)
    inputs = (q, k, v, cache, slots, starts, lengths, tables, *per_head)
    to = Type("f32", q.type.lead, (q.type.tail[0], v.type.tail[1]))
    attrs: dict[str, Attr] = {"scale": scale, "window": window, "softcap": softcap, "chunk": chunk}
    attrs |= {"causal": causal, "adds": adds, "reach": reach}
    return _one("attention", *inputs, to=to, **attrs)


def causal_conv(
    x: Value,
    weight: Value,
    state: Value,
    starts: Value,
    lengths: Value,
    tables: Value,
    *bias: Value,
    act: str = "",
) -> Value:
    """[T, C], [C, K], bias [C] or none -> [T, C]: act(bias + sum_k weight[:, k] * x at position t - K + 1 + k).

    Every column by itself; what lies before position 0 is 0; act is "" or one of ACTIVATIONS. state: see `nn.Step.state`,
    f32[K - 1, C], the last inputs, oldest first. starts, lengths, tables: see `attention`.
    """
    columns_, taps = weight.type.shape
    _need(x.type.tail == (columns_,) and taps >= 2, "causal_conv", x, weight)
    _need(state.type.tail == (taps - 1, columns_), "causal_conv", x, state)
    _need(all(b.type.shape == (columns_,) for b in bias) and len(bias) <= 1, "causal_conv", x, *bias)
    _need(act == "" or act in ACTIVATIONS, "causal_conv", x)
    return _one("causal_conv", x, weight, state, starts, lengths, tables, *bias, to=x.type, act=act)


def scan(
    x: Value,
    dt: Value,
    a: Value,
    b: Value,
    c: Value,
    d: Value,
    state: Value,
    starts: Value,
    lengths: Value,
    tables: Value,
) -> Value:
    """Selective state space: [T, H, P], [T, H], [H, N or 1], [T, G, N], [T, G, N], [H] -> [T, H, P].

    With s = softplus(dt_h), per head h of group g = h // (H / G): state = exp(s a_h) * state + (s x) b_g^T, each row of
    it; the result is state c_g + d_h x. state: see `nn.Step.state`, f32[H, P, N]. Rows of a sequence one after another.
    Source: Gu and Dao 2023 (P = 1, a per state); Dao and Gu 2024 (a per head).
    """
    (heads, width), (groups, n) = x.type.tail, b.type.tail
    _need(heads % groups == 0 and b.type == c.type and dt.type.tail == (heads,), "scan", x, dt, b, c)
    _need(a.type.shape in ((heads, n), (heads, 1)) and d.type.shape == (heads,), "scan", x, a, d)
    _need(state.type.tail == (heads, width, n), "scan", x, state)
    return _one("scan", x, dt, a, b, c, d, state, starts, lengths, tables, to=x.type)


def linear_attention(
    q: Value,
    k: Value,
    v: Value,
    w: Value,
    state: Value,
    starts: Value,
    lengths: Value,
    tables: Value,
    *more: Value,
    rule: str,
) -> Value:
    """Attention as a matrix that is updated row by row: q, k [T, H, K], v [T, H, V] -> [T, H, V].

    Per head, S is [K, V] and o the result; diag(x) S scales the rows of S. By `rule`:
    delta: w [T, H], more = beta [T, H]: S = exp(w) S; S = S + k (beta (v - S^T k))^T; o = S^T q.
    bonus: w [T, H, K], more = u [H, K]: o = S^T q + (q . u k) v; S = diag(exp(-exp(w))) S + k v^T.
    removal: w [T, H, K], more = a, b [T, H, K]: S = diag(exp(w)) S + b (S^T a)^T + k v^T; o = S^T q.
    state: see `nn.Step.state`, f32[H, K, V].  Source: Yang et al. 2024 (gated delta rule); Peng et al. 2024, 2025 (RWKV 6, 7).
    """
    (heads, keys), values = q.type.tail, v.type.tail[1]
    _need(q.type == k.type and v.type.tail[0] == heads, "linear_attention", q, k, v)
    _need(state.type.tail == (heads, keys, values), "linear_attention", q, state)
    per_row, per_head = Type("f32", q.type.lead, (heads,)), Type("f32", heads, (keys,))
    wanted = {"delta": (per_row, per_row), "bonus": (q.type, per_head), "removal": (q.type,) * 3}
    _need(wanted.get(rule) == tuple(x.type for x in (w, *more)), "linear_attention", q, w, *more)
    return _one("linear_attention", q, k, v, w, state, starts, lengths, tables, *more, to=v.type, rule=rule)


def take_rows(x: Value, rows: Value) -> Value:
    """[T, D], i32[S] -> [S, D]."""
    return _one("take_rows", x, rows, to=Type("f32", rows.type.lead, x.type.tail))
