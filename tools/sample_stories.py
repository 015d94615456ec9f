"""Sample children's stories in bulk from a small story model with tokamak itself, clean them, write training text.

    python tools/sample_stories.py stories260Ktok512.gguf --out stories --megabytes 8

Also a load test: every call is one batch. Text lands in `OUT/<model>.txt`, stories apart by a line with
<|endoftext|>; what was refused, and why, in `OUT/<model>.json`.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from pathlib import Path

from story_text import NAMES, SEPARATOR, Rules, frequent_words, opening, prune, words_of

import tokamak

TEMPERATURES = (0.45, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
MIN_P = 0.06
NUM_COMMON = 150  # most frequent words, which say nothing about what a story is about


def sample(llm: tokamak.LLM, seed: int, batch: int, context: int) -> list[tuple[str, bool]]:
    """One batch of stories from varied openings: (text, whether it ended by itself)."""
    rng = random.Random(seed)
    prompts = [opening(rng) for _ in range(batch)]
    longest = max(llm.tokenizer.count(prompt) for prompt in prompts)
    params = tokamak.SamplingParams(
        max_tokens=context - longest - 2,
        temperature=rng.choice(TEMPERATURES),
        top_k=0,
        top_p=1.0,
        min_p=MIN_P,
        stop_token_ids=(
            llm.tokenizer.bos_id,
        ),  # models of llama2.c end a story with the token that begins the next
    )
    outs = llm.generate(prompts, params)
    return [(p + out.text, out.finish_reason == "stop") for p, out in zip(prompts, outs, strict=True)]


def collect(llm: tokamak.LLM, args: argparse.Namespace) -> list[str]:
    """Raw stories that ended by themselves, until there are `--megabytes` of them; prints the rate."""
    stories: list[str] = []
    nbytes, start, calls = 0, time.monotonic(), 0
    while nbytes < args.megabytes * 1e6:
        ended = [text for text, whole in sample(llm, args.seed + calls, args.batch, args.context) if whole]
        stories += ended
        nbytes += sum(len(text.encode()) for text in ended)
        calls += 1
        spent = time.monotonic() - start
        print(
            f"\r{len(stories)} stories, {nbytes / 1e6:.2f} MB, {nbytes / 1e3 / spent:.1f} kB/s",
            end="",
            flush=True,
        )
    print()
    return stories


def clean(stories: list[str]) -> tuple[list[str], Counter[str]]:
    """Stories fit for training, and how often each reason refused one."""
    counts = Counter(word for story in stories for word in words_of(story))
    common = frozenset(word for word, _ in counts.most_common(NUM_COMMON) if word not in NAMES)
    rules = Rules(frequent_words(stories, max(15, len(stories) // 1200)), common)
    seen: Counter[str] = Counter()
    kept: dict[str, None] = {}
    reasons: Counter[str] = Counter()
    for story in stories:
        text, reason = prune(story, rules, seen)
        reasons[reason or "kept"] += 1
        if text is not None:
            kept[text] = None
    return list(kept), reasons


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="a story model: .gguf")
    parser.add_argument("--out", type=Path, required=True, help="folder for the text")
    parser.add_argument(
        "--megabytes", type=float, default=30, help="raw text to sample; about a fifteenth survives"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--context", type=int, default=512, help="what the story model was trained at")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tokamak.load(args.model, context=args.context, threads=args.threads, seed=args.seed) as llm:
        stories, reasons = clean(collect(llm, args))
    (args.out / f"{args.model.stem}.txt").write_text(
        f"\n{SEPARATOR}\n".join(stories) + "\n", encoding="utf-8"
    )
    (args.out / f"{args.model.stem}.json").write_text(json.dumps(dict(reasons.most_common()), indent=1))
    print(f"{len(stories)} stories, {sum(map(len, stories)) / 1e6:.2f} MB; {dict(reasons.most_common())}")


if __name__ == "__main__":
    main()
