"""Speed of the packed matrix kernels on one thread: cycles per weight byte and multiply-adds per cycle.

Method: shortest of many runs. One row (decode) over a matrix that stays in the second-level cache, 64 and 512 rows
(prompt) over 64 output rows; activations are quantised once, outside the timing. A cycle is one dependent addition,
timed in the same run, so the numbers do not depend on the clock. The packed size counts, which is what memory must
deliver. usage: PYTHONPATH=src python benchmarks/kernels.py [--isa avx2] [--columns 2048] [FORMAT ...]
"""

from __future__ import annotations

import argparse
import platform
import subprocess
from pathlib import Path

import numpy as np
from make_model import set_scales

from tokamak import _native
from tokamak.quant import FORMATS

KERNEL_FORMATS = (
    *("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
    *(
        "iq1_s",
        "iq1_m",
        "iq2_xxs",
        "iq2_xs",
        "iq2_s",
        "iq3_xxs",
        "iq3_s",
        "iq4_nl",
        "iq4_xs",
        "mxfp4",
        "nvfp4",
    ),
    *("q1_0", "q2_0", "tq1_0", "tq2_0", "i2_s"),
)
CACHE_NBYTES = 300 << 10
PROMPT_ROWS = (64, 512)


def machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(names)}; Python {platform.python_version()}; {commit.stdout.strip()}"


def weights(name: str, rows: int, columns: int) -> np.ndarray:
    """Random bytes with a small scale: speed does not depend on values, but denormals and NaN would."""
    fmt, rng = FORMATS[name], np.random.default_rng(0)
    if fmt.block_size == 1:
        return fmt.encode(rng.standard_normal((rows, columns)).astype(np.float32)).reshape(-1)
    groups = np.frombuffer(rng.bytes(rows * columns // fmt.block_size * fmt.type_size), fmt.dtype).copy()
    set_scales(name, groups, np.full(len(groups), 0.01))
    return groups.view(np.uint8)


def line(isa: str, name: str, columns: int, hertz: float) -> str:
    x = np.random.default_rng(1).standard_normal((max(PROMPT_ROWS), columns)).astype(np.float32)
    panel_nbytes = _native.PackedMatrix(isa, name, weights(name, 16, columns), 16, columns).nbytes // 16
    rows = max(64, CACHE_NBYTES // panel_nbytes // 64 * 64)
    matrix = _native.PackedMatrix(isa, name, weights(name, rows, columns), rows, columns)
    one = matrix.seconds(x[:1], 0.1)
    prompt = _native.PackedMatrix(isa, name, weights(name, 64, columns), 64, columns)
    rates = [n * 64 * columns / prompt.seconds(x[:n], 0.2) / hertz for n in PROMPT_ROWS]
    bits = 8 * matrix.nbytes / rows / columns
    return (
        f"{isa:<12}{name:<8}{bits:>8.3f}{one * hertz / matrix.nbytes:>10.4f}{matrix.nbytes / one / 1e9:>8.1f}"
        + "".join(f"{rate:>9.1f}" for rate in rates)
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--isa", choices=_native.isas(), action="append")
    parser.add_argument("--columns", type=int, default=2048)
    parser.add_argument("formats", nargs="*", default=KERNEL_FORMATS)
    arguments = parser.parse_args()
    hertz = _native.clock_hertz()
    print(f"{machine()}; 1 thread at {hertz / 1e9:.2f} GHz")
    head = "".join(f"{f'MAC/c {n}':>9}" for n in PROMPT_ROWS)
    print(f"{'isa':<12}{'format':<8}{'bits/w':>8}{'c/byte':>10}{'GB/s':>8}{head}")
    for isa in arguments.isa or _native.isas():
        for name in arguments.formats:
            print(line(isa, name, arguments.columns, hertz), flush=True)


if __name__ == "__main__":
    main()
