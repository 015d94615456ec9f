"""Processor time to draw one token from a row of logits, by chain: what sampling adds to a step for each sequence.

usage: samplers.py [--vocab 128256] [--history 2000] [--repeat 200] [--rows 16] [--json]
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from tokamak import _native
from tokamak.observe.machine import Machine
from tokamak.sampling import Place, Sampler, SamplingParams, sample_rows

OPEN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temperature": 1.0}  # every filter off
CHAINS = {
    "default": {},
    "greedy": {"temperature": 0.0},
    "default + repetition penalty": {"repetition_penalty": 1.1},
    "default + logit bias": {"logit_bias": {5: 1.0}},
    "default + DRY": {"dry_multiplier": 0.8},
    "default + logprobs": {"logprobs": 5},
    "draw only": OPEN,
    "temperature": OPEN | {"temperature": 0.8},
    "min-p": OPEN | {"min_p": 0.05},
    "top-p": OPEN | {"top_p": 0.95},
    "top-p, temperature 0.8": OPEN | {"top_p": 0.95, "temperature": 0.8},
    "top-k 5,000": OPEN | {"top_k": 5000},
    "typical": OPEN | {"typical_p": 0.9},
    "tail-free": OPEN | {"tfs_z": 0.95},
    "eta": OPEN | {"eta_cutoff": 3e-4},
    "top-n-sigma": OPEN | {"top_n_sigma": 1.0},
    "XTC": OPEN | {"xtc_probability": 1.0, "xtc_threshold": 0.01},
    "dynamic temperature": OPEN | {"temperature": 0.8, "dynatemp_range": 0.5},
    "adaptive-p": OPEN | {"adaptive_target": 0.3},
    "mirostat 1": {"mirostat": 1},
    "mirostat 2": {"mirostat": 2},
}


def measured(fields: dict, args: argparse.Namespace) -> tuple[float, float, float]:
    """Quartiles of ms per token."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((8, args.vocab)) * 3.0).astype(np.float32)
    history = rng.integers(0, args.vocab, args.history).astype(np.int32)
    sampler = Sampler(SamplingParams(**fields), seed=1)
    times = []
    for number in range(args.repeat + 5):
        began = time.thread_time()
        sampler.sample(rows[number % 8], history, position=number)
        times.append(1000.0 * (time.thread_time() - began))
    low, middle, high = np.percentile(times[5:], [25, 50, 75]).tolist()
    return low, middle, high


def together(fields: dict, args: argparse.Namespace) -> tuple[float, float]:
    """ms of time per row when `--rows` rows are drawn in one call: one by one, and over two threads."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((args.rows, args.vocab)) * 3.0).astype(np.float32)
    history = rng.integers(0, args.vocab, args.history).astype(np.int32)
    samplers = [Sampler(SamplingParams(**fields), seed=i) for i in range(args.rows)]
    program = _native.CpuProgram(
        num_blocks=1,
        num_recent_blocks=1,
        max_rows=1,
        max_sequences=1,
        threads=2,
        row_nbytes=(64, 0, 0),
        result_width=1,
    )
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(2 * (args.repeat // args.rows + 2)):
        spread = bool(number % 2)
        places = [Place(s, row, history, (), number) for s, row in zip(samplers, rows, strict=True)]
        began = time.perf_counter()
        sample_rows(places, program if spread else None)
        times[spread].append(1000.0 * (time.perf_counter() - began) / args.rows)
    return float(np.median(times[False])), float(np.median(times[True]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--vocab", type=int, default=128_256)
    parser.add_argument("--history", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=200)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = {name: (*measured(fields, args), *together(fields, args)) for name, fields in CHAINS.items()}
    if args.json:
        print(json.dumps({"machine": Machine.here().facts(), "vocab": args.vocab, "ms_per_row": found}))
        return
    print(Machine.here().line())
    print(f"vocabulary {args.vocab}, history {args.history}; ms of processor time per row,")
    print(f"then ms of time per row of {args.rows} drawn in one call, by one thread and by two\n")
    print(f"{'chain':<32}{'median':>8}   quartiles      together    spread")
    for name, (low, middle, high, alone, spread) in found.items():
        print(f"{name:<32}{middle:>8.3f}   {low:.3f}..{high:.3f}{alone:>11.3f}{spread:>10.3f}")


if __name__ == "__main__":
    main()
