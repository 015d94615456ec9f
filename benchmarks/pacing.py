"""Gaps between the tokens of running streams, undisturbed and while a long prompt is read.

Streams decode from short prompts; after a while a prompt of `--prompt` tokens comes. Undisturbed are the gaps before it was handed in
and after its first token, disturbed those between. The 95th percentiles are compared; each target on a model loaded anew.

usage: pacing.py MODEL.gguf [--prompt 4000] [--streams 4] [--targets none,150] [--context 8192] [--threads N] [--json]
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time

import numpy as np

import tokamak
from tokamak.observe.machine import Machine


def measured(llm: tokamak.LLM, args: argparse.Namespace) -> dict:
    """One run: gaps in ms of all streams, in three parts."""
    rng = np.random.default_rng(time.time_ns())
    stop = threading.Event()
    times: list[list[float]] = [[] for _ in range(args.streams)]

    def read(index: int) -> None:
        prompt = rng.integers(300, 20_000, 8).tolist()
        with llm.stream(prompt, max_tokens=args.context // 2, ignore_eos=True, temperature=0.0) as stream:
            for _ in stream.events():
                times[index].append(time.perf_counter())
                if stop.is_set():
                    return

    threads = [threading.Thread(target=read, args=(i,)) for i in range(args.streams)]
    for thread in threads:
        thread.start()
    while min(map(len, times)) < args.alone:
        time.sleep(0.01)
    begun = time.perf_counter()
    llm.generate(rng.integers(300, 20_000, args.prompt).tolist(), max_tokens=1, ignore_eos=True)
    ended = time.perf_counter()
    already = min(map(len, times))
    while min(map(len, times)) < already + args.alone:
        time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    quiet, beside = [], []
    for own in times:
        for a, b in itertools.pairwise(own[5:]):
            (beside if b > begun and a < ended else quiet).append(1000.0 * (b - a))
    quiet_p95, beside_p95 = (float(np.percentile(gaps, 95)) for gaps in (quiet, beside))
    return {
        "undisturbed_p50_ms": float(np.median(quiet)),
        "undisturbed_p95_ms": quiet_p95,
        "beside_p50_ms": float(np.median(beside)),
        "beside_p95_ms": beside_p95,
        "beside_max_ms": max(beside),
        "ratio_p95": beside_p95 / quiet_p95,
        "prompt_s": ended - begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt", type=int, default=4000)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--alone", type=int, default=40, help="tokens of each stream before and after")
    parser.add_argument("--targets", default="none", help="ms by commas; none: the default")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows, threads = [], 0
    for text in args.targets.split(","):
        target = None if text == "none" else float(text)
        with tokamak.load(args.model, args.threads, args.context, inter_token_target_ms=target) as llm:
            llm.generate([1, 2, 3] * 40, max_tokens=4)
            rows.append({"target_ms": target, **measured(llm, args)})
            threads = llm.facts["threads"]
    if args.json:
        print(json.dumps({"machine": Machine.here().facts(), "threads": threads, "runs": rows}))
        return
    print(Machine.here().line())
    print(f"{args.streams} streams, a prompt of {args.prompt} tokens, {threads} threads, {args.model}")
    for row in rows:
        print("  ".join(f"{k} {v if v is None else round(v, 2)}" for k, v in row.items()))


if __name__ == "__main__":
    main()
