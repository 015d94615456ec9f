"""Decode and prompt speed of every weight format against llama.cpp, on one small file per format.

Method: a model of TinyLlama's layers (fewer of them, a small vocabulary, every matrix in the format) with random codes;
both engines read the same file, each in its own process, in alternating pairs; medians of the ratios and their range.
llama.cpp runs in the weight layout that is faster in a short trial. The packed size is what decoding moves per token.
With --cpu-time one thread each, and rates per second of processor time: what is left to measure on a busy machine.
usage: PYTHONPATH=src python benchmarks/formats.py [--layers 4] [--pairs 5] [FORMAT ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from compare_llama_cpp import QUIET_CPUS, Neighbours, Peer, alternate, strongest_llama, summary
from make_model import PURE, make_model

from tokamak.bench import probes
from tokamak.observe.machine import Machine

FORMATS = (
    *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k"),
    *("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "iq4_nl", "iq4_xs"),
    *("mxfp4", "nvfp4", "q1_0", "q2_0", "tq1_0", "tq2_0", "bf16", "f16"),
)
HARD = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "tq1_0"}
PROMPT = 1.3  # aims: ratios of prompt and decode


def aim(fmt: str) -> float:
    return 2.0 if fmt in HARD else 1.15


def measure(fmt: str, args: argparse.Namespace, folder: Path) -> dict:
    """One row of the table."""
    path = make_model(folder / f"{fmt}.gguf", "tinyllama", PURE + fmt, layers=args.layers, tokens=4096)
    peer_args = argparse.Namespace(model=str(path), threads=args.threads, context=args.prompt + 64)
    tests = [("pp", args.prompt), ("tg", args.decode)]
    theirs, layout = strongest_llama(peer_args, tests)
    ours = Peer("tokamak", str(path), args.threads, peer_args.context)
    neighbours = Neighbours([ours, theirs])
    rates = alternate([ours, theirs], tests, args.pairs)
    foreign = neighbours.cpus()
    size = path.stat().st_size
    end = ours.ask("memory", 0, 0)
    for peer in (ours, theirs):
        peer.close()
    path.unlink()
    grown = (end["peak_nbytes"] - ours.start["base_nbytes"]) / size
    rows = summary(rates)
    return {"format": fmt, "layout": layout, "foreign_cpus": foreign, "memory": grown, "results": rows}


def line(row: dict) -> str:
    prompt, decode = row["results"]
    cells = "".join(
        f"{r['tokamak_tok_s']:>9.1f}{r['llama_cpp_tok_s']:>9.1f}{r['ratio']:>7.2f}"
        f" {r['ratio_min']:>5.2f}..{r['ratio_max']:<5.2f}"
        for r in (decode, prompt)
    )
    missed = decode["ratio"] < aim(row["format"]) or prompt["ratio"] < PROMPT
    busy = row["foreign_cpus"] > QUIET_CPUS
    return f"{row['format']:<9}{cells}{row['memory']:>7.2f}{'  below the aim' if missed else ''}{'  BUSY' if busy and Peer.clock == 'seconds' else ''}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("formats", nargs="*", default=FORMATS)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--decode", type=int, default=24)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are made")
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread, rates per second of processor time"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.cpu_time:
        args.threads, Peer.clock = 1, "cpu_seconds"
    limits = probes.measure(args.threads)
    if not args.json:
        print(Machine.here().line())
        print(
            f"{args.threads} threads, {Peer.clock}; {limits.read_bytes_s / 1e9:.1f} GB/s read, "
            f"{limits.int8_macs_s / 1e9:.0f} G int8 multiply-adds/s ({limits.isa}) in this run"
        )
        print(f"{'':<9}{f'decode {args.decode}':^37}{f'prompt {args.prompt}':^37} memory")
        head = f"{'tokamak':>9}{'llama':>9}{'ratio':>7}{'range':^13}"
        print(f"{'format':<9}{head}{head}  x file")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for fmt in args.formats:
            row = measure(fmt, args, Path(folder))
            print(json.dumps(row) if args.json else line(row), flush=True)


if __name__ == "__main__":
    main()
