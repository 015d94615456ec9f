"""A server under load: throughput and latency for 1, 4, 16, 32 clients, against the same engine without HTTP.

    python benchmarks/serve_load.py MODEL.gguf [--threads 2] [--context 8192] [--clients 1,4,16,32] [--against llama-server]

Every client has one connection and streams one completion after another; what the generator itself costs is counted, it runs
beside the server, and its share of the processor time is printed. TTFT: from sending a request to the first piece of text at the
client. Engine: `LLM.generate` of the same prompts in one call, in a process that waits while the server is measured; they take
turns (--pairs), and medians are printed with the lowest and highest share. Three more laws: a long prompt that is read
in while four clients decode, a system prompt of 1,500 tokens asked for twice, and what is left afterwards. --against: a
llama-server, started here on the same file with the same threads and context, gets the same load, in turns; --peer: any server
of OpenAI's API that runs already.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import urlsplit
from urllib.request import urlopen

from tokamak.observe.machine import Machine

WORDS = [
    "time",
    "river",
    "little",
    "mother",
    "water",
    "children",
    "village",
    "happy",
    "friend",
    "story",
    "day",
    "night",
    "tree",
    "house",
    "garden",
    "bird",
]
ENGINE = """
import json, sys, time, tokamak
path, threads, context = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with tokamak.load(path, threads=threads, context=context, max_sequences=64) as llm:
    llm.generate(["warm up"] * 2, max_tokens=4, ignore_eos=True)
    for line in sys.stdin:
        prompts, tokens = json.loads(line)
        began = time.perf_counter()
        done = llm.generate(prompts, max_tokens=tokens, ignore_eos=True, temperature=0.8, seed=1)
        print(json.dumps(sum(d.usage.completion_tokens for d in done) / (time.perf_counter() - began)), flush=True)
"""


@dataclass
class Timed:
    """One completion at the client. pieces: seconds since the request was sent, of each piece of text."""

    pieces: list[float] = field(default_factory=list)
    tokens: int = 0
    prompt: int = 0
    cached: int = 0

    @property
    def ttft(self) -> float:
        return self.pieces[0]

    @property
    def gaps(self) -> list[float]:
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False)]


def prompt_of(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


async def complete(url: str, prompt: str, tokens: int) -> Timed:
    """One streamed completion."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    body = {
        "prompt": prompt,
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "seed": 1,
        "temperature": 0.8,
    }
    data = json.dumps(body | {"stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
    began, timed = time.perf_counter(), Timed()
    try:
        while line := await reader.readline():
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise SystemExit(f"the server failed: {event['error']}")
            if any(choice.get("text") for choice in event["choices"]):
                timed.pieces.append(time.perf_counter() - began)
            if event.get("usage"):
                usage = event["usage"]
                timed.tokens, timed.prompt = usage["completion_tokens"], usage["prompt_tokens"]
                timed.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    finally:
        writer.close()
    return timed


async def load(url: str, prompts: list[str], tokens: int, clients: int) -> tuple[list[Timed], float]:
    """All prompts through so many clients; the completions, and tokens a second of all."""
    waiting, done = list(prompts), []

    async def client() -> None:
        while waiting:
            done.append(await complete(url, waiting.pop(), tokens))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return done, sum(t.tokens for t in done) / (time.perf_counter() - began)


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def line_of(done: list[Timed], rate: float) -> dict[str, float]:
    first, gaps = [t.ttft for t in done], [g for t in done for g in t.gaps]
    return {
        "tok_s": rate,
        "ttft_p50_ms": 1e3 * quantile(first, 0.5),
        "ttft_p95_ms": 1e3 * quantile(first, 0.95),
        "gap_p95_ms": 1e3 * quantile(gaps, 0.95) if gaps else 0.0,
    }


async def interference(url: str, tokens: int, long_words: int) -> dict[str, float]:
    """The 95th percentile of the time between pieces of four streams, alone and while a long prompt is read in."""
    rng = random.Random(3)
    alone, _ = await load(url, [prompt_of(rng, 8) for _ in range(4)], tokens, 4)
    streams = asyncio.gather(*(complete(url, prompt_of(rng, 8), 2 * tokens) for _ in range(4)))
    await asyncio.sleep(0.25 * sum(t.pieces[-1] for t in alone) / 4)
    late = await complete(url, prompt_of(rng, long_words), 1)
    disturbed = await streams
    calm = quantile([g for t in alone for g in t.gaps], 0.95)
    rough = quantile([g for t in disturbed for g in t.gaps], 0.95)
    return {
        "prompt_tokens": late.prompt,
        "calm_ms": 1e3 * calm,
        "disturbed_ms": 1e3 * rough,
        "ratio": rough / calm,
    }


async def repeated(url: str, words: int) -> dict[str, float]:
    """Time to the first token of a long beginning, new and again with another end; medians of three."""
    ratios, first_s, again_s, cached = [], [], [], 0
    for seed in range(3):
        system = prompt_of(random.Random(100 + seed), words)
        first, again = await complete(url, f"{system} A", 2), await complete(url, f"{system} B", 2)
        ratios.append(again.ttft / first.ttft)
        first_s.append(first.ttft)
        again_s.append(again.ttft)
        cached = again.cached
    return {
        "first_ms": 1e3 * statistics.median(first_s),
        "again_ms": 1e3 * statistics.median(again_s),
        "cached_tokens": cached,
        "ratio": statistics.median(ratios),
    }


class Engine:
    """The engine without HTTP, in a process of its own. Nothing of a prompt is found again in its cache: prompts differ by turn."""

    def __init__(self, args: argparse.Namespace) -> None:
        words = [sys.executable, "-c", ENGINE, args.model, str(args.threads), str(args.context)]
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(self, prompts: list[str], tokens: int) -> float:
        """Tokens a second."""
        self._child.stdin.write(json.dumps((prompts, tokens)) + "\n")
        self._child.stdin.flush()
        return json.loads(self._child.stdout.readline())

    def close(self) -> None:
        self._child.stdin.close()
        self._child.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def against(args: argparse.Namespace, slots: int) -> Iterator[None]:
    """The other server while it is measured, if one is given."""
    if not args.against:
        yield
        return
    words = [args.against, "-m", args.model, "--port", str(urlsplit(args.peer).port), "--no-webui"]
    words += ["-t", str(args.threads), "-c", str(args.context), "-np", str(slots)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            while server.poll() is None:
                with contextlib.suppress(OSError):
                    if urlopen(args.peer + "/health").status == HTTPStatus.OK:  # our own address
                        break
                time.sleep(0.1)
            asyncio.run(complete(args.peer, "warm up", 4))
            yield
        finally:
            server.terminate()


def compared(
    args: argparse.Namespace, engine: Engine, url: str, rng: random.Random, num: int
) -> dict[str, object]:
    """Medians over turns of so many clients, each turn with prompts of its own, and ratios of every turn."""
    turns: list[dict[str, float]] = []
    for turn in range(args.pairs):
        prompts = [prompt_of(rng, args.words) for _ in range(num)]
        alone = engine.rate(prompts, args.tokens) if turn % 2 == 0 else 0.0
        before, began = time.process_time(), time.perf_counter()
        row = line_of(*asyncio.run(load(url, prompts, args.tokens, num)))
        row["client_cpu_share"] = (time.process_time() - before) / (time.perf_counter() - began)
        if args.peer:
            peer = line_of(*asyncio.run(load(args.peer, prompts, args.tokens, num)))
            row |= {f"peer_{name}": value for name, value in peer.items()}
            row["peer_ratio"] = row["tok_s"] / peer["tok_s"]
        row["engine_tok_s"] = alone or engine.rate(prompts, args.tokens)
        row["share"] = row["tok_s"] / row["engine_tok_s"]
        turns.append(row)
    result: dict[str, object] = {name: statistics.median(t[name] for t in turns) for name in turns[0]}
    return result | {"shares": [round(t["share"], 3) for t in turns]}


def printed(num: int, row: dict[str, object]) -> None:
    """Two lines for people."""
    print(
        f"{num:7}  {row['tok_s']:12.1f}  {row['engine_tok_s']:12.1f}  {row['share']:5.2f}  "
        f"{row['ttft_p50_ms']:7.0f}/{row['ttft_p95_ms']:<7.0f}  {row['gap_p95_ms']:9.1f}  "
        f"client {100 * row['client_cpu_share']:.1f} % of a core, shares {row['shares']}",
        flush=True,
    )
    if "peer_ratio" in row:
        print(
            f"   peer  {row['peer_tok_s']:12.1f}  ratio {row['peer_ratio']:.2f}, "
            f"TTFT p95 {row['peer_ttft_p95_ms']:.0f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--clients", default="1,4,16,32")
    parser.add_argument("--pairs", type=int, default=3, help="turns of engine and server")
    parser.add_argument("--tokens", type=int, default=32, help="of a completion")
    parser.add_argument("--words", type=int, default=24, help="of a prompt")
    parser.add_argument("--long-words", type=int, default=4000, help="of the prompt that disturbs")
    parser.add_argument("--system-words", type=int, default=1500, help="of the beginning asked for twice")
    parser.add_argument("--against", metavar="FILE", help="a llama-server to start and measure in turns")
    parser.add_argument("--only-load", action="store_true", help="no long and no repeated prompts")
    parser.add_argument("--peer", help="another server of OpenAI's API, measured in turns")
    args = parser.parse_args()
    counts = [int(text) for text in args.clients.split(",")]
    rng = random.Random(1)
    if args.against:
        args.peer = f"http://127.0.0.1:{free_port()}"
    results: dict[str, object] = {"machine": Machine.here().facts()}
    print(Machine.here().line())
    words = [sys.executable, "-m", "tokamak", "serve", args.model, "--port", "0", "--json", "--no-history"]
    words += ["--threads", str(args.threads), "--context", str(args.context)]
    with (
        against(args, max(counts)),
        contextlib.closing(Engine(args)) as engine,
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server,
    ):
        try:
            url = json.loads(server.stdout.readline())["url"]
            asyncio.run(complete(url, "warm up", 4))
            print("clients  server tok/s  engine tok/s  share  TTFT p50/p95 ms  gap p95 ms")
            for num in counts:
                row = results[f"clients_{num}"] = compared(args, engine, url, rng, num)
                printed(num, row)
            if args.only_load:
                return
            results["interference"] = asyncio.run(interference(url, args.tokens, args.long_words))
            results["repeated"] = asyncio.run(repeated(url, args.system_words))
            print("long prompt:", results["interference"])
            print("repeated beginning:", results["repeated"])
        finally:
            server.send_signal(signal.SIGTERM)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
