"""Table-lookup kernels (tl1, tl2) against the multiplying kernels of the engine: one thread, one row of activations.

lookup.cpp is compiled for the run. Both versions of both layouts are first compared with NumPy's integers. Then every
kernel takes turns over a matrix that stays in the second-level cache and one that does not fit any cache; the median
of the ratios to the engine's own i2_s counts. Lookups are counted from the layout: one per group of two or three
weights. The sizes of the tables are those of the structs. usage: lookup.py [--columns 2560] [--rounds 7]
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tokamak import _native
from tokamak.quant import FORMATS

PANEL = 32
BLOCK = 256  # steps
STEP = {"tl1": (4, 32), "tl2": (6, 40)}  # columns and bytes of a step of 32 rows
IN_CACHE, IN_MEMORY = 256 << 10, 192 << 20
TURN_NBYTES = 400 << 20  # read in one timing
SHORTEST = 0.05  # seconds of one timing of an engine's kernel


@dataclass(frozen=True)
class Kernel:
    name: str
    nbytes: int
    num_weights: int
    num_lookups: int
    seconds: Callable[[], float]


def compiled(folder: Path) -> ctypes.CDLL:
    out = folder / "lookup.so"
    command = ["g++", "-std=c++20", "-O3", "-shared", "-fPIC", "-o", str(out)]
    subprocess.run([*command, str(Path(__file__).with_name("lookup.cpp"))], check=True)
    return ctypes.CDLL(str(out))


def packed(name: str, t: np.ndarray) -> np.ndarray:
    """uint8[steps * rows / 32, bytes], in blocks of steps, of int8[rows, columns] of -1, 0, 1; columns are padded with zeros."""
    width, nbytes = STEP[name]
    group = width // 2
    t = np.pad(t, ((0, 0), (0, -t.shape[1] % width)))
    weights = 3 ** np.arange(group - 1, -1, -1)
    codes = (t.reshape(-1, PANEL, t.shape[1] // width, 2, group) * weights).sum(-1).transpose(0, 2, 3, 1)
    out = np.zeros((*codes.shape[:2], nbytes), np.uint8)
    index = codes + 4 if name == "tl1" else np.abs(codes)
    out[..., :PANEL] = index[:, :, 0] | index[:, :, 1] << 4
    if name == "tl2":
        out[..., PANEL:] = np.packbits(codes < 0, axis=-1, bitorder="little").reshape(*codes.shape[:2], 8)
    parts = [out[:, i : i + BLOCK].reshape(-1, nbytes) for i in range(0, out.shape[1], BLOCK)]
    return np.concatenate(parts)


def tables(library: ctypes.CDLL, name: str, x: np.ndarray) -> np.ndarray:
    width = STEP[name][0]
    x = np.pad(x, (0, -len(x) % width))
    out = np.zeros((len(x) * 2 // width, 32), np.uint8)
    library[f"{name}_tables"](x.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(x)), pointer(out))
    return out


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def product(
    library: ctypes.CDLL, kernel: str, w: np.ndarray, table: np.ndarray, out: np.ndarray, repeats: int = 1
) -> None:
    library[kernel](
        pointer(w),
        pointer(table),
        ctypes.c_int64(len(out) // PANEL),
        ctypes.c_int64(len(table) // 2),
        pointer(out),
        ctypes.c_int64(repeats),
    )


def check(library: ctypes.CDLL, name: str, columns: int) -> None:
    """Raises: AssertionError if a sum differs from the plain integer product."""
    rng = np.random.default_rng(0)
    t = rng.integers(-1, 2, (64, columns)).astype(np.int8)
    for x in (rng.integers(-127, 128, columns), np.full(columns, 127)):
        expected, out = t.astype(np.int64) @ x, np.zeros(64, np.int32)
        for isa in ("scalar", "avx2"):
            out[:] = 0
            product(library, f"{name}_{isa}", packed(name, t), tables(library, name, x.astype(np.int8)), out)
            assert (out == expected).all(), f"{name} on {isa} is wrong"


def per_turn(work: Callable[[int], None], turns: int) -> float:
    """Seconds of one of so many turns."""
    start = time.perf_counter()
    work(turns)
    return (time.perf_counter() - start) / turns


def lookup(library: ctypes.CDLL, name: str, columns: int, budget: int) -> Kernel:
    width, nbytes = STEP[name]
    steps = -(-columns // width)
    panels = budget // (steps * nbytes)
    rng = np.random.default_rng(1)
    one = rng.integers(-1, 2, (PANEL, columns)).astype(np.int8)
    w = np.tile(packed(name, one), (panels, 1))  # codes in any order: speed does not depend on them
    table = tables(library, name, rng.integers(-127, 128, columns).astype(np.int8))
    out = np.zeros(panels * PANEL, np.int32)
    return Kernel(
        name,
        w.nbytes,
        panels * PANEL * columns,
        panels * PANEL * steps * 2,
        lambda: per_turn(
            lambda n: product(library, f"{name}_avx2", w, table, out, n), max(1, TURN_NBYTES // w.nbytes)
        ),
    )


def multiply(name: str, columns: int, budget: int) -> Kernel:
    rows = budget * 4 // columns // 64 * 64
    t = np.random.default_rng(1).integers(-1, 2, (64, columns)).astype(np.float32)
    data = np.ascontiguousarray(FORMATS[name].encode(np.tile(t, (rows // 64, 1))))
    if FORMATS[name].tail:
        data = data[:, : -FORMATS[name].tail]
    matrix = _native.PackedMatrix("avx2", name, data.reshape(-1), rows, columns)
    x = np.random.default_rng(2).standard_normal((1, columns)).astype(np.float32)
    return Kernel(name, matrix.nbytes, rows * columns, 0, lambda: matrix.seconds(x, SHORTEST))


def report(place: str, kernels: list[Kernel], rounds: int) -> None:
    taken: list[list[float]] = [[] for _ in kernels]
    for i in range(rounds):
        for k in range(len(kernels)) if i % 2 == 0 else reversed(range(len(kernels))):
            taken[k].append(kernels[k].seconds() / kernels[k].num_weights)
    for kernel, seconds in zip(kernels, taken, strict=True):
        ratios = sorted(a / b for a, b in zip(taken[0], seconds, strict=True))
        rate = 1 / statistics.median(seconds)
        each = (
            statistics.median(seconds) * kernel.num_weights / kernel.num_lookups if kernel.num_lookups else 0
        )
        print(
            f"{place:<10}{kernel.name:<7}{8 * kernel.nbytes / kernel.num_weights:>7.3f} bits{rate / 1e9:>8.1f} G weights/s"
            f"{statistics.median(ratios):>7.2f} x ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
            + (f"   {each * 1e9:.4f} ns a lookup" if each else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--columns", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    columns = arguments.columns
    with tempfile.TemporaryDirectory() as folder:
        library = compiled(Path(folder))
        for name in STEP:
            check(library, name, columns)
            groups = -(-columns // STEP[name][0]) * 2
            print(f"{name}: sums equal NumPy's; tables of {columns} activations take {groups * 32} bytes")
        for place, budget in (("in cache", IN_CACHE), ("in memory", IN_MEMORY)):
            own = [multiply(name, columns, budget) for name in ("i2_s", "tq2_0")]
            report(place, [*own, *(lookup(library, n, columns, budget) for n in STEP)], arguments.rounds)


if __name__ == "__main__":
    main()
