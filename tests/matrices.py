"""Weight matrices of random bytes: every code occurs, scales stay sane, so that kernels meet what encoders never write."""

import numpy as np

from tokamak.quant import FORMATS

KERNEL_FORMATS = ("f32", "f16", "bf16", "q4_0", "q5_0", "q8_0", "q4_k", "q5_k", "q6_k", "tq2_0")
INTEGER_FORMATS = KERNEL_FORMATS[3:]
GROUP = dict.fromkeys(KERNEL_FORMATS[:3], 1) | dict.fromkeys(("q4_0", "q5_0", "q8_0"), 32)


def group(name):
    """Columns that share one activation scale."""
    return GROUP.get(name, 256)


def random_rows(name, rows, cols, rng, scale=None):
    """uint8[rows, row_nbytes]: random codes and group scales; float scales random, or all equal to `scale`."""
    fmt = FORMATS[name]
    if name in ("f32", "f16", "bf16"):
        return fmt.encode(rng.standard_normal((rows, cols)).astype(np.float32))
    groups = rng.integers(0, 256, (rows * cols // fmt.block_size, fmt.type_size), dtype=np.uint8)
    view = groups.view(fmt.dtype).reshape(-1)
    for field in {"d", "dmin"} & set(fmt.dtype.names):
        view[field] = rng.uniform(0.001, 0.02, len(view)) if scale is None else scale
    return groups.reshape(rows, -1)


def magnitude(name, rows):
    """f64[rows, cols]: |weight| without the cancellation between its two parts, for error bounds."""
    fmt = FORMATS[name]
    total = 0.0
    fields = ("d", "dmin") if "dmin" in (fmt.dtype.names or ()) else (None,)
    for field in fields:
        part = rows.copy()
        if field is not None:
            part.reshape(-1, fmt.type_size).view(fmt.dtype)[field] = 0
        total = total + np.abs(fmt.decode(part).astype(np.float64))
    return total


def dequantised_activations(native, isa, name, x):
    """f64[T, K]: what the kernel of this format multiplies with."""
    if name in ("f32", "f16", "bf16"):
        return x.astype(np.float64)
    kind = "q8_32" if group(name) == 32 else "q8_256"
    out = []
    for row in x:
        q, d = native.quantize_activation(isa, kind, row)
        out.append(q.astype(np.float64) * np.repeat(d.astype(np.float64), group(name)))
    return np.array(out)
