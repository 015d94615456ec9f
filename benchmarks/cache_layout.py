"""Layouts of the K/V cache: rows [position][dim] against blocks [dim][32 positions], for keys and for values.

The cache holds keys in blocks and values in rows. cache_layout.cpp computes scores of one query and sums of values in either,
over f16 as the default cache has it, one thread. Results are compared with float64 first; then the layouts take turns, and the
median of the ratios of a round counts. usage: cache_layout.py [--positions 512,4096,32768] [--dim 128] [--rounds 15]
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from tokamak.observe.machine import Machine

TURN_NBYTES = 32 << 20  # read in one timing
KINDS = {"scores of keys": ("dot_rows", "dot_blocks"), "sums of values": ("add_rows", "add_blocks")}


def compiled(folder: str) -> ctypes.CDLL:
    """The shared object of cache_layout.cpp."""
    path = str(Path(folder) / "cache_layout.so")
    source = Path(__file__).with_suffix(".cpp")
    flags = ["-O3", "-std=c++20", "-mavx2", "-mfma", "-mf16c", "-shared", "-fPIC"]
    subprocess.run(["c++", *flags, "-o", path, source], check=True)
    return ctypes.CDLL(path)


def compare(library: ctypes.CDLL, positions: int, dim: int, rounds: int) -> None:
    """One line per kind."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((positions, dim)).astype(np.float16)
    blocks = np.empty_like(rows)
    size = ctypes.c_int64(positions), ctypes.c_int64(dim)
    library.transpose(rows.ctypes, *size, blocks.ctypes)
    for kind, names in KINDS.items():
        keys = kind == "scores of keys"
        x = rng.standard_normal(dim if keys else positions).astype(np.float32)
        exact = rows.astype(np.float64) @ x if keys else x @ rows.astype(np.float64)
        out = np.empty(len(exact), np.float32)
        calls = [
            (getattr(library, name), x.ctypes, a.ctypes, *size, out.ctypes)
            for name, a in zip(names, (rows, blocks), strict=True)
        ]
        for run, *given in calls:
            run(*given)
            assert np.abs(out - exact).max() < 1e-4 * np.abs(exact).max() * np.sqrt(len(x)), kind
        times: list[list[float]] = []
        for turn in range(rounds):
            took = {}
            for i in (0, 1) if turn % 2 else (1, 0):
                run, *given = calls[i]
                start = time.perf_counter()
                for _ in range(max(1, TURN_NBYTES // rows.nbytes)):
                    run(*given)
                took[i] = time.perf_counter() - start
            times.append([took[0], took[1]])
        ratios = [a / b for a, b in times]
        rate = [TURN_NBYTES / statistics.median(t[i] for t in times) / 1e9 for i in (0, 1)]
        print(
            f"{positions:>7} {kind:<16} rows {rate[0]:5.1f} GB/s, blocks {rate[1]:5.1f} GB/s, "
            f"blocks {statistics.median(ratios):.2f} x rows ({min(ratios):.2f}..{max(ratios):.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--positions", default="512,4096,32768")
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    print(f"{Machine.here().line()}; one thread, f16, {args.dim} dims")
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(folder)
        for positions in map(int, args.positions.split(",")):
            compare(library, positions, args.dim, args.rounds)


if __name__ == "__main__":
    main()
