"""`tokamak crosscheck`: the same model in a reference engine."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from tokamak.cli.arguments import add_loading, add_model, file_text, load_model
from tokamak.cli.console import print_json, remark
from tokamak.errors import InvalidParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokamak.bench.crosscheck import Report
    from tokamak.bench.peers import Peer
    from tokamak.engine.llm import LLM

SUMMARY = (
    "Compare ids, logits of every position and greedy text with llama.cpp or transformers on the same weights;\n"
    "exit code 5 on a difference, 4 when the reference engine is not installed."
)
EXAMPLES = """  tokamak crosscheck model.gguf --against llama.cpp
  tokamak crosscheck model.gguf --against transformers --reference DIR
  tokamak crosscheck DIR --against transformers -n 64 --json
"""
TEXT = (
    "The quick brown fox jumps over the lazy dog. In 1984, Dr. Smith's naïve café cost $3.50;\n"
    "\tdef f(x): return x * 2  # code\nÜber straße, 你好世界, привет 🙂 …"
)
MOST_IDS = 256  # positions that are compared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the peer, the text."""
    add_model(parser)
    parser.add_argument(
        "--against", default="llama.cpp", metavar="PEER", help="llama.cpp (default) or transformers"
    )
    parser.add_argument(
        "--reference", metavar="PATH", help="the peer's own copy of the model (default: MODEL)"
    )
    parser.add_argument(
        "-f", "--file", metavar="F", help="text to compare on; - is stdin (default: a mixed line)"
    )
    parser.add_argument("-n", type=int, default=16, metavar="N", help="greedy tokens to compare (default 16)")
    add_loading(parser)


def part(llm: LLM, peer: Peer, ids: Sequence[int]) -> str | None:
    """Where the streams of both part, if the peer shows its own."""
    hidden = peer.hidden(ids)
    if not hidden:
        return None
    from tokamak.bench.crosscheck import parting
    from tokamak.observe.diff import one_sequence

    batch = one_sequence(ids, llm.program.limits.block_size)
    return parting(llm.program.taps(batch), hidden)


def compared(args: argparse.Namespace) -> Report:
    """Load both, compare."""
    from tokamak.bench.crosscheck import crosscheck
    from tokamak.bench.peers import open_peer
    from tokamak.engine.contents import contents
    from tokamak.engine.loading import default_model

    text = file_text(args.file) if args.file else TEXT
    args.kv_dtype = args.kv_dtype or "f32"
    with load_model(args) as llm:
        ids = llm.tokenizer.encode(text) if llm.tokenizer else list(range(1, min(64, llm.vocab_size)))
        ids = ids[: min(MOST_IDS, llm.context - args.n)]
        if not ids:
            raise InvalidParams("the text has no token to compare on")
        where = args.reference or args.model or default_model()
        remark(f"loading {args.against} ...", quiet=args.quiet)
        with closing(open_peer(args.against, where, context=len(ids) + args.n, threads=args.threads)) as peer:
            formats = contents(args.model)["formats"]
            report = crosscheck(
                peer,
                [*text.splitlines(), text],
                encode=llm.tokenizer.encode if llm.tokenizer else None,
                logits=llm.logits,
                ids=ids,
                num_tokens=args.n,
                quantised=any(f["format"] not in ("f32", "f16", "bf16") for f in formats),
            )
            if report.status != "ok":
                report = replace(report, parting=part(llm, peer, ids))
    return report


def execute(args: argparse.Namespace) -> int:
    """Print what was found; exit code 5 for a difference."""
    report = compared(args)
    if args.json:
        print_json(report.facts())
        return 0 if report.status == "ok" else 5
    same = sum(t.equal for t in report.tokens)
    found, greedy = report.logits, report.greedy
    print(f"{report.peer} ({report.version}): {report.status}")
    print(f"  tokens   {same} of {len(report.tokens)} texts have equal ids")
    print(
        f"  logits   {found.positions} positions: cosine at least {found.cosine:.6f} (wanted {report.cosine_wanted}), "
        f"KL {found.kl_mean:.2e} (most {found.kl_most:.2e}) nats, top-1 equal in {100 * found.top1:.1f} %"
    )
    state = (
        "equal"
        if greedy.equal
        else f"part at {greedy.first}, margin {greedy.margin:.2f} x the engines' difference"
    )
    print(f"  greedy   {greedy.num_tokens} tokens: {state}")
    for fault in report.faults:
        print(f"  fault    {fault}")
    if report.parting:
        print(f"  parting  {report.parting}")
    return 0 if report.status == "ok" else 5
