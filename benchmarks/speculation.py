"""What drafts save: tokens per second of processor time, and steps per token, with and without speculation, taking turns.

The texts are compared: greedy, they have to be the same. Prompts repeat themselves (`--prompt` several times over), as quoted documents and
code do. With `--quote` the completion is made to be the prompt once more, which a model with random weights would never say: the best case, every
draft is right, at the real cost of computing it.

usage: speculation.py MODEL.gguf [--draft SMALL.gguf] [--tokens 64] [--rounds 3] [--ahead 8] [--threads N] [--prompt TEXT] [--quote] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

import tokamak
from tokamak.observe.machine import Machine

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "


class Quoting:
    """A logits processor that lets the prompt come again."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __call__(self, history: np.ndarray, logits: np.ndarray) -> np.ndarray:
        logits[self.ids[len(history) % len(self.ids)]] += 1e6
        return logits


def one(llm: tokamak.LLM, prompt: str, kind: str, args: argparse.Namespace) -> dict:
    """Seconds (wall, processor) and steps of the tokens after the first."""
    asked = {"speculation": kind, "speculation_tokens": args.ahead}
    if args.quote:
        asked["logits_processor"] = [Quoting(llm.tokenizer.encode(prompt))]
    with llm.stream(prompt, temperature=0.0, ignore_eos=True, max_tokens=args.tokens, **asked) as stream:
        next(events := stream.events())
        turns, wall, cpu = llm.stats()["turns"], time.perf_counter(), time.process_time()
        for _ in events:
            pass
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        done = stream.completion
    steps = max(1, llm.stats()["turns"] - turns)
    used = done.usage
    return {
        "token_ids": done.token_ids, "wall_s": wall, "cpu_s": cpu, "steps": steps,
        "drafted": used.drafted_tokens, "accepted": used.accepted_tokens,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument(
        "--draft", help="a smaller model with the same vocabulary; else only looking back is measured"
    )
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ahead", type=int, default=8)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--prompt", default=3 * STORY, help="text to go on from")
    parser.add_argument("--quote", action="store_true", help="the completion is the prompt again")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    kinds = ["off", "lookup", *(["draft"] if args.draft else [])]
    runs: dict[str, list[dict]] = {kind: [] for kind in kinds}
    with tokamak.load(args.model, args.threads, draft=args.draft) as llm:
        for number in range(args.rounds + 1):
            for kind in kinds:
                found = one(llm, args.prompt, kind, args)
                if number:  # the first round warms the prefix and the pages
                    runs[kind].append(found)
    for found in runs.values():
        if any(run["token_ids"] != runs["off"][0]["token_ids"] for run in found):
            raise SystemExit("speculation changed the text")
    rows = {}
    for kind, found in runs.items():
        plain = runs["off"]
        faster = [p["wall_s"] / r["wall_s"] for p, r in zip(plain, found, strict=True)]
        cheaper = [p["cpu_s"] / r["cpu_s"] for p, r in zip(plain, found, strict=True)]
        rows[kind] = {
            "tokens_per_step": (args.tokens - 1) / statistics.median(r["steps"] for r in found),
            "accepted_of_drafted": sum(r["accepted"] for r in found) / max(1, sum(r["drafted"] for r in found)),
            "speed_up": statistics.median(faster), "from": min(faster), "to": max(faster),
            "processor_time_saved": statistics.median(cheaper),
        }  # fmt: skip
    if args.json:
        print(json.dumps({"machine": Machine.here().facts(), "model": args.model, "rows": rows}))
        return
    print(Machine.here().line())
    for kind, row in rows.items():
        print(f"{kind:<8}" + "  ".join(f"{name} {value:.2f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
