"""Decode speed while another process burns one CPU, as a share of the idle speed: tokamak and llama.cpp.

Threads that wait for each other by spinning lose far more than the CPU that was taken away: the one whose core is gone
keeps all others waiting. Phases take turns: idle, busy, idle, busy, ...; in each every engine makes tokens once. The
burner is one process of normal priority that adds numbers; the system decides where it runs.

usage: under_contention.py MODEL.gguf [--threads 2] [--decode 16] [--rounds 3] [--burners 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from compare_llama_cpp import QUIET_CPUS, Neighbours, Peer

from tokamak.observe.machine import Machine


class Burners:
    """Processes that keep a CPU each, for as long as the block lasts."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.processes: list[subprocess.Popen] = []

    def __enter__(self) -> None:
        self.processes = [
            subprocess.Popen([sys.executable, "-c", "n = 0\nwhile True: n += 1"]) for _ in range(self.count)
        ]
        time.sleep(0.5)

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def phase(peers: list[Peer], rates: dict[str, list[float]], count: int, seed: int) -> None:
    for peer in peers if seed % 2 else reversed(peers):
        rates[peer.name].append(peer.rate("tg", count, seed))


def measured(args: argparse.Namespace) -> dict:
    peers = [Peer("tokamak", args.model, args.threads, 512)]
    try:
        import llama_cpp  # noqa: F401
    except ImportError:
        pass
    else:
        peers.append(Peer("llama.cpp", args.model, args.threads, 512))
    idle: dict[str, list[float]] = {p.name: [] for p in peers}
    busy: dict[str, list[float]] = {p.name: [] for p in peers}
    for peer in peers:
        peer.ask("tg", 4, 0)
    foreign = 0.0
    for round_ in range(args.rounds):
        watch = Neighbours(peers)
        phase(peers, idle, args.decode, 2 * round_)
        foreign = max(foreign, watch.cpus())
        with Burners(args.burners):
            phase(peers, busy, args.decode, 2 * round_ + 1)
    for peer in peers:
        peer.close()
    return {"idle": idle, "busy": busy, "foreign_cpus": foreign}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decode", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--burners", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = measured(args)
    if args.json:
        print(json.dumps({"machine": Machine.here().facts(), "model": Path(args.model).name, **found}))
        return
    print(Machine.here().line())
    print(f"{Path(args.model).name}, {args.threads} threads, {args.burners} other busy process(es)\n")
    print(f"{'engine':<12}{'idle tok/s':>12}{'busy tok/s':>12}{'share':>8}   range")
    for name, idle in found["idle"].items():
        shares = [b / a for a, b in zip(idle, found["busy"][name], strict=True)]
        medians = [statistics.median(rates) for rates in (idle, found["busy"][name])]
        print(
            f"{name:<12}{medians[0]:>12.2f}{medians[1]:>12.2f}{statistics.median(shares):>8.2f}"
            f"   {min(shares):.2f}..{max(shares):.2f}"
        )
    if "llama.cpp" not in found["idle"]:
        print("llama.cpp   peer absent")
    if found["foreign_cpus"] > QUIET_CPUS:
        print(f"NOT A RESULT: others took {found['foreign_cpus']:.2f} CPUs in an idle phase")


if __name__ == "__main__":
    main()
