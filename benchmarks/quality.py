"""What each format of the head, of the embedding and of the K/V cache costs in quality, and what it saves.

The text is what the model itself writes at temperature 1 with fixed seeds, or --file; it is scored as `tokamak eval` does, in windows of
which the second half counts. Divergences are from the same model as it is in the file with a float32 cache. Speed: decoding of 48
tokens, all variants in turns, the median of the ratios to the first row.

usage: quality.py MODEL.gguf [--file TEXT] [--window 256] [--chunks 12] [--rounds 5] [--threads 2] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import tokamak
from tokamak.engine import quality
from tokamak.observe.machine import Machine
from tokamak.types import KV_DTYPES

HEADS = ("f16", "q8_0", "q6_k", "q5_k", "q4_k", "q4_0")
DECODED = 48


@dataclass(frozen=True)
class Row:
    """kind: head, embedding (or both, where they are tied) or cache. got: the format that the file has; it differs where the model's rows fit no group of the other.

    nbytes: of the tensor, or of the cache per token. speed: of decoding, over that of the first row.
    """

    kind: str
    asked: str
    got: str
    nbytes: int
    perplexity: float
    delta: float
    kl_mean: float
    same_top: float
    speed: float


def written(llm, tokens: int) -> str:
    """Texts of the model, one after the other, of so many tokens in all."""
    texts, count = [], 0
    while count < tokens:
        made = llm.generate("Once upon a time", max_tokens=llm.context // 2, temperature=1.0, seed=len(texts))
        texts.append("Once upon a time" + made.text)
        count += made.usage.completion_tokens
    return "\n".join(texts)


def variants(model: Path, folder: Path, heads: list[str], caches: list[str]):
    """(kind, asked, format there, bytes, file, cache type): the file as it is, then one change at a time."""
    whole = tokamak.quantize(model, folder / "none", None, dry_run=True)
    sizes = {t.name: t for t in whole.tensors}
    tied = "output.weight" not in sizes
    ends = {"embedding and head" if tied else "embedding": "token_embd.weight"}
    for kind, name in (ends if tied else {"head": "output.weight", **ends}).items():
        yield kind, "as it is", sizes[name].source, sizes[name].nbytes, model, "f32"
        for wanted in heads:
            target = folder / f"{name}-{wanted}.gguf"
            plan = tokamak.quantize(
                model, target, None, tensor_types=[(f"^{name}$".replace(".", r"\."), wanted)]
            )
            (there,) = [t for t in plan.tensors if t.name == name]
            if there.target == wanted or wanted in ("q6_k", "q4_k"):
                yield kind, wanted, there.target, there.nbytes, target, "f32"
    for wanted in caches:
        try:
            tokamak.load(model, kv_dtype=wanted, context=64).close()
        except tokamak.UnsupportedError as error:
            print(f"no row for a cache in {wanted}: {error}", file=sys.stderr)
            continue
        yield "cache", wanted, wanted, 0, model, wanted


def measured(model: Path, args: argparse.Namespace, folder: Path) -> list[Row]:
    """Every variant against the file with a float32 cache."""
    made = list(variants(model, folder, args.heads.split(","), args.caches.split(",")))
    rows = []
    with ExitStack() as stack:
        form = {"threads": args.threads, "context": max(args.window, 2 * DECODED), "prefix_cache_nbytes": 0}
        base = stack.enter_context(tokamak.load(model, kv_dtype="f32", **form))
        text = (
            Path(args.file).read_text(encoding="utf-8")
            if args.file
            else written(base, args.window * args.chunks)
        )
        models = [stack.enter_context(tokamak.load(v[4], kv_dtype=v[5], **form)) for v in made]
        rates = [[] for _ in made]
        for _ in range(args.rounds):
            for llm, kept in zip(models, rates, strict=True):
                done = llm.generate("Once", max_tokens=DECODED, temperature=0.0, ignore_eos=True)
                kept.append(done.timings.decode_tok_s)
        for (kind, asked, got, nbytes, _, _), llm, rate in zip(made, models, rates, strict=True):
            found = quality.divergence(llm, base, text, context=args.window, chunks=args.chunks)
            cost = llm.facts["kv_nbytes_per_token"] if kind == "cache" else nbytes
            rows.append(
                Row(
                    *(kind, asked, got, cost, found.perplexity, found.perplexity - found.base_perplexity),
                    *(found.kl_mean, found.same_top),
                    statistics.median(a / b for a, b in zip(rate, rates[0], strict=True)),
                )
            )
    return rows


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--file")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--chunks", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--caches", default=",".join(KV_DTYPES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        rows = measured(Path(args.model), args, Path(folder))
    if args.json:
        print(json.dumps([vars(row) for row in rows]))
        return 0
    here = Machine.here()
    print(f"{Path(args.model).name} on {here.cpu}, {args.threads} threads, commit {here.commit}\n")
    print("| what | format | bytes | perplexity | change | KL, nats | same top | decode |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        name = r.asked if r.got == r.asked else f"{r.asked} ({r.got})"
        print(
            f"| {r.kind} | {name} | {r.nbytes:,}{' per token' if r.kind == 'cache' else ''} | {r.perplexity:.4f} | "
            f"{r.delta:+.4f} | {r.kl_mean:.6f} | {100 * r.same_top:.2f} % | {r.speed:.2f} x |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
