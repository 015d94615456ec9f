"""tokamak and llama.cpp on the same GGUF file: prompt processing, decoding, load time, peak memory.

Each engine lives in its own process and is asked over a line protocol, in turns: tokamak, llama.cpp, llama.cpp,
tokamak, ... The one not asked sleeps. A prompt of P random token ids is read in one go and yields one token; decoding
makes N tokens one by one from a prompt of one token. tokamak is measured through `LLM.generate`, with its scheduler
and sampler; llama.cpp through its C interface, decoding only (what llama-bench measures), with the better of its two
weight layouts (repacked or as in the file), chosen by a trial before the run. Both use the same number of threads.

usage: compare_llama_cpp.py MODEL.gguf [--threads 2] [--prompt 256,512] [--decode 32] [--pairs 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tokamak.bench import probes
from tokamak.observe.machine import Machine, memory_now

WORKER = Path(__file__).with_name("compare_worker.py")


class PeerRefusesError(SystemExit):
    """An engine ended instead of answering: it cannot read the file, or cannot run it."""


class Peer:
    """One engine in its own process. clock: what its rates are per: wall "seconds", or the "cpu_seconds" it took."""

    clock = "seconds"

    def __init__(
        self,
        engine: str,
        model: str,
        threads: int,
        context: int,
        *,
        repack: bool = True,
        kv: str = "f16",
        sequences: int = 1,
    ) -> None:
        self.name = engine
        options = [threads, context, int(repack), kv, sequences]
        words = [sys.executable, str(WORKER), engine, model, *map(str, options)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.start = self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise PeerRefusesError(f"{self.name}: the worker ended with code {self.process.wait()}")
        return json.loads(line)

    def ask(self, kind: str, count: int, seed: int) -> dict:
        self.process.stdin.write(f"{kind} {count} {seed}\n")
        self.process.stdin.flush()
        return self.answer()

    def rate(self, kind: str, count: int, seed: int) -> float:
        got = self.ask(kind, count, seed)
        if got["tokens"] != count:
            raise SystemExit(f"{self.name}: asked for {count} tokens, got {got['tokens']}")
        return got["tokens"] / got[self.clock]

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def strongest_llama(args: argparse.Namespace, tests: list[tuple[str, int]]) -> tuple[Peer, str]:
    """llama.cpp in the weight layout that is faster in a short trial of every test (geometric mean of the rates)."""
    trials = []
    short = [(kind, min(count, 128 if kind == "pp" else 16)) for kind, count in tests]
    for repack in (True, False):
        peer = Peer("llama.cpp", args.model, args.threads, args.context, repack=repack)
        rates = [max(peer.rate(kind, count, seed) for seed in (1, 2)) for kind, count in short]
        trials.append((statistics.geometric_mean(rates), repack))
        peer.close()
    _, repack = max(trials)
    return (
        Peer("llama.cpp", args.model, args.threads, args.context, repack=repack),
        "repacked weights" if repack else "weights as in the file",
    )


def alternate(
    peers: list[Peer], tests: list[tuple[str, int]], pairs: int
) -> dict[str, dict[str, list[float]]]:
    """Rates per test and engine; the order of the engines turns round after each pair."""
    rates = {f"{kind}{count}": {peer.name: [] for peer in peers} for kind, count in tests}
    for kind, count in tests:
        for peer in peers:
            peer.ask(kind, count, 0)  # warm-up
        for pair in range(pairs):
            for peer in peers if pair % 2 == 0 else reversed(peers):
                rates[f"{kind}{count}"][peer.name].append(peer.rate(kind, count, random.randrange(1 << 30)))
    return rates


QUIET_CPUS = 0.1  # that others may keep busy before figures stop meaning anything


class Neighbours:
    """CPU time that processes other than ours took.

    An engine whose threads wait for each other by spinning falls to a fraction of its speed when one of them loses
    its core, one whose threads sleep does not: with neighbours a ratio compares that, not the kernels.
    """

    def __init__(self, peers: list[Peer]) -> None:
        self.pids = ["self", *(str(peer.process.pid) for peer in peers)]
        self.start = (time.perf_counter(), self.busy(), self.ours())

    def busy(self) -> float:
        """Seconds that all CPUs together were not idle; the clock ticks 100 times a second."""
        ticks = list(map(int, Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]))
        return (sum(ticks) - ticks[3] - ticks[4]) / 100

    def ours(self) -> float:
        fields = [
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            for pid in self.pids
        ]
        return sum(int(f[11]) + int(f[12]) for f in fields) / 100

    def cpus(self) -> float:
        """CPUs that others kept busy since the start, on average."""
        wall, busy, ours = self.start
        return max(0.0, (self.busy() - busy - self.ours() + ours) / (time.perf_counter() - wall))


def summary(rates: dict[str, dict[str, list[float]]]) -> list[dict]:
    rows = []
    for test, by_engine in rates.items():
        ours, theirs = by_engine["tokamak"], by_engine["llama.cpp"]
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        rows.append(
            {
                "test": test,
                "tokamak_tok_s": statistics.median(ours),
                "llama_cpp_tok_s": statistics.median(theirs),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "samples": by_engine,
            }
        )
    return rows


def show(report: dict) -> None:
    limits, size = report["limits"], report["model_nbytes"]
    print(report["machine_line"])
    print(f"model {report['model']}, {size / 1e9:.3f} GB; {report['threads']} threads; {report['versions']}")
    print(
        f"in this run: {limits['read_bytes_s'] / 1e9:.1f} GB/s read, "
        f"{limits['int8_macs_s'] / 1e9:.0f} G int8 multiply-adds/s ({limits['isa']})"
    )
    print(f"other processes kept {report['foreign_cpus']:.2f} CPUs busy meanwhile")
    if not report["quiet"]:
        print(f"NOT A RESULT: more than {QUIET_CPUS} CPUs were taken; repeat on a quiet machine")
    print(
        f"llama.cpp with {report['layout']}; {report['pairs']} alternating pairs; median of ratios and its range\n"
    )
    print(f"{'test':<8}{'tokamak':>12}{'llama.cpp':>12}{'ratio':>8}   range")
    for row in report["results"]:
        print(
            f"{row['test']:<8}{row['tokamak_tok_s']:>12.2f}{row['llama_cpp_tok_s']:>12.2f}{row['ratio']:>8.2f}"
            f"   {row['ratio_min']:.2f}..{row['ratio_max']:.2f}"
        )
    for name, start in report["starts"].items():
        peak = start["peak_nbytes"]
        print(
            f"{name:<10} load {start['load_s']:.2f} s ({start['load_s'] / (size / 1e9):.2f} s/GB), "
            f"peak memory {peak / 1e9:.3f} GB = {peak / size:.2f} x the file "
            f"({(peak - start['base_nbytes']) / size:.2f} x without the interpreter)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", default="256,512")
    parser.add_argument("--decode", default="32")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tests = [("pp", int(n)) for n in args.prompt.split(",")] + [
        ("tg", int(n)) for n in args.decode.split(",")
    ]
    args.context = max(count for _, count in tests) + 64

    before = probes.measure(args.threads)
    theirs, layout = strongest_llama(args, tests)
    ours = Peer("tokamak", args.model, args.threads, args.context)
    started = time.time()
    neighbours = Neighbours([ours, theirs])
    rates = alternate([ours, theirs], tests, args.pairs)
    foreign = neighbours.cpus()
    after = probes.measure(args.threads)
    ends = {peer.name: peer.ask("memory", 0, 0) for peer in (ours, theirs)}
    for peer in (ours, theirs):
        peer.close()
    best = max((before, after), key=lambda limits: limits.read_bytes_s)
    report = {
        "machine": Machine.here().facts(),
        "machine_line": Machine.here().line(),
        "model": Path(args.model).name,
        "model_nbytes": Path(args.model).stat().st_size,
        "threads": args.threads,
        "versions": f"tokamak ({ours.start['version']}) against llama-cpp-python {theirs.start['version']}",
        "layout": layout,
        "pairs": args.pairs,
        "seconds": time.time() - started,
        "foreign_cpus": foreign,
        "quiet": foreign <= QUIET_CPUS,
        "limits": best.facts(),
        "results": summary(rates),
        "starts": {p.name: {**p.start, "peak_nbytes": ends[p.name]["peak_nbytes"]} for p in (ours, theirs)},
        "driver_peak_nbytes": memory_now()["peak_nbytes"],
    }
    print(json.dumps(report)) if args.json else show(report)


if __name__ == "__main__":
    main()
