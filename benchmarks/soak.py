"""Does a server that is used for long keep growing? Memory, files and threads of `tokamak serve` under a mixed load, and their slope.

The load: streams read to the end and dropped in the middle, chats with several choices, grammars, vectors, refused requests; every prompt
is another one, so that the prefix cache turns over. The first share of the time fills caches and is left out. The slope is the median of the
slopes of all pairs of samples (Theil and Sen), which steps and peaks do not move; its interval of 95 % comes from Kendall's statistic. A leak is
a growth over the time measured whose lower bound is over --limit bytes, or a file or thread more at the end than after warming up.

usage: soak.py [MODEL.gguf] [--minutes 60] [--clients 4] [--every 1] [--warm 0.34] [--limit 1048576] [--json] [--plant BYTES]
--plant: the server keeps so many bytes with every request, to see that it is found. Exit code 5: a leak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np

DAY_S, LIMIT_NBYTES = 86_400, 1 << 20
PAGE = os.sysconf("SC_PAGE_SIZE")
SERVE = "import sys; from tokamak.cli.main import main; sys.exit(main())"
PLANTED = """
import sys
from tokamak.server.metrics import Metrics
kept, finished = [], Metrics.finished
def leaking(self, completions):
    kept.append(bytes(bytearray({size})))
    finished(self, completions)
Metrics.finished = leaking
from tokamak.cli.main import main
sys.exit(main())
"""
WORDS = [
    "girl",
    "boy",
    "dog",
    "cat",
    "bird",
    "fish",
    "tree",
    "sun",
    "river",
    "old",
    "little",
    "happy",
    "sad",
    "went",
    "came",
    "saw",
]
VOWELS = "root ::= [aeiou ]+"


@dataclass(frozen=True, slots=True)
class Growth:
    """Slope of a series with its interval of 95 %, per second, and the seconds it was measured over."""

    slope: float
    low: float
    high: float
    seconds: float

    def leaks(self, limit: float) -> bool:
        """Whether it grew by more than so much, as surely as the interval."""
        return self.low * self.seconds > limit

    def per_day(self, level: float) -> tuple[float, float, float]:
        """low, slope, high as shares of a level, a day."""
        return self.low * DAY_S / level, self.slope * DAY_S / level, self.high * DAY_S / level


def growth(times: list[float], values: list[float]) -> Growth:
    """Of samples in order of time, at least ten.  Source: Sen 1968; the variance is that of Kendall's S without ties."""
    t, v = np.asarray(times, np.float64), np.asarray(values, np.float64)
    left, right = np.triu_indices(len(t), 1)
    slopes = np.sort((v[right] - v[left]) / (t[right] - t[left]))
    n = len(t)
    # Neighbours in time are alike, so that there are fewer samples than there are: scaled by their autocorrelation.
    residue = v - np.median(slopes) * t
    residue -= np.median(residue)
    wide = 3 * np.median(np.abs(residue)) + 1e-9  # peaks say nothing about it
    residue = np.clip(residue, -wide, wide)
    alike = float(residue[1:] @ residue[:-1] / max(residue @ residue, 1e-300))
    scale = (1 + max(0.0, alike)) / max(1 - max(0.0, alike), 1e-2)
    half = 1.96 * np.sqrt(scale * n * (n - 1) * (2 * n + 5) / 18) / 2
    low, high = np.clip([len(slopes) / 2 - half, len(slopes) / 2 + half], 0, len(slopes) - 1).astype(int)
    return Growth(float(np.median(slopes)), float(slopes[low]), float(slopes[high]), float(t[-1] - t[0]))


@dataclass(frozen=True, slots=True)
class Sample:
    """The server at one moment. time: monotonic seconds."""

    time: float
    resident_nbytes: int
    num_files: int
    num_threads: int


def sample(pid: int) -> Sample:
    """Of a process, from /proc."""
    place = Path(f"/proc/{pid}")
    resident = int((place / "statm").read_text().split()[1]) * PAGE
    return Sample(
        time.monotonic(), resident, len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))
    )


def body_of(rng: random.Random) -> tuple[str, dict, bool]:
    """(path, body, whether it is dropped in the middle) of a request that none before was like."""
    prompt = " ".join(rng.choices(WORDS, k=rng.randrange(3, 80)))
    common = {"seed": rng.randrange(1 << 30), "max_tokens": rng.randrange(1, 48)}
    kind = rng.randrange(8)
    if kind < 3:
        return "/v1/completions", {"prompt": prompt, "stream": True, **common}, kind == 0
    if kind == 3:
        return (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": prompt}], "n": 2, **common},
            False,
        )
    if kind == 4:
        return "/completion", {"prompt": prompt, "grammar": VOWELS, "n_probs": 3, **common}, False
    if kind == 5:
        return "/v1/embeddings", {"input": [prompt, prompt[::-1]]}, False
    if kind == 6:
        return (
            "/v1/responses",
            {"input": prompt, "max_output_tokens": 8, "store": False, "stream": True},
            False,
        )
    return "/v1/completions", {"prompt": prompt, "temperature": -1}, False


async def use(connection: httpx.AsyncClient, rng: random.Random) -> None:
    """One request."""
    path, body, dropped = body_of(rng)
    async with connection.stream("POST", path, json=body) as answer:
        if answer.status_code >= 500:
            raise SystemExit(f"{answer.status_code} for {path}: {(await answer.aread())[:300]!r}")
        async for _ in answer.aiter_bytes():
            if dropped:
                return


async def load(pid: int, url: str, args: argparse.Namespace) -> tuple[list[Sample], int]:
    """Samples while clients are at work, and the requests they made."""
    until, samples, made = time.monotonic() + 60 * args.minutes, list[Sample](), 0

    async def client(number: int) -> None:
        nonlocal made
        rng = random.Random(number)
        async with httpx.AsyncClient(base_url=url, timeout=300) as connection:
            while time.monotonic() < until:
                await use(connection, rng)
                made += 1

    clients = [asyncio.ensure_future(client(number)) for number in range(args.clients)]
    while time.monotonic() < until and not any(one.done() for one in clients):
        samples.append(sample(pid))
        await asyncio.sleep(args.every)
    await asyncio.gather(*clients)
    return samples, made


def run(args: argparse.Namespace) -> dict:
    """Start a server, use it, look at what grew."""
    code = PLANTED.replace("{size}", str(args.plant)) if args.plant else SERVE
    words = [sys.executable, "-c", code, "serve", *([args.model] if args.model else [])]
    words += ["--port", "0", "--json", "--no-history", "--threads", "1", "--context", "512"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = json.loads(process.stdout.readline())["url"]
            samples, made = asyncio.run(load(process.pid, url, args))
            time.sleep(1)  # connections close
            last = sample(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
    warm = samples[int(args.warm * len(samples)) :]
    times = [one.time for one in warm]
    memory = growth(times, [one.resident_nbytes for one in warm])
    most_files, most_threads = max(one.num_files for one in warm), max(one.num_threads for one in warm)
    leak = memory.leaks(args.limit) or last.num_files > most_files or last.num_threads > most_threads
    level = float(np.median([one.resident_nbytes for one in warm]))
    return {
        "requests": made,
        "samples": len(warm),
        "resident_nbytes": {
            "first": warm[0].resident_nbytes,
            "median": int(level),
            "last": last.resident_nbytes,
        },
        "growth_nbytes": {
            "low": memory.low * memory.seconds,
            "mid": memory.slope * memory.seconds,
            "high": memory.high * memory.seconds,
        },
        "share_per_day": memory.per_day(level),
        "seconds": memory.seconds,
        "files": {"most": most_files, "last": last.num_files},
        "threads": {"most": most_threads, "last": last.num_threads},
        "slope_bytes_per_s": asdict(memory),
        "leak": bool(leak),
    }


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?")
    for name, kind, usual in (("minutes", float, 60.0), ("every", float, 1.0), ("warm", float, 0.34)):
        parser.add_argument(f"--{name}", type=kind, default=usual)
    for name, usual in (("clients", 4), ("limit", LIMIT_NBYTES), ("plant", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = run(args)
    if args.json:
        print(json.dumps(found))
    else:
        low, mid, high = (n / 2**20 for n in found["growth_nbytes"].values())
        shares = ", ".join(f"{100 * share:.2f}" for share in found["share_per_day"])
        print(
            f"{found['requests']} requests; {found['seconds']:.0f} s after warming up, {found['samples']} samples"
        )
        print(
            f"resident {found['resident_nbytes']['median'] / 2**20:.1f} MiB, grew by {mid:.2f} MiB (95 %: {low:.2f} .. {high:.2f}); {shares} % a day"
        )
        print(f"files {found['files']}, threads {found['threads']}")
        print("LEAK" if found["leak"] else "no leak")
    return 5 if found["leak"] else 0


if __name__ == "__main__":
    sys.exit(main())
