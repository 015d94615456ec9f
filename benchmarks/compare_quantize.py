"""tokamak quantize and llama.cpp's quantizer on the same file: seconds, and the error of what they write.

Each runs in its own process, in turns, with the same number of threads, from the same f16 file in the page cache to the
same folder. Errors are relative: rms of the difference over rms of the source, over all matrices that changed; with
importance the squared errors of a column count as much as its importance says. tokamak's time is that of the whole
command's work (without the start of Python), llama.cpp's that of llama_model_quantize. Beside it the processor seconds of
each process, its start included: on a machine that others use too, they say more than the clock. The load is printed.

usage: compare_quantize.py SOURCE-f16.gguf [--to q4_k_m,q8_0] [--threads 2] [--pairs 3] [--importance] [--folder DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tokamak.loaders import open_gguf
from tokamak.loaders.imatrix import Importance, write_imatrix
from tokamak.observe.machine import Machine
from tokamak.quant import FORMATS
from tokamak.quant.recipes import recipe

PEER = Path(__file__).with_name("llama_quantize.py")
ROWS = 4096  # of a matrix whose error is measured


def processor_seconds() -> float:
    """User and system time of all processes that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def timed(work: Callable[..., float], *arguments: object) -> tuple[float, float]:
    """(seconds by the clock, processor seconds) of one run."""
    before = processor_seconds()
    seconds = work(*arguments)
    return seconds, processor_seconds() - before


def ours(source: Path, target: Path, to: str, threads: int, matrix: Path | None) -> float:
    words = [sys.executable, "-m", "tokamak", "quantize", source, target, "--to", to, "--threads", threads]
    words += ["--json", "--quiet"] + (["--imatrix", matrix] if matrix else [])
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["seconds"]


def theirs(source: Path, target: Path, to: str, threads: int, matrix: Path | None) -> float:
    words = [sys.executable, PEER, source, target, recipe(to).file_type, threads]
    words += [matrix] if matrix else []
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"llama.cpp's quantizer failed: {done.stderr[-500:]}")
    return float(done.stdout)


def error(source: Path, target: Path, importance: dict[str, np.ndarray]) -> float:
    """Relative error of the first ROWS rows of every matrix that changed its format."""
    before, after = open_gguf(source), open_gguf(target)
    missed = total = 0.0
    for name, info in after.tensors.items():
        old = before.tensors[name]
        if info.format == old.format or len(info.shape) < 2:
            continue
        pair = []
        for one in (old, info):
            rows = one.data().reshape(-1, FORMATS[one.format].row_nbytes(one.shape[-1]))[:ROWS]
            pair.append(FORMATS[one.format].decode(rows).astype(np.float64))
        w = importance.get(name, np.ones(info.shape[-1]))
        missed += float((((pair[0] - pair[1]) ** 2) @ w).sum())
        total += float(((pair[0] ** 2) @ w).sum())
    return (missed / total) ** 0.5


def make_importance(source: Path, folder: Path) -> tuple[Path, Path, dict[str, np.ndarray]]:
    """A skewed importance for every matrix, in both programs' forms."""
    rng, means = np.random.default_rng(0), {}
    for name, info in open_gguf(source).tensors.items():
        if len(info.shape) == 2:
            means[name] = np.exp(rng.standard_normal(info.shape[-1])).astype(np.float32)
    ones = np.ones(1, np.float32)
    matrix = Importance("synthetic", {n: m[None] for n, m in means.items()}, dict.fromkeys(means, ones))
    write_imatrix(folder / "importance.gguf", matrix)
    np.savez(folder / "importance.npz", **means)
    return folder / "importance.gguf", folder / "importance.npz", means


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("--to", default="q4_k_m,q8_0,q6_k,iq4_xs")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--importance", action="store_true")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    print(f"{Machine.here().cpu}; {args.threads} threads; {args.source.name}; load {os.getloadavg()[0]:.1f}")
    print(
        f"{'to':<10}{'tokamak s':>11}{'llama s':>10}{'ratio':>8}{'spread':>8}{'cpu s':>8}{'llama':>8}{'ratio':>8}"
        f"{'error':>10}{'llama':>10}"
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        gguf, npz, means = make_importance(args.source, folder) if args.importance else (None, None, {})
        for to in args.to.split(","):
            a, b = folder / "a.gguf", folder / "b.gguf"
            mine, theirs_, common = [], [], (args.threads,)
            for turn in range(args.pairs):
                runs = [(mine, ours, a, gguf), (theirs_, theirs, b, npz)]
                for into, work, target, matrix in runs if turn % 2 == 0 else reversed(runs):
                    into.append(timed(work, args.source, target, to, *common, matrix))
            ratios = [t[0] / o[0] for o, t in zip(mine, theirs_, strict=True)]
            clock, processor = (
                [statistics.median(t[i] for t in run) for run in (mine, theirs_)] for i in (0, 1)
            )
            print(
                f"{to:<10}{clock[0]:>11.2f}{clock[1]:>10.2f}{statistics.median(ratios):>8.2f}"
                f"{max(ratios) / min(ratios):>8.2f}{processor[0]:>8.2f}{processor[1]:>8.2f}"
                f"{processor[1] / processor[0]:>8.2f}{error(args.source, a, means):>10.5f}"
                f"{error(args.source, b, means):>10.5f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
