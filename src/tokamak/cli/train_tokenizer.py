"""`tokamak train-tokenizer`: a new vocabulary from text files, as a tokenizer.json."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from tokamak.cli.console import print_json, remark
from tokamak.errors import InvalidParams

SUMMARY = "Train a tokenizer on text files and write it as tokenizer.json."
EXAMPLES = """  tokamak train-tokenizer books.txt --kind bpe --vocab-size 32000
  tokamak train-tokenizer a.txt b.txt --kind unigram --vocab-size 8000 --out tokenizer.json
  tokamak train-tokenizer code.txt --kind bpe --vocab-size 16000 --like model/tokenizer.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The texts, the kind and the size."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="UTF-8 text; each line is cut on its own")
    parser.add_argument("--kind", choices=("bpe", "unigram", "wordpiece"), default="bpe", help="default bpe")
    parser.add_argument("--vocab-size", type=int, required=True, metavar="N", help="special tokens included")
    parser.add_argument("--out", default="tokenizer.json", metavar="O", help="default tokenizer.json")
    parser.add_argument(
        "--special-token", action="append", metavar="T", help="instead of the usual ones; repeat it"
    )
    parser.add_argument(
        "--min-frequency", type=int, default=0, metavar="N", help="of a pair (bpe, wordpiece)"
    )
    parser.add_argument(
        "--like",
        metavar="F",
        help="take normalizer, pre-tokenizer, decoder and post-processor of a tokenizer.json",
    )


def execute(args: argparse.Namespace) -> int:
    """Train, write, say how many tokens there are."""
    from tokamak.tokenizers.training import Recipe, train_files

    recipe = Recipe(
        kind=args.kind,
        vocab_size=args.vocab_size,
        special_tokens=args.special_token,
        min_frequency=args.min_frequency,
        parts={} if args.like is None else parts_of(Path(args.like)),
    )
    started = time.perf_counter()
    tokenizer = train_files(args.files, recipe)
    took_s = time.perf_counter() - started
    tokenizer.save(args.out, form="tokenizer.json")
    if tokenizer.vocab_size < args.vocab_size:
        remark(
            f"tokamak: the texts give {tokenizer.vocab_size} tokens, fewer than asked for", quiet=args.quiet
        )
    if args.json:
        print_json({"out": args.out, "vocab_size": tokenizer.vocab_size, "took_s": took_s})
    else:
        print(f"{args.out}: {tokenizer.vocab_size} tokens in {took_s:.1f} s")
    return 0


def parts_of(path: Path) -> dict[str, object]:
    """How a tokenizer.json cuts and joins. Raises: InvalidParams if it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {name: data[name] for name in ("normalizer", "pre_tokenizer", "decoder", "post_processor")}
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise InvalidParams(f"--like {path}: not a tokenizer.json: {type(e).__name__}: {e}") from e
