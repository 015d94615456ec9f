"""What counting costs of what is served: processor time of the counting of one answer, done alone, over that of the answer.

The application is called in this process, without sockets: they would only add to what is served. Counted are the time between tokens
of every token, the sums at the end of a request, and the part of the recorder's samples (one a second) that falls on an answer.

usage: telemetry.py [MODEL.gguf] [--tokens 200] [--rounds 15] [--json]      (the embedded model, where every step is cheapest)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

import httpx
import numpy as np

import tokamak
from tokamak.observe.machine import Machine
from tokamak.server.app import create_app
from tokamak.server.recorder import EVERY_S
from tokamak.server.state import ServerConfig

ROUTE = "/v1/completions"


async def served(app, tokens: int) -> tuple[float, float]:
    """(processor, wall) seconds of one streamed answer."""
    body = {"prompt": "Once upon a time", "max_tokens": tokens, "ignore_eos": True, "stream": True, "seed": 1}
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        began, wall = time.process_time(), time.perf_counter()
        answer = await client.post(ROUTE, json=body)
        if not answer.text.endswith("[DONE]\n\n"):
            raise SystemExit(answer.text)
        return time.process_time() - began, time.perf_counter() - wall


def counted(app, done: tokamak.Completion, tokens: int, wall_s: float) -> float:
    """Processor seconds of counting that answer."""
    metrics, recorder = app.state.metrics, app.state.recorder
    began = time.thread_time()
    for token in range(tokens):
        metrics.inter_token.observe(1e-4 * token)
    metrics.requests.add(ROUTE, "200")
    metrics.finished([done])
    middle = time.thread_time()
    recorder.sample()
    return (middle - began) + (time.thread_time() - middle) * wall_s / EVERY_S


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tokamak.load(args.model) as llm:
        app = create_app(llm, ServerConfig())
        done = llm.generate("Once", max_tokens=8)
        asyncio.run(served(app, 8))
        shares, tokens_ms = [], []
        for _ in range(args.rounds):
            processor_s, wall_s = asyncio.run(served(app, args.tokens))
            shares.append(100.0 * counted(app, done, args.tokens, wall_s) / processor_s)
            tokens_ms.append(1e3 * processor_s / args.tokens)
    low, middle, high = np.percentile(shares, [25, 50, 75]).tolist()
    if args.json:
        print(json.dumps({"machine": Machine.here().facts(), "share_percent": [low, middle, high]}))
        return
    print(Machine.here().line())
    print(f"{np.median(tokens_ms):.3f} ms of processor time per token served")
    print(f"counting: {middle:.2f} % of it ({low:.2f}..{high:.2f}); the limit is 1 %")


if __name__ == "__main__":
    main()
