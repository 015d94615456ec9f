"""tokamak and its peers on the same files: one table for all weight formats.

Per model and test the engines take turns, `--pairs` times; the order turns round after each pair. A pair during which
other processes took more than a tenth of a CPU is done again. llama.cpp runs with the better of its two weight
layouts; llama-bench of ik_llama.cpp (`--ik PATH`) with the best of plain, `-rtr 1` and huge pages from malloc, each
chosen by a trial. A peer that is not there is said to be absent, one that does not read a file to refuse it; neither
counts as a pass. Before each pair the load average must fall below 0.3, for at most `--idle` seconds; the most that it
was is printed. Limits of the machine are measured in the same run; the read limit is that of the very pages which hold
our packed weights, read straight on before every pair.

A model is a file, or SHAPE:FORMAT[:LAYERS], which is made for the run and removed after it (make_model.py): a mix such
as q4_k_m, or pure-FORMAT; fewer layers than the shape has are said in its name. `--every-format` adds a model of
TinyLlama's layers in every weight format, 4 layers of 22.

Tests: pp512 reads a prompt; tg32 makes tokens one by one; tg16x8 makes 16 for each of 8 sequences at once; tg32@2048
makes 32 after a prompt of 2048.

usage: compare_engines.py [MODEL.gguf | phi-2:q8_0 ...] [--tests pp512,tg32] [--threads 2] [--pairs 5] [--kv f16]
    [--ik llama-bench] [--every-format] [--idle 60] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from compare_llama_cpp import QUIET_CPUS, Neighbours, Peer, PeerRefusesError
from formats import FORMATS
from make_model import PURE, SHAPES, make_model

from tokamak.bench import probes
from tokamak.observe.machine import Machine

TEST = re.compile(r"(?P<kind>pp|tg)(?P<count>\d+)(x(?P<batch>\d+))?(@(?P<depth>\d+))?")
IDLE_LOAD = 0.3  # load average below which a machine is idle
PEERS = ("llama.cpp", "ik_llama.cpp")
IK_MODES = {"plain": [], "-rtr 1": ["-rtr", "1"], "huge pages": []}


@dataclass(frozen=True)
class Test:
    """What is asked of every engine."""

    name: str
    kind: str  # pp, tg
    count: int
    batch: int
    depth: int

    @classmethod
    def of(cls, name: str) -> Test:
        match = TEST.fullmatch(name)
        if match is None:
            raise SystemExit(f"{name}: no such test; pp512, tg32, tg16x8 and tg32@2048 are")
        number = {key: int(match[key] or (1 if key == "batch" else 0)) for key in ("count", "batch", "depth")}
        return cls(name, match["kind"], **number)

    @property
    def tokens(self) -> int:
        """That count: those read, or those made."""
        return self.count * self.batch

    def shortened(self) -> Test:
        """For a trial."""
        return Test(
            self.name,
            self.kind,
            min(self.count, 64 if self.kind == "pp" else 8),
            self.batch,
            min(self.depth, 64),
        )


class Worker:
    """tokamak or llama.cpp, loaded once in a process of its own."""

    def __init__(
        self, engine: str, model: str, args: argparse.Namespace, context: int, *, repack: bool
    ) -> None:
        self.name, self.mode = engine, "repacked" if repack else "as in the file"
        self.peer = Peer(engine, model, args.threads, context, repack=repack, kv=args.kv, sequences=args.most)
        self.process = self.peer.process

    def rate(self, test: Test, seed: int) -> float:
        answer = self.peer.ask(f"{test.kind}:{test.batch}:{test.depth}", test.count, seed)
        if answer["tokens"] != test.tokens:
            raise PeerRefusesError(f"{self.name}: asked for {test.tokens} tokens, got {answer['tokens']}")
        return test.tokens / answer["seconds"]

    def close(self) -> None:
        self.peer.close()


class LlamaBench:
    """A llama-bench: loads the model for every figure, measures after a warm-up of its own."""

    process = None

    def __init__(self, path: str, model: str, args: argparse.Namespace, mode: str) -> None:
        self.name, self.mode = "ik_llama.cpp", mode
        kinds = ["-ctk", args.kv, "-ctv", args.kv] if args.kv != "f16" else []
        self.words = [
            path,
            "-m",
            model,
            "-t",
            str(args.threads),
            "-r",
            "1",
            "-o",
            "json",
            "-fa",
            "1",
            *kinds,
            *IK_MODES[mode],
        ]
        self.environ = {**os.environ}
        if mode == "huge pages":
            self.environ["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"

    def rate(self, test: Test, _seed: int) -> float:
        if test.depth:
            what = ["-p", "0", "-n", "0", "-gp", f"{test.depth},{test.count}"]
        else:
            what = [
                "-p",
                str(test.count if test.kind == "pp" else 0),
                "-n",
                str(test.count if test.kind == "tg" else 0),
            ]
        done = subprocess.run(
            [*self.words, *what], capture_output=True, text=True, env=self.environ, check=False
        )
        if done.returncode:
            raise PeerRefusesError(f"{self.name}: {done.stderr[-400:]}")
        return float(json.loads(done.stdout)[0]["avg_ts"])

    def can(self, test: Test) -> bool:
        return test.batch == 1

    def close(self) -> None:
        pass


def best(makers: list, tests: list[Test]):
    """The candidate that is fastest in a trial of every test (geometric mean); the others are closed.

    None where no candidate runs the file.
    """
    scored = []
    for make in makers:
        candidate = None
        try:
            candidate = make()
            able = [t.shortened() for t in tests if not hasattr(candidate, "can") or candidate.can(t)]
            rates = [candidate.rate(t, 1) for t in able]
        except PeerRefusesError:
            if candidate is not None:
                candidate.close()
            continue
        scored.append((statistics.geometric_mean(rates) if rates else 0.0, len(scored), candidate))
    if not scored:
        return None
    chosen = max(scored)[2]
    for *_, candidate in scored:
        if candidate is not chosen:
            candidate.close()
    return chosen


def engines(model: str, tests: list[Test], args: argparse.Namespace) -> tuple[list, set[str]]:
    """Those that are here, ours first; and the names of those that refuse the file."""
    context = max(t.count * (t.kind == "tg" or 1) + t.depth for t in tests) + 64
    makers: dict[str, list] = {}
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        pass
    else:
        makers["llama.cpp"] = [
            partial(Worker, "llama.cpp", model, args, context, repack=repack) for repack in (True, False)
        ]
    if args.ik and Path(args.ik).exists():
        makers["ik_llama.cpp"] = [partial(LlamaBench, args.ik, model, args, mode) for mode in IK_MODES]
    found = {name: best(candidates, tests) for name, candidates in makers.items()}
    ours = Worker("tokamak", model, args, context, repack=True)
    here = [peer for peer in found.values() if peer is not None]
    return [ours, *here], {name for name, peer in found.items() if peer is None}


def wait_until_idle(most_s: float) -> float:
    """The load average once it is below IDLE_LOAD, or after `most_s` seconds."""
    end = time.monotonic() + most_s
    while os.getloadavg()[0] >= IDLE_LOAD and time.monotonic() < end:
        time.sleep(min(2.0, max(0.0, end - time.monotonic())))
    return os.getloadavg()[0]


def compare(
    test: Test, peers: list, pairs: int, idle_s: float
) -> tuple[dict[str, list[float]], float, float]:
    """Rates of every engine in quiet pairs, the most that others took in one of them, the largest load before one."""
    able = [p for p in peers if not hasattr(p, "can") or p.can(test)]
    rates: dict[str, list[float]] = {"read": [], **{p.name: [] for p in able}}
    worst, load, seed = 0.0, 0.0, 1
    for attempt in range(3 * pairs):
        if len(rates["tokamak"]) == pairs:
            break
        before = wait_until_idle(idle_s)
        watch = Neighbours([p for p in able if p.process is not None])
        read = able[0].peer.ask("read", 0, 0)["rates"]
        order = able if attempt % 2 == 0 else able[::-1]
        got = {p.name: p.rate(test, seed := seed + 1) for p in order}
        foreign = watch.cpus() if all(p.process is not None for p in able) else 0.0
        last = 3 * pairs - attempt <= pairs - len(rates["tokamak"])
        if foreign > QUIET_CPUS and not last:
            continue
        worst, load = max(worst, foreign), max(load, before)
        rates["read"].append(statistics.median(read))
        for name, rate in got.items():
            rates[name].append(rate)
    return rates, worst, load


def rows_of(model: str, args: argparse.Namespace, limits: probes.Limits) -> list[dict]:
    tests = [Test.of(name) for name in args.tests.split(",")]
    peers, refusing = engines(model, tests, args)
    facts = peers[0].peer.start
    rows = []
    for test in tests:
        for peer in peers:
            if not hasattr(peer, "can"):
                peer.rate(test.shortened(), 0)  # warm-up
        rates, foreign, load = compare(test, peers, args.pairs, args.idle)
        ours = rates["tokamak"]
        row = {"model": Path(model).name, "test": test.name, "foreign_cpus": foreign, "samples": rates}
        row["load"] = load
        row["tokamak"] = statistics.median(ours)
        row["bandwidth"] = (
            statistics.median(
                rate / test.batch * facts["weight_nbytes"] / read
                for rate, read in zip(ours, rates["read"], strict=True)
            )
            if test.kind == "tg"
            else None
        )
        row["arithmetic"] = row["tokamak"] * facts["macs_per_token"] / limits.int8_macs_s
        for name in PEERS:
            theirs = rates.get(name)
            if name in refusing:
                row[name] = "peer refuses"
            if theirs:
                ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
                mode = next(p.mode for p in peers if p.name == name)
                row[name] = {
                    "rate": statistics.median(theirs),
                    "mode": mode,
                    "ratio": statistics.median(ratios),
                    "low": min(ratios),
                    "high": max(ratios),
                }
        rows.append(row)
    for peer in peers:
        peer.close()
    return rows


def cell(peer: dict | str | None) -> str:
    if peer is None or isinstance(peer, str):
        return peer or "peer absent"
    return f"{peer['rate']:.1f} ({peer['mode']})  {peer['ratio']:.2f} [{peer['low']:.2f}..{peer['high']:.2f}]"


def show(report: dict) -> None:
    limits = report["limits"]
    print(report["machine_line"])
    print(
        f"{report['threads']} threads, {report['kv']} cache, {report['pairs']} alternating pairs; in this run "
        f"{limits['read_bytes_s'] / 1e9:.1f} GB/s read, {limits['int8_macs_s'] / 1e9:.0f} G int8 multiply-adds/s\n"
    )
    line = "{:<36}{:<12}{:>9}{:>7}{:>7}{:>7}{:>6}  {:<42}{}"
    print(
        line.format(
            "model",
            "test",
            "tok/s",
            "read",
            "int8",
            "other",
            "load",
            "llama.cpp: tok/s, ratio [range]",
            "ik_llama.cpp",
        )
    )
    for r in report["rows"]:
        read = f"{100 * r['bandwidth']:.0f} %" if r["bandwidth"] is not None else ""
        print(
            line.format(
                r["model"].removesuffix(".gguf")[:35],
                r["test"],
                f"{r['tokamak']:.1f}",
                read,
                f"{100 * r['arithmetic']:.0f} %",
                f"{r['foreign_cpus']:.2f}",
                f"{r['load']:.1f}",
                cell(r.get("llama.cpp")),
                cell(r.get("ik_llama.cpp")),
            )
        )
    if any(r["load"] >= IDLE_LOAD for r in report["rows"]):
        print(f"\nNot idle before some pair: a load average of {IDLE_LOAD} or more (column load)")
    if any(r["foreign_cpus"] > QUIET_CPUS for r in report["rows"]):
        print(f"\nNOT A RESULT where other processes took more than {QUIET_CPUS} CPUs (column other)")


@contextmanager
def file_of(model: str, folder: Path) -> Iterator[str]:
    """The path of a model; that of a shape is made, and removed afterwards."""
    shape, _, rest = model.partition(":")
    if shape not in SHAPES or not rest:
        yield model
        return
    wanted, _, layers = rest.partition(":")
    path = folder / f"{shape}-{wanted}{f'-{layers}-layers' if layers else ''}.gguf"
    make_model(path, shape, wanted, layers=int(layers) if layers else None)
    try:
        yield str(path)
    finally:
        path.unlink()


def measured(models: list[str], args: argparse.Namespace, limits: probes.Limits) -> list[dict]:
    """Rows of all models, one after another."""
    rows = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for model in models:
            with file_of(model, Path(folder)) as path:
                rows += rows_of(path, args, limits)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*")
    parser.add_argument("--every-format", action="store_true", help="also a small model in every format")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to wait for an idle machine")
    parser.add_argument("--folder", type=Path, help="where models are made")
    parser.add_argument("--tests", default="pp512,tg32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--kv", default="f16", choices=("f32", "f16", "bf16", "q8_0", "q4_0"))
    parser.add_argument("--ik", metavar="PATH", help="llama-bench of ik_llama.cpp")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    models = [*args.models, *(f"tinyllama:{PURE}{f}:4" for f in FORMATS if args.every_format)]
    if not models:
        parser.error("name a model, or --every-format")
    args.most = max(Test.of(name).batch for name in args.tests.split(","))
    began = time.time()
    limits = probes.measure(args.threads)
    rows = measured(models, args, limits)
    report = {
        "machine": Machine.here().facts(),
        "machine_line": Machine.here().line(),
        "threads": args.threads,
        "kv": args.kv,
        "pairs": args.pairs,
        "seconds": time.time() - began,
        "limits": limits.facts(),
        "rows": rows,
    }
    print(json.dumps(report)) if args.json else show(report)


if __name__ == "__main__":
    main()
