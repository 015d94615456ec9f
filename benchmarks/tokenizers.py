"""Every tokenizer library that is installed, on every family and kind of text: megabytes per second, and ours over the best.

Method: one process per library, all pinned to one core and asleep while another runs; each figure is the median of
alternating runs, in processor time (batch: elapsed). warm: documents of 2000 characters into arrays, seen before. first: by a tokenizer that has only just
been loaded. short: calls of 100 characters. call: the whole text at once. batch: two threads on two cores. run-*: 100,000
characters without a space. A cell with * has other ids than ours. `--hf1 FOLDER` holds a second version of tokenizers.
usage: PYTHONPATH=src python benchmarks/tokenizers.py DATA [--vocabularies gpt2,...] [--columns warm:en,...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

SLOW_S = 0.5  # a run that takes longer is not repeated
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from tokenizer_peers import LIBRARIES, VOCABULARIES  # noqa: E402

COLUMNS = [
    f"warm:{t}" for t in ("en", "novel", "cpp", "py", "md", "zh", "ja", "ko", "ru", "ar", "hi", "th", "udhr")
]
COLUMNS += [f"first:{t}" for t in ("en", "cpp", "zh", "ko", "ru", "ar", "hi", "th")]
COLUMNS += [
    "list:en",
    "list:cpp",
    "list:zh",
    "short:en",
    "short-list:en",
    "call:en",
    "call:cpp",
    "call-list:en",
]
COLUMNS += ["batch:en", "decode:en", *(f"call:run-{k}" for k in ("a", "letters", "base64", "han", "emoji"))]


class Peer:
    """A worker process."""

    def __init__(self, library: str, vocabulary: str, arguments: argparse.Namespace) -> None:
        environment = dict(os.environ)
        if library == "tokenizers-1":
            paths = [arguments.hf1 or "/missing", environment.get("PYTHONPATH", "")]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [sys.executable, str(HERE / "tokenizer_peers.py"), library, vocabulary, arguments.data]
        self.process = subprocess.Popen(
            [*command, *(["--threads"] if arguments.threads else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.hello = json.loads(self.process.stdout.readline() or '{"missing": "died"}')

    def ask(self, **request) -> dict:
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline() or '{"missing": "died"}')
        except BrokenPipeError:
            return {"missing": "died"}


def size_of(column: str, arguments: argparse.Namespace) -> int:
    from tokenizer_peers import texts_of

    case, text = column.split(":")
    whole = texts_of(text, Path(arguments.data))
    whole = whole[:200_000] if case.startswith("short") else whole[:500_000] if case == "decode" else whole
    return len(whole.encode("utf-8"))


def measure(
    column: str, peers: dict[str, Peer], arguments: argparse.Namespace
) -> dict[str, tuple[float, str]]:
    """MB/s and digest of each library that can do it."""
    case, text = column.split(":")
    cores = sorted(os.sched_getaffinity(0))
    request = {"case": case, "text": text, "cores": cores[:2] if case == "batch" else cores[:1]}
    if case == "first":
        request |= {"reload": True}
    seconds: dict[str, list[float]] = {}
    digests: dict[str, str] = {}
    for round_ in range(arguments.rounds + 1):
        for name in list(peers):
            if round_ > 1 and name in seconds and seconds[name][0] > SLOW_S:
                continue
            found = peers[name].ask(**request, digest=round_ == 0)
            if "missing" in found:
                seconds.pop(name, None)
                continue
            digests.setdefault(name, found["digest"])
            if round_:
                seconds.setdefault(name, []).append(found["seconds"])
    nbytes = size_of(column, arguments)
    return {n: (nbytes / statistics.median(s) / 1e6, digests[n]) for n, s in seconds.items()}


def table(vocabulary: str, arguments: argparse.Namespace) -> None:
    wanted = arguments.libraries.split(",") if arguments.libraries else list(LIBRARIES)
    peers = {name: Peer(name, vocabulary, arguments) for name in wanted}
    for name, peer in list(peers.items()):
        if "missing" in peer.hello:
            print(f"  {name}: {peer.hello['missing'][:100]}", file=sys.stderr)
            del peers[name]
    loads = ", ".join(f"{n} {p.hello['load_s'] * 1e3:.0f}" for n, p in peers.items())
    print(f"\n## {vocabulary} ({VOCABULARIES[vocabulary][0]}); load ms: {loads}\n")
    print("| column | ratio | " + " | ".join(peers) + " |")
    print("|---|---:|" + "---:|" * len(peers))
    for column in arguments.columns.split(",") if arguments.columns else COLUMNS:
        got = measure(column, peers, arguments)
        ours = got.get("tokamak", (float("nan"), ""))
        best = max((speed for n, (speed, _) in got.items() if n != "tokamak"), default=float("nan"))
        cells = [f"{got[n][0]:.3g}{'*' if got[n][1] != ours[1] else ''}" if n in got else "-" for n in peers]
        print(f"| {column} | {ours[0] / best:.2f} | " + " | ".join(cells) + " |", flush=True)
    for peer in peers.values():
        peer.process.stdin.close()
        peer.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="folder of vocabularies and corpora")
    parser.add_argument("--vocabularies", default=",".join(VOCABULARIES))
    parser.add_argument("--columns", default="")
    parser.add_argument("--libraries", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hf1", default="")
    parser.add_argument("--threads", action="store_true", help="let peers use two threads; for batch columns")
    arguments = parser.parse_args()
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        names = {line.split(":")[1].strip() for line in lines if line.startswith("model name")}
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    print(
        f"{', '.join(names)}; Python {platform.python_version()}; {commit.stdout.strip()}; MB/s, ratio = ours / best peer"
    )
    for vocabulary in arguments.vocabularies.split(","):
        table(vocabulary, arguments)


if __name__ == "__main__":
    main()
