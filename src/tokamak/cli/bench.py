"""`tokamak bench`: prompt and decode speed, as shares of what this machine can do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokamak.cli.arguments import add_model, load_model
from tokamak.cli.console import print_json, remark, table
from tokamak.cli.receipt import write_receipt
from tokamak.errors import InvalidParams
from tokamak.types import KV_DTYPES

if TYPE_CHECKING:
    from tokamak.bench.probes import Limits
    from tokamak.bench.suites import Result
    from tokamak.engine.llm import LLM
    from tokamak.loaders import Checkpoint

SUMMARY = "Measure how fast prompts are read and tokens made, and what share of the machine's limits that is."
EXAMPLES = """  tokamak bench
  tokamak bench model.gguf -p 128,512 -n 32,128 -b 1,4
  tokamak bench model.gguf --repeat 10 --threads 2 --json
  tokamak bench model.gguf --receipt receipt.json
  tokamak bench verify receipt.json --model model.gguf
  tokamak bench compare before.json after.json
  tokamak bench model.gguf --profile -p 2048 -n 128 -b 1
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The cases, the repetitions, the receipt."""
    add_model(parser)
    parser.add_argument(
        "-p", "--prompt", default="128,512", metavar="P,..", help="prompt lengths (default 128,512)"
    )
    parser.add_argument(
        "-n", "--decode", default="32,128", metavar="N,..", help="tokens to make (default 32,128)"
    )
    parser.add_argument("-b", "--batch", default="1,4", metavar="B,..", help="requests at once (default 1,4)")
    parser.add_argument(
        "--repeat", type=int, default=5, metavar="N", help="repetitions after a warm-up (default 5)"
    )
    parser.add_argument("--kv-dtype", choices=KV_DTYPES, help="type of the K/V cache (default f16)")
    parser.add_argument("--executor", metavar="NAME", help="auto, cpu or reference (default auto)")
    parser.add_argument(
        "--threads-batch", type=int, metavar="N", help="threads that read prompts (default --threads)"
    )
    parser.add_argument(
        "--affinity", metavar="CPUS", help="bind threads to CPUs, as 0,1 or 0-3 (default: not bound)"
    )
    parser.add_argument(
        "--profile", action="store_true", help="where the time goes: per op and kernel, with shares"
    )
    parser.add_argument("--receipt", metavar="F", help="write the evidence of this run to a file")


def counts(text: str, option: str) -> list[int]:
    """Whole numbers of at least 1 with commas between; the empty text is no case. Raises: InvalidParams."""
    words = [word for word in text.split(",") if word]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) < 1 << 24 for word in words):
        raise InvalidParams(f"{option} {text!r} must be whole numbers from 1 with commas between")
    return [int(word) for word in words]


def measured(args: argparse.Namespace, llm: LLM, checkpoint: Checkpoint) -> list[Result]:
    """Every case in order, announced on stderr."""
    from tokamak.bench.suites import Case, Suite
    from tokamak.engine.contents import graph_of

    suite = Suite(llm, graph_of(checkpoint, llm.context), checkpoint.num_tokens)
    wanted = [(kind, n) for kind in ("prompt", "decode") for n in counts(getattr(args, kind), f"--{kind}")]
    cases = [Case(kind, n, batch) for kind, n in wanted for batch in counts(args.batch, "--batch")]
    results = []
    for case in cases:
        remark(f"{case.name} ...", quiet=args.quiet)
        results.append(suite.run(case, args.repeat))
    return results


def show(report: dict[str, Any]) -> None:
    """The report for people."""
    limits = report["limits"]
    print(report["machine_line"])
    print(f"{report['model']}: {report['threads']} threads; load {report['load_s']:.2f} s")
    print(
        f"in this run: {limits['read_bytes_s'] / 1e9:.1f} GB/s read from {limits['read_from']}, "
        f"{limits['int8_macs_s'] / 1e9:.0f} G int8 multiply-adds/s ({limits['isa']})\n"
    )
    rows = []
    for r in report["results"]:
        share, latency = r["share_of_limit"], r["latency_ms"]
        rows.append(
            (
                r["name"],
                f"{r['median']:.1f}",
                f"{100 * r['spread']:.0f} %",
                f"{100 * share['bandwidth']:.0f} %",
                f"{100 * share['arithmetic']:.0f} %",
                f"{latency['p50']:.3g} / {latency['p99']:.3g}" if latency else "",
            )
        )
    print(table(("case", "tok/s", "spread", "bandwidth", "arithmetic", "ms p50 / p99"), rows))


def show_profile(report: dict[str, Any]) -> None:
    """Where the time of each case went, for people."""
    heads = ("op", "kernel", "calls", "ms", "of wall", "MB read", "bandwidth", "arithmetic")
    for r in report["results"]:
        rows = [
            (
                row["op"],
                row["kernel"],
                str(row["calls"]),
                f"{1e3 * row['seconds']:.1f}",
                f"{100 * row['share']:.1f} %",
                f"{row['nbytes'] / 1e6:.0f}",
                f"{100 * row['bandwidth']:.0f} %",
                f"{100 * row['arithmetic']:.0f} %",
            )
            for row in r["profile"]
        ]
        print(f"\n{r['name']}: {sum(s['seconds'] for s in r['samples']):.3f} s")
        print(table(heads, rows))


def evidence(args: argparse.Namespace, llm: LLM, results: list[Result], limits: Limits) -> None:
    """Write the receipt of this run."""
    from tokamak.bench.suites import summary

    write_receipt(
        args,
        llm,
        [k for r in results for k in r.kernels],
        {**summary(results), "cases": [r.facts(limits) for r in results], "limits": limits.facts()},
        [
            {"case": r.case.name, "tokens": s.amount, "seconds": s.seconds}
            for r in results
            for s in r.series.samples
        ],
    )


def execute(args: argparse.Namespace) -> int:
    """Probe, measure, report."""
    from tokamak.bench import probes
    from tokamak.engine.loading import default_model
    from tokamak.loaders import open_checkpoint
    from tokamak.observe.machine import Machine, memory_now

    checkpoint = open_checkpoint(default_model() if args.model is None else args.model)
    needed = [n + 1 for kind in ("prompt", "decode") for n in counts(getattr(args, kind), f"--{kind}")]
    if not needed:
        raise InvalidParams("nothing to measure: -p and -n are empty")
    args.context = max(needed)
    with load_model(args) as llm:
        args.threads = llm.facts["threads"]
        limits = probes.measure(args.threads, program=llm.program)
        results = measured(args, llm, checkpoint)
        report: dict[str, Any] = {
            "machine": Machine.here().facts(),
            "machine_line": Machine.here().line(),
            "model": Path(checkpoint.path).name,
            "threads": args.threads,
            "threads_batch": llm.facts["threads_batch"],
            "load_s": llm.load_s,
            "memory": memory_now(),
            "limits": limits.facts(),
            "results": [r.facts(limits) for r in results],
        }
        if args.profile:
            for facts, result in zip(report["results"], results, strict=True):
                facts["profile"] = [row.facts() for row in result.profile(limits)]
        if args.receipt:
            evidence(args, llm, results, limits)
    if args.json:
        print_json(report)
    else:
        show(report)
        if args.profile:
            show_profile(report)
    return 0
