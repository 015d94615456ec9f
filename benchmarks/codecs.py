"""Speed of every codec on one thread: million elements per second, best of three.

Method: one matrix of normal values that does not fit the last-level cache by much (rows x 4096 f32), encoded once per
repeat and decoded once per repeat; the copy line is what moving the same f32 matrix costs in the same run, and the ratio
is decode over copy. Seconds are those of the thread, so that other work on the machine disturbs little. tl1 and tl2 hold
matrices of -1, 0, 1: their lines include rounding from and scaling to f32.
usage: PYTHONPATH=src python benchmarks/codecs.py [--rows 256] [FORMAT ...]
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402 - after the thread counts

from tokamak.quant import FORMATS, lookup  # noqa: E402
from tokamak.quant.error import rmse  # noqa: E402

COLUMNS = 4096
REPEATS = 3


def best_of(work) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times)


def lookup_line(name: str, x: np.ndarray) -> str:
    """The line of a layout of bitnet.cpp's lookup kernels, from f32 and back."""
    encode, decode, tiles = {
        "tl1": (lookup.encode_tl1, lookup.decode_tl1, lookup.Tiles(256, 128)),
        "tl2": (lookup.encode_tl2, lookup.decode_tl2, lookup.Tiles(256, 96)),
    }[name]
    scale = np.abs(x).mean()

    def write() -> np.ndarray:
        return encode(np.rint(np.clip(x / scale, -1, 1)).astype(np.int8), tiles)

    packed = write()
    millions = x.size / 1e6
    read = millions / best_of(lambda: np.multiply(decode(packed, x.shape, tiles), scale, dtype=np.float32))
    bits = 8 * packed.nbytes / x.size
    return f"{name:<10}{bits:>8.4g}{millions / best_of(write):>12.1f}{read:>12.1f}"


def machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    return f"{', '.join(names)}; Python {platform.python_version()}, NumPy {np.__version__}; {commit.stdout.strip()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument(
        "formats", nargs="*", default=[*(n for n, f in FORMATS.items() if f.decoder), "tl1", "tl2"]
    )
    arguments = parser.parse_args()
    x = np.random.default_rng(0).standard_normal((arguments.rows, COLUMNS)).astype(np.float32)
    target = np.empty_like(x)
    millions = x.size / 1e6
    copy = millions / best_of(lambda: np.copyto(target, x))
    print(f"{machine()}; 1 thread; copy of f32: {copy:.0f} M/s")
    print(f"{'format':<10}{'bits':>8}{'encode M/s':>12}{'decode M/s':>12}{'of copy':>9}{'rel. rmse':>11}")
    for name in arguments.formats:
        if name in ("tl1", "tl2"):
            print(lookup_line(name, x))
            continue
        fmt = FORMATS[name]
        encode_speed, error = float("nan"), float("nan")
        if fmt.encoder:
            rows = fmt.encode(x)
            encode_speed = millions / best_of(lambda f=fmt: f.encode(x))
            error = rmse(x, fmt.decode(rows).reshape(x.shape)) / rmse(x, np.zeros_like(x))
        else:
            shape = (arguments.rows, fmt.row_nbytes(COLUMNS))
            rows = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
        decode_speed = millions / best_of(lambda f=fmt, r=rows: f.decode(r))
        print(
            f"{name:<10}{fmt.bits_per_weight:>8.4g}{encode_speed:>12.1f}{decode_speed:>12.1f}"
            f"{decode_speed / copy:>9.2f}{error:>11.5f}"
        )


if __name__ == "__main__":
    main()
