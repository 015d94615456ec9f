"""Weight matrices of random bytes: every code occurs, scales stay sane, so that kernels meet what encoders never write."""

import numpy as np

from tokamak.quant import FORMATS

FLOAT_FORMATS = ("f32", "f16", "bf16")
GROUPS_32 = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4", "nvfp4", "q1_0", "q2_0")
K_FORMATS = ("q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
LATTICES = ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s")
WHOLE = ("i2_s", "i2_s_arm")  # one scale for the matrix, activations in whole rows
INTEGER_FORMATS = (*GROUPS_32, *K_FORMATS, "iq4_xs", *LATTICES, "tq1_0", "tq2_0", *WHOLE)
KERNEL_FORMATS = (*FLOAT_FORMATS, *INTEGER_FORMATS)
# Four codes of 0, 1, 2 in a byte: what i2_s may hold.
TERNARY_BYTES = np.array(
    [a | b << 2 | c << 4 | d << 6 for a in range(3) for b in range(3) for c in range(3) for d in range(3)],
    dtype=np.uint8,
)


def group(name):
    """Columns that share one activation scale; 256 for the formats with one per row, whose sums are exact."""
    return 1 if name in FLOAT_FORMATS else 32 if name in GROUPS_32 else 256


def set_scales(name, groups, scale):
    """Write float scales (one number, or one for each of the groups) into uint8[n, type_size]."""
    fmt = FORMATS[name]
    if name in WHOLE:
        return
    view = groups.view(fmt.dtype).reshape(-1)
    scale = np.broadcast_to(np.asarray(scale, np.float64), view.shape)
    if name == "mxfp4":
        view["e"] = np.round(np.log2(scale)) + 128
    elif name == "nvfp4":
        view["d"] = (8 + np.round(np.log2(scale)).clip(-7, 6).astype(np.int64)[:, None]) * 8
    elif name == "iq1_m":
        bits = scale.astype(np.float16).view(np.uint16)[:, None] >> np.array([0, 4, 8, 12], dtype=np.uint16)
        view["scales"] = (view["scales"] & 0x0FFF) | ((bits & 15) << 12)
    else:
        for field in {"d", "dmin", "m"} & set(fmt.dtype.names):
            view[field] = scale


def random_rows(name, rows, cols, rng, scale=None):
    """uint8[rows, row_nbytes]: random codes and group scales; float scales random, or all equal to `scale`."""
    fmt = FORMATS[name]
    if name in FLOAT_FORMATS:
        return fmt.encode(rng.standard_normal((rows, cols)).astype(np.float32))
    groups = rng.integers(0, 256, (rows * cols // fmt.block_size, fmt.type_size), dtype=np.uint8)
    if name in WHOLE:
        groups = TERNARY_BYTES[groups % 81]
    set_scales(name, groups, rng.uniform(0.001, 0.02, len(groups)) if scale is None else scale)
    return groups.reshape(rows, -1)


def decoded(name, rows):
    """f32[rows, cols] by the codec; the scale of whole-tensor formats is one."""
    fmt = FORMATS[name]
    if not fmt.tail:
        return fmt.decode(rows)
    tail = np.zeros(fmt.tail, dtype=np.uint8)
    tail[:4] = np.float32(1).reshape(1).view(np.uint8)
    return fmt.decode(np.concatenate([rows.reshape(-1), tail])[None]).reshape(len(rows), -1)


def magnitude(name, rows):
    """f64[rows, cols]: |weight| without the cancellation between its two parts, for error bounds."""
    fmt = FORMATS[name]
    total = 0.0
    names = fmt.dtype.names or ()
    fields = next((pair for pair in (("d", "dmin"), ("d", "m")) if set(pair) <= set(names)), (None,))
    for field in fields:
        part = rows.copy()
        if field is not None:
            part.reshape(-1, fmt.type_size).view(fmt.dtype)[field] = 0
        total = total + np.abs(decoded(name, part).astype(np.float64))
    return total


def dequantised_activations(native, isa, name, x):
    """f64[T, K]: what the kernel of this format multiplies with."""
    if name in FLOAT_FORMATS:
        return x.astype(np.float64)
    kind = "q8_row" if name in WHOLE else "q8_32" if group(name) == 32 else "q8_256"
    out = []
    for row in x:
        q, d = native.quantize_activation(isa, kind, row)
        out.append(q.astype(np.float64) * np.repeat(d.astype(np.float64), len(q) // len(d)))
    return np.array(out)
